"""How does the broker stand what no honest client sends: too much, too fast, too slowly, or no HTTP at all?"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable

import httpx
import pytest

from bot_bottle import MAX_JUSTIFICATION_BYTES, MAX_PAYLOAD_BYTES, MAX_PENDING_PER_BOTTLE, Inbox, QueueStore
from broker_process import Broker, Raw, client, memory_mib, proposal, proposed, refused, token
from store_process import decide, eventually

Serve = Callable[..., Broker]


def still_serves(broker: Broker) -> None:
    """A fresh client gets its answer."""
    with client(broker, token("witness")) as witness:
        assert witness.get("/v1/bottle").json()["slug"] == "witness"


def busy(answer: httpx.Response) -> None:
    refused(answer, 429, "DatabaseBusyError")
    assert answer.headers["retry-after"] == "1"


def test_a_bottle_that_asks_too_fast_is_told_to_wait_and_the_others_are_not(serve: Serve) -> None:
    broker = serve(limits={"rate": 0.001, "burst": 5})
    with client(broker, token("fast")) as fast, client(broker, token("calm")) as calm:
        assert [fast.get("/v1/bottle").status_code for _ in range(5)] == [200] * 5
        busy(fast.get("/v1/bottle"))
        assert calm.get("/v1/bottle").status_code == 200


def test_the_allowance_comes_back(serve: Serve) -> None:
    broker = serve(limits={"rate": 20, "burst": 1})
    with client(broker, token()) as demo:
        eventually(lambda: demo.get("/v1/bottle").status_code == 429)
        eventually(lambda: demo.get("/v1/bottle").status_code == 200)


def test_a_second_token_is_no_second_allowance(serve: Serve) -> None:
    broker = serve(limits={"rate": 0.001, "burst": 3})
    for status in (200, 200, 200, 429):
        with client(broker, token()) as demo:
            assert demo.get("/v1/bottle").status_code == status


def test_long_bodies_cost_more(serve: Serve) -> None:
    broker = serve(limits={"rate": 0.001, "burst": 20})
    with client(broker, token()) as demo:
        assert demo.post("/v1/proposals", json=proposal("x" * MAX_PAYLOAD_BYTES).to_dict()).status_code == 200
        eventually(lambda: demo.get("/v1/bottle").status_code == 429)
        assert len([line for line in broker.requests() if line["status"] == 200]) < 6


def test_a_wait_is_no_longer_than_the_broker_s_own_limit(serve: Serve) -> None:
    broker = serve(limits={"wait_seconds": 0.2})
    with client(broker, token()) as demo:
        one = proposed(demo)
        # The client gives up long before 80,000 seconds.
        answer = demo.get(f"/v1/proposals/{one.id}/response?wait=80000")
        assert (answer.status_code, answer.json()) == (200, {"pending": True})
        refused(demo.get(f"/v1/proposals/{one.id}/response?wait=86401"), 422, "InvalidInputError")


def test_waits_of_one_bottle_are_bounded(serve: Serve) -> None:
    broker = serve(limits={"bottle_waits": 3})
    secret = token()
    with client(broker, secret) as demo, client(broker, token("other")) as other:
        one = proposed(demo)
        path = f"/v1/proposals/{one.id}/response?wait=50"
        waits = [Raw(broker, secret) for _ in range(3)]
        for wait in waits:
            wait.request("GET", path)
            wait.until(b"\r\n\r\n")
        busy(demo.get(path))
        theirs = proposed(other, slug="other")
        assert other.get(f"/v1/proposals/{theirs.id}/response?wait=0").json() == {"pending": True}
        assert demo.get("/v1/bottle").status_code == 200  # only waits are full
        waits[0].socket.close()
        eventually(lambda: demo.get(f"/v1/proposals/{one.id}/response?wait=0").status_code == 200)
        for wait in waits[1:]:
            wait.socket.close()


def test_waits_of_all_bottles_are_bounded(serve: Serve) -> None:
    broker = serve(limits={"waits": 2})
    raws = []
    for slug in ("a", "b"):
        secret = token(slug)
        with client(broker, secret) as speaks:
            one = proposed(speaks, slug=slug)
        raws.append(Raw(broker, secret))
        raws[-1].request("GET", f"/v1/proposals/{one.id}/response?wait=50")
        raws[-1].until(b"\r\n\r\n")
    with client(broker, token("c")) as late:
        busy(late.get(f"/v1/proposals/{proposed(late, slug='c').id}/response?wait=50"))
    for raw in raws:
        raw.socket.close()


@pytest.mark.parametrize("limit", ["bottle_requests", "requests"])
def test_requests_under_way_are_bounded(serve: Serve, limit: str) -> None:
    broker = serve(limits={limit: 1, "body_seconds": 20})
    secret = token()
    with Raw(broker, secret) as slow, client(broker, secret) as demo:
        slow.send(f"POST /v1/audit HTTP/1.1\r\nHost: x\r\n{slow.authorization}Content-Length: 100\r\n\r\n")
        eventually(lambda: demo.get("/v1/bottle").status_code == 429)
        slow.send("x" * 100)
        assert b" 400 " in slow.until(b"\r\n\r\n")
        assert demo.get("/v1/bottle").status_code == 200


def test_connections_without_a_token_give_way_to_ones_that_come(serve: Serve) -> None:
    """Whoever holds connections open without a token shuts nobody out, on either listener."""
    broker = serve(limits={"connections": 10, "head_seconds": 60})
    secret = token()
    with client(broker, secret) as demo:
        assert demo.get("/v1/bottle").status_code == 200
        held = [Raw(broker) for _ in range(12)]
        for raw in held:
            raw.send("GET /v1/he")
        # Nine without a token at most: the oldest were told so.
        for raw in held[:3]:
            answer = raw.rest()
            assert answer.startswith(b"HTTP/1.1 503 ") and b"DatabaseBusyError" in answer
        assert demo.get("/v1/bottle").status_code == 200, "one with a token stays"
        with client(broker, secret) as late:
            assert late.get("/v1/bottle").status_code == 200, "and another comes in"
        with httpx.Client(transport=httpx.HTTPTransport(uds=broker.socket)) as local:
            assert local.get("http://x/v1/health").status_code == 200
        for raw in held:
            raw.socket.close()


def test_connections_are_bounded(serve: Serve) -> None:
    broker = serve(limits={"connections": 4})
    secret = token()
    held = []
    for _ in range(4):
        held.append(Raw(broker, secret))
        held[-1].request("GET", "/v1/bottle")
        held[-1].until(b'"demo"')
    with Raw(broker) as late:
        answer = late.rest()
        assert answer.startswith(b"HTTP/1.1 503 ") and b"DatabaseBusyError" in answer
    held.pop().socket.close()
    eventually(lambda: httpx.get(f"{broker.url}/v1/health").status_code == 200)
    for raw in held:
        raw.socket.close()


@pytest.mark.parametrize("head", ["X: " + "a" * 20_000, "\r\n".join(f"X-{n}: {'a' * 100}" for n in range(200))])
def test_a_head_that_is_too_long_is_refused_however_it_arrives(broker: Broker, head: str) -> None:
    whole = f"GET /v1/health HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n"
    for pieces in ([whole], [whole[:9000], whole[9000:]], [f"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n{whole}"]):
        with Raw(broker) as raw:
            for piece in pieces:
                raw.send(piece)
            assert b"HTTP/1.1 400 " in raw.rest()


def test_http_0_9_is_refused(broker: Broker) -> None:
    for line in ("GET /v1/health\r\n\r\n", "GET /v1/health HTTP/0.9\r\n\r\n"):
        with Raw(broker) as raw:
            raw.send(line)
            assert raw.rest().startswith(b"HTTP/1.1 400 ")


def test_answers_that_nobody_reads_are_bounded(serve: Serve) -> None:
    broker = serve(limits={"bottle_answer_bytes": 3 << 20, "rate": 10_000, "burst": 10_000})
    secret = token()
    with client(broker, secret) as demo:
        one = proposed(demo, "x" * MAX_PAYLOAD_BYTES)
        slow = [Raw(broker, secret) for _ in range(8)]
        for raw in slow:
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            for _ in range(10):  # the kernel takes the first few
                raw.request("GET", f"/v1/proposals/{one.id}")
        eventually(lambda: demo.get(f"/v1/proposals/{one.id}").status_code == 429)
        with client(broker, token("calm")) as calm:
            other = proposed(calm, "y" * MAX_PAYLOAD_BYTES, slug="calm")
            assert calm.get(f"/v1/proposals/{other.id}").status_code == 200
        for raw in slow:
            raw.socket.close()
        eventually(lambda: demo.get(f"/v1/proposals/{one.id}").status_code == 200)


def test_a_body_too_long_is_refused_before_it_is_read(broker: Broker) -> None:
    secret = token()
    with Raw(broker, secret) as raw:
        raw.send(f"POST /v1/proposals HTTP/1.1\r\nHost: x\r\n{raw.authorization}Content-Length: 10000000000\r\n\r\n")
        answer = raw.until(b"}}")
        assert b" 413 " in answer and b"InvalidProposalError" in answer
    with client(broker, secret) as demo:
        # A client that sends all of it before it reads still gets to read why.
        refused(demo.post("/v1/audit", content=b"x" * 4_000_000), 413, "InvalidInputError")
        assert demo.get("/v1/bottle").status_code == 200  # on the same connection


def test_a_body_of_unknown_length_is_cut_off_at_the_limit(serve: Serve) -> None:
    broker = serve(limits={"body_seconds": 1})

    def endless() -> object:
        while True:
            yield b"x" * 65536

    with client(broker, token()) as demo:
        before = memory_mib(broker.process.pid)
        with pytest.raises(httpx.TransportError):  # it goes on until it is hung up on, or reads the refusal
            refused(demo.post("/v1/proposals", content=endless()), 413, "InvalidProposalError")  # type: ignore[arg-type]
            raise httpx.TransportError("answered")
        assert memory_mib(broker.process.pid) - before < 50
    eventually(lambda: any(line["status"] == 413 for line in broker.requests()))


def test_a_client_that_asks_first_is_not_made_to_send_what_will_be_refused(broker: Broker) -> None:
    for secret, status in (("A" * 43, b"401"), (token(), b"413")):
        with Raw(broker, secret) as raw:
            headers = f"Host: x\r\n{raw.authorization}Expect: 100-continue\r\nContent-Length: 9000000\r\n"
            raw.send(f"POST /v1/proposals HTTP/1.1\r\n{headers}\r\n")
            assert raw.until(b"\r\n").split()[1] == status


QUICK = {"head_seconds": 0.4, "body_seconds": 0.4, "idle_seconds": 0.4, "stall_seconds": 0.4}


def dribble(raw: Raw, text: bytes) -> bytes:
    """Sends a byte at a time until the broker has had enough; what it says."""
    for number in range(10_000):
        try:
            raw.send(text[number % len(text) :][:1])
            raw.socket.settimeout(0.02)
            more = raw.socket.recv(1)
            raw.socket.settimeout(20)
            return more + raw.rest()
        except TimeoutError:
            continue
        except OSError:
            return b""
    pytest.fail("the broker took bytes for ever")


def test_a_slow_head_ends_the_connection(serve: Serve) -> None:
    broker = serve(limits=QUICK)
    with Raw(broker) as raw:
        answer = dribble(raw, b"GET /v1/health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 5000)
        assert answer.startswith(b"HTTP/1.1 408 ") and b"InvalidInputError" in answer
    with Raw(broker) as silent:
        assert silent.rest().startswith(b"HTTP/1.1 408 ")
    still_serves(broker)


def test_a_slow_head_after_a_good_request_ends_the_connection_too(serve: Serve) -> None:
    broker = serve(limits={**QUICK, "idle_seconds": 30})
    with Raw(broker) as raw:
        raw.send("GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/hea")
        raw.until(b'"ok"')
        assert b" 408 " in dribble(raw, b"lth HTTP/1.1\r\nX: " + b"a" * 5000)


def test_a_slow_body_ends_the_request(serve: Serve) -> None:
    broker = serve(limits=QUICK)
    with Raw(broker, token()) as raw:
        raw.send(f"POST /v1/audit HTTP/1.1\r\nHost: x\r\n{raw.authorization}Content-Length: 100000\r\n\r\n")
        answer = dribble(raw, b"x" * 5000)
        assert answer.startswith(b"HTTP/1.1 408 ") and b"InvalidInputError" in answer
    eventually(lambda: broker.requests()[-1]["status"] == 408)
    still_serves(broker)


def test_the_rest_of_a_refused_body_is_not_read_for_ever(serve: Serve) -> None:
    broker = serve(limits=QUICK)
    with Raw(broker) as raw:
        raw.send("POST /v1/audit HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        raw.until(b"}}")  # 401
        assert dribble(raw, b"x" * 5000) == b""


def test_an_idle_connection_is_closed(serve: Serve) -> None:
    broker = serve(limits={**QUICK, "head_seconds": 30})
    with Raw(broker) as raw:
        raw.send("GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert raw.until(b'"ok"') and raw.rest().count(b"HTTP") == 0
    with Raw(broker, token()) as raw:
        # After a body that was thrown away, too.
        raw.request("POST", "/v1/health", body="x" * 1000)
        assert b" 405 " in raw.until(b"}}") and raw.rest() == b""


def test_a_wait_is_not_idle(serve: Serve) -> None:
    broker = serve(limits=QUICK)
    secret = token()
    with client(broker, secret) as demo:
        one = proposed(demo)
    with Raw(broker, secret) as raw:
        raw.request("GET", f"/v1/proposals/{one.id}/response?wait=50")
        raw.until(b"\r\n\r\n")
        time.sleep(1)  # more than twice every patience
        with Inbox() as inbox:
            decide(inbox, one)
        assert b'"approved"' in raw.until(b"0\r\n\r\n")


def long_list() -> None:
    """The longest that a bottle's pending proposals make, 19 MB: JSON has six bytes for one of these."""
    with QueueStore("demo") as queue:
        for number in range(MAX_PENDING_PER_BOTTLE):
            queue.write_proposal(proposal(str(number), justification="\x01" * MAX_JUSTIFICATION_BYTES))


def test_an_answer_nobody_reads_is_given_up(serve: Serve) -> None:
    broker = serve(limits=QUICK)
    secret = token()
    long_list()
    with Raw(broker, secret) as raw:
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.request("GET", "/v1/proposals?pending=true")
        eventually(lambda: any(line.get("route") == "/v1/proposals" for line in broker.requests()))
    still_serves(broker)


def test_an_answer_read_too_slowly_is_cut_off(serve: Serve) -> None:
    broker = serve(limits={"answer_seconds": 0.5})
    secret = token()
    long_list()
    with Raw(broker, secret) as raw:
        raw.request("GET", "/v1/proposals?pending=true")
        eventually(lambda: any(line.get("outcome") == "cut off" for line in broker.requests()))
        assert not raw.rest().endswith(b"0\r\n\r\n")  # a client sees that it is not whole


# What each is, and the status it gets; None: whatever it gets, the others are served.
MALFORMED: dict[str, tuple[bytes, int | None]] = {
    "nonsense": (b"\x00\x01\x02\x03\r\n\r\n", 400),
    "TLS on a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None),
    "no host": (b"GET /v1/health HTTP/1.1\r\n\r\n", None),
    "two lengths": (b"POST /v1/audit HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    "a negative length": (b"POST /v1/audit HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    "an odd length": (b"POST /v1/audit HTTP/1.1\r\nHost: x\r\nContent-Length: 0x10\r\n\r\n", 400),
    "an unknown coding": (b"POST /v1/audit HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    "a space before a colon": (b"GET /v1/health HTTP/1.1\r\nHost : x\r\n\r\n", 400),
    "a folded header": (b"GET /v1/health HTTP/1.1\r\nHost: x\r\n X: y\r\n\r\n", None),
    "a head without end": (b"GET /v1/health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000, 400),
    "a long path": (b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", None),
    "many headers": (b"GET /v1/health HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200_000 + b"\r\n", None),
    "a control character": (b"GET /v1/\x00health HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a bad chunk": (
        b"POST /v1/audit HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        400,
    ),
    "a broken escape": (b"GET /v1/proposals/%ff%zz HTTP/1.1\r\nHost: x\r\n\r\n", 401),
    "an absolute path": (b"GET http://elsewhere/v1/health HTTP/1.1\r\nHost: x\r\n\r\n", None),
    "CONNECT": (b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "an upgrade": (
        b"GET /v1/bottle HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        401,
    ),
}


def test_what_is_no_http_is_answered_or_closed(broker: Broker) -> None:
    for name, (text, status) in MALFORMED.items():
        answer = b""
        with Raw(broker) as raw, contextlib.suppress(OSError):  # it may have hung up before the end
            raw.send(text)
            raw.socket.shutdown(socket.SHUT_WR)
            answer = raw.rest()
        if status is not None:
            assert answer.startswith(f"HTTP/1.1 {status} ".encode()), (name, answer[:200])
            head, _, body = answer.partition(b"\r\n\r\n")
            assert b"application/problem+json" in head, name
            assert json.loads(body)["status"] == status, name
        still_serves(broker)


def test_a_request_cut_at_any_byte_changes_nothing(broker: Broker) -> None:
    secret = token()
    one = proposal()
    body = json.dumps(one.to_dict())
    head = f"POST /v1/proposals HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n"
    whole = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
    for cut in (*range(1, len(whole), 17), len(whole) - 1):
        with Raw(broker) as raw:
            raw.send(whole[:cut])
    with QueueStore("demo") as queue:
        assert queue.list_items() == []
        with Raw(broker) as raw:
            raw.send(whole)
            assert b" 200 " in raw.until(b"}}")
        assert [item.proposal.id for item in queue.list_items()] == [one.id]


def test_a_client_that_left_before_the_answer_may_propose_again(broker: Broker) -> None:
    secret = token()
    one = proposal()
    for _ in range(20):
        with Raw(broker, secret) as raw:
            raw.request("POST", "/v1/proposals", body=json.dumps(one.to_dict()))
    with client(broker, secret) as demo:
        assert demo.post("/v1/proposals", json=one.to_dict()).json()["proposal"]["id"] == one.id
        (item,) = demo.get("/v1/proposals").json()["items"]
        assert (item["id"], item["requests"]) == (one.id, 1)


def test_pipelined_requests_are_answered_in_order(broker: Broker) -> None:
    secret = token()
    one = proposal()
    with Raw(broker, secret) as raw:
        raw.request("GET", "/v1/bottle")
        raw.request("POST", "/v1/proposals", body=json.dumps(one.to_dict()))
        raw.request("GET", f"/v1/proposals/{one.id}")
        raw.request("GET", f"/v1/proposals/{one.id}/response?wait=0.2")
        raw.request("GET", "/v1/health", "Connection: close")
        answer = raw.rest().decode()
    marks = ['"slug":"demo"', '{"proposal":', '"state":"pending"', '{"pending":true}', '"status":"ok"']
    assert [answer.count(mark) for mark in marks] == [1] * 5
    assert sorted(marks, key=answer.index) == marks


def test_a_body_is_not_taken_for_the_next_request(broker: Broker) -> None:
    secret = token()
    inner = f"GET /v1/bottle HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n\r\n"
    with Raw(broker, secret) as raw:
        raw.request("POST", "/v1/health", "Connection: close", body=inner)
        answer = raw.rest()
    assert answer.count(b"HTTP/1.1 ") == 1 and b" 405 " in answer
    both = f"Transfer-Encoding: chunked\r\nContent-Length: {len(inner)}\r\n"
    with Raw(broker, secret) as raw:
        raw.send(f"POST /v1/audit HTTP/1.1\r\nHost: x\r\n{raw.authorization}{both}\r\n0\r\n\r\n{inner}")
        raw.socket.shutdown(socket.SHUT_WR)
        assert raw.rest().count(b'"slug"') <= 1
    still_serves(broker)


def test_many_slow_clients_do_not_keep_the_others_waiting(serve: Serve) -> None:
    broker = serve(limits={"head_seconds": 3})
    slow = [Raw(broker) for _ in range(300)]
    for raw in slow:
        raw.send("GET /v1/he")
    still_serves(broker)
    closed = [threading.Thread(target=raw.rest) for raw in slow[:20]]
    for thread in closed:
        thread.start()
    for thread in closed:
        thread.join(20)
        assert not thread.is_alive()
    for raw in slow:
        raw.socket.close()
