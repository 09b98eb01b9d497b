"""What do the rules say to one proposal?

Every rule that matches counts, whether it is the host's or a bottle's, and the strictest verdict wins: ``reject``,
then ``ask``, then ``approve``. So the order of rules does not matter, and a bottle's rule never loosens the host's.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from bot_bottle.operator import hours, scopes
from bot_bottle.policy.rules import Policy, Rule
from bot_bottle.policy.subject import Subject

_STRICTEST_FIRST = ("reject", "ask", "approve")


class Judgement(NamedTuple):
    """The rule that counts, if any, and the ones that only want their matches told."""

    rule: Rule | None
    notify: tuple[Rule, ...] = ()


def judge(policy: Policy, subject: Subject, now: datetime) -> Judgement:
    """What is to be done at ``now``, a moment with its zone, whose clock the rules' hours go by."""
    found = [rule for rule in policy.rules if matches(rule, subject, now)]
    deciding = [rule for verdict in _STRICTEST_FIRST for rule in found if rule.verdict == verdict]
    return Judgement(deciding[0] if deciding else None, tuple(rule for rule in found if rule.verdict == "notify"))


def matches(rule: Rule, subject: Subject, now: datetime) -> bool:
    """Does all that the rule asks for hold?

    An approval covers **all** that the proposal is about, and nothing that its conditions do not speak of; any other
    verdict is for a proposal that is about **one** such thing.
    """
    if rule.everything:
        # This is a bypass. Without tools, it does not cover those whose approval lets a secret pass.
        fits = subject.tool in rule.tool if rule.tool else not scopes.needs_reason(subject.tool)
        return rule.until is not None and now < rule.until and subject.bottle in rule.bottle and fits
    return (
        (rule.until is None or now < rule.until)
        and (rule.time is None or hours.within(rule.time, now))
        and (not rule.bottle or subject.bottle in rule.bottle)
        and (not rule.tool or subject.tool in rule.tool)
        and (not rule.sha256 or subject.sha256 in rule.sha256)
        and (rule.max_bytes is None or subject.size <= rule.max_bytes)
        and (rule.over_bytes is None or subject.size > rule.over_bytes)
        and (not rule.host_suffix or _covered(rule, subject, subject.hosts, rule.host_suffix, "."))
        and (not rule.path or _covered(rule, subject, subject.paths, rule.path, "/"))
        # A path says nothing of the host it is on.
        and (rule.verdict != "approve" or not subject.hosts or bool(rule.host_suffix or rule.sha256))
        # These approvals need a reason, which must be the rule's own.
        and (rule.verdict != "approve" or bool(rule.reason) or not scopes.needs_reason(subject.tool))
    )


def _covered(rule: Rule, subject: Subject, found: frozenset[str] | None, wanted: Iterable[str], between: str) -> bool:
    if not found:
        return False
    fits = [any(_below(each, other, between) for other in wanted) for each in found]
    if rule.verdict == "approve":
        return all(fits) and (subject.whole or bool(rule.sha256))
    return any(fits)


def _below(name: str, top: str, between: str) -> bool:
    """Is it ``top`` or below it? Of hosts the end counts, of paths the beginning; never half a label."""
    if between == ".":
        name = name.removeprefix("*.")
        return name == top or name.endswith(f".{top}")
    return name == top or name.startswith(f"{top}/")
