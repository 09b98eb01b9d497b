"""Which proposals should somebody be told of now? Each at once, then after 1, 5 and 15 minutes, then every hour."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import islice

from bot_bottle.operator import hours, words
from bot_bottle.operator.hours import Hours
from bot_bottle.operator.live import Row

# A second, so that a burst is one message.
_STEPS = (1.0, 60.0, 300.0, 900.0)
_HOURLY = 3600.0
_AHEAD = 10.0
_MOST_LOOKED_AT = 100


class Ladder:
    """What waits, and how often each was told of."""

    def __init__(self, quiet: Hours | None = None, age: Callable[[str], float] = words.seconds_since) -> None:
        self._quiet = quiet
        self._age = age
        self._rows: dict[str, Row] = {}
        self._told: dict[str, int] = {}  # id → steps behind it

    def merge(self, rows: Iterable[Row]) -> None:
        """Takes in what came or changed; what is over is forgotten."""
        for row in rows:
            if row.pending:
                before = self._rows.get(row.id)
                if row.last_word == "requester" and (before is None or before.last_word != "requester"):
                    self._told.pop(row.id, None)  # an answer is news
                self._rows[row.id] = row
            else:
                self._rows.pop(row.id, None)
                self._told.pop(row.id, None)

    def looked_at(self) -> list[str]:
        """Whose requesters are looked for again, as somebody is about to be told: one that left may be back."""
        soon = (row.id for row in self._rows.values() if self._age(row.arrived) + _AHEAD >= self._next(row))
        return list(islice(soon, _MOST_LOOKED_AT))

    def due(self, now: datetime) -> tuple[list[Row], list[Row]]:
        """New ones and ones to remind of, oldest first. In quiet hours none is due, and after them all at once are.

        A proposal is left out while its requester is gone, and while a question about it is not answered.
        """
        if self.quiet_at(now):
            return [], []
        new: list[Row] = []
        again: list[Row] = []
        for row in sorted(self._rows.values()):
            age = self._age(row.arrived)
            gone = not row.waiting and row.waiting_until is not None
            if not row.pending or gone or row.last_word == "operator" or age < self._next(row):
                continue
            (again if row.id in self._told else new).append(row)
            self._told[row.id] = _steps(age)
        return new, again

    def quiet_at(self, now: datetime) -> bool:
        """Is it an hour at which nobody is told?"""
        return self._quiet is not None and hours.within(self._quiet, now)

    def _next(self, row: Row) -> float:
        told = self._told.get(row.id, 0)
        return _STEPS[told] if told < len(_STEPS) else _HOURLY * (told - len(_STEPS) + 1)


def _steps(age: float) -> int:
    """How many steps lie behind something of that age."""
    return sum(age >= step for step in _STEPS) + int(age // _HOURLY)
