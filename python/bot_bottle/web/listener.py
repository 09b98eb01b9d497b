"""How does a listener take connections, how long is it patient with them, and how does it end?

uvicorn does the HTTP. It has no timeout for request heads or for clients that stop reading; this adds both.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from bot_bottle import BotBottleError, DatabaseBusyError, InvalidInputError
from bot_bottle.launch import address
from bot_bottle.web.limits import Limits
from bot_bottle.web.problems import MEDIA_TYPE, document, encode

# Of the 8 s that a service manager commonly gives, the rest is for the process to end.
_DRAIN_SECONDS: Final = 5
_BACKLOG: Final = 1024
# Far longer than any route or token.
_HEAD_BYTES: Final = 16 * 1024


class Listener(NamedTuple):
    """A socket that listens, and with what it speaks TLS, if it does."""

    socket: socket.socket
    tls: ssl.SSLContext | None = None


def tcp(host: str, port: int, option: str) -> socket.socket:
    """A socket that listens on an IP address; port 0 is any free one.

    Raises:
        InvalidInputError: it cannot; ``option`` is named as the way out.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # IPPROTO_TCP, which socket.create_server() leaves out: without it asyncio does not turn on TCP_NODELAY, and an
    # answer of two small writes waits 40 ms for the client's delayed acknowledgement.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        reason = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            reason = "somebody listens there, perhaps another 'bot-bottle serve'"
        raise InvalidInputError(f"cannot listen on {host} port {port}: {reason}; {option} chooses another") from None
    return listening


@contextlib.contextmanager
def unix(path: Path, option: str) -> Iterator[socket.socket]:
    """A socket that listens on a path, 0600, in a directory of 0700 if that had to be made; at the end it is removed.

    A socket that a killed broker left there is replaced. Only the holder of the lock beside it does that, so of two
    brokers that start at once, one listens and the other says why it does not.

    Raises:
        InvalidInputError: another process listens there, or it cannot be made; ``option`` is named as the way out.
    """

    def refused(reason: str) -> InvalidInputError:
        return InvalidInputError(f"cannot listen on {path}: {reason}; {option} chooses another")

    with contextlib.ExitStack() as at_end:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            at_end.callback(os.close, lock)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                lock = -1
            if lock >= 0 or address.answers(str(path)):
                raise refused("another 'bot-bottle serve' answers there")
            if path.is_socket():
                path.unlink()
            listening = at_end.enter_context(socket.socket(socket.AF_UNIX))
            before = os.umask(0o177)  # with the mode from the first moment
            try:
                listening.bind(str(path))
            finally:
                os.umask(before)
            at_end.callback(path.unlink, missing_ok=True)
            listening.listen(_BACKLOG)
        except OSError as error:
            # One for a path that is too long has no strerror.
            raise refused(error.strerror or str(error)) from None
        yield listening


async def serve(app: ASGIApp, listeners: Sequence[Listener], limits: Limits, stop: asyncio.Event) -> None:
    """Serves until ``stop``, then answers what is under way and returns, after 5 s at the latest."""
    server = _Server(_Config(app, limits), listeners)
    serving = asyncio.ensure_future(server.serve())
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    server.should_exit = True
    await serving


class _Config(uvicorn.Config):
    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        super().__init__(
            app,
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # it would log every malformed request, and quote it
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=24 * 3600,  # _Connection has its own
            timeout_graceful_shutdown=_DRAIN_SECONDS,
        )
        self.limits = limits


class _Server(uvicorn.Server):
    config: _Config

    def __init__(self, config: _Config, listeners: Sequence[Listener]) -> None:
        super().__init__(config)
        self._limits = config.limits
        self._listeners = listeners

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # uvicorn's would cut the streams before the waits have been answered

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # Not uvicorn's own, which speaks TLS on all sockets or on none, and waits a minute for a handshake.
        self.servers = [await self._listen(each) for each in self._listeners]
        self.started = True

    async def _listen(self, listener: Listener) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        crowd = _Crowd(self._limits.connections)

        def connection() -> asyncio.Protocol:
            return _Connection(self.config, self.server_state, loop, crowd)

        if listener.socket.family == socket.AF_UNIX:
            return await loop.create_unix_server(connection, sock=listener.socket, backlog=_BACKLOG)
        patience = self._limits.head_seconds if listener.tls else None
        return await loop.create_server(
            connection, sock=listener.socket, backlog=_BACKLOG, ssl=listener.tls, ssl_handshake_timeout=patience
        )


class _Crowd:
    """The connections of one listener. Those that have shown no token yet never take the last tenth: the oldest of them
    gives way to one that comes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._most_strangers = max(1, most - max(1, most // 10))
        self._all: set[_Connection] = set()
        self._strangers: dict[_Connection, None] = {}  # in the order of their arrival

    def arrive(self, connection: _Connection) -> _Connection | None:
        """Counts it; returns the one that has to go, which may be itself."""
        self._all.add(connection)
        self._strangers[connection] = None
        if len(self._strangers) <= self._most_strangers and len(self._all) <= self._most:
            return None
        oldest = next(iter(self._strangers))
        del self._strangers[oldest]
        return oldest

    def know(self, connection: _Connection) -> Callable[[], None]:
        """What to call once it has shown a good token."""

        def known() -> None:
            self._strangers.pop(connection, None)

        return known

    def leave(self, connection: _Connection) -> None:
        self._all.discard(connection)
        self._strangers.pop(connection, None)


class _Connection(HttpToolsProtocol):
    """One client. At any time it is either being answered, or has a deadline for its next step."""

    def __init__(self, config: _Config, state: ServerState, loop: asyncio.AbstractEventLoop, crowd: _Crowd) -> None:
        super().__init__(config, state, {}, loop)
        self._crowd = crowd

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._limits: Limits = self.config.limits  # type: ignore[attr-defined]
        self._due: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._stage = ""
        self._answering: RequestResponseCycle | None = None
        self._in_head = True
        self._in_body = False
        self._head_bytes = self._chunk_bytes = self._fields_bytes = 0
        # uvicorn takes an answer as sent once it is in the connection's buffer.
        self.app_state = {"known": self._crowd.know(self), "drained": self.flow.drain}
        gives_way = self._crowd.arrive(self)
        if gives_way is not self:
            self._look()
        if gives_way is not None:
            gives_way._end(503, DatabaseBusyError("the broker has all the connections it takes; try again in a moment"))

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._chunk_bytes = len(data)
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > _HEAD_BYTES:
            self.send_400_response("")
        self._look()

    # What the parser finds, in order. What one of these raises it takes for a malformed request.
    def on_message_begin(self) -> None:
        super().on_message_begin()
        # Of the chunk in which it begins, a part may be of the request before.
        self._in_head, self._head_bytes = True, self._chunk_bytes
        self._fields_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)  # ": " and the line's end
        super().on_header(name, value)

    def _count(self, size: int) -> None:
        # The limit of data_received() is passed by a head that arrives whole, in one chunk.
        self._fields_bytes += size
        if self._fields_bytes > _HEAD_BYTES:
            raise ValueError("the head is too long")

    def on_headers_complete(self) -> None:
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            raise ValueError("HTTP/0.9 has no head that could carry a token")
        self._in_head, self._in_body = False, True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_body = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_due(None)
        self._set_stall(None)
        self._crowd.leave(self)
        super().connection_lost(exc)
        if self._answering is not None and not self._answering.response_complete:
            # uvicorn reports only the last request, which may be queued behind this one.
            self._answering.disconnected = True
            self._answering.message_event.set()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._set_stall(self.loop.call_later(self._limits.stall_seconds, self.transport.abort))

    def resume_writing(self) -> None:
        super().resume_writing()
        self._set_stall(None)

    def send_400_response(self, msg: str) -> None:
        self._end(400, InvalidInputError("this is no HTTP/1.1 request, or its head is too long"))

    def _look(self) -> None:
        """Sets the deadline of the stage that the connection is in; a byte now and then does not put it off."""
        if self._answering is not None and not self._answering.response_complete:
            stage = "answer"
        elif self._in_body:
            stage = "rest"  # of a request that was answered before its end, such as a body that is too long
        else:
            stage = "head" if self._in_head else "idle"
        if stage == self._stage or self.transport.is_closing():
            return
        self._stage = stage
        if stage == "head":
            late = InvalidInputError(f"the request's head did not arrive within {self._limits.head_seconds:g} s")
            self._set_due(self.loop.call_later(self._limits.head_seconds, self._end, 408, late))
        elif stage == "idle":
            self._set_due(self.loop.call_later(self._limits.idle_seconds, self.transport.close))
        elif stage == "rest":
            self._set_due(self.loop.call_later(self._limits.body_seconds, self.transport.abort))
        else:
            self._set_due(None)

    def _end(self, status: int, error: BotBottleError) -> None:
        """Says why, unless an answer is half sent, and closes."""
        if self.transport.is_closing():
            return
        answering = self._answering
        if answering is None or answering.response_complete or not answering.response_started:
            body = encode(document(error, status))
            head = f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\nconnection: close"
            self.transport.write(f"HTTP/1.1 {status} \r\n{head}\r\n\r\n".encode() + body)
        self.transport.close()
        # Closing first sends what is left, and would wait for ever for a client that does not read.
        self._set_stall(self.loop.call_later(self._limits.stall_seconds, self.transport.abort))

    def _set_due(self, timer: asyncio.TimerHandle | None) -> None:
        if self._due is not None:
            self._due.cancel()
        self._due = timer

    def _set_stall(self, timer: asyncio.TimerHandle | None) -> None:
        if self._stall is not None:
            self._stall.cancel()
        self._stall = timer
