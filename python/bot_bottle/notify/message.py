"""What does a message say? Who asks for what, and how to see it: no payload, one cleaned line of the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from bot_bottle import visible
from bot_bottle.operator import words
from bot_bottle.operator.live import Row

if TYPE_CHECKING:
    from bot_bottle import Grant

# Of a burst so many are listed; all are counted.
_MOST_LISTED = 20


class Message(NamedTuple):
    """A message, for whatever channel. All of its text is fit to be shown anywhere."""

    event: str
    """``waiting`` (new), ``answered``, ``reminder``, ``grant-ending`` or ``test``."""
    title: str
    body: str
    command: str
    """What shows it."""
    waiting: int
    """How many it is about."""
    proposals: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """As channels that take JSON get it."""
        return {"version": 1, **self._asdict(), "proposals": list(self.proposals)}

    def environment(self) -> dict[str, str]:
        """As a program gets it in its environment, beside the JSON on its input."""
        fields = {"event": self.event, "title": self.title, "body": self.body, "command": self.command}
        ids = " ".join(each["id"] for each in self.proposals)
        return {
            f"BOT_BOTTLE_{name.upper()}": value
            for name, value in (*fields.items(), ("waiting", str(self.waiting)), ("ids", ids))
        }


def about(rows: Sequence[Row], *, reminder: bool) -> Message:
    """The message on what waits: one proposal, or a burst in one message."""
    proposals = tuple(_fields(row) for row in rows[:_MOST_LISTED])
    still = "still " if reminder else ""
    if len(rows) == 1:
        row = rows[0]
        answered = row.last_word == "requester" and not reminder
        title = f"{row.bottle_slug} {'answered your question' if answered else f'{still}asks'}: {row.tool}"
        body = proposals[0]["reason"] or "no reason given"
        command = f"bot-bottle show {row.id}"
    else:
        by_bottle = Counter(row.bottle_slug for row in rows).most_common()
        answered = False
        title = f"{len(rows)} proposals {still}wait"
        listed = ", ".join(f"{slug} ({count})" for slug, count in by_bottle[:_MOST_LISTED])
        rest = len(by_bottle) - _MOST_LISTED
        body = f"{listed} and {rest} more bottles" if rest > 0 else listed
        command = "bot-bottle review"
    event = "reminder" if reminder else "answered" if answered else "waiting"
    return Message(event, _line(title), _line(body), command, len(rows), proposals)


def ending(grant: Grant) -> Message:
    """The message on a grant that is about to end."""
    title = f"a grant of {grant.bottle_slug} ends: {grant.tool}"
    body = f"in force {words.reach(grant)[0]}; the next such request after that asks again"
    return Message("grant-ending", _line(title), _line(body), f"bot-bottle grants show {grant.id}", 0, ())


def trial() -> Message:
    """The message of ``bot-bottle notify test``."""
    return Message(
        "test", "bot-bottle: a test", "This channel works. Nothing waits because of it.", "bot-bottle pending", 0, ()
    )


def _fields(row: Row) -> dict[str, Any]:
    return {
        "id": row.id,
        "bottle": _line(row.bottle_slug),
        "tool": _line(row.tool),
        "arrived": row.arrived,
        "expires_at": row.expires_at,
        "waiting": row.waiting,
        "reason": _line(words.first_line(row.why)),
    }


def _line(text: str) -> str:
    return visible(text, multiline=False)
