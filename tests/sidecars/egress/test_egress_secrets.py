"""Is a secret stopped wherever it is, held until somebody decides, and kept out of every file and log?"""

from __future__ import annotations

import base64
import gzip
import json
import re
import socket
import ssl
import time
import urllib.parse
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import brotli
import h2.connection
import h2.errors
import h2.events
import httpx
import pytest
import zstandard

from bot_bottle import Proposal, QueueStore
from egress_proxy import API_TOKEN, ROUTES, SLUG, Answer, Proxy, Server, fresh, github_token, proxy, server

__all__ = ["fresh", "proxy", "server"]

API = "https://api.example.test"
BLOCK = "https://block.example.test"
REDACT = "https://redact.example.test"

WRAPPINGS: dict[str, Callable[[str], bytes]] = {
    "plain": lambda token: token.encode(),
    "base64": lambda token: base64.b64encode(token.encode()),
    "base64, one byte in": lambda token: base64.b64encode(b"." + token.encode() + b"."),
    "base64, two bytes in": lambda token: base64.b64encode(b".." + token.encode() + b"."),
    "hex": lambda token: token.encode().hex().encode(),
    "percent": lambda token: "".join(f"%{ord(each):02X}" for each in token).encode(),
    "gzip file": lambda token: gzip.compress(b"some words " + token.encode()),
}


@pytest.fixture
def token(proxy: Proxy) -> Iterator[str]:
    """A new token; after the test no file or log of the proxy and the store may hold it, in any usual form."""
    found = github_token()
    yield found
    raw = found.encode()
    proxy.assert_nowhere(found, raw.hex(), *(base64.b64encode(b"." * skip + raw)[4:-4] for skip in range(3)))


# -- where a secret may be -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [("--http1.1",), ("--http2",)])
def test_a_secret_is_stopped_in_every_part_of_a_request(
    proxy: Proxy, server: Server, token: str, options: tuple[str, ...]
) -> None:
    wrapped = base64.urlsafe_b64encode(f"user:{token}".encode()).decode()
    for url, *more in (
        (f"{BLOCK}/?q={token}",),
        (f"{BLOCK}/{token}/x",),
        (f"{BLOCK}/?q={urllib.parse.quote(token, safe='').replace('g', '%67')}",),
        (f"{BLOCK}/?q={wrapped}",),
        (f"{BLOCK}/", "-H", f"X-Key: {token}"),
        (f"{BLOCK}/", "-H", f"X-Key: Basic {wrapped}"),
        (f"{BLOCK}/", "-H", f"X-{token}: 1"),
        (f"{BLOCK}/", "-b", f"session={token}"),
        (f"{BLOCK}/", "-A", token),
        (f"{BLOCK}/", "-X", token),
        (f"{BLOCK}/", "-d", token),
        (f"{BLOCK}/", "-F", f"file=words {token};filename=x"),
        (f"{BLOCK}/", "-F", f"file=words;filename={token}"),
    ):
        answer = proxy.curl(url, *options, *more)
        assert (answer.status, answer.json()["error"]) == (403, "secret_blocked"), more
    assert not server.exchanges


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_secret_is_stopped_in_a_body_however_it_is_wrapped(
    proxy: Proxy, server: Server, token: str, wrapping: str
) -> None:
    body = b"data=" + WRAPPINGS[wrapping](token) + b"&more=words"
    assert proxy.curl(f"{BLOCK}/", "--data-binary", "@-", data=body).json()["error"] == "secret_blocked"
    chunked = proxy.curl(f"{BLOCK}/", "--http1.1", "-T", "-", data=body)
    assert chunked.json()["error"] == "secret_blocked"
    assert not server.exchanges


@pytest.mark.parametrize(
    "coding, compress",
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("br", brotli.compress), ("zstd", zstandard.compress)],
)
def test_a_secret_is_stopped_in_a_compressed_body(
    proxy: Proxy, server: Server, token: str, coding: str, compress: Callable[[bytes], bytes]
) -> None:
    def send(content: str, url: str = BLOCK) -> Answer:
        body = compress(content.encode())
        return proxy.curl(url, "--data-binary", "@-", "-H", f"Content-Encoding: {coding}", data=body)

    assert send(f"some words {token} and more").json()["error"] == "secret_blocked"
    assert not server.exchanges
    assert send("some words and no more").status == 200
    assert send(f"some words {token} and more", REDACT).status == 200
    assert bytes(server.exchanges[-1].body) == f"some words {'*' * 40} and more".encode()
    assert server.exchanges[-1].header("content-encoding") is None


def test_a_body_that_cannot_be_read_is_not_sent(proxy: Proxy, server: Server) -> None:
    for coding in ("compress", "gzip", "gzip, rot13"):
        answer = proxy.curl(f"{API}/", "-d", "some words", "-H", f"Content-Encoding: {coding}")
        assert (answer.status, answer.json()["error"]) == (403, "unreadable_body"), coding
    bomb = gzip.compress(b"%41\\x42 eyJ0abcdefghijklmnopqrstuvwxyz 6162636465666768696a6b6c6d6e6f70 " * 400_000)
    answer = proxy.curl(f"{API}/", "--data-binary", "@-", "-H", "Content-Encoding: gzip", data=bomb)
    assert answer.json()["error"] == "unreadable_body"
    assert re.search("expands|more (work|memory) than one request may use", answer.json()["reason"])
    assert not server.exchanges
    zeros = gzip.compress(bytes(100 << 20))  # as an image of a disk is
    assert proxy.curl(f"{API}/", "--data-binary", "@-", "-H", "Content-Encoding: gzip", data=zeros).status == 200
    assert proxy.curl("https://open.example.test/", "-d", "x", "-H", "Content-Encoding: rot13").status == 200


def test_a_secret_split_over_chunks_is_stopped(proxy: Proxy, server: Server, token: str) -> None:
    pieces = [b"data=", *(token[at : at + 3].encode() for at in range(0, 40, 3)), b"&more"]
    with httpx.Client(proxy=proxy.url, verify=_context(proxy)) as client:
        answer = client.post(f"{BLOCK}/", content=iter(pieces))
    assert answer.json()["error"] == "secret_blocked"
    assert not server.exchanges


def test_the_value_that_the_proxy_injects_is_a_secret(proxy: Proxy, server: Server) -> None:
    """Wherever the agent has it from: it may not take it elsewhere."""
    for wrap in (lambda value: value, lambda value: base64.b64encode(value.encode()).decode()):
        assert proxy.curl(f"{BLOCK}/", "-d", wrap(API_TOKEN)).json()["error"] == "secret_blocked"
    assert not server.exchanges
    proxy.assert_nowhere(API_TOKEN)


def test_a_secret_in_a_host_name_is_refused_and_not_written_down(proxy: Proxy, server: Server, token: str) -> None:
    answer = proxy.curl(f"http://{token}.wild.example.test/")
    assert answer.json()["error"] == "secret_in_host"
    assert not server.exchanges
    proxy.assert_nowhere(token.lower())


def test_what_is_written_about_one_secret_does_not_show_another(proxy: Proxy, token: str) -> None:
    """Header names, methods and paths are part of what an operator reads."""
    other = github_token()
    request = proxy.curl_started(f"{API}/{other}", "--http1.1", "-X", other, "-H", f"X-{other}: {token}")
    for item in proxy.wait_until_pending(2):
        assert token not in item["proposed_file"] and other.lower() not in item["proposed_file"].lower()
    proxy.decide("rejected")
    assert Answer.of(request).status == 403
    proxy.assert_nowhere(other, other.lower())


def test_a_route_without_detectors_lets_everything_through(proxy: Proxy, server: Server) -> None:
    assert proxy.curl("https://open.example.test/", "-d", github_token()).status == 200


# -- what happens to it --------------------------------------------------------------------------------------------


def test_redaction_masks_and_sends(proxy: Proxy, server: Server, token: str) -> None:
    twice = f"a={token}&b={base64.b64encode(token.encode()).decode()}"
    answer = proxy.curl(f"{REDACT}/p-{token}?q={token}&r=1", "-H", f"X-Key: Bearer {token}", "-d", twice)
    assert answer.status == 200
    (exchange,) = server.exchanges
    assert exchange.path == f"/p-{'*' * 40}?q={'*' * 40}&r=1"
    assert exchange.header("x-key") == f"Bearer {'*' * 40}"
    assert bytes(exchange.body).startswith(f"a={'*' * 40}&b=*****".encode())
    assert exchange.length == len(twice)
    entry = proxy.wait_for_audit("secret-redacted", "redact.example.test:")
    assert (entry["component"], entry["surface"], entry["bottle_slug"]) == ("egress", "policy", SLUG)


def test_blocking_is_final_and_on_record(proxy: Proxy, token: str) -> None:
    assert proxy.curl(f"{BLOCK}/", "-d", token).status == 403
    assert not proxy.pending()
    proxy.wait_for_audit("secret-blocked", "block.example.test:")


def test_a_held_request_goes_through_once_approved(proxy: Proxy, server: Server, token: str) -> None:
    request = proxy.curl_started(f"{API}/items/{token}?q=1", "-d", f"key={token}", "-H", f"X-Key: {token}")
    proposal = proxy.decide("approved")
    answer = Answer.of(request)
    assert answer.status == 200
    assert bytes(server.exchanges[0].body) == f"key={token}".encode(), "unchanged"
    assert (proposal["tool"], proposal["bottle_slug"], proposal["waiting"]) == ("egress-token-allow", SLUG, True)
    shown = json.loads(proposal["proposed_file"])
    assert shown["request"] == f"POST https://api.example.test/items/{'*' * 40}"
    assert {each["where"] for each in shown["found"]} == {"URL path", "header x-key", "body"}
    assert {each["what"] for each in shown["found"]} == {"GitHub token"}
    assert shown["fingerprint"] == proposal["fingerprint"].partition(" | ")[0]
    assert proposal["fingerprint"].startswith("api.example.test:")


def test_without_a_grant_the_next_one_is_asked_again(proxy: Proxy, server: Server, token: str) -> None:
    for _ in range(2):
        request = proxy.curl_started(f"{API}/", "-d", token)
        proxy.decide("approved")
        assert Answer.of(request).status == 200
    assert len(server.exchanges) == 2


def test_a_rejection_reaches_the_agent_with_its_reason_and_stands_for_a_while(
    proxy: Proxy, server: Server, token: str
) -> None:
    request = proxy.curl_started(f"{API}/", "-d", token)
    proxy.decide("rejected", "use the deploy key instead")
    answer = Answer.of(request)
    assert answer.status == 403
    assert answer.json()["error"] == "secret_rejected" and "use the deploy key instead" in answer.json()["reason"]
    again = proxy.curl(f"{API}/other", "-d", token)
    assert again.json()["reason"] == answer.json()["reason"], "answered at once, nobody is asked again"
    assert not server.exchanges and not proxy.pending()


@pytest.mark.parametrize("grant, free", [("once", 0), ("uses:3", 2), ("for:60", 3), ("bottle", 3)])
def test_a_grant_lets_as_many_through_as_it_says(
    proxy: Proxy, server: Server, token: str, grant: str, free: int
) -> None:
    request = proxy.curl_started(f"{API}/", "-d", token)
    proxy.decide("approved", grant=grant)
    assert Answer.of(request).status == 200
    for _ in range(free):
        assert proxy.curl(f"{API}/elsewhere?n=1", "-H", f"X-Key: {token}").status == 200
    assert len(server.exchanges) == 1 + free
    if free < 3:
        request = proxy.curl_started(f"{API}/", "-d", token)
        proxy.decide("rejected")
        assert Answer.of(request).status == 403
    other = proxy.curl_started("https://auth.example.test/", "-d", token)
    assert proxy.decide("rejected")["fingerprint"].startswith("auth.example.test:"), "for this host alone"
    assert Answer.of(other).status == 403


def test_a_revoked_grant_is_none(proxy: Proxy, token: str) -> None:
    request = proxy.curl_started(f"{API}/", "-d", token)
    fingerprint = proxy.decide("approved", grant="bottle")["fingerprint"]
    assert Answer.of(request).status == 200
    proxy.operator(
        "store = GrantStore(sys.argv[1])\n"
        "result = [store.revoke_grant(each.id).id for each in store.list_grants() if each.fingerprint == arguments[0]]",
        fingerprint.partition(" | ")[0],
    )
    request = proxy.curl_started(f"{API}/", "-d", token)
    proxy.decide("rejected")
    assert Answer.of(request).status == 403


def test_retries_are_one_proposal_and_get_one_answer(proxy: Proxy, server: Server, token: str) -> None:
    requests = [proxy.curl_started(f"{API}/", "-d", f"again=1&key={token}") for _ in range(4)]
    deadline = time.monotonic() + 20
    while [item["requests"] for item in proxy.pending()] != [4]:
        assert time.monotonic() < deadline, proxy.pending()
    proxy.decide("approved")
    assert [Answer.of(request).status for request in requests] == [200] * 4
    assert len(server.exchanges) == 4


def test_requests_that_differ_are_questions_of_their_own(proxy: Proxy, server: Server, token: str) -> None:
    urls = [f"https://api.example.test/post?n={number}" for number in range(3)]
    held = [proxy.curl_started(url, "--data", f"body {number} {token}") for number, url in enumerate(urls)]
    held.append(proxy.curl_started(urls[0], "--data", f"another body {token}"))
    held.append(proxy.curl_started(urls[0], "-X", "PUT", "--data", f"body 0 {token}"))
    proxy.wait_until_pending(5)
    proxy.decide("approved")
    proxy.wait_until_pending(4)
    for _ in range(4):
        proxy.decide("rejected")
    assert sorted(Answer.of(each).status for each in held) == [200, 403, 403, 403, 403]
    assert len(server.exchanges) == 1


def test_two_secrets_are_two_questions_and_one_no_is_enough(proxy: Proxy, server: Server, token: str) -> None:
    second = github_token()
    request = proxy.curl_started(f"{API}/", "-d", f"{token} {second}")
    assert len(proxy.wait_until_pending(2)) == 2
    proxy.decide("approved")
    proxy.decide("rejected")
    assert Answer.of(request).json()["error"] == "secret_rejected"
    third, fourth = github_token(), github_token()
    request = proxy.curl_started(f"{API}/", "-d", f"{third} {fourth}")
    proxy.wait_until_pending(2)
    proxy.decide("rejected")
    assert Answer.of(request).status == 403
    assert not proxy.pending(), "the other question was withdrawn"
    assert not server.exchanges
    proxy.assert_nowhere(second, third, fourth)


def test_secrets_that_hold_grants_are_no_questions(proxy: Proxy, server: Server) -> None:
    tokens = [github_token() for _ in range(6)]
    for each in tokens:
        request = proxy.curl_started(f"{API}/", "-d", each)
        proxy.decide("approved", grant="bottle")
        assert Answer.of(request).status == 200
    assert proxy.curl(f"{API}/", "-d", " ".join(tokens)).status == 200


def test_no_noise_takes_the_place_of_evidence(proxy: Proxy, server: Server, token: str) -> None:
    for number in range(150):  # more than is written of one kind in a minute
        with socket.create_connection(("127.0.0.1", proxy.port)) as stream:
            stream.sendall(
                f"CONNECT n{number}.example.net:443 HTTP/1.1\r\nHost: n{number}.example.net\r\n\r\n".encode()
            )
            assert b" 403 " in stream.recv(200)
    assert proxy.curl("https://block.example.test/", "-d", token).json()["error"] == "secret_blocked"
    proxy.wait_for_audit("secret-blocked", "block.example.test:")


def test_nobody_is_asked_about_a_whole_list_of_secrets(proxy: Proxy, server: Server) -> None:
    answer = proxy.curl(f"{API}/", "-d", " ".join(github_token() for _ in range(6)))
    assert answer.json()["error"] == "too_many_secrets"
    assert not proxy.pending() and not server.exchanges


@pytest.mark.parametrize("options", [("--http1.1",), ("--http2",)])
def test_a_client_that_goes_away_withdraws(proxy: Proxy, server: Server, token: str, options: tuple[str, ...]) -> None:
    request = proxy.curl_started(f"{API}/", *options, "-d", token)
    proxy.wait_until_pending(1)
    request.kill()
    request.wait()
    assert proxy.wait_until_pending(0) == []
    assert not server.exchanges


def test_one_http2_stream_may_be_cancelled_while_the_others_go_on(proxy: Proxy, server: Server, token: str) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as plain:
        plain.sendall(b"CONNECT api.example.test:443 HTTP/1.1\r\nHost: api.example.test:443\r\n\r\n")
        assert plain.recv(4096).startswith(b"HTTP/1.1 200")
        context = _context(proxy)
        context.set_alpn_protocols(["h2"])
        with context.wrap_socket(plain, server_hostname="api.example.test") as stream:
            client = h2.connection.H2Connection()
            client.initiate_connection()

            def send(number: int, path: str, body: str) -> None:
                head = {":method": "POST", ":scheme": "https", ":authority": "api.example.test", ":path": path}
                client.send_headers(number, list(head.items()))
                client.send_data(number, body.encode(), end_stream=True)
                stream.sendall(client.data_to_send())

            def status(number: int) -> str:
                while True:
                    for event in client.receive_data(stream.recv(65536)):
                        if isinstance(event, h2.events.ResponseReceived) and event.stream_id == number:
                            return dict(event.headers)[b":status"].decode()

            send(1, "/one", token)
            proxy.wait_until_pending(1)
            send(3, "/two", "words")
            assert status(3) == "200", "while the first is held"
            client.reset_stream(1, h2.errors.ErrorCodes.CANCEL)
            stream.sendall(client.data_to_send())
            assert proxy.wait_until_pending(0) == []
            send(5, "/three", "words")
            assert status(5) == "200"
    assert [exchange.path for exchange in server.exchanges] == ["/two", "/three"]


def test_the_routes_are_looked_at_again_after_a_hold(proxy: Proxy, server: Server, token: str) -> None:
    request = proxy.curl_started(f"{API}/", "-d", token)
    proxy.wait_until_pending(1)
    proxy.write_routes(ROUTES.replace("  - host: api.example.test\n", ""))
    try:
        proxy.decide("approved")
        assert Answer.of(request).json()["error"] == "host_denied"
        assert not server.exchanges
    finally:
        proxy.write_routes(ROUTES)


def test_a_stopped_bottle_ends_the_hold(proxy: Proxy, token: str) -> None:
    request = proxy.curl_started(f"{API}/", "-d", token)
    (item,) = proxy.wait_until_pending(1)
    QueueStore(SLUG, proxy.db).withdraw_proposal(item["id"], "bottle stopped")
    answer = Answer.of(request)
    assert answer.json()["error"] == "secret_withdrawn" and "bottle stopped" in answer.json()["reason"]


def test_a_full_queue_refuses_and_says_so(proxy: Proxy, server: Server, token: str) -> None:
    with QueueStore(SLUG, proxy.db) as queue:
        others = [queue.write_proposal(Proposal.new(SLUG, "egress-allow", f"# {n}", "x")) for n in range(200)]
        try:
            answer = proxy.curl(f"{API}/", "-d", token)
        finally:
            for each in others:
                queue.withdraw_proposal(each.id)
    assert (answer.status, answer.json()["error"]) == (503, "secret_not_asked")
    assert "200" in answer.json()["reason"]
    assert not server.exchanges


# -- a proxy of its own --------------------------------------------------------------------------------------------


def test_a_hold_ends_and_so_does_its_proposal(tmp_path: Path, server: Server) -> None:
    own = Proxy(tmp_path, server, EGRESS_TOKEN_ALLOW_TIMEOUT_SECONDS="1")
    try:
        token, began = github_token(), time.monotonic()
        answer = own.curl(f"{API}/", "-d", token)
        assert (answer.status, answer.json()["error"]) == (403, "secret_expired")
        assert time.monotonic() - began >= 1
        assert not own.pending() and not server.exchanges
        own.assert_nowhere(token)
    finally:
        assert own.stop() == 0


def test_a_stop_withdraws_what_is_held_and_answers_it(tmp_path: Path, server: Server) -> None:
    own = Proxy(tmp_path, server)
    request = own.curl_started(f"{API}/", "-d", github_token())
    own.wait_until_pending(1)
    assert own.stop() == 0
    assert Answer.of(request).status in (0, 403)
    assert not own.pending() and not server.exchanges


def test_a_grant_outlives_the_proxy_that_asked(tmp_path: Path, server: Server) -> None:
    """Fingerprints are made with a key that is kept, not with one of the process."""
    token = github_token()
    own = Proxy(tmp_path, server)
    request = own.curl_started(f"{API}/", "-d", token)
    own.decide("approved", grant="bottle")
    assert Answer.of(request).status == 200
    assert own.stop() == 0
    own.restart()
    try:
        assert own.curl(f"{API}/", "-d", token).status == 200
        assert not own.pending()
    finally:
        assert own.stop() == 0
    own.assert_nowhere(token)
    another = bytearray((tmp_path / "conf" / "fingerprint.key").read_bytes())
    assert len(another) == 32


def test_without_a_database_nothing_that_holds_a_secret_leaves(tmp_path: Path, server: Server) -> None:
    own = Proxy(tmp_path, server, SUPERVISE_DB_PATH=str(tmp_path / "absent" / "bot-bottle.db"))
    try:
        assert own.curl(f"{API}/").status == 200
        answer = own.curl(f"{API}/", "-d", github_token())
        assert (answer.status, answer.json()["error"]) == (503, "secret_not_asked")
        assert len(server.exchanges) == 1
    finally:
        assert own.stop() == 0


def _context(proxy: Proxy) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=proxy.ca_file)
