"""How does a client wait for an answer over HTTP, so that neither of the two ends nor a proxy gives up on it?

The wait is the core's own, without a thread. What is known at once is answered like any request. Otherwise the status
is sent, then a space every few seconds (JSON ignores it), then one envelope: ``{"response": …}``, ``{"problem": …}``
or ``{"pending": true}``, after which the client asks again. A client that goes away ends its wait, nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.responses import Response as HttpResponse
from starlette.types import Receive, Scope, Send

from bot_bottle import BotBottleError, Response, Wait, WaitTimeoutError
from bot_bottle.web.problems import document, encode

_STOPPING: Final = "stopping"
_GONE: Final = "gone"
_HEADERS: Final = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]


class Polls:
    """The waits under way, so that all of them can be answered when the broker stops."""

    def __init__(self) -> None:
        self._settlers: set[Callable[[Any], None]] = set()
        self._stopped = False

    def stop(self) -> None:
        """Answers them, and every later one, with "pending"."""
        self._stopped = True
        for settle in list(self._settlers):
            settle(_STOPPING)

    def add(self, settle: Callable[[Any], None]) -> None:
        """Adds one by what ends it, at once if the broker is stopping."""
        self._settlers.add(settle)
        if self._stopped:
            settle(_STOPPING)

    def discard(self, settle: Callable[[Any], None]) -> None:
        self._settlers.discard(settle)


class LongPoll(HttpResponse):
    """The answer to one wait.

    Args:
        begin: starts the wait with a callback, as ``QueueStore.begin_wait``, off the event loop.
        sign_of_life: seconds between two spaces.
    """

    def __init__(
        self, begin: Callable[[Callable[[Any], object]], Awaitable[Wait]], polls: Polls, sign_of_life: float
    ) -> None:
        self._begin = begin
        self._polls = polls
        self._sign_of_life = sign_of_life

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Any] = loop.create_future()

        def settle(value: Any) -> None:
            if not outcome.done():
                outcome.set_result(value)

        def deliver(value: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                loop.call_soon_threadsafe(settle, value)

        wait = await self._begin(deliver)
        self._polls.add(settle)
        gone = loop.create_task(_until_gone(receive, settle))
        try:
            streams = not outcome.done()
            if streams:
                await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            while not outcome.done():
                await asyncio.wait([outcome], timeout=self._sign_of_life)
                if not outcome.done():
                    await send({"type": "http.response.body", "body": b" ", "more_body": True})
            content = _envelope(outcome.result(), scope["state"], streams)
            if content is None:
                return
            if not streams:
                await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await send({"type": "http.response.body", "body": encode(content)})
        finally:
            wait.cancel()
            gone.cancel()
            self._polls.discard(settle)


async def _until_gone(receive: Receive, settle: Callable[[Any], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    settle(_GONE)


def _envelope(value: Any, state: dict[str, Any], streams: bool) -> dict[str, Any] | None:
    """What to send for an outcome, ``None`` if nobody is there; ``state`` is told for the log.

    Raises:
        BotBottleError: the outcome, where the status has not been sent yet and can say it.
    """
    if value == _GONE:
        state["outcome"] = "gone"
        return None
    if isinstance(value, Response):
        state["outcome"] = "response"
        return {"response": value.to_dict()}
    if value == _STOPPING or isinstance(value, WaitTimeoutError):
        state["outcome"] = "pending"
        return {"pending": True}
    if not streams:
        raise value
    error = value if isinstance(value, BotBottleError) else BotBottleError("the wait failed; ask again")
    state["outcome"], state["error"] = "problem", type(error).__name__
    return {"problem": document(error)}
