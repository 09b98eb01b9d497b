"""What does an egress test need around the real proxy: a server to reach, a client, an operator, and a look at memory.

One proxy and one server per test module, as both take a second to start. Everything listens on loopback; host names
below ``example.test`` lead to the server through ``EGRESS_CONNECT_TO``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import secrets
import signal
import socket
import string
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypercorn.asyncio
import hypercorn.config
import pytest
import trustme

SLUG = "demo"
KEPT = 8 << 20  # of a body; more than any test compares byte for byte
COMMAND = [sys.executable, "-m", "bot_bottle.sidecars.egress"]
PORTS = {"http": 80, "https": 443}
HOSTS = (
    "api.example.test",
    "auth.example.test",
    "block.example.test",
    "open.example.test",
    "paths.example.test",
    "redact.example.test",
    "sub.wild.example.test",
    "late.example.test",
)
API_TOKEN = "injected-" + "".join(secrets.choice(string.ascii_letters) for _ in range(24))
ROUTES = """\
routes:
  - host: api.example.test
  - host: auth.example.test
    auth: {scheme: Bearer, token_ref: API_TOKEN}
  - host: missing.example.test
    auth: {scheme: token, token_ref: NOT_SET}
  - host: redact.example.test
    dlp: {outbound_on_match: redact}
  - host: block.example.test
    dlp: {outbound_on_match: block}
  - host: open.example.test
    dlp: {outbound_detectors: false, inbound_detectors: false}
  - host: "*.wild.example.test"
    dlp: {outbound_on_match: redact}
  - host: paths.example.test
    matches:
      - paths: [{type: prefix, value: /public}]
        methods: [GET]
      - paths: [{type: exact, value: /upload}]
        methods: [POST]
        headers: [{name: x-kind, value: report}]
"""


def github_token() -> str:
    """A made-up token in GitHub's format; a new one every time, so that no answer about another is remembered."""
    return "ghp_" + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(36))


@dataclass
class Exchange:
    """A request as the server got it; ``complete`` once its end came, ``body`` its first 8 MiB."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    version: str
    body: bytearray = field(default_factory=bytearray)
    length: int = 0
    sha256: Any = field(default_factory=hashlib.sha256)
    complete: bool = False

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


class Server:
    """An HTTPS and a plain HTTP server (HTTP/1.1, HTTP/2, WebSocket) that keeps what it got."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        self.ca_file = directory / "upstream-ca.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        certificate = authority.issue_cert(*HOSTS, "missing.example.test")
        key, chain = directory / "upstream.key", directory / "upstream.pem"
        certificate.private_key_pem.write_to_path(str(key))
        for pem in certificate.cert_chain_pems:
            pem.write_to_path(str(chain), append=True)
        self.exchanges: list[Exchange] = []
        self.messages: list[bytes | str] = []
        self.go_on = threading.Event()
        self.slow = 0.0
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self.tls_port, self.plain_port = (each.getsockname()[1] for each in sockets)
        config = hypercorn.config.Config()
        # Detached: hypercorn closes them, and a second close would hit whatever has their numbers by then.
        config.bind, config.insecure_bind = ([f"fd://{each.detach()}"] for each in sockets)
        config.certfile, config.keyfile = str(chain), str(key)
        config.alpn_protocols = ["h2", "http/1.1"]
        config.websocket_max_message_size = 64 << 20
        config.keep_alive_timeout = 60
        self._config = config
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        serve = hypercorn.asyncio.serve(self._app, self._config, shutdown_trigger=self._stop.wait)  # type: ignore[arg-type]
        self._loop.run_until_complete(serve)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def clear(self) -> None:
        self.exchanges.clear()
        self.messages.clear()
        self.go_on.clear()
        self.slow = 0.0

    def connect_to(self) -> str:
        return ",".join(
            f"{host}:{PORTS[scheme]}=127.0.0.1:{port}"
            for host in (*HOSTS, "missing.example.test", "uncertified.wild.example.test")
            for scheme, port in (("https", self.tls_port), ("http", self.plain_port))
        )

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                event = await receive()
                await send({"type": event["type"] + ".complete"})
                if event["type"] == "lifespan.shutdown":
                    return
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._http(scope, receive, send)

    async def _http(self, scope: Any, receive: Any, send: Any) -> None:
        raw_path = scope["raw_path"].decode() + ("?" + scope["query_string"].decode() if scope["query_string"] else "")
        headers = [(name.decode(), value.decode("latin1")) for name, value in scope["headers"]]
        exchange = Exchange(scope["method"], raw_path, headers, scope["http_version"])
        self.exchanges.append(exchange)
        if scope["path"] == _EARLY:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            piece = event.get("body", b"")
            if scope["path"] == _EARLY:
                await send({"type": "http.response.body", "body": piece, "more_body": event.get("more_body", False)})
            exchange.length += len(piece)
            exchange.sha256.update(piece)
            # Exactly so many, however the bytes were cut into pieces on their way.
            exchange.body += piece[: KEPT - len(exchange.body)]
            if self.slow and piece:
                await asyncio.sleep(self.slow)
            if not event.get("more_body"):
                break
        exchange.complete = True
        if scope["path"] == _EARLY:
            return
        await _ANSWERS.get(scope["path"], _echo)(self, exchange, send)

    async def _websocket(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(name.decode(), value.decode("latin1")) for name, value in scope["headers"]]
        self.exchanges.append(Exchange("GET", scope["path"], headers, scope["http_version"], complete=True))
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                self.messages.append(f"closed {event.get('code')}")
                return
            content = event.get("text") if event.get("text") is not None else event.get("bytes")
            self.messages.append(content)
            if content == "who am I":
                content = dict(headers).get("authorization", "")
            await send({"type": "websocket.send", "text" if isinstance(content, str) else "bytes": content})


async def _respond(send: Any, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain"), *headers]})
    await send({"type": "http.response.body", "body": body})


async def _echo(server: Server, exchange: Exchange, send: Any) -> None:
    answer = {"method": exchange.method, "path": exchange.path, "length": exchange.length, "version": exchange.version}
    await _respond(send, json.dumps(answer).encode())


async def _echo_headers(server: Server, exchange: Exchange, send: Any) -> None:
    """Sends back what it was sent, the credential included, in a header and in the body."""
    authorization = exchange.header("authorization") or ""
    body = json.dumps(dict(exchange.headers)).encode()
    await _respond(send, body, (b"x-echo", authorization.encode()))


async def _drip(server: Server, exchange: Exchange, send: Any) -> None:
    """The second half only comes when the test has seen the first."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await send({"type": "http.response.body", "body": b"data: one\n\n", "more_body": True})
    await asyncio.to_thread(server.go_on.wait, 20)
    await send({"type": "http.response.body", "body": b"data: two\n\n"})


_EARLY = "/early"  # answers each piece of the request as it comes
_ANSWERS: dict[str, Callable[..., Any]] = {"/echo-headers": _echo_headers, "/drip": _drip}


class Proxy:
    """The proxy as a process of its own, as it is launched in the image."""

    def __init__(self, directory: Path, server: Server, **environment: str) -> None:
        self.directory = directory
        self.routes_file = directory / "bottle" / "routes.yaml"
        self.routes_file.parent.mkdir()
        self.write_routes(ROUTES)
        (directory / "db").mkdir()
        self.db = directory / "db" / "bot-bottle.db"
        self.log_file = directory / "egress.log"
        self.environment = {
            **os.environ,
            "SUPERVISE_BOTTLE_SLUG": SLUG,
            "SUPERVISE_DB_PATH": str(self.db),
            "EGRESS_ROUTES_FILE": str(self.routes_file),
            "EGRESS_HOST": "127.0.0.1",
            "EGRESS_PORT": "0",
            "EGRESS_CONFDIR": str(directory / "conf"),
            "EGRESS_CA_CERT_FILE": str(directory / "agent-ca.pem"),
            "EGRESS_UPSTREAM_CA_FILE": str(server.ca_file),
            "EGRESS_CONNECT_TO": server.connect_to(),
            "EGRESS_TOKEN_ALLOW_TIMEOUT_SECONDS": "60",
            "API_TOKEN": API_TOKEN,
            **environment,
        }
        self.restart()

    def restart(self) -> None:
        """Starts it, again after :meth:`stop`, on the same files."""
        self.log_file.unlink(missing_ok=True)
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(COMMAND, env=self.environment, stderr=log, stdout=log)
        self.port = int(self.wait_for_log(r"listening on port (\d+)")[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> str:
        return self.environment["EGRESS_CA_CERT_FILE"]

    def write_routes(self, text: str) -> None:
        """As an operator's decision writes it: a new file that takes the old one's place."""
        new = self.routes_file.with_suffix(".new")
        new.write_text(text)
        new.replace(self.routes_file)

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def wait_for_log(self, pattern: str, seconds: float = 20) -> re.Match[str]:
        deadline = time.monotonic() + seconds
        while not (match := re.search(pattern, self.log())):
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, f"no {pattern!r} in:\n{self.log()}"
            time.sleep(0.05)
        return match

    def resident(self) -> int:
        """Bytes of memory it holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024  # type: ignore[index]

    def curl(self, url: str, *arguments: str, data: bytes | None = None, timeout: float = 40) -> Answer:
        """Real curl through the proxy; ``data`` goes to its standard input, for ``--data-binary @-`` and the like."""
        command = ["curl", "-sS", "-i", "--proxy", self.url, "--cacert", self.ca_file, "--suppress-connect-headers"]
        done = subprocess.run([*command, *arguments, url], input=data, capture_output=True, timeout=timeout)
        return Answer.read(done)

    def curl_started(self, url: str, *arguments: str) -> subprocess.Popen[bytes]:
        """The same without waiting; :meth:`Answer.of` waits."""
        command = ["curl", "-sS", "-i", "--proxy", self.url, "--cacert", self.ca_file, "--suppress-connect-headers"]
        return subprocess.Popen([*command, *arguments, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def operator(self, program: str, *arguments: str) -> Any:
        """Runs a line of an operator's in a process of its own, with ``inbox`` and ``arguments``; its result."""
        code = (
            "import json, sys\nfrom bot_bottle import AuditStore, GrantStore, Inbox\n"
            "inbox, arguments = Inbox(sys.argv[1]), sys.argv[2:]\n"
            f"{program}\nprint(json.dumps(result))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(self.db), *arguments], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def decide(self, status: str, notes: str = "seen", grant: str = "") -> dict[str, Any]:
        """Decides a proposal once the proxy waits for it; returns it as the operator saw it."""
        found: dict[str, Any] = self.operator(
            "import time\n"
            "until = time.monotonic() + 50\n"
            "while not (items := [each for each in inbox.pending() if each.waiting]):\n"
            "    assert time.monotonic() < until, 'nobody waits for anything'\n"
            "    time.sleep(0.02)  # that a wait begins is no change that can be watched for\n"
            "item = items[0]\n"
            "seen = inbox.read(item.proposal.id)\n"
            "inbox.decide(item.proposal.id, arguments[0], payload_sha256=item.proposal.payload_sha256,\n"
            "             notes=arguments[1], decided_by='op', surface='cli', grant=arguments[2] or None)\n"
            "result = item.to_dict() | seen.proposal.to_dict()",
            status,
            notes,
            grant,
        )
        return found

    def pending(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.operator("result = [item.to_dict() for item in inbox.pending()]")
        return found

    def wait_until_pending(self, count: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.operator(
            "since = 0\n"
            "while len(items := inbox.pending()) != int(arguments[0]):\n"
            "    since = next(iter(inbox.watch(since, timeout=50))).seq\n"
            "result = [inbox.read(item.proposal.id).to_dict() for item in items]",
            str(count),
        )
        return found

    def audit(self, component: str = "egress") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.operator(
            "result = [entry.to_dict() for entry in AuditStore(sys.argv[1]).read_audit_entries(arguments[0])]",
            component,
        )
        return found

    def wait_for_audit(self, action: str, words: str) -> dict[str, Any]:
        """The newest entry of that action whose notes hold these words, once there is one."""
        deadline = time.monotonic() + 20
        while True:
            for entry in reversed(self.audit()):
                if entry["operator_action"] == action and words in entry["operator_notes"]:
                    return entry
            assert time.monotonic() < deadline, self.audit()
            time.sleep(0.1)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(10)
        finally:
            self.process.kill()

    def assert_nowhere(self, *hidden: str | bytes) -> None:
        """No file that the proxy or the store wrote holds any of this."""
        for path in self.directory.rglob("*"):
            if path.is_file() and path != self.routes_file:
                content = path.read_bytes()
                for each in hidden:
                    needle = each.encode() if isinstance(each, str) else each
                    assert needle not in content, f"{path} holds it"


@dataclass
class Answer:
    """What curl got: ``status`` 0 without a response."""

    status: int
    head: str
    body: bytes
    error: str
    code: int

    @classmethod
    def read(cls, done: subprocess.CompletedProcess[bytes]) -> Answer:
        rest, status, head = done.stdout, 0, ""
        while match := re.match(rb"HTTP/[\d.]+ (\d+)(.*?)\r\n\r\n", rest, re.DOTALL):
            status, head, rest = int(match[1]), match[0].decode("latin1"), rest[match.end() :]
        return cls(status, head, rest, done.stderr.decode(errors="replace"), done.returncode)

    @classmethod
    def of(cls, process: subprocess.Popen[bytes], timeout: float = 40) -> Answer:
        stdout, stderr = process.communicate(timeout=timeout)
        return cls.read(subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr))

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("upstream"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Iterator[Proxy]:
    found = Proxy(tmp_path_factory.mktemp("egress"), server)
    yield found
    assert found.stop() == 0, found.log()
    assert "internal error" not in found.log(), found.log()


@pytest.fixture(autouse=True)
def fresh(server: Server) -> None:
    server.clear()
