"""How do the broker's tests run a real one, and how do they speak to it?"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from bot_bottle import BottleStore, Proposal, Response, bot_bottle_root
from cli_process import PROGRAMS, Host

# The command, but with limits of the test's.
_WITH_LIMITS = """
import json, sys
import uvloop
from bot_bottle.web.server import BrokerAt, run
from bot_bottle.web.limits import Limits
uvloop.run(run(BrokerAt("127.0.0.1", int(sys.argv[1])), limits=Limits(**json.loads(sys.argv[2]))))
"""


class Broker:
    """``bot-bottle serve`` as a process; ``log`` is what it has said on standard output so far."""

    def __init__(self, host: Host, *arguments: str, port: int = 0, limits: dict[str, Any] | None = None, **extra: str):
        if limits is None:
            listen = f"127.0.0.1:{port}"
            command = [str(PROGRAMS / "bot-bottle"), "serve", "--broker-listen", listen, *arguments]
        else:
            command = [sys.executable, "-c", _WITH_LIMITS, str(port), json.dumps(limits)]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=host.environment(**extra),
        )
        assert self.process.stdout is not None and self.process.stderr is not None
        self.log: list[dict[str, Any]] = []
        self.errors = ""
        first = self.process.stdout.readline()
        if not first:
            self.errors = self.process.stderr.read()
            pytest.fail(f"the broker did not start: {self.errors}")
        self.log.append(json.loads(first))
        self.url: str = self.log[0]["url"]
        self.socket: str = self.log[0]["socket"]
        self.port: int = urlsplit(self.url).port or 0
        self._readers = [threading.Thread(target=read) for read in (self._read_log, self._read_errors)]
        for reader in self._readers:
            reader.start()

    def _read_log(self) -> None:
        assert self.process.stdout is not None
        self.log.extend(json.loads(line) for line in self.process.stdout)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors += line

    def requests(self) -> list[dict[str, Any]]:
        """The access log without the events of the process."""
        return [line for line in self.log if line["event"] == "request"]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and returns the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(20)
        for reader in self._readers:
            reader.join()
        return code


@pytest.fixture
def serve(host: Host) -> Iterator[Callable[..., Broker]]:
    """Starts brokers in the test's root; the ones that still run at its end must end well."""
    started: list[Broker] = []

    def start(*arguments: str, **settings: Any) -> Broker:
        started.append(Broker(host, *arguments, **settings))
        return started[-1]

    yield start
    for broker in started:
        if broker.process.poll() is None:
            assert broker.end() == 0
        assert "Traceback" not in broker.errors


@pytest.fixture
def broker(serve: Callable[..., Broker]) -> Broker:
    return serve()


def token(slug: str = "demo") -> str:
    """A token of a bottle, which runs from now on if it did not."""
    bottles = BottleStore()
    bottles.register(slug, backend="docker")
    return bottles.issue_token(slug)


def client(broker: Broker, secret: str | None = None, **settings: Any) -> httpx.Client:
    """A client on TCP, with a token if one is given."""
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    return httpx.Client(base_url=broker.url, headers=headers, timeout=30, trust_env=False, **settings)


@pytest.fixture
def demo(broker: Broker) -> Iterator[httpx.Client]:
    """A client that speaks for the bottle ``demo``."""
    with client(broker, token()) as speaks:
        yield speaks


def proposal(payload: str = "FROM debian:12\n", slug: str = "demo", **fields: Any) -> Proposal:
    tool, justification = fields.pop("tool", "capability-block"), fields.pop("justification", "because")
    return Proposal.new(slug, tool, payload, justification, **fields)


def proposed(speaks: httpx.Client, payload: str = "FROM debian:12\n", **fields: Any) -> Proposal:
    """A proposal that was queued through the broker, with the times that it has there."""
    answer = speaks.post("/v1/proposals", json=proposal(payload, **fields).to_dict())
    assert answer.status_code == 200, answer.text
    return as_sent(answer.json()["proposal"])


def as_sent(fields: dict[str, Any]) -> Proposal:
    """The proposal that a client makes of the broker's JSON."""
    return Proposal(**{name: value for name, value in fields.items() if name != "payload_sha256"})


def refused(answer: httpx.Response, status: int, title: str) -> dict[str, Any]:
    """The problem document that an answer must be."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["status"], problem["title"]) == (status, status, title), problem
    assert problem["type"] == f"urn:bot-bottle:error:{title}" and problem["detail"]
    return problem


class Raw:
    """A connection on which a test says what no client would."""

    def __init__(self, broker: Broker, secret: str = ""):
        self.socket = socket.create_connection(("127.0.0.1", broker.port), timeout=20)
        self.authorization = f"Authorization: Bearer {secret}\r\n"

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, text: str | bytes) -> None:
        self.socket.sendall(text.encode() if isinstance(text, str) else text)

    def request(self, method: str, path: str, *headers: str, body: str = "") -> None:
        """Sends a request with the token, and a length if there is a body."""
        length = [f"Content-Length: {len(body.encode())}"] if body else []
        lines = "".join(f"{line}\r\n" for line in ("Host: x", *headers, *length))
        self.send(f"{method} {path} HTTP/1.1\r\n{self.authorization}{lines}\r\n{body}")

    def until(self, mark: bytes) -> bytes:
        """What comes up to and with ``mark``."""
        seen = b""
        while mark not in seen:
            more = self.socket.recv(65536)
            assert more, f"closed after {seen!r}"
            seen += more
        return seen

    def rest(self) -> bytes:
        """Everything until the broker closes the connection."""
        seen = b""
        while True:
            try:
                more = self.socket.recv(65536)
            except ConnectionResetError:
                return seen
            if not more:
                return seen
            seen += more


async def long_poll(port: int, secret: str, proposal_id: str, seconds: float = 50) -> dict[str, Any]:
    """One wait over a connection of its own, without what a client library costs; the envelope.

    Raises:
        ConnectionError: the connection broke before the envelope.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        path = f"/v1/proposals/{proposal_id}/response?wait={seconds}"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if "transfer-encoding: chunked" in head:
            body = b""
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += await reader.readexactly(size)
                await reader.readline()
        else:
            length = next(line for line in head.splitlines() if line.startswith("content-length"))
            body = await reader.readexactly(int(length.split(":")[1]))
        envelope: dict[str, Any] = json.loads(body)
        return envelope
    except asyncio.IncompleteReadError as error:
        raise ConnectionError("the broker went away") from error
    finally:
        writer.close()


async def answer(port: int, secret: str, proposal_id: str) -> dict[str, Any]:
    """The answer to a proposal, asked for as a client does: until there is one, over any number of connections."""
    while True:
        try:
            envelope = await long_poll(port, secret, proposal_id)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        if "response" in envelope:
            answered: dict[str, Any] = envelope["response"]
            return answered
        assert envelope == {"pending": True}, envelope


def decided(response: dict[str, Any]) -> Response:
    """The response that a dictionary is."""
    return Response(**{name: value for name, value in response.items() if name != "signed"})


def root_path(*parts: str) -> Path:
    """A path in the test's root."""
    return Path(bot_bottle_root(), *parts)


def memory_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
