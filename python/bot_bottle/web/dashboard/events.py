"""How does an open page hear of what changes? By a stream of server-sent events (WHATWG HTML, 9.2) in a response.

Each event's id is the number of the last change it tells of, so that a page which was cut off goes on without a gap: it
says that number as ``Last-Event-ID``. The page reads the stream with ``fetch()``, as an ``EventSource`` cannot send the
page key.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bot_bottle import Change, Inbox
from bot_bottle.web.dashboard.routing import Run
from bot_bottle.web.problems import encode

# After so long without a change a line says that the stream lives; proxies and browsers give up on a silent one.
_SIGN_OF_LIFE_SECONDS: Final = 10.0
_MOST_CHANGES: Final = 500


class Events(Response):
    """The answer that goes on until the page, the login or the server ends.

    Args:
        run: runs a call to the store in a thread.
        tell: the event, or the events, of some changes.
        since: the change after which to begin.
        ends: when the login does, in seconds since 1970.
        stopped: set when the server ends.
        asides: what is told beside the changes, such as who looks at what.
    """

    def __init__(
        self,
        inbox: Inbox,
        run: Run,
        tell: Callable[[list[Change]], bytes],
        since: int,
        ends: float,
        stopped: asyncio.Event,
        headers: dict[str, str],
        asides: asyncio.Queue[bytes] | None = None,
    ) -> None:
        super().__init__(b"", 200, headers, "text/event-stream")
        del self.headers["content-length"]
        self._inbox, self._run, self._tell = inbox, run, tell
        self._at, self._ends, self._stopped = since, ends, stopped
        self._asides: asyncio.Queue[bytes] = asyncio.Queue() if asides is None else asides

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        gone = asyncio.ensure_future(until_gone(receive))
        stopped = asyncio.ensure_future(self._stopped.wait())
        try:
            await self._say(send, scope, b": connected\n\n")
            while not (gone.done() or stopped.done()) and time.time() < self._ends:
                news = await self._news()
                await self._say(send, scope, news or await self._silence(gone, stopped))
        finally:
            gone.cancel()
            stopped.cancel()
        if not gone.done():
            await send({"type": "http.response.body", "body": b""})

    async def _say(self, send: Send, scope: Scope, text: bytes) -> None:
        if text:
            await send({"type": "http.response.body", "body": text, "more_body": True})
            # A page that reads slowly gets fewer, longer events instead of a buffer that grows.
            await scope["state"]["drained"]()

    async def _news(self) -> bytes:
        """What is to be told since the last event; empty if there is nothing."""
        told = b""
        while not self._asides.empty():
            told += self._asides.get_nowait()
        changes = await self._run(self._inbox.changes, self._at, limit=_MOST_CHANGES)
        if changes:
            self._at = changes[-1].seq
            told += await self._run(self._tell, changes)
        elif not told and (last := await self._run(self._inbox.last_change)) < self._at:
            self._at = last  # the file was set back to an earlier state
            told = b"id: %d\nevent: reload\ndata: {}\n\n" % last
        return bytes(told)

    async def _silence(self, *ends: asyncio.Future[Any]) -> bytes:
        """Waits for something to tell, an end, or the time for a sign of life, which it returns."""
        aside = asyncio.ensure_future(self._asides.get())
        try:
            if await until_change(self._inbox, self._run, self._at, _SIGN_OF_LIFE_SECONDS, aside, *ends):
                return aside.result() if aside.done() else b""
        finally:
            aside.cancel()
        return b": alive\n\n"


async def until_change(inbox: Inbox, run: Run, since: int, seconds: float, *ends: asyncio.Future[Any]) -> bool:
    """Waits so long for a change after ``since``, or for one of ``ends``; was there any?"""
    loop = asyncio.get_running_loop()
    rung = loop.create_future()

    def ring() -> None:
        if not rung.done():
            rung.set_result(None)

    def changed(_: BaseException | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            loop.call_soon_threadsafe(ring)

    wait = await run(inbox.begin_watch, since, changed)
    try:
        done, _ = await asyncio.wait([rung, *ends], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        wait.cancel()
    return bool(done)


async def until_gone(receive: Receive) -> None:
    """Returns when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


def event(name: str, at: int | None, value: Any) -> bytes:
    """One event; ``at`` is what a client says as ``Last-Event-ID`` to go on after it."""
    number = b"" if at is None else b"id: %d\n" % at
    return number + b"event: %s\ndata: %s\n\n" % (name.encode(), encode(value))
