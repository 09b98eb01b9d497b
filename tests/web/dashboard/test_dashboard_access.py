"""Who gets anything from the dashboard? Every route is asked in every way that must fail, from one table."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from bot_bottle.web.dashboard import address, login
from broker_process import token
from cli_process import Host
from dashboard_process import Operator, Served

# Method, path, and whether it is for everybody.
OPEN = [("GET", "/login"), ("GET", "/assets/login.js"), ("GET", "/assets/style.css"), ("POST", "/api/v1/login")]
CLOSED = [
    ("GET", "/"),
    ("GET", "/assets/app.js"),
    ("POST", "/api/v1/logout"),
    ("GET", "/api/v1/inbox"),
    ("GET", "/api/v1/events"),
    ("GET", "/api/v1/proposals/{id}"),
    ("GET", "/api/v1/proposals/{id}/proof"),
    ("POST", "/api/v1/proposals/{id}/draft"),
    ("POST", "/api/v1/proposals/{id}/diff"),
    ("POST", "/api/v1/proposals/{id}/decision"),
    ("GET", "/api/v1/history"),
    ("GET", "/api/v1/bottles"),
    ("GET", "/api/v1/grants"),
    ("POST", "/api/v1/grants/{id}/revoke"),
    ("GET", "/api/v1/status"),
    ("POST", "/api/v1/looking"),
    ("GET", "/api/v1/rows"),
    ("GET", "/api/v1/policies"),
    ("GET", "/api/v1/oversight"),
    ("GET", "/phone"),
    ("GET", "/worker.js"),
    ("GET", "/api/v1/push"),
    ("POST", "/api/v1/push"),
    ("POST", "/api/v1/push/end"),
    ("GET", "/v1/openapi.json"),
    ("GET", "/v1/me"),
    ("GET", "/v1/proposals"),
    ("GET", "/v1/proposals/{id}"),
    ("GET", "/v1/proposals/{id}/review"),
    ("POST", "/v1/proposals/{id}/decision"),
    ("POST", "/v1/proposals/{id}/archive"),
    ("GET", "/v1/changes"),
    ("GET", "/v1/events"),
    ("GET", "/v1/grants"),
    ("POST", "/v1/grants/{id}/revoke"),
    ("GET", "/v1/bottles"),
    ("GET", "/v1/audit"),
    ("GET", "/v1/stats"),
    ("POST", "/v1/views"),
    ("POST", "/v1/proposals/{id}/questions"),
    ("POST", "/api/v1/proposals/{id}/question"),
    ("GET", "/nothing"),
    ("GET", "/v1/nothing"),
]

Asks = Callable[["Way"], dict[str, str]]


class Way:
    """What a way of asking can use: a server, the headers of a good login, and those of other logins."""

    def __init__(self, served: Served, good: Operator, bottle_token: str) -> None:
        self.served, self.bottle_token = served, bottle_token
        self.token = login.make_token("ann", 60.0)
        self.cookie = f"{login.cookie_name()}={good.cookies[login.cookie_name()]}"
        self.good = {
            "Host": f"127.0.0.1:{served.port}",
            "Origin": served.origin,
            "Cookie": self.cookie,
            login.PAGE_HEADER: good.headers[login.PAGE_HEADER],
        }

    def without(self, *names: str, **other: str) -> dict[str, str]:
        return {name: value for name, value in self.good.items() if name not in names} | other

    def expired(self) -> dict[str, str]:
        """A login whose time is over: what the server keeps of it is set back."""
        with contextlib.closing(Operator(self.served)) as late:
            cookie, page = late.cookies[login.cookie_name()], late.headers[login.PAGE_HEADER]
        kept = login._file("sessions", cookie)
        kept.write_text(json.dumps(json.loads(kept.read_text()) | {"ends": time.time() - 1}))
        return self.good | {"Cookie": f"{login.cookie_name()}={cookie}", login.PAGE_HEADER: page}

    def late_token(self) -> dict[str, str]:
        """A token whose time is over."""
        return self.without("Cookie", login.PAGE_HEADER, Authorization=f"Bearer {login.make_token('ann', -1.0)}")

    def elsewhere(self) -> dict[str, str]:
        """A good login of another host."""
        here, there = os.environ["BOT_BOTTLE_ROOT"], f"{os.environ['BOT_BOTTLE_ROOT']}-other"
        os.environ["BOT_BOTTLE_ROOT"] = there
        try:
            session = login.use_link(login.make_link("").partition("#")[2])
        finally:
            os.environ["BOT_BOTTLE_ROOT"] = here
        assert session is not None
        return self.good | {"Cookie": f"{login.cookie_name()}={session.cookie}", login.PAGE_HEADER: session.page_key}


# The way, the status it must have, and whether the open routes refuse it too.
WAYS: dict[str, tuple[Asks, int, bool]] = {
    "no cookie": (lambda way: way.without("Cookie"), 401, False),
    "wrong cookie": (lambda way: way.good | {"Cookie": f"{login.cookie_name()}={'A' * 43}"}, 401, False),
    "cookie that is no secret": (lambda way: way.good | {"Cookie": f"{login.cookie_name()}=../x"}, 401, False),
    "expired": (Way.expired, 401, False),
    "other host's": (Way.elsewhere, 401, False),
    "bottle's token": (
        lambda way: way.without("Cookie", login.PAGE_HEADER, Authorization=f"Bearer {way.bottle_token}"),
        401,
        False,
    ),
    "token that has ended": (Way.late_token, 401, False),
    "two tokens": (
        lambda way: way.without("Cookie", login.PAGE_HEADER, Authorization=f"Bearer {way.token}, Bearer {way.token}"),
        401,
        False,
    ),
    "token and a foreign page": (
        lambda way: way.without("Cookie", Authorization=f"Bearer {way.token}") | {"Origin": "https://evil.example"},
        403,
        True,
    ),
    "token by another name": (
        lambda way: way.without("Cookie", "Origin", Authorization=f"Bearer {way.token}") | {"Host": "evil.example"},
        421,
        True,
    ),
    "bottle's token as cookie": (
        lambda way: way.good | {"Cookie": f"{login.cookie_name()}={way.bottle_token}"},
        401,
        False,
    ),
    "cross-origin form": (
        lambda way: (
            way.good
            | {
                "Origin": "https://evil.example",
                "Sec-Fetch-Site": "cross-site",
                "Content-Type": "application/x-www-form-urlencoded",
            }
        ),
        403,
        True,
    ),
    "form of another port": (
        lambda way: way.good | {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},
        403,
        True,
    ),
    "sandboxed page": (lambda way: way.good | {"Origin": "null"}, 403, True),
    "script of another site": (lambda way: way.without("Origin") | {"Sec-Fetch-Site": "cross-site"}, 403, True),
    "rebinding host": (
        lambda way: way.good | {"Host": "evil.example:9102", "Origin": "http://evil.example:9102"},
        421,
        True,
    ),
    "host that begins well": (
        lambda way: way.good | {"Host": "127.0.0.1.evil.example", "Origin": "http://127.0.0.1.evil.example"},
        421,
        True,
    ),
    "framed": (lambda way: way.good | {"Sec-Fetch-Dest": "iframe"}, 403, True),
}


def ask(served: Served, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    kind = {"Content-Type": "application/json"} if method == "POST" and "Content-Type" not in headers else {}
    # It speaks no TLS: reading the certificates for each of hundreds of clients would be all that takes time here.
    with httpx.Client(base_url=served.origin, trust_env=False, timeout=30, verify=False) as stranger:
        return stranger.request(
            method, path.format(id="0199d2c4-1a2b"), headers=headers | kind, content=b"{}" if method == "POST" else None
        )


def test_no_route_gives_anything_to_whoever_is_not_logged_in(host: Host, dashboard: Served, operator: Operator) -> None:
    secret = "the agent's words"
    host.propose(justification=secret)
    way = Way(dashboard, operator, token())
    for name, (asks, status, open_too) in WAYS.items():
        headers = asks(way)
        for method, path in [*CLOSED, *(OPEN if open_too else [])]:
            answer = ask(dashboard, method, path, headers)
            assert answer.status_code == status, (name, method, path, answer.text)
            assert secret not in answer.text and "set-cookie" not in answer.headers
            assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert operator.told("inbox")["rows"][0]["why"] == secret


def test_the_table_has_every_route(dashboard: Served) -> None:
    routes = [
        line
        for source in Path(login.__file__).parent.glob("*.py")
        for line in source.read_text().splitlines()
        if line.strip().startswith('at("/')
    ]
    assert len(routes) > 30
    for line in routes:
        path = line.split('"')[1].replace("/assets/{name}", "/assets/app.js")
        for method in ("GET", "POST"):
            assert f"{method}=" not in line or (method, path) in OPEN + CLOSED


def test_the_api_wants_the_page_key_beside_the_cookie(dashboard: Served, operator: Operator) -> None:
    way = Way(dashboard, operator, "")
    for method, path in CLOSED:
        if path.startswith(("/api/", "/v1/")):
            for page_key in ("", "A" * 43):
                assert ask(dashboard, method, path, way.good | {login.PAGE_HEADER: page_key}).status_code == 401
    assert ask(dashboard, "GET", "/assets/app.js", way.without(login.PAGE_HEADER)).status_code == 200


def test_a_change_without_an_origin_is_refused(dashboard: Served, operator: Operator) -> None:
    way = Way(dashboard, operator, "")
    for method, path in CLOSED:
        if method == "POST":
            assert ask(dashboard, method, path, way.without("Origin")).status_code == 403


def test_a_form_s_body_is_refused_even_with_a_login(dashboard: Served, operator: Operator) -> None:
    form = operator.post("/api/v1/proposals/x/decision", data={"status": "approved"})
    assert form.status_code == 415


def test_every_answer_forbids_foreign_content_and_frames(dashboard: Served, operator: Operator) -> None:
    for path in ("/", "/login", "/assets/app.js", "/api/v1/inbox", "/api/v1/nothing", "/nothing"):
        answer = operator.get(path)
        policy = answer.headers["content-security-policy"]
        assert "require-trusted-types-for 'script'; trusted-types 'none'" in policy
        assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


def test_a_link_works_once_and_not_for_long(dashboard: Served) -> None:
    with httpx.Client(base_url=dashboard.origin, headers={"Origin": dashboard.origin}, trust_env=False) as browser:

        def follow(link: str) -> httpx.Response:
            return browser.post("/api/v1/login", json={"link": link.partition("#")[2]})

        link = login.make_link(dashboard.origin)
        first = follow(link)
        assert first.status_code == 200
        cookie = first.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie
        assert follow(link).status_code == 401
        late = login.make_link(dashboard.origin)
        kept = login._file("links", late.partition("#")[2])
        kept.write_text(json.dumps({"ends": time.time() - 1}))
        assert follow(late).status_code == 401
        for wrong in ("", "../address.json", "A" * 43, "A" * 44):
            assert follow(f"#{wrong}").status_code == 401


def test_a_login_outlives_the_server_and_ends_with_log_out(host: Host, operator: Operator, dashboard: Served) -> None:
    assert operator.get("/api/v1/inbox").status_code == 200
    assert dashboard.end() == 0
    again = Served(host, "--operator-listen", f"127.0.0.1:{dashboard.port}")
    dashboard.process = again.process  # the fixture ends it
    assert operator.get("/api/v1/inbox").status_code == 200
    cookie = dict(operator.cookies)
    assert operator.post("/api/v1/logout", json={}).status_code == 200
    operator.cookies.update(cookie)
    assert operator.get("/api/v1/inbox").status_code == 401


def test_what_a_login_hangs_on_is_for_its_owner_only(host: Host, operator: Operator) -> None:
    folder = address.directory()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    kept = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.parent.name for path in kept} >= {"sessions", "operator"}
    for path in kept:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert operator.cookies[login.cookie_name()] not in path.read_text()
        assert operator.headers[login.PAGE_HEADER] not in path.read_text()


def test_a_token_opens_what_is_for_programs_and_nothing_else(dashboard: Served, operator: Operator) -> None:
    bearer = Way(dashboard, operator, "").without("Cookie", "Origin", login.PAGE_HEADER)
    bearer["Authorization"] = f"Bearer {login.make_token('ann', 60.0)}"
    for method, path in CLOSED:
        answer = ask(dashboard, "HEAD" if path == "/v1/events" else method, path, bearer)
        if path.startswith("/v1/"):
            assert answer.status_code not in (401, 403, 421), (path, answer.text)
        else:
            assert answer.status_code in (401, 403), (path, answer.text)


def test_over_http_1_0_there_is_as_little(host: Host, dashboard: Served, operator: Operator) -> None:
    way = Way(dashboard, operator, token())
    for name, (asks, status, _) in WAYS.items():
        lines = "".join(f"{field}: {value}\r\n" for field, value in asks(way).items())
        for method, path in CLOSED:
            path = path.format(id="0199d2c4-1a2b")
            with socket.create_connection(("127.0.0.1", dashboard.port), timeout=30) as connection:
                connection.sendall(f"{method} {path} HTTP/1.0\r\n{lines}\r\n".encode())
                with connection.makefile("rb") as answer:
                    assert int(answer.readline().split()[1]) == status, (name, method, path)


@pytest.mark.parametrize("listen", ["0.0.0.0:9102", "192.0.2.1:0", "[::]:0", "localhost:0"])
def test_only_loopback_is_listened_on(host: Host, listen: str) -> None:
    refused = host.run("serve", "--operator", "--operator-listen", listen, code=2)
    assert "--operator-listen needs a" in refused.stderr


def test_a_root_has_one_dashboard(host: Host, dashboard: Served) -> None:
    refused = host.run("serve", "--operator", "--no-broker", "--operator-listen", "127.0.0.1:0", code=2)
    assert "another process serves this root's dashboard" in refused.stderr
    assert address.running() == address.Address(dashboard.where, None, dashboard.process.pid)


def test_the_dashboard_listens_on_a_unix_socket_instead(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "operator.sock"
    served = Served(host, "--operator-socket", str(path))
    try:
        assert served.where == str(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as browser:
            assert browser.get("/login").status_code == 200
            assert browser.get("/").status_code == 401
    finally:
        assert served.end() == 0


def test_the_broker_s_port_has_nothing_of_the_dashboard(serve: Any, host: Host) -> None:
    both = serve("--operator", "--operator-listen", "127.0.0.1:0")
    operator_at = both.log[0]["operator"]
    assert operator_at != both.url
    assert httpx.get(f"{both.url}/login", trust_env=False).status_code == 404
    assert httpx.get(f"{operator_at}/login", trust_env=False).status_code == 200
    assert httpx.get(f"{operator_at}/v1/health", trust_env=False).status_code == 401
