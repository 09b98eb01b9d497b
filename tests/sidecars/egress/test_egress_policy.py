"""Is a request judged by where it really goes, and do all the ways to say something else fail?"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from bot_bottle.documents.routes import Route, load
from bot_bottle.errors import InvalidInputError
from bot_bottle.sidecars.egress.network import GuardedLoop, Network
from bot_bottle.sidecars.egress.policy import Head, Refusal, judge, judge_tunnel, token, tokens
from bot_bottle.sidecars.egress.routes_file import RoutesFile

ROUTES = load(
    """
routes:
  - host: api.example.com
  - host: 192.0.2.7
  - host: "2001:db8::7"
  - host: token.example.com
    auth: {scheme: token, token_ref: TOKEN}
  - host: own.example.com
    auth: {scheme: token, token_ref: EGRESS_CONFDIR}
  - host: paths.example.com
    matches: [{paths: [{type: prefix, value: /public}], methods: [GET]}]
  - host: "*.wild.example.com"
"""
)
PORTS = (80, 443)


def head(
    url: str = "https://api.example.com/",
    *authorities: str,
    method: str = "GET",
    sni: str | None = None,
    port: int | None = None,
) -> Head:
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return Head(scheme, host, port or {"http": 80, "https": 443}[scheme], method, slash + path, (), authorities, sni)


def verdict(of: Head, **environment: str) -> str:
    """``ok``, or the refusal's error."""
    found = judge(of, ROUTES, PORTS, environment)
    return found.error if isinstance(found, Refusal) else "ok"


@pytest.mark.parametrize(
    "host",
    ["api.example.com", "API.Example.COM", "api.example.com.", "192.0.2.7", "2001:db8::7", "[2001:DB8:0::7]",
     "a.wild.example.com", "a.b.wild.example.com"],
)  # fmt: skip
def test_an_allowed_host_is_allowed_however_it_is_spelled(host: str) -> None:
    assert verdict(head(f"https://{host}/x")) == "ok"
    assert isinstance(judge_tunnel(host, 443, f"{host}:443", ROUTES, PORTS), Route)


@pytest.mark.parametrize(
    "host",
    ["example.com", "evil.com", "api.example.com.evil.com", "xapi.example.com", "api.example.com..", ".api.example.com",
     "wild.example.com", "3221225991", "0xc0.0.2.7", "192.0.519", "0300.0.2.7", "localhost", "",
     "\u0430pi.example.com", "api.example.com\u3002", "xn--pi-7ca.example.com", "api.example.com%00.evil.com",
     "[::ffff:192.0.2.7]", "api.example.com@evil.com"],
)  # fmt: skip
def test_any_other_host_is_denied(host: str) -> None:
    assert verdict(head(f"https://{host}/x")) == "host_denied"


@pytest.mark.parametrize(
    "authority",
    ["evil.com", "api.example.com.evil.com", "evil.com:443", "api.example.com:80", "api.example.com:8443", "", ":443",
     "u@api.example.com", "u:p@api.example.com:443", "api.example.com, evil.com", "api.example.com evil.com",
     "api.example.com:443:443", "https://api.example.com", "[::1]", "api.example.com:99999"],
)  # fmt: skip
def test_a_request_that_names_another_host_too_is_refused(authority: str) -> None:
    assert verdict(head("https://api.example.com/", "api.example.com", authority)) == "host_mismatch"


@pytest.mark.parametrize("authority", ["api.example.com", "API.EXAMPLE.COM.", "api.example.com:443"])
def test_the_same_host_spelled_otherwise_is_the_same(authority: str) -> None:
    assert verdict(head("https://api.example.com/", authority)) == "ok"


def test_an_ipv6_authority_is_read_with_and_without_port() -> None:
    assert verdict(head("https://[2001:db8::7]/", "[2001:db8::7]")) == "ok"
    assert verdict(head("https://[2001:db8::7]/", "[2001:db8::7]:443")) == "ok"
    assert verdict(head("https://[2001:db8::7]/", "[2001:db8::7]:444")) == "host_mismatch"


def test_the_tls_handshake_must_name_the_host_too() -> None:
    assert verdict(head(sni="api.example.com")) == "ok"
    assert verdict(head(sni="API.example.com")) == "ok"
    assert verdict(head(sni="evil.com")) == "host_mismatch"
    assert verdict(head(sni="api.example.com:443")) == "host_mismatch"
    assert verdict(head(sni="")) == "host_mismatch"


def test_only_the_given_ports_are_let_through() -> None:
    assert verdict(head(port=8443)) == "port_denied"
    assert verdict(head("http://api.example.com/", "api.example.com:443", port=443)) == "ok"
    refusal = judge_tunnel("api.example.com", 22, "api.example.com:22", ROUTES, PORTS)
    assert isinstance(refusal, Refusal) and "80, 443" in refusal.reason


def test_a_tunnel_with_a_user_name_is_no_tunnel() -> None:
    refusal = judge_tunnel("api.example.com", 443, "u@api.example.com:443", ROUTES, PORTS)
    assert isinstance(refusal, Refusal) and refusal.error == "bad_request"


@pytest.mark.parametrize(
    "path",
    ["/", "/private", "/publicity", "/public/../private", "/public/..", "/public/%2e%2e/private", "/public/.%2E/x",
     "/public/%252e%252e/private", "/public\\..\\private", "/public/%5c../private", "/public/..;/private",
     "/public%2fprivate", "//public", "/%70ublic/../x", "*", ""],
)  # fmt: skip
def test_a_path_that_may_lead_elsewhere_is_denied(path: str) -> None:
    assert judge(Head("https", "paths.example.com", 443, "GET", path, ()), ROUTES, PORTS, {}) == Refusal(
        "request_denied", "The route for paths.example.com does not cover this method, path or header.", askable=True
    )


def test_a_covered_path_and_method_pass() -> None:
    assert verdict(head("https://paths.example.com/public/x.json")) == "ok"
    assert verdict(head("https://paths.example.com/public", method="POST")) == "request_denied"


@pytest.mark.parametrize("method", ["TRACE", "trace", "TRACK", "CONNECT"])
def test_what_would_echo_the_credential_is_never_let_through(method: str) -> None:
    assert verdict(head(method=method)) == "request_denied"


def test_a_credential_goes_out_over_tls_only_and_only_if_there_is_one() -> None:
    assert verdict(head("https://token.example.com/"), TOKEN="secret-value") == "ok"
    assert verdict(head("http://token.example.com/"), TOKEN="secret-value") == "cleartext_refused"
    for value in ("", "  ", "two\nlines", "nöt-ascii"):
        assert verdict(head("https://token.example.com/"), TOKEN=value) == "credential_missing"


def test_a_route_cannot_reach_for_our_own_settings() -> None:
    assert verdict(head("https://own.example.com/"), EGRESS_CONFDIR="/var/lib/egress") == "credential_missing"
    assert token(ROUTES.routes[4], {"EGRESS_CONFDIR": "/var/lib/egress"}) is None


def test_the_injected_values_are_known_by_name() -> None:
    assert tokens(ROUTES, {"TOKEN": " secret-value\n"}) == {"value of TOKEN": "secret-value"}


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "0.0.0.0", "10.1.2.3", "172.17.0.2", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",
     "255.255.255.255", "::1", "::", "fe80::1%eth0", "fd00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
     "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "fec0::1"],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert not Network().allows(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822", "::ffff:93.184.216.34"]
)
def test_public_addresses_are_allowed(address: str) -> None:
    assert Network().allows(address)


def test_the_operator_may_allow_a_private_network() -> None:
    network = Network.parse("10.0.0.0/8, fd00::/8", "")
    assert network.allows("10.1.2.3") and network.allows("fd00::1") and network.allows("::ffff:10.0.0.1")
    assert not network.allows("192.168.1.1")


@pytest.mark.parametrize(
    "private, connect_to", [("10.0.0.1/8", ""), ("house", ""), ("", "a=b"), ("", "a:1=b:x"), ("", "a")]
)
def test_network_settings_that_cannot_be_read_are_refused(private: str, connect_to: str) -> None:
    with pytest.raises(InvalidInputError, match="EGRESS_"):
        Network.parse(private, connect_to)


@pytest.mark.parametrize(
    "private, connect_to, outcome",
    [
        ("", "", "private address"),
        ("127.0.0.0/8", "", "connected"),
        ("", "localhost:443=127.0.0.1:{port}", "connected"),
    ],
)
def test_a_name_leads_only_where_the_network_allows(private: str, connect_to: str, outcome: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        loop = GuardedLoop(Network.parse(private, connect_to.format(port=port)))

        async def connect() -> str:
            try:
                _, writer = await asyncio.open_connection(
                    "localhost", 443 if connect_to else port, family=socket.AF_INET
                )
            except OSError as error:
                return str(error)
            writer.close()
            return "connected"

        try:
            assert outcome in loop.run_until_complete(connect())
        finally:
            loop.close()


def test_routes_are_reread_when_the_file_changes_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    file, said = tmp_path / "routes.yaml", []
    routes = RoutesFile(str(file), lambda action, sentence: said.append((action, sentence)))

    def write(text: bytes) -> None:
        new = tmp_path / "new"
        new.write_bytes(text)
        os.replace(new, file)

    assert routes.current().find("a.example.com") is None
    assert said.pop() == (
        "routes-refused",
        f"{file} cannot be read (No such file or directory); everything is denied until it is mended.",
    )
    write(b"routes: [{host: a.example.com}]")
    assert routes.current().find("a.example.com")
    assert said.pop() == ("routes-loaded", "1 routes in force.")
    for broken in (b"routes: [{hosts: b.example.com}]", b"routes: [{host: '*'}]", b"\xff", b"", b"x" * 300_000):
        write(broken)
        assert routes.current().find("a.example.com"), broken
        action, sentence = said.pop()
        assert action == "routes-refused" and "ast good routes stay in force" in sentence
        routes.current()
        assert not said, "said once"
    file.unlink()
    assert routes.current().find("a.example.com")
    assert "cannot be read" in said.pop()[1]
    write(b"routes: []")
    assert routes.current().find("a.example.com") is None
