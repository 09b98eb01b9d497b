"""What a routes.yaml allows, and what of it is refused before anybody acts on it."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.documents.routes import DETECTORS, MAX_BYTES, MAX_ROUTES, Dlp, Routes, RoutesError, load
from bot_bottle.errors import InvalidInputError
from checkout import CHECKOUT

FULL = """\
# What the agent of this bottle may reach.
routes:
  - host: api.github.com
    auth: {scheme: Bearer, token_ref: GITHUB_TOKEN}
    matches:
      - paths:
          - {type: prefix, value: /repos/example}
          - {type: exact, value: /user}
        methods: [get, POST]
      - paths: [{type: regex, value: "/gists/[0-9a-f]+"}]
        headers:
          - {name: Accept, value: application/json}
          - {name: X-Client, type: regex, value: "cli-[0-9]+"}
    dlp:
      outbound_detectors: [known_secrets]
      inbound_detectors: false
      outbound_on_match: redact
  - host: "*.Files.Example.com."
"""


def one(text: str) -> str:
    """A file with one route to h.example, which also has ``text``."""
    return f"routes:\n  - host: h.example\n{text}"


def problem(text: str) -> str:
    with pytest.raises(RoutesError) as caught:
        load(text)
    message = str(caught.value)
    assert message.startswith(f"routes.yaml line {caught.value.line}: ")
    assert "\n" not in message
    assert message.isascii()
    return message


def test_a_full_file_is_read_as_written() -> None:
    github, files = load(FULL).routes
    assert github.host == "api.github.com"
    assert github.auth is not None
    assert (github.auth.scheme, github.auth.token_ref) == ("Bearer", "GITHUB_TOKEN")
    assert github.matches[0].methods == ("GET", "POST")
    assert github.dlp == Dlp(("known_secrets",), (), "redact")
    assert github.line == 3
    assert (files.host, files.auth, files.matches, files.dlp) == ("*.files.example.com", None, (), Dlp())
    assert load(FULL).token_refs() == {"GITHUB_TOKEN"}


def test_the_defaults_look_for_everything_outbound_and_ask() -> None:
    route = load(one("")).routes[0]
    assert route.dlp.outbound_detectors == DETECTORS
    assert route.dlp.outbound_on_match == "supervise"
    assert route.dlp.inbound_detectors == ("known_secrets",)


def test_a_route_written_out_in_full_reads_back_as_itself() -> None:
    routes = load(FULL)
    written = [{key: value for key, value in route.to_dict().items() if value} for route in routes.routes]
    for route in written:
        for match in route.get("matches", []):
            for key in [key for key, value in match.items() if not value]:
                del match[key]
    again = load(json.dumps({"routes": written}))  # JSON is YAML
    assert [route.to_dict() for route in again.routes] == [route.to_dict() for route in routes.routes]


def test_no_routes_deny_everything() -> None:
    assert load("routes: []").find("example.com") is None
    assert Routes().find("example.com") is None


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("api.github.com", "api.github.com"),
        ("API.GitHub.com.", "api.github.com"),
        ("a.files.example.com", "*.files.example.com"),
        ("a.b.files.example.com", "*.files.example.com"),
        ("files.example.com", None),
        ("evilfiles.example.com", None),
        ("api.github.com.evil.example", None),
        ("xapi.github.com", None),
        ("api.github.com:443", None),
        ("api\u3002github.com", None),
        ("", None),
    ],
)
def test_a_host_finds_its_own_route_only(host: str, found: str | None) -> None:
    route = load(FULL).find(host)
    assert (route.host if route else None) == found


def test_the_most_specific_route_wins() -> None:
    routes = load("routes:\n- host: '*.b.example'\n- host: '*.a.b.example'\n- host: x.a.b.example\n")
    hosts = [route.host for name in ("y.b.example", "y.a.b.example", "x.a.b.example") if (route := routes.find(name))]
    assert hosts == ["*.b.example", "*.a.b.example", "x.a.b.example"]


def test_addresses_are_hosts_in_one_spelling_only() -> None:
    routes = load("routes:\n- host: 10.0.0.7\n- host: '[2001:DB8::0001]'\n")
    assert routes.find("10.0.0.7")
    assert routes.find("[2001:db8:0::1]")
    assert routes.find("2001:db8::1")
    assert routes.find("10.0.0.8") is None
    for spelling in ("127.1", "0x7f.0.0.1", "2130706433", "010.0.0.7"):
        assert "IP address" in problem(f"routes:\n- host: '{spelling}'")
        assert routes.find(spelling) is None


@pytest.mark.parametrize(
    ("method", "path", "headers", "allowed"),
    [
        ("GET", "/repos/example", (), True),
        ("post", "/repos/example/issues", (), True),
        ("GET", "/repos/examples", (), False),
        ("DELETE", "/repos/example", (), False),
        ("GET", "/user", (), True),
        ("GET", "/user/keys", (), False),
        ("PUT", "/gists/0af", (("accept", "application/json"), ("x-client", "cli-12")), True),
        ("PUT", "/gists/0af", (("accept", "application/json"), ("x-client", "cli-12x")), False),
        ("PUT", "/gists/0af", (("accept", "application/json"),), False),
        ("PUT", "/gists/0af/star", (("accept", "application/json"), ("x-client", "cli-1")), False),
        ("GET", "/repos/example/../../user/keys", (), False),
        ("GET", "/repos/example/%2e%2E/x", (), False),
        ("GET", "/repos/example/%252e%252e/x", (), False),
        ("GET", "/repos/example/..;x/y", (), False),
        ("GET", "/repos/example%2f..%2fx", (), False),
        ("GET", "/repos/example/a\\..\\b", (), False),
        ("GET", "/repos/example/a..b", (), True),
    ],
)
def test_a_request_goes_through_only_where_a_match_covers_it(
    method: str, path: str, headers: tuple[tuple[str, str], ...], allowed: bool
) -> None:
    route = load(FULL).find("api.github.com")
    assert route is not None
    assert route.allows(method, path, headers) is allowed


def test_without_matches_every_request_to_the_host_goes_through() -> None:
    assert load(one("")).routes[0].allows("DELETE", "/any/../where")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1: the file is empty; write routes: []"),
        ("# only a comment\n", "the file is empty"),
        ("routes:\n", "line 1: routes must be a list"),
        ("- host: a\n", "line 1: the file must be a mapping"),
        ("hosts: []\n", "unknown key 'hosts' in the file"),
        ("routes:\n- host: a.example\n  port: 443\n", "line 3: unknown key 'port' in a route"),
        ("routes:\n- auth: {scheme: token, token_ref: T}\n", "line 2: a route has no host"),
        ("routes:\n- host:\n", "host must be text"),
        ("routes:\n- host: [a]\n", "host must be text"),
        ("routes:\n- host: '*'\n", "line 2: host '*' matches too much"),
        ("routes:\n- host: '*.*'\n", "matches too much"),
        ("routes:\n- host: '*.com'\n", "matches too much"),
        ("routes:\n- host: '*.com.'\n", "matches too much"),
        ("routes:\n- host: 'a.*.example'\n", "matches too much"),
        ("routes:\n- host: '*example.com'\n", "matches too much"),
        ("routes:\n- host: '*.0.0.1'\n", "IP address"),
        ("routes:\n- host: '*.10.0.0.1'\n", "wildcard before an IP address"),
        ("routes:\n- host: '.'\n", "is not a host name"),
        ("routes:\n- host: https://a.example/x\n", "is a URL"),
        ("routes:\n- host: a.example:8443\n", "has a port"),
        ("routes:\n- host: ex\u0430mple.com\n", "is not ASCII; write the xn-- form"),
        ("routes:\n- host: a.example\n- host: A.Example.\n", "line 3: host a.example has a route on line 2 already"),
        ("routes: []\nroutes: []\n", "line 2: the key 'routes' a second time"),
        ("routes:\n- {host: a.example, host: b.example}\n", "the key 'host' a second time"),
        (one("    auth: {scheme: Basic, token_ref: T}\n"), "scheme is 'Basic'; it must be one of Bearer, token"),
        (one("    auth: {scheme: bearer, token_ref: T}\n"), "scheme is 'bearer'"),
        (one("    auth: {scheme: Bearer}\n"), "auth has no token_ref"),
        (one("    auth: T\n"), "auth must be a mapping"),
        ("routes:\n- host: '*.a.example'\n  auth: {scheme: token, token_ref: T}\n", "send the token to every host"),
        (one("    matches: []\n"), "matches is empty"),
        (one("    matches: [{}]\n"), "an empty match matches everything"),
        (one("    matches: [{paths: []}]\n"), "paths is empty"),
        (one("    matches: [{path: /x}]\n"), "unknown key 'path' in a match"),
        (one("    matches: [{paths: [/x]}]\n"), "a path must be a mapping of type, value"),
        (one("    matches: [{paths: [{type: glob, value: /x}]}]\n"), "a path's type is 'glob'"),
        (one("    matches: [{paths: [{type: prefix, value: x}]}]\n"), "can match no request"),
        (one("    matches: [{paths: [{type: exact, value: '/a?b'}]}]\n"), "can match no request"),
        (one("    matches: [{paths: [{type: prefix, value: /a/../b}]}]\n"), "can match no request"),
        (one("    matches: [{paths: [{type: prefix, value: /caf\u00e9}]}]\n"), "can match no request"),
        (one("    matches: [{paths: [{type: regex, value: '.*'}]}]\n"), "matches every path"),
        (one("    matches: [{paths: [{type: regex, value: '^/.*$'}]}]\n"), "matches every path"),
        (one("    matches: [{paths: [{type: regex, value: '/(a'}]}]\n"), "is not RE2"),
        (one("    matches: [{paths: [{type: regex, value: '(?=/)x'}]}]\n"), "is not RE2"),
        (one("    matches: [{methods: ['*']}]\n"), "is not an HTTP method"),
        (one("    matches: [{methods: GET}]\n"), "methods must be a list"),
        (one("    matches: [{headers: [{name: 'a b', value: x}]}]\n"), "is not a header's name"),
        (one("    matches: [{headers: [{name: Authorization, value: x}]}]\n"), "use auth instead"),
        (one("    dlp: {outbound_on_match: allow}\n"), "must be one of supervise, redact, block"),
        (one("    dlp: {outbound_detectors: true}\n"), "or false for none"),
        (one("    dlp: {outbound_detectors: 'false'}\n"), "or false for none"),
        (one("    dlp: {inbound_detectors: []}\n"), "or false for none"),
        (one("    dlp: {inbound_detectors: [pii]}\n"), "must be one of token_patterns, known_secrets"),
        ("routes: &all []\n", "an anchor or alias"),
        ("routes: *all\n", "an anchor or alias"),
        ("routes: !!python/object:os.system []\n", "a YAML tag"),
        ("routes: []\n---\nroutes: []\n", "a second document"),
        ("routes: [\n", "line 2: not YAML at column 1;"),
        ("routes:\n\t- host: a\n", "line 2: not YAML at column "),
        ("? [a]\n: b\n", "a key must be a word"),
        ("[" * 14 + "]" * 14, "nested deeper than 12 levels"),
        ("[" * 10_000, ""),  # which of the two comes first depends on how far the parser reads ahead
        ("routes: []\x00", "a character that YAML does not allow"),
        ("\x1b[2Jroutes: []", "a character that YAML does not allow"),
        ("\ud800", "a character that YAML does not allow"),
        ("routes: []\n# fine\u2028- host: evil.example\n", "line 2: the line break U+2028"),
        ("routes: []\r# other\n", "the line break U+000D"),
    ],
)
def test_what_is_not_plain_and_narrow_is_refused(text: str, says: str) -> None:
    assert says in problem(text)


def test_a_token_pasted_as_its_reference_is_not_repeated() -> None:
    message = problem(one("    auth: {scheme: Bearer, token_ref: ghp_16C7e42F292c6912E7710c838347Ae178B4a}\n"))
    assert "ghp_" not in message


def test_too_large_and_too_many_are_refused() -> None:
    assert "larger than 256 KiB" in problem("#" * (MAX_BYTES + 1))
    many = "routes:\n" + "".join(f"- host: h{number}.example\n" for number in range(MAX_ROUTES + 1))
    assert f"line {MAX_ROUTES + 2}:" in problem(many)
    assert len(load(many.rpartition("- host")[0]).routes) == MAX_ROUTES


def test_an_expression_that_drives_backtracking_engines_mad_is_harmless() -> None:
    route = load(one("    matches: [{paths: [{type: regex, value: '/(a+)+b'}]}]\n")).routes[0]
    assert not route.allows("GET", "/" + "a" * 60_000)


def test_windows_line_ends_and_a_byte_order_mark_are_read() -> None:
    assert load("\ufeffroutes:\r\n  - host: a.example\r\n").find("a.example")


@given(st.text(alphabet=st.sampled_from(":-[]{}'\"\\*&!|>#%@,? \n\tahost_routes.e\u00e9\u2028\x00")))
def test_any_text_is_read_or_refused_in_one_sentence(text: str) -> None:
    try:
        load(text)
    except InvalidInputError as error:
        assert isinstance(error, RoutesError)
        assert "\n" not in str(error)


@given(st.text(), st.text())
def test_no_path_escapes_its_prefix(head: str, tail: str) -> None:
    """Whatever follows an allowed prefix, a server that decodes and resolves it stays below that prefix."""
    from posixpath import normpath
    from urllib.parse import unquote

    path = f"/public/{head}/{tail}"
    route = load(one("    matches: [{paths: [{type: prefix, value: /public}]}]\n")).routes[0]
    if route.allows("GET", path):
        assert (normpath(unquote(path)) + "/").startswith("/public/")


def test_the_file_in_the_documentation_is_valid() -> None:
    page = (CHECKOUT / "docs" / "supervise.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    documented = load(example)
    assert documented.find("api.github.com")
    assert documented.routes[0].dlp == Dlp()
