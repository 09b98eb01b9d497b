"""Who is looking at which proposal right now? Every open page is told, so that two people do not do the same work.

This is kept in memory and decides nothing: of two decisions the first one counts, whoever was looking.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from bot_bottle.web.dashboard.events import event

# A program only says that it looked. After this time the others are no longer told.
_A_LOOK_SECONDS: Final = 60.0


class Presence:
    """Those who look, each page or program under an id of its own."""

    def __init__(self) -> None:
        self._looking: dict[str, tuple[str, str]] = {}
        self._pages: set[asyncio.Queue[bytes]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def look(self, viewer: str, name: str, proposal_id: str | None) -> None:
        """``viewer``, who is called ``name``, now looks at this proposal, or at none."""
        before = self._looking.pop(viewer, None)
        if proposal_id is not None:
            self._looking[viewer] = (name, proposal_id)
        if before != self._looking.get(viewer):
            for page in self._pages:
                page.put_nowait(self._told())

    def glance(self, viewer: str, name: str, proposal_id: str) -> None:
        """As ``look``, for somebody who will not say when it is over."""
        if viewer in self._timers:
            self._timers[viewer].cancel()
        self.look(viewer, name, proposal_id)
        loop = asyncio.get_running_loop()
        self._timers[viewer] = loop.call_later(_A_LOOK_SECONDS, self._forget, viewer, name)

    def _forget(self, viewer: str, name: str) -> None:
        del self._timers[viewer]
        self.look(viewer, name, None)

    @contextmanager
    def page(self, viewer: str, name: str) -> Iterator[asyncio.Queue[bytes]]:
        """What an open page is to be told of the others; as it closes, it looks at nothing."""
        told: asyncio.Queue[bytes] = asyncio.Queue()
        told.put_nowait(self._told())
        self._pages.add(told)
        try:
            yield told
        finally:
            self._pages.discard(told)
            self.look(viewer, name, None)

    def _told(self) -> bytes:
        looking = [
            {"viewer": viewer, "name": name, "id": proposal_id} for viewer, (name, proposal_id) in self._looking.items()
        ]
        return event("looking", None, looking)
