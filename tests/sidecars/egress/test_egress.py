"""Does the real proxy let through what the routes allow, as it should look, and nothing else?"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
from pathlib import Path

import pytest

from egress_proxy import API_TOKEN, ROUTES, Proxy, Server, fresh, github_token, proxy, server

__all__ = ["fresh", "proxy", "server"]


def raw(proxy: Proxy, *lines: str, body: bytes = b"", tunnel: str = "", sni: str | None = None) -> tuple[int, bytes]:
    """Sends exactly these lines, in the clear or through a TLS tunnel to ``tunnel``; status and body of the answer."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as plain:
        stream: socket.socket = plain
        if tunnel:
            plain.sendall(f"CONNECT {tunnel}:443 HTTP/1.1\r\nHost: {tunnel}:443\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += plain.recv(4096)
            assert head.startswith(b"HTTP/1.1 200"), head
            context = ssl.create_default_context(cafile=proxy.ca_file)
            context.check_hostname = False
            stream = context.wrap_socket(plain, server_hostname=tunnel if sni is None else sni)
        stream.sendall("\r\n".join([*lines, "", ""]).encode("latin1") + body)
        answer = http.client.HTTPResponse(stream)
        try:
            answer.begin()
        except http.client.BadStatusLine:
            return 0, b""
        return answer.status, answer.read()


@pytest.mark.parametrize("options", [("--http1.1",), ("--http2",)])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_allowed_request_arrives(proxy: Proxy, server: Server, scheme: str, options: tuple[str, ...]) -> None:
    answer = proxy.curl(f"{scheme}://api.example.test/a?b=c", *options, "-d", "hello", "-H", "X-Kind: test")
    assert answer.status == 200, answer
    (exchange,) = server.exchanges
    assert (exchange.method, exchange.path, bytes(exchange.body)) == ("POST", "/a?b=c", b"hello")
    assert exchange.header("host") == "api.example.test"
    assert exchange.header("x-kind") == "test"
    if scheme == "https":
        assert exchange.version == ("2" if options == ("--http2",) else "1.1")


def test_a_denied_host_is_told_how_to_ask(proxy: Proxy, server: Server) -> None:
    answer = proxy.curl("http://denied.example.test/")
    assert answer.status == 403
    assert "content-type: application/json" in answer.head.lower()
    told = answer.json()
    assert told["error"] == "host_denied" and "denied.example.test" in told["reason"]
    assert "`allow`" in told["what_to_do"] and "http://supervise:9100/" in told["what_to_do"]
    assert not server.exchanges


def test_an_answer_to_head_has_no_body(proxy: Proxy) -> None:
    answer = proxy.curl("http://denied.example.test/", "--head")
    assert (answer.status, answer.body) == (403, b"")
    assert "x-bot-bottle-egress: host_denied" in answer.head.lower()
    after = proxy.curl("http://api.example.test/", "--head", "http://denied.example.test/")
    assert after.status == 200, "the next answer on the same connection is not mistaken for it"


def test_a_denied_host_is_refused_at_connect(proxy: Proxy, server: Server) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port)) as connection:
        connection.sendall(b"CONNECT denied.example.test:443 HTTP/1.1\r\nHost: denied.example.test:443\r\n\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 403
        # Most clients show the reason phrase of a failed CONNECT and nothing else.
        assert (
            answer.reason
            == "No route allows denied.example.test. Ask with the MCP tool allow at http://supervise:9100/"
        )
        assert json.loads(answer.read())["error"] == "host_denied"
    assert "response 403" in proxy.curl("https://denied.example.test/").error


@pytest.mark.parametrize("target", ["api.example.test:22", "127.0.0.1:443", "u@api.example.test:443", "localhost:443"])
def test_no_tunnel_leads_elsewhere(proxy: Proxy, target: str) -> None:
    assert raw(proxy, f"CONNECT {target} HTTP/1.1", f"Host: {target}")[0] in (400, 403)


def test_the_agents_credentials_are_dropped_and_the_real_one_is_added(proxy: Proxy, server: Server) -> None:
    answer = proxy.curl(
        "https://auth.example.test/", "-H", "Authorization: Bearer mine", "-H", "Proxy-Authorization: Basic bWluZQ=="
    )
    assert answer.status == 200
    assert proxy.curl("https://api.example.test/", "-u", "me:mine").status == 200
    injected, plain = server.exchanges
    assert [value for name, value in injected.headers if name == "authorization"] == [f"Bearer {API_TOKEN}"]
    assert plain.header("authorization") is None
    assert injected.header("proxy-authorization") is plain.header("proxy-connection") is None


def test_the_agent_never_sees_the_injected_credential(proxy: Proxy, server: Server) -> None:
    for options in (("--http1.1",), ("--http2",), ("--compressed",)):
        answer = proxy.curl("https://auth.example.test/echo-headers", *options)
        assert answer.status == 200
        assert API_TOKEN.encode() not in answer.body and API_TOKEN not in answer.head
        assert f'"Bearer {"*" * len(API_TOKEN)}"'.encode() in answer.body, "masked, and the rest as it was"
        assert server.exchanges[-1].header("authorization") == f"Bearer {API_TOKEN}"
    assert "answer-masked" in {entry["operator_action"] for entry in proxy.audit()}


def test_a_credential_is_not_sent_in_the_clear_nor_replaced_by_nothing(proxy: Proxy, server: Server) -> None:
    assert proxy.curl("http://auth.example.test/").json()["error"] == "cleartext_refused"
    missing = proxy.curl("https://missing.example.test/")
    assert missing.status == 503 and "NOT_SET" in missing.json()["reason"]
    assert proxy.curl("https://auth.example.test/", "-X", "TRACE").json()["error"] == "request_denied"
    assert not server.exchanges


def test_paths_methods_and_headers_are_matched(proxy: Proxy, server: Server) -> None:
    def status(path: str, *options: str) -> int:
        return proxy.curl(f"https://paths.example.test{path}", "--path-as-is", *options).status

    assert status("/public/a?x=/../y") == 200
    assert status("/upload", "-d", "x", "-H", "X-Kind: report") == 200
    assert len(server.exchanges) == 2
    assert status("/upload", "-d", "x") == 403
    assert status("/public/a", "-d", "x") == 403
    for path in ("/", "/private", "/public/../private", "/public/%2e%2e/private", "/public/..%2fprivate", "//public"):
        assert status(path) == 403, path
    assert len(server.exchanges) == 2


def test_a_request_may_not_name_two_hosts(proxy: Proxy, server: Server) -> None:
    tunnel = "api.example.test"
    refused = [
        raw(proxy, "GET http://api.example.test/ HTTP/1.1", "Host: block.example.test"),
        raw(proxy, "GET http://api.example.test/ HTTP/1.1", "Host: api.example.test", "Host: block.example.test"),
        raw(proxy, "GET / HTTP/1.1", "Host: block.example.test", tunnel=tunnel),
        raw(proxy, "GET https://block.example.test/ HTTP/1.1", "Host: api.example.test", tunnel=tunnel),
        raw(proxy, "GET / HTTP/1.1", "Host: api.example.test:80", tunnel=tunnel),
        raw(proxy, "GET / HTTP/1.1", "Host: api.example.test", tunnel=tunnel, sni="block.example.test"),
        raw(proxy, "GET http://u:p@api.example.test/ HTTP/1.1", "Host: u:p@api.example.test"),
    ]
    assert [status for status, _ in refused] == [400] * len(refused), refused
    answer = proxy.curl("https://api.example.test/", "--http2", "-H", "Host: block.example.test")
    assert answer.json()["error"] == "host_mismatch"
    front = proxy.curl(
        "https://block.example.test/", "-k", "--connect-to", "block.example.test:443:api.example.test:443"
    )
    assert front.json()["error"] == "host_mismatch"
    assert not server.exchanges


@pytest.mark.parametrize(
    "url",
    [
        "https://API.Example.TEST/",
        "http://api.example.test./",
        "http://api.example.test:80/",
        "HTTP://api.example.test",
    ],
)
def test_one_host_in_several_spellings_is_one_host_to_the_server(proxy: Proxy, server: Server, url: str) -> None:
    assert proxy.curl(url).status == 200
    assert server.exchanges[0].header("host") == "api.example.test"


def test_an_absolute_url_in_the_tunnel_reaches_the_server_as_a_path(proxy: Proxy, server: Server) -> None:
    status, _ = raw(
        proxy, "GET https://api.example.test/x HTTP/1.1", "Host: api.example.test", tunnel="api.example.test"
    )
    assert status == 200
    assert server.exchanges[0].path == "/x"


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\x01\x02\x03 not a protocol at all\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"EHLO example.test\r\n",
        b"\x16\x03\x01",
        b"GET / HTTP/1.1\r\nHost: api.example.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: api.example.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_nothing_but_http_goes_through_a_tunnel(proxy: Proxy, server: Server, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as connection:
        connection.sendall(b"CONNECT api.example.test:80 HTTP/1.1\r\nHost: api.example.test:80\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass
    assert not server.exchanges


def test_a_server_whose_certificate_is_not_its_own_gets_nothing(proxy: Proxy, server: Server) -> None:
    answer = proxy.curl("https://uncertified.wild.example.test/")
    assert answer.status == 502
    assert answer.json()["error"] == "upstream_failed" and "ertificate" in answer.json()["reason"]
    assert not server.exchanges


def test_a_name_that_leads_to_a_private_address_is_not_reached(proxy: Proxy) -> None:
    proxy.write_routes(ROUTES + "  - host: localhost\n")
    try:
        answer = proxy.curl("http://localhost/", "--noproxy", "")
        assert answer.status == 502 and "private address" in answer.json()["reason"]
    finally:
        proxy.write_routes(ROUTES)


def test_a_change_of_the_routes_counts_from_the_next_request(proxy: Proxy, server: Server) -> None:
    try:
        assert proxy.curl("http://late.example.test/").status == 403
        proxy.write_routes(ROUTES + "  - host: late.example.test\n")
        assert proxy.curl("http://late.example.test/").status == 200
        loaded = proxy.wait_for_audit("routes-loaded", "9 routes")
        proxy.write_routes("routes: [{hosts: oops}]\n")
        assert proxy.curl("http://late.example.test/").status == 200, "the last good ones stay in force"
        proxy.write_routes(ROUTES)
        assert proxy.curl("http://late.example.test/").status == 403
    finally:
        proxy.write_routes(ROUTES)
    refused = proxy.wait_for_audit("routes-refused", "line 1")
    assert refused["seq"] > loaded["seq"] and "ast good routes stay in force" in refused["operator_notes"]


def test_a_change_is_noticed_without_a_request_too(proxy: Proxy) -> None:
    proxy.write_routes(ROUTES + "  - host: a.example.test\n  - host: b.example.test\n")
    proxy.wait_for_audit("routes-loaded", "10 routes")
    proxy.write_routes(ROUTES)


def test_an_open_tunnel_does_not_outlive_its_route(proxy: Proxy, server: Server) -> None:
    proxy.write_routes(ROUTES + "  - host: late.example.test\n")
    try:
        context = ssl.create_default_context(cafile=proxy.ca_file)
        connection = http.client.HTTPSConnection("127.0.0.1", proxy.port, context=context, timeout=20)
        connection.set_tunnel("late.example.test", 443)
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert (answer.status, len(answer.read()) > 0) == (200, True)
        proxy.write_routes(ROUTES)
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert answer.status == 403 and json.loads(answer.read())["error"] == "host_denied"
        connection.close()
    finally:
        proxy.write_routes(ROUTES)


def test_its_log_names_hosts_and_reasons_and_quotes_nothing(proxy: Proxy) -> None:
    token = github_token()
    proxy.curl(f"http://{token}.example.test/{token}?q={token}", "-H", f"X-T: {token}")
    proxy.curl("http://denied.example.test/\x1b[31m")
    proxy.wait_for_log(re.escape(f"{'*' * 40}.example.test: host_denied"))
    assert "\x1b" not in proxy.log()
    proxy.assert_nowhere(token, token.lower())


def test_the_certificate_for_the_agent_comes_without_its_key(proxy: Proxy) -> None:
    assert "PRIVATE" not in Path(proxy.ca_file).read_text()
    for path in proxy.directory.joinpath("conf").iterdir():
        if path.name == "fingerprint.key" or "PRIVATE" in path.read_text(errors="replace"):
            assert path.stat().st_mode & 0o077 == 0, path
