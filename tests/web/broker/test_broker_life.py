"""How does the broker start, stop, die and come back, and what do those who wait notice?"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bot_bottle import Inbox, Proposal, QueueStore
from broker_process import Broker, Raw, answer, client, decided, long_poll, memory_mib, proposal, proposed, token
from cli_process import Host
from store_process import arrived, decide, eventually

Serve = Callable[..., Broker]
LIBFAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


def queued(slug: str, count: int) -> list[Proposal]:
    """Pending proposals of a bottle."""
    with QueueStore(slug) as queue:
        return [queue.write_proposal(proposal(f"FROM debian:{number}\n", slug)) for number in range(count)]


def waiting() -> int:
    """How many proposals somebody waits for."""
    with Inbox() as inbox:
        return int(inbox.stats()["waiting"])


async def until_waiting(count: int) -> None:
    while await asyncio.to_thread(waiting) < count:
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_stop_answers_who_waits_and_keeps_what_is_asked(broker: Broker, number: int, code: int) -> None:
    secret = token()
    one, *_ = queued("demo", 1)

    async def wait_through_the_stop() -> dict[str, Any]:
        poll = asyncio.create_task(long_poll(broker.port, secret, one.id))
        await until_waiting(1)
        begun = time.monotonic()
        assert await asyncio.to_thread(broker.end, number) == code
        assert time.monotonic() - begun < 8
        return await poll

    assert asyncio.run(wait_through_the_stop()) == {"pending": True}
    assert [line["event"] for line in broker.log] == ["listening", "stopping", "request", "stopped"]
    assert broker.requests()[0]["outcome"] == "pending"
    assert not Path(broker.socket).exists()
    with QueueStore("demo") as queue:
        assert queue.list_pending_proposals() == [one]


def test_a_stop_waits_for_a_request_under_way(broker: Broker) -> None:
    secret = token()
    one = proposal()
    body = json.dumps(one.to_dict())
    with Raw(broker, secret) as raw, Raw(broker) as idle:
        idle.send("GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
        idle.until(b'"ok"')
        raw.send(f"POST /v1/proposals HTTP/1.1\r\nHost: x\r\n{raw.authorization}Content-Length: {len(body)}\r\n\r\n")
        raw.send(body[:10])
        eventually(lambda: any(line["event"] == "request" for line in broker.log))  # the other's
        broker.process.send_signal(signal.SIGTERM)
        assert idle.rest() == b""  # who asks nothing is not waited for
        raw.send(body[10:])
        assert b" 200 " in raw.rest()
    assert broker.process.wait(8) == 0
    with QueueStore("demo") as queue:
        (stored,) = queue.list_pending_proposals()
    assert stored == arrived(one, stored)


def test_a_stop_does_not_wait_for_a_slow_client_or_a_held_database(serve: Serve, host: Host) -> None:
    broker = serve()
    secret = token()
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(host.root / "bot-bottle.db")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    with Raw(broker, secret) as slow, Raw(broker, secret) as writes:
        slow.send(f"POST /v1/audit HTTP/1.1\r\nHost: x\r\n{slow.authorization}Content-Length: 100\r\n\r\n")
        writes.request("POST", "/v1/proposals", body=json.dumps(proposal().to_dict()))
        with client(broker, secret) as demo:
            eventually(lambda: demo.get("/v1/proposals").json() == {"items": []})  # reads go on meanwhile
        begun = time.monotonic()
        assert broker.end() == 0
        assert time.monotonic() - begun < 8
    holder.communicate(timeout=20)
    with QueueStore("demo") as queue:
        assert queue.list_items() == []  # not acknowledged, so not there


_HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


def test_two_signals_stop_at_once(serve: Serve) -> None:
    broker = serve()
    with Raw(broker, token()) as slow:
        slow.send(f"POST /v1/audit HTTP/1.1\r\nHost: x\r\n{slow.authorization}Content-Length: 100\r\n\r\n")
        slow.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            slow.socket.recv(1)
        broker.process.send_signal(signal.SIGTERM)
        eventually(lambda: any(line["event"] == "stopping" for line in broker.log))
        assert broker.end() == 1


def test_a_second_broker_is_refused_with_a_sentence(broker: Broker, host: Host) -> None:
    taken = f"127.0.0.1:{broker.port}"
    for arguments, named in (
        (("--broker-listen", taken, "--broker-socket", str(host.root / "another.sock")), "--broker-listen"),
        (("--broker-listen", "127.0.0.1:0"), "--broker-socket"),
    ):
        error = host.run("serve", *arguments, code=2).stderr
        assert error.count("\n") == 1 and named in error and "another 'bot-bottle serve'" in error
    with client(broker, token()) as demo, httpx.Client(transport=httpx.HTTPTransport(uds=broker.socket)) as local:
        assert demo.get("/v1/bottle").status_code == 200
        assert local.get("http://x/v1/health").status_code == 200


def test_of_two_that_start_at_once_one_listens(host: Host) -> None:
    host.root.mkdir(mode=0o700)
    path = host.root / "broker" / "broker.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    both = [
        subprocess.Popen(
            [Path(sys.executable).parent / "bot-bottle", "serve", "--broker-listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=host.environment(),
        )
        for _ in range(2)
    ]
    # The one that was refused ends; the other is asked to.
    eventually(lambda: any(each.poll() is not None for each in both))
    refused = next(each for each in both if each.poll() is not None)
    listens = next(each for each in both if each is not refused)
    assert refused.communicate()[1].startswith(b"bot-bottle: cannot listen on ") and refused.returncode == 2
    assert listens.stdout is not None and b"listening" in listens.stdout.readline()
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as local:
        assert local.get("http://x/v1/health").status_code == 200
    listens.terminate()
    assert listens.communicate(timeout=20)[1] == b"" and listens.returncode == 0


def test_what_a_dead_broker_left_is_replaced(serve: Serve) -> None:
    first = serve()
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    assert Path(first.socket).is_socket()
    second = serve(port=first.port)
    with httpx.Client(transport=httpx.HTTPTransport(uds=second.socket)) as local:
        assert local.get("http://x/v1/health").status_code == 200


def test_a_file_in_the_socket_s_place_is_left_alone(host: Host) -> None:
    precious = host.root.parent / "precious"
    precious.write_text("mine")
    error = host.run("serve", "--broker-listen", "127.0.0.1:0", "--broker-socket", str(precious), code=2).stderr
    assert str(precious) in error and precious.read_text() == "mine"


def test_mistakes_are_answered_with_a_sentence(host: Host) -> None:
    for listen in ("nowhere", "localhost:9101", "127.0.0.1", "127.0.0.1:99999", "[::1:9101", ":9101", "127.0.0.1:-1"):
        error = host.run("serve", "--broker-listen", listen, code=2).stderr
        assert error.count("\n") == 1, error
    long = host.root.parent / ("x" * 120)
    assert (
        "too long" in host.run("serve", "--broker-listen", "127.0.0.1:0", "--broker-socket", str(long), code=2).stderr
    )


def test_a_listener_beyond_this_machine_comes_with_a_warning(serve: Serve) -> None:
    quiet = serve()
    assert quiet.end() == 0 and quiet.errors == ""
    loud = serve("--broker-listen", "0.0.0.0:0")
    assert loud.end() == 0
    assert loud.errors.startswith("bot-bottle: warning: ") and "--tls" in loud.errors


def test_a_broker_that_cannot_use_its_database_does_not_start(host: Host) -> None:
    directory = host.root / "db"
    directory.mkdir(parents=True)
    (directory / "bot-bottle.db").write_text(
        "this is no database, but long enough to be looked at as if it were\n" * 99
    )
    error = host.run("serve", "--broker-listen", "127.0.0.1:0", code=8).stderr
    assert "not a sound SQLite database" in error and error.count("\n") == 1


@pytest.mark.timeout(240)
def test_killed_under_two_hundred_clients_every_answer_arrives_once(serve: Serve) -> None:
    broker = serve()
    bottles = {slug: (token(slug), queued(slug, 100)) for slug in ("left", "right")}
    received: list[dict[str, Any]] = []

    async def client_of(secret: str, proposal_id: str) -> None:
        received.append(await answer(broker.port, secret, proposal_id))

    async def play() -> None:
        clients = [
            asyncio.create_task(client_of(secret, one.id))
            for secret, proposals in bottles.values()
            for one in proposals
        ]
        everything = [one for _, proposals in bottles.values() for one in proposals]
        await until_waiting(200)
        with Inbox() as inbox:
            for one in everything[:50]:
                await asyncio.to_thread(decide, inbox, one, notes=one.id)
            # Some of these answers are on their way when it dies, and some are given while nobody listens.
            await asyncio.to_thread(broker.end, signal.SIGKILL)
            for one in everything[50:120]:
                await asyncio.to_thread(decide, inbox, one, notes=one.id)
            await asyncio.to_thread(serve, port=broker.port)
            for one in everything[120:]:
                await asyncio.to_thread(decide, inbox, one, notes=one.id)
        await asyncio.wait_for(asyncio.gather(*clients), 120)
        assert sorted(each["proposal_id"] for each in received) == sorted(one.id for one in everything)

    asyncio.run(play())
    assert all(each["status"] == "approved" and each["notes"] == each["proposal_id"] for each in received)
    with QueueStore("left") as left, QueueStore("right") as right:
        assert all(
            decided(each) in (left.read_response(each["proposal_id"]), right.read_response(each["proposal_id"]))
            for each in received
        )


@pytest.mark.timeout(240)
def test_a_thousand_wait_at_once_without_a_thread_or_a_query_each(serve: Serve) -> None:
    broker = serve()
    before = memory_mib(broker.process.pid)
    bottles = {f"bottle-{number}": token(f"bottle-{number}") for number in range(5)}
    asked = [(secret, one) for slug, secret in bottles.items() for one in queued(slug, 200)]

    async def play() -> None:
        polls = [asyncio.create_task(answer(broker.port, secret, one.id)) for secret, one in asked]
        await until_waiting(1000)
        assert len(os.listdir(f"/proc/{broker.process.pid}/task")) < 32
        assert memory_mib(broker.process.pid) - before < 100
        with client(broker, bottles["bottle-0"]) as other:
            assert (await asyncio.to_thread(other.get, "/v1/bottle")).status_code == 200
        with Inbox() as inbox:
            for _, one in asked[::10]:
                await asyncio.to_thread(decide, inbox, one)
        answers = await asyncio.wait_for(asyncio.gather(*polls[::10]), 60)
        assert [each["proposal_id"] for each in answers] == [one.id for _, one in asked[::10]]
        # Nobody else was woken with something that is not theirs.
        assert not any(poll.done() for number, poll in enumerate(polls) if number % 10)
        for poll in polls:
            poll.cancel()
        await asyncio.gather(*polls, return_exceptions=True)

    asyncio.run(play())
    eventually(lambda: waiting() == 0)


def test_a_log_nobody_reads_stops_nothing(host: Host, tmp_path: Path) -> None:
    """A terminal that is paused, a pipe whose reader sleeps."""
    read, write = os.pipe()
    process = subprocess.Popen(
        [Path(sys.executable).parent / "bot-bottle", "serve", "--broker-listen", "127.0.0.1:0"],
        stdout=write,
        env=host.environment(),
    )
    os.close(write)
    with open(read) as log:
        url = json.loads(log.readline())["url"]
        with httpx.Client(base_url=url) as nobody:
            for _ in range(1500):  # far more than the pipe holds
                assert nobody.get("/v1/health").status_code == 200
            process.terminate()
            assert process.wait(8) == 0


def test_a_log_whose_reader_went_away_stops_nothing(host: Host) -> None:
    process = subprocess.Popen(
        [Path(sys.executable).parent / "bot-bottle", "serve", "--broker-listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=host.environment(),
    )
    assert process.stdout is not None and process.stderr is not None
    url = json.loads(process.stdout.readline())["url"]
    process.stdout.close()
    for _ in range(3):
        assert httpx.get(f"{url}/v1/health").status_code == 200
        time.sleep(0.1)
    process.terminate()
    assert process.wait(8) == 0 and process.stderr.read() == b""


@pytest.fixture
def small_disk(host: Host) -> Iterator[Path]:
    """The directory of the database on a disk of 2 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root")
    directory = host.root / "db"
    directory.mkdir(parents=True, mode=0o700)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "none", directory], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield directory
    subprocess.run(["umount", "--lazy", directory], check=True)


def test_a_full_disk_is_said_and_nothing_half_written(small_disk: Path, serve: Serve) -> None:
    broker = serve()
    with client(broker, token()) as demo:
        kept = [proposed(demo)]
        ballast = small_disk / "ballast"
        with open(ballast, "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(b"x" * 4096)
        large = proposal("x" * 500_000)
        answer = demo.post("/v1/proposals", json=large.to_dict())
        assert (answer.status_code, answer.json()["title"]) == (500, "DatabaseUnavailableError")
        assert "no space left" in answer.json()["detail"]
        assert [item["id"] for item in demo.get("/v1/proposals").json()["items"]] == [one.id for one in kept]
        ballast.unlink()
        assert demo.post("/v1/proposals", json=large.to_dict()).status_code == 200
    eventually(lambda: any("no space left" in line.get("detail", "") for line in broker.requests()))


@pytest.mark.skipif(LIBFAKETIME is None, reason="libfaketime is not installed (apt install faketime)")
def test_a_clock_that_jumps_ends_no_wait_and_no_allowance(serve: Serve, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    broker = serve(
        LD_PRELOAD=str(LIBFAKETIME),
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )
    with client(broker, token()) as demo:
        one = proposed(demo)
        envelopes: list[Any] = []
        poll = threading.Thread(
            target=lambda: envelopes.append(demo.get(f"/v1/proposals/{one.id}/response?wait=30").json())
        )
        poll.start()
        eventually(lambda: waiting() == 1)
        for jump in ("+40d", "-40d", "+1h"):
            clock.write_text(jump)
            with client(broker, token()) as other:
                before, now = time.time(), other.get("/v1/bottle").json()["time"]
                assert now[:10] == time.strftime("%Y-%m-%d", time.gmtime(before + _seconds(jump))), "the clock did jump"
                assert other.get(f"/v1/proposals/{one.id}/response?wait=0.2").json() == {"pending": True}
            poll.join(0.3)
            assert poll.is_alive() and envelopes == []
        clock.write_text("+0")
        with Inbox() as inbox:
            decide(inbox, one)
        poll.join(20)
        assert envelopes[0]["response"]["status"] == "approved"


def _seconds(jump: str) -> float:
    return float(jump[:-1]) * {"d": 86400, "h": 3600}[jump[-1]]
