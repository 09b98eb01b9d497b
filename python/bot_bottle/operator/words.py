"""In which words, and in which tone, is an operator told about ages, waiters, states and decisions?"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from typing import Final, Literal, Protocol

    from bot_bottle import AuditEntry, Grant, InboxItem, InboxSummary, Message, Response, ResponseSummary

    Tone = Literal["plain", "strong", "quiet", "waits", "good", "changed", "bad", "soon", "alarm"]
    """What a face expresses by colour: ``waits`` for a decision, ``soon`` too late, ``alarm`` wants somebody to act."""
    Said = tuple[str, Tone]

    class Awaited(Protocol):
        """What is known about the waiters: an item, or a row of a list."""

        @property
        def waiting(self) -> bool: ...
        @property
        def waiting_until(self) -> str | None: ...
        @property
        def requests(self) -> int: ...

    class Standing(Awaited, Protocol):
        """The same, and who had the last word about it."""

        @property
        def last_word(self) -> str | None: ...


# A UUIDv7's first 13 characters are its millisecond (RFC 9562). Shorter prefixes would rarely stay unique.
_SHORTEST_ID = 13
_FIRST_LINE = 100

_TONES: Final[Mapping[str, Tone]] = {
    "pending": "waits",
    "approved": "good",
    "modified": "changed",
    "rejected": "bad",
    "expired": "quiet",
    "withdrawn": "quiet",
    "apply_failed": "alarm",
    "asked": "quiet",
    "answered": "soon",
}


def state(name: str) -> Said:
    """The state of a proposal, or the kind of a change."""
    return name, _TONES.get(name, "plain")


def moment(timestamp: str) -> datetime | None:
    """The moment that ``timestamp`` names, in UTC; ``None`` if a store would never write it.

    Whoever can write the file can write anything there, and one bad row must not break its whole list.
    """
    from datetime import datetime, timezone

    try:
        # Python 3.10 does not read the "Z".
        found = datetime.fromisoformat(timestamp.replace("Z", "+00:00"))
    except ValueError:
        return None
    return found.astimezone(timezone.utc) if found.tzinfo and 1970 <= found.year < 9999 else None


def seconds_since(timestamp: str) -> float:
    """Seconds from ``timestamp`` until now; negative if it is in the future, NaN if it is invalid."""
    from datetime import datetime, timezone

    then = moment(timestamp)
    return float("nan") if then is None else (datetime.now(timezone.utc) - then).total_seconds()


def now() -> str:
    """This moment, as the store writes it."""
    return days_ago(0)


def days_ago(days: int) -> str:
    """The moment so many days before now, as the store writes it."""
    from datetime import datetime, timedelta, timezone

    return (datetime.now(timezone.utc) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def span(seconds: float) -> str:
    """A length of time in one unit: ``12 s``, ``4 min``, ``2 h`` or ``3 d``; never negative; ``?`` for NaN."""
    if seconds != seconds:
        return "?"
    seconds = max(0.0, seconds)
    for limit, divisor, unit in ((100, 1, "s"), (6000, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def age(timestamp: str) -> str:
    """How long ago ``timestamp`` was, as a span."""
    return span(seconds_since(timestamp))


def ago(timestamp: str) -> str:
    """``4 min ago``."""
    return f"{age(timestamp)} ago"


def clock(timestamp: str) -> str:
    """``timestamp`` to the second, still UTC."""
    return f"{timestamp[:10]} {timestamp[11:19]}Z"


def waiter(item: Awaited) -> Said:
    """Does anybody still wait for the answer?"""
    times = f", {item.requests}x" if item.requests > 1 else ""
    if item.waiting:
        return f"waiting now{times}", "good"
    if item.waiting_until is None:
        return f"nobody waited{times}", "quiet"
    return f"gone for {age(item.waiting_until)}{times}", "quiet"


def conversation(item: Standing) -> Said | None:
    """Did the operator ask back, and is the question answered?"""
    if item.last_word == "operator":
        return "asked", "quiet"
    return ("answered", "soon") if item.last_word == "requester" else None


def standing(item: Standing) -> Said:
    """Does anybody still wait, and was it asked about?"""
    waits, told = waiter(item), conversation(item)
    return (f"{told[0]}, {waits[0]}", told[1]) if told else waits


def asked(item: InboxItem) -> str:
    """What a question to the waiters has done."""
    return f"asked about {item.proposal.id} ({item.proposal.tool} of {item.proposal.bottle_slug}); it stays pending"


def said_by(message: Message) -> str:
    """Who says it, and when: ``alice (cli) asked, 4 min ago``."""
    if message.sender == "operator":
        return f"{message.written_by} ({message.surface}) asked, {ago(message.written_at)}"
    return f"The requester answered, {ago(message.written_at)}"


def damaged(item: InboxItem | InboxSummary) -> Said | None:
    """Is it something that nothing can be decided about?"""
    return ("damaged", "alarm") if item.damaged else None


def expiry(item: InboxItem | InboxSummary) -> Said:
    """When does the proposal expire?"""
    return lapse(item.proposal.expires_at)


def lapse(expires_at: str | None) -> Said:
    """When is ``expires_at``? ``None``: never."""
    if expires_at is None:
        return "never", "quiet"
    left = -seconds_since(expires_at)
    if left <= 0:
        return f"expired {span(-left)} ago", "quiet"
    return f"in {span(left)}", "soon" if left < 60 else "plain"


def file(item: InboxItem) -> Said:
    """Which file does an approval write? If a pending proposal has no file, it says that an approval writes nothing."""
    if item.managed_file:
        return item.managed_file, "plain"
    return "none: approving changes nothing on this host, the agent is only told yes", "quiet"


def grant(scope: str | None) -> str:
    """How far an approval reaches, as the end of a question: ``, for 2 h``; empty for this request alone."""
    if scope is None:
        return ""
    what = "all others of its kind" if scope.startswith("kind:") else "the same again"
    if scope.startswith("prefix:"):
        scope, _, begins = scope.removeprefix("prefix:").partition(" ")
        what = f"commands that begin with '{begins}'"
    form, _, rest = scope.removeprefix("kind:").partition(":")
    if form == "for":
        return f", and {what} for {span(float(rest))}"
    if form == "uses":
        return f", and {what} {rest} times"
    if form == "until":
        return f", and {what} until {rest}"
    return f", and {what} once" if form == "once" else f", and {what} until the bottle stops"


def decided(answer: Response | ResponseSummary) -> str:
    """When was it decided, by whom, and with which program? ``2026-01-31 12:00:00Z by alice (web)``."""
    when = clock(answer.decided_at) if answer.decided_at else "-"
    return f"{when} by {answer.decided_by or '-'} ({answer.surface or '-'})"


def effect(item: InboxItem) -> Said | None:
    """Is the managed file that the decision writes in effect? ``None`` without a managed file."""
    if item.apply_state is None:
        return None
    applied_at = item.response.applied_at if item.response else None
    if item.apply_state == "applied" and applied_at:
        return clock(applied_at), "plain"
    return f"NO: {item.apply_error or 'not written yet'}", "alarm"


def ended(item: InboxItem | InboxSummary) -> str:
    """What became of a proposal that can no longer be decided, in a sentence: who did what and when."""
    proposal, answer = item.proposal, item.response
    about = f"{proposal.tool} of {proposal.bottle_slug}"
    if answer:
        notes = f": {first_line(answer.notes)}" if answer.notes else ""
        return f"{about} was {answer.status} {decided(answer)}{notes}"
    if item.withdrawn_at:
        return f"{about} was withdrawn {clock(item.withdrawn_at)}: {first_line(item.withdrawn_reason or '-')}"
    if item.state == "expired" and proposal.expires_at:
        return f"{about} expired {clock(proposal.expires_at)}"
    return f"{about} is {item.state}"


def author(entry: AuditEntry) -> str:
    """Who made an entry of the log, and with which program."""
    return f"{entry.decided_by} ({entry.surface})" if entry.decided_by else entry.surface


def reach(grant: Grant) -> Said:
    """What a grant still allows."""
    tone: Tone = "good" if grant.live else "quiet"
    if grant.revoked_at:
        return f"revoked {ago(grant.revoked_at)}", tone
    if grant.uses_left is not None:
        return f"{grant.uses_left} more uses" if grant.uses_left != 1 else "1 more use", tone
    if grant.expires_at:
        left = -seconds_since(grant.expires_at)
        return f"for {span(left)}" if left > 0 else f"lapsed {span(-left)} ago", tone
    return "until the bottle stops" if grant.live else "the bottle has stopped", tone


def first_line(text: str) -> str:
    """The first line of ``text``, at most 100 characters of it; what is left out is counted."""
    line = text.strip().split("\n", 1)[0][:_FIRST_LINE].rstrip()
    hidden = len(text.strip()) - len(line)
    return f"{line} [+{hidden} characters]" if hidden else line


def cut(text: str) -> bool:
    """Does ``first_line`` leave anything out?"""
    return first_line(text) != text.strip()


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """Each id → its prefix, as short as keeps them apart; all of one length, so that they align."""
    known = set(ids)
    for length in range(_SHORTEST_ID, 37):
        prefixes = {i: i[:length] for i in known}
        if len(set(prefixes.values())) == len(known) and not any(p.endswith("-") for p in prefixes.values()):
            return prefixes
    return {i: i for i in known}
