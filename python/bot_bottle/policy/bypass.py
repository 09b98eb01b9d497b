"""For which bottle is everything approved for a while, until when, and who decided that?

A bypass is for one bottle and for hours, never for all and never for good. It stands in the root directory, where no
sidecar writes. `policy run` applies it as it applies a rule: each call is a signed decision of its own in the log.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final, NamedTuple

from bot_bottle import AuditEntry, AuditStore, Database, bot_bottle_root
from bot_bottle.errors import BotBottleError, InvalidInputError, NotFoundError
from bot_bottle.launch import managed
from bot_bottle.operator import seat, words
from bot_bottle.policy import rules
from bot_bottle.policy.rules import Rule

MOST_SECONDS: Final = 8 * 3600.0
_COMPONENT: Final = "policy"
_COUNT_SQL = """\
SELECT count(*) AS calls FROM audit_entries
WHERE bottle_slug = :bottle AND decided_by = :name AND surface = 'policy' AND timestamp >= :since"""


class Bypass(NamedTuple):
    """What is approved unasked: all that the bottle asks for with one of the tools, from ``started`` to ``until``."""

    bottle: str
    tools: tuple[str, ...]
    """Without one: all but those whose approval lets a secret pass."""
    started: str
    until: str
    reason: str

    @property
    def rule(self) -> Rule:
        """As ``judge`` takes it. Rules that reject or ask are stricter, and count all the same."""
        return Rule(
            f"bypass {self.bottle}",
            "approve",
            reason=self.reason,
            until=words.moment(self.until),
            bottle=(self.bottle,),
            tool=self.tools,
            everything=True,
        )

    @property
    def seconds_left(self) -> float:
        """Negative once it is over."""
        return -words.seconds_since(self.until)

    @property
    def active(self) -> bool:
        """Does it count now? A clock that was set back does not make it longer."""
        return self.seconds_left > 0 and words.seconds_since(self.started) > -60

    def calls(self) -> int | None:
        """How many were approved by it; ``None``: the log cannot be read."""
        given = {"bottle": self.bottle, "name": f"policy: {self.rule.name}", "since": self.started}
        try:
            with Database() as database:
                return sum(row["calls"] for row in database.query(_COUNT_SQL, given) if isinstance(row["calls"], int))
        except BotBottleError:
            return None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return self._asdict() | {"tools": list(self.tools)}


def path() -> str:
    """Where they stand."""
    return os.path.join(bot_bottle_root(), "bypass.json")


def read() -> list[Bypass]:
    """All that were begun and whose end is not in the log yet.

    Raises:
        InvalidInputError: the file is not this user's alone to write, or says what no bypass may be.
    """
    text = rules.private_text(path())
    if text is None:
        return []
    try:
        found = [Bypass(**{**each, "tools": tuple(each["tools"])}) for each in json.loads(text)]
        valid = all(map(_is_valid, found))
    except (ValueError, TypeError, KeyError, RecursionError):
        valid = False
    if not valid:
        raise InvalidInputError(f"{path()}: it is not as 'bot-bottle bypass start' writes it; remove it")
    return found


def _is_valid(each: Bypass) -> bool:
    texts = all(isinstance(text, str) for text in (each.bottle, each.started, each.until, each.reason, *each.tools))
    length = words.seconds_since(each.started) - words.seconds_since(each.until) if texts else -1.0
    return 0 < length <= MOST_SECONDS + 1


def active() -> list[Bypass]:
    """Those of this host that count now, for a face to show: none while it looks at another host's inbox, or if the
    file cannot be understood."""
    if seat.elsewhere() is not None:
        return []
    try:
        return [each for each in read() if each.active]
    except InvalidInputError:
        return []


def notices() -> list[str]:
    """A sentence for each that counts now, for every face."""
    return [
        f"BYPASS: what {each.bottle} asks for{_with(each.tools)} is approved unasked for another "
        f"{words.span(each.seconds_left)} ({each.reason}); 'bot-bottle bypass end {each.bottle}' ends it"
        for each in active()
    ]


def _with(tools: tuple[str, ...]) -> str:
    return f" with {', '.join(tools)}" if tools else ""


def start(bottle: str, seconds: float, reason: str, tools: tuple[str, ...] = ()) -> Bypass:
    """Begins one, which is in the log before it counts.

    Raises:
        InvalidInputError: too long or without a reason, or there is one already.
    """
    if not 0 < seconds <= MOST_SECONDS:
        raise InvalidInputError(f"a bypass lasts for {words.span(MOST_SECONDS)} at most, and longer than no time")
    if not reason.strip():
        raise InvalidInputError("a bypass needs a reason: it stands in the log, and the agent reads it")
    with _locked():
        known = _ended(read())
        if any(each.bottle == bottle for each in known):
            raise InvalidInputError(f"{bottle} has a bypass already; 'bot-bottle bypass end {bottle}' ends it")
        now = datetime.now(timezone.utc)
        times = [each.strftime("%Y-%m-%dT%H:%M:%S.%fZ") for each in (now, now + timedelta(seconds=seconds))]
        made = Bypass(bottle, tools, times[0], times[1], reason.strip())
        _log(made, "bypass-started", f"until {made.until}{_with(tools)}: {made.reason}")
        _write([*known, made])
    return made


def end(bottle: str | None = None) -> list[Bypass]:
    """Ends that of the bottle, or all.

    Raises:
        NotFoundError: there is no bypass.
    """
    with _locked():
        known = _ended(read())
        over = [each for each in known if bottle in (None, each.bottle)]
        if not over:
            raise NotFoundError(f"there is no bypass{f' of {bottle!r}' if bottle else ''} to end")
        for each in over:
            _log(each, "bypass-ended", f"by the operator, {words.clock(words.now())}{_counted(each)}")
        _write([each for each in known if each not in over])
    return over


def settle() -> list[Bypass]:
    """Puts into the log what ended by itself; what is left counts.

    Raises:
        InvalidInputError: the file cannot be understood.
    """
    known = read()
    if all(each.active for each in known):
        return known
    with _locked():
        known = read()
        left = _ended(known)
        if left != known:
            _write(left)
    return left


def _ended(known: list[Bypass]) -> list[Bypass]:
    for each in known:
        if not each.active:
            _log(each, "bypass-ended", f"by itself, {words.clock(each.until)}{_counted(each)}")
    return [each for each in known if each.active]


def _counted(each: Bypass) -> str:
    calls = each.calls()
    return "" if calls is None else f"; {calls} calls were approved by it"


def _log(each: Bypass, action: str, notes: str) -> None:
    with AuditStore() as store:
        store.write_audit_entry(AuditEntry.new(each.bottle, _COMPONENT, action, notes, surface="policy"))


def _write(left: list[Bypass]) -> None:
    managed.write(Path(path()), (json.dumps([each.to_dict() for each in left], indent=2) + "\n").encode())


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    os.makedirs(bot_bottle_root(), mode=0o700, exist_ok=True)
    with open(f"{path()}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
