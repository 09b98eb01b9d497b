"""How does a client wait for an answer over HTTP, so that neither of the two ends nor a proxy gives up on it?

A known answer is sent like that of any request. Otherwise the status is sent, then a space every few seconds (JSON
ignores it), then one envelope: ``{"response": …}``, ``{"question": …}``, ``{"problem": …}`` or ``{"pending": true}``,
after which the client asks again. A client that disconnects ends only its own wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response as HttpResponse
from starlette.types import Receive, Scope, Send

from bot_bottle import BotBottleError, Message, Response, Wait, WaitTimeoutError
from bot_bottle.web.problems import document, encode

# Bottle, proposal, and after which message a question ends the wait too (``None``: none does).
Key = tuple[str, str, str | None]
Settle = Callable[[Any], None]

_PENDING: Final = "pending"
_GONE: Final = "gone"
_HEADERS: Final = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
# For so long a wait goes on without a poll that came to its end: its client is about to ask again. A thousand clients
# that do so in turns would otherwise begin and end twenty waits a second, each with a lease to write.
_LINGER_SECONDS: Final = 2.0
# A poll that is shorter ends on time, a longer one up to a second early, with others.
_SHORT_SECONDS: Final = 10.0


class _Wait:
    """One wait of the core, and the polls that listen to it."""

    def __init__(self, begun: asyncio.Future[Wait]) -> None:
        self.begun = begun
        self.polls: set[Settle] = set()
        self.lingers: asyncio.TimerHandle | None = None


class Waits:
    """The waits under way, one for each key, however many poll for it.

    Args:
        begin: starts a wait without an end, as ``QueueStore.begin_wait``, off the event loop.
    """

    def __init__(self, begin: Callable[[Key, Settle], Awaitable[Wait]]) -> None:
        self._begin = begin
        self._waits: dict[Key, _Wait] = {}
        self._stopped = False

    def stop(self) -> None:
        """Answers all polls, and those that still arrive, with "pending"."""
        self._stopped = True
        for wait in self._waits.values():
            for settle in list(wait.polls):
                settle(_PENDING)

    async def join(self, key: Key, settle: Settle) -> None:
        """Has ``settle`` called with the outcome; before this returns if it is known.

        Raises:
            BotBottleError: the wait could not begin.
        """
        wait = self._waits.get(key)
        if wait is None:
            wait = self._waits[key] = _Wait(asyncio.ensure_future(self._start(key)))
        if wait.lingers is not None:
            wait.lingers.cancel()
        wait.polls.add(settle)
        try:
            await wait.begun
        except BaseException:
            self._waits.pop(key, None)
            raise
        if self._stopped:
            settle(_PENDING)

    def leave(self, key: Key, settle: Settle, *, comes_back: bool) -> None:
        """Takes a poll out, and ends the wait with the last one, or a little later if that ``comes_back``."""
        wait = self._waits.get(key)
        if wait is None or settle not in wait.polls:
            return  # it has its outcome
        wait.polls.remove(settle)
        if wait.polls:
            return
        if comes_back:
            wait.lingers = asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._end, key)
        else:
            self._end(key)

    def _end(self, key: Key) -> None:
        self._waits.pop(key).begun.result().cancel()

    async def _start(self, key: Key) -> Wait:
        loop = asyncio.get_running_loop()

        def ended(value: Any) -> None:
            for settle in self._waits.pop(key).polls:
                settle(value)

        def deliver(value: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody is waiting
                loop.call_soon_threadsafe(ended, value)

        return await self._begin(key, deliver)


class Pulse:
    """Signs of life, and the ends of long polls: once a second for all of them, in one go.

    A thousand timers would wake the process two hundred times a second, each time for one poll and with cold caches.
    """

    def __init__(self, sign_of_life: float) -> None:
        self._every = min(1.0, sign_of_life)
        self._sign_of_life = sign_of_life
        self._polls: dict[Settle, _Beat] = {}
        self._beating: asyncio.Task[None] | None = None

    def add(self, settle: Settle, send: Send, seconds: float) -> None:
        """Sends the poll its signs, and settles it with "pending" before ``seconds`` are over."""
        now = asyncio.get_running_loop().time()
        self._polls[settle] = _Beat(send, now + self._sign_of_life, now + seconds - self._every)
        if self._beating is None:
            self._beating = asyncio.ensure_future(self._beat())

    def discard(self, settle: Settle) -> None:
        self._polls.pop(settle, None)

    async def _beat(self) -> None:
        while self._polls:
            await asyncio.sleep(self._every)
            now = asyncio.get_running_loop().time()
            for settle, poll in list(self._polls.items()):
                if now >= poll.ends:
                    settle(_PENDING)
                elif now >= poll.sign and settle in self._polls:
                    poll.sign = now + self._sign_of_life
                    with contextlib.suppress(RuntimeError):  # answered in the meantime
                        # Never blocks: these few bytes are all that a poll has sent.
                        await poll.send({"type": "http.response.body", "body": b" ", "more_body": True})
        self._beating = None


@dataclass
class _Beat:
    """A poll's next sign of life, and its end, in the loop's time."""

    send: Send
    sign: float
    ends: float


class LongPoll(HttpResponse):
    """The answer to one request that waits for ``seconds``."""

    def __init__(self, waits: Waits, pulse: Pulse, key: Key, seconds: float) -> None:
        self._waits = waits
        self._pulse = pulse
        self._key = key
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Any] = loop.create_future()

        def settle(value: Any) -> None:
            if not outcome.done():
                outcome.set_result(value)

        await self._waits.join(self._key, settle)
        known = outcome.done()
        if not known:
            await self._outlast(outcome, settle, receive, send)
        content = envelope(outcome.result(), scope["state"], known)
        if known:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        if content is not None:
            await send({"type": "http.response.body", "body": encode(content)})

    async def _outlast(self, outcome: asyncio.Future[Any], settle: Settle, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        end = loop.call_later(self._seconds, settle, _PENDING) if self._seconds < _SHORT_SECONDS else None
        gone = loop.create_task(_until_gone(receive, settle))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            self._pulse.add(settle, send, self._seconds if end is None else math.inf)
            await outcome
        finally:
            if end is not None:
                end.cancel()
            gone.cancel()
            self._pulse.discard(settle)
            self._waits.leave(self._key, settle, comes_back=outcome.done() and outcome.result() == _PENDING)


async def _until_gone(receive: Receive, settle: Settle) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    settle(_GONE)


def envelope(value: Any, state: dict[str, Any], known: bool) -> dict[str, Any] | None:
    """What to send for an outcome, ``None`` if nobody is there; ``state`` is told for the log.

    Raises:
        BotBottleError: the outcome, where it was known before a status was sent, which can say it then.
    """
    if isinstance(value, str) and value == _GONE:
        state["outcome"] = _GONE
        return None
    if isinstance(value, Response):
        state["outcome"] = "response"
        return {"response": value.to_dict()}
    if isinstance(value, Message):
        state["outcome"] = "question"
        return {"question": value.to_dict()}
    if isinstance(value, (str, WaitTimeoutError)):
        state["outcome"] = _PENDING
        return {"pending": True}
    if known:
        raise value
    error = value if isinstance(value, BotBottleError) else BotBottleError("the wait failed; ask again")
    state["outcome"], state["error"] = "problem", type(error).__name__
    return {"problem": document(error)}
