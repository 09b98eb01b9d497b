"""How much may one connection leave lying in the proxy: bytes while it lives, sockets once it has ended?

mitmproxy reads a client as fast as it sends. What cannot go on at once (an HTTP/2 server that gives no window, a
request that is held, a head without an end) piles up in its layers. So before each further read from one side, the
read waits while too much of that side's data lies here.

And mitmproxy 12 forgets to close a socket whose reader is cancelled twice, as when a WebSocket is refused: the peer
would then wait for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from mitmproxy.connection import Client, Connection
from mitmproxy.proxy.layer import Layer
from mitmproxy.proxy.layers.http._events import RequestData
from mitmproxy.proxy.layers.http._http1 import Http1Client, Http1Server
from mitmproxy.proxy.layers.http._http2 import Http2Client, Http2Server
from mitmproxy.proxy.server import ConnectionHandler
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

MAX_BACKLOG: Final = 2 << 20  # bytes, each way
_LOOK_AGAIN: Final = 0.25  # seconds; for changes that no read brings, such as the end of a hold


class Backlog:
    """The addon that limits it."""

    def __init__(self, connections: dict[Any, Any]) -> None:
        """``connections`` is the proxy server's own table: client id → handler."""
        self._connections = connections

    def client_connected(self, client: Client) -> None:
        handler: ConnectionHandler = self._connections[client.id]
        drained: Callable[[], Awaitable[None]] = handler.drain_writers
        moved = asyncio.Event()

        async def drain_writers() -> None:
            await drained()
            moved.set()
            while _is_full(handler, reading_client=_reads_client(handler)):
                moved.clear()
                try:
                    await asyncio.wait_for(moved.wait(), _LOOK_AGAIN)
                except asyncio.TimeoutError:
                    continue

        handler.drain_writers = drain_writers  # type: ignore[method-assign]

    def client_disconnected(self, client: Client) -> None:
        self._close(client, client)

    def server_disconnected(self, data: ServerConnectionHookData) -> None:
        self._close(data.client, data.server)

    def _close(self, client: Client, connection: Connection) -> None:
        handler: ConnectionHandler | None = self._connections.get(client.id)
        transport = handler.transports.get(connection) if handler else None
        if transport is not None and transport.writer is not None:  # it is gone where mitmproxy closed it
            transport.writer.close()


def _reads_client(handler: ConnectionHandler) -> bool:
    transport = handler.transports.get(handler.client)
    return transport is not None and transport.handler is asyncio.current_task()


def _is_full(handler: ConnectionHandler, *, reading_client: bool) -> bool:
    outbound = inbound = 0
    for each in _all(handler.layer.context.layers):
        for queued in each._paused_event_queue:
            size = len(getattr(queued, "data", b""))
            if isinstance(queued, RequestData) or getattr(queued, "connection", None) is handler.client:
                outbound += size
            else:
                inbound += size
        if isinstance(each, Http1Server):
            outbound += len(each.buf)
        elif isinstance(each, Http1Client):
            inbound += len(each.buf)
        elif isinstance(each, Http2Client):
            outbound += _unsent(each)
        elif isinstance(each, Http2Server):
            inbound += _unsent(each)
    if reading_client:
        return outbound > MAX_BACKLOG
    # With both full, the server is read nevertheless: its next bytes may be the window that lets the other way move.
    return inbound > MAX_BACKLOG >= outbound


def _unsent(connection: Http2Client | Http2Server) -> int:
    return sum(len(piece.data) for buffer in connection.h2_conn.stream_buffers.values() for piece in buffer)


def _all(top: list[Layer]) -> Iterator[Layer]:
    """Every protocol layer of a connection, those at its top and all below."""
    waiting, seen = list(top), set()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        for name in ("layer", "child_layer"):
            if isinstance(below := getattr(each, name, None), Layer):
                waiting.append(below)
        for name in ("connections", "streams"):
            waiting.extend(below for below in getattr(each, name, {}).values() if isinstance(below, Layer))
