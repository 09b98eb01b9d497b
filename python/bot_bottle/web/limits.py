"""How much may one bottle ask for at once, so that it does not slow down the others?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

from bot_bottle import MAX_JUSTIFICATION_BYTES, MAX_PAYLOAD_BYTES, DatabaseBusyError
from bot_bottle.web.problems import Refusal

# Reading is what costs, so a long body counts as this many short requests.
_BYTES_PER_TOKEN: Final = 64 * 1024


class Limits(NamedTuple):
    """The limits; tests narrow them. Times are in seconds."""

    # A payload in which every character is an escape of two (a quote, a newline), and room for the rest.
    body_bytes: int = 2 * MAX_PAYLOAD_BYTES + 4 * MAX_JUSTIFICATION_BYTES
    body_seconds: float = 15.0
    rate: float = 200.0
    """Requests per second that one bottle may make continuously."""
    burst: float = 400.0
    """Requests that it may make at once after a pause."""
    bottle_requests: int = 32
    requests: int = 64
    """Requests in progress, not counting waits: they are in memory while somebody holds the database."""
    bottle_waits: int = 256
    waits: int = 2048
    wait_seconds: float = 50.0
    """Shorter than the minute after which proxies and clients commonly give up on a silent peer."""
    sign_of_life_seconds: float = 10.0
    answer_seconds: float = 60.0
    """For sending one answer to its end, such as a list of long proposals."""
    bottle_answer_bytes: int = 16 << 20
    """Of one bottle's answers in progress: they are in memory until the clients have read them."""
    answer_bytes: int = 48 << 20
    """Of all bottles' answers in progress."""
    connections: int = 2560
    """On each listener. The last tenth is for connections that have shown a token."""
    head_seconds: float = 10.0
    """From a connection, or the first byte of a further request, to the end of the request's head."""
    idle_seconds: float = 75.0
    """Between two requests on a connection."""
    stall_seconds: float = 30.0
    """How long a client may leave an answer unread."""


@dataclass
class _Use:
    """The requests of one bottle that are in progress, and what is left of its allowance."""

    tokens: float
    counted_at: float
    requests: int = 0
    waits: int = 0
    answer_bytes: int = 0


class Admission:
    """Lets requests in, bottle by bottle (a token bucket each), up to the limits.

    Every refusal is a :class:`DatabaseBusyError` with status 429: nothing was done, and trying again later is right.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._uses: dict[str, _Use] = {}
        self._requests = 0
        self._waits = 0
        self._answer_bytes = 0

    def charge(self, slug: str, *, body: int = 0) -> None:
        """Takes a request, or with ``body`` so many bytes of one, off the bottle's allowance.

        Raises:
            Refusal: it has none left.
        """
        use = self._use(slug)
        # Monotonic, so that setting the clock changes no allowance.
        now = time.monotonic()
        use.tokens = min(self._limits.burst, use.tokens + (now - use.counted_at) * self._limits.rate)
        use.counted_at = now
        if use.tokens < 1:
            raise _too_many(f"bottle {slug} has made more than {self._limits.rate:g} requests a second")
        use.tokens -= body / _BYTES_PER_TOKEN if body else 1

    @contextmanager
    def request(self, slug: str) -> Iterator[None]:
        """Counts a request as in progress.

        Raises:
            Refusal: too many are.
        """
        use = self._use(slug)
        if use.requests >= self._limits.bottle_requests or self._requests >= self._limits.requests:
            raise _too_many(f"too many requests are under way for bottle {slug} to begin another")
        use.requests += 1
        self._requests += 1
        try:
            yield
        finally:
            use.requests -= 1
            self._requests -= 1

    @contextmanager
    def wait(self, slug: str) -> Iterator[None]:
        """Counts a wait as in progress.

        Raises:
            Refusal: too many are.
        """
        use = self._use(slug)
        if use.waits >= self._limits.bottle_waits or self._waits >= self._limits.waits:
            raise _too_many(f"bottle {slug} has {use.waits} waits open, and there is no room for another")
        use.waits += 1
        self._waits += 1
        try:
            yield
        finally:
            use.waits -= 1
            self._waits -= 1

    @contextmanager
    def answer(self, slug: str, size: int) -> Iterator[None]:
        """Counts an answer of so many bytes as in progress, and takes it off the bottle's allowance like a body.

        A bottle's first answer is always sent, however long.

        Raises:
            Refusal: too much is.
        """
        use = self._use(slug)
        if use.answer_bytes and (
            use.answer_bytes + size > self._limits.bottle_answer_bytes
            or self._answer_bytes + size > self._limits.answer_bytes
        ):
            raise _too_many(
                f"bottle {slug} has {use.answer_bytes} bytes of answers unread, and there is no room for more"
            )
        use.tokens -= size // _BYTES_PER_TOKEN  # a short answer is part of its request
        use.answer_bytes += size
        self._answer_bytes += size
        try:
            yield
        finally:
            use.answer_bytes -= size
            self._answer_bytes -= size

    def _use(self, slug: str) -> _Use:
        # Kept for ever: there are only as many of them as bottles that the operator has started.
        use = self._uses.get(slug)
        if use is None:
            use = self._uses[slug] = _Use(self._limits.burst, time.monotonic())
        return use


def _too_many(what: str) -> Refusal:
    return Refusal(429, DatabaseBusyError(f"{what}; nothing was done, try again in a moment"))
