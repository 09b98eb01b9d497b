"""Which hours of the day does ``22:00-07:00`` mean? Local time; the end is not in it, and midnight may be."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

Hours = tuple[int, int]
"""From and until, in minutes after midnight."""


def parse(text: str) -> Hours:
    """Reads it.

    Raises:
        ValueError: it has another form.
    """
    start, end = (_minutes(part) for part in text.split("-"))
    return start, end


def _minutes(text: str) -> int:
    hours, minutes = text.strip().split(":")
    if not (hours.isdecimal() and minutes.isdecimal() and int(hours) < 24 and int(minutes) < 60):
        raise ValueError(text)
    return int(hours) * 60 + int(minutes)


def within(hours: Hours, now: datetime) -> bool:
    """Is ``now``, by the clock on the wall, one of them?"""
    start, end = hours
    minute = now.hour * 60 + now.minute
    return start <= minute < end if start <= end else minute >= start or minute < end
