"""Which grants are about to end? Each is told once; none is renewed by itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from bot_bottle.operator import words

if TYPE_CHECKING:
    from bot_bottle import Grant

# So long before its end, but never in the first three quarters of its life.
_SOON = 600.0


class Ending:
    """The grants that were told of."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def due(self, grants: Iterable[Grant]) -> list[Grant]:
        """Those of the ``grants`` in force that end soon, or have one use left of several, and were not told of yet."""
        live = [grant for grant in grants if grant.live]
        self._told &= {grant.id for grant in live}
        found = [grant for grant in live if grant.id not in self._told and _ends_soon(grant)]
        self._told.update(grant.id for grant in found)
        return found


def _ends_soon(grant: Grant) -> bool:
    if grant.expires_at is not None:
        lived, left = words.seconds_since(grant.created_at), -words.seconds_since(grant.expires_at)
        return left <= min(_SOON, (lived + left) / 4)
    return grant.uses_left == 1 and (grant.uses or 1) > 1
