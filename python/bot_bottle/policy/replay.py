"""What would a rule have done to what people decided already, and which rules do their decisions suggest?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from bot_bottle import AuditStore
from bot_bottle.documents import toml
from bot_bottle.errors import InvalidInputError, NotFoundError
from bot_bottle.operator import scopes, words
from bot_bottle.policy.judging import judge, matches
from bot_bottle.policy.rules import Policy, Rule, parse
from bot_bottle.policy.subject import Subject, of_decided

if TYPE_CHECKING:
    from bot_bottle import Inbox, InboxSummary

_MOST_HOSTS = 10


class Past(NamedTuple):
    """What a person decided, about what, and when."""

    item: InboxSummary
    subject: Subject
    status: str
    arrived: datetime

    @property
    def id(self) -> str:
        """The proposal's."""
        return self.item.proposal.id


def past(inbox: Inbox, limit: int) -> list[Past]:
    """What people decided of the newest ``limit`` proposals, newest first."""
    timed = []
    for item in inbox.history(limit=limit):
        answer = item.response
        if answer and answer.surface != "policy":
            arrived, decided = words.moment(item.proposal.arrival_timestamp), words.moment(answer.decided_at or "")
            # Of a row without its times, which no store wrote, nothing is known.
            if arrived and decided:
                timed.append((item, answer.status, arrived.astimezone(), decided))
    if not timed:
        return []
    oldest = min(decided for *_, decided in timed)
    with AuditStore(inbox.db_path) as store:
        # What a proposal's grant and file left in the log names it too, and has no diff.
        entries = store.read_audit_entries(since=oldest.isoformat())
        diffs = {(e.proposal_id, e.operator_action): e.diff for e in entries}
    found = []
    for item, status, arrived, _ in timed:
        # One payload at a time. What has no id by which it could be read says nothing of what was decided.
        try:
            whole = inbox.read(item.proposal.id)
        except (InvalidInputError, NotFoundError):
            continue
        subject = of_decided(whole, diffs.get((item.proposal.id, status), ""))
        found.append(Past(item, subject, status, arrived))
    return found


class Replayed(NamedTuple):
    """A rule and those of the decisions that it matches, as if it had counted then (its end aside)."""

    rule: Rule
    matched: list[Past]

    @property
    def otherwise(self) -> list[Past]:
        """The ones that a person decided in another way."""
        wanted = {"approve": "approved", "reject": "rejected"}.get(self.rule.verdict)
        return [each for each in self.matched if wanted and each.status != wanted]


def replay(rule: Rule, decided: Sequence[Past]) -> Replayed:
    """What the rule alone matches; what another, stricter rule says of it is another rule's replay."""
    ageless = rule._replace(until=None)
    return Replayed(rule, [each for each in decided if matches(ageless, each.subject, each.arrived)])


class Suggestion(NamedTuple):
    """A rule in TOML, and the decisions that it is made of."""

    rule: str
    evidence: list[Past]


def suggest(policy: Policy, decided: Sequence[Past], least: int) -> Iterator[Suggestion]:
    """Rules for what was decided alike at least so many times and never otherwise, unless a rule says it already."""
    groups: dict[tuple[str, str, str, str], list[Past]] = {}
    for each in decided:
        of = each.subject
        keys = [("sha256", of.sha256)]
        if of.hosts and len(of.hosts) <= _MOST_HOSTS:
            keys += [("host_suffix", host.removeprefix("*.")) for host in of.hosts]
        for key, value in keys:
            groups.setdefault((of.bottle, of.tool, key, value), []).append(each)
    for (bottle, tool, key, value), found in sorted(groups.items()):
        statuses = {each.status for each in found}
        if len(found) < least or len(statuses) != 1 or not statuses < {"approved", "rejected"}:
            continue
        (status,) = statuses
        if status == "approved" and key == "host_suffix" and scopes.needs_reason(tool):
            continue  # it would let any secret go there
        verdict = "approve" if status == "approved" else "reject"
        text = _toml(verdict, bottle, tool, key, value, _reason(found))
        try:
            (rule,) = parse(text).rules
        except InvalidInputError:  # such as a host that is a whole top-level domain
            continue
        shown = replay(rule, found).matched
        # No rule could approve a host whose routes contained more than the permission to reach it.
        said = [judge(policy, each.subject, each.arrived).rule for each in shown]
        if len(shown) >= least and not all(each is not None and each.verdict == verdict for each in said):
            yield Suggestion(text, shown)


def _reason(found: Sequence[Past]) -> str:
    given = (each.item.response.notes.strip() for each in found if each.item.response)
    return next((notes for notes in given if notes and len(notes) <= 200 and notes.isprintable()), "decided so before")


def _toml(verdict: str, bottle: str, tool: str, key: str, value: str, reason: str) -> str:
    name = re.sub(r"[^A-Za-z0-9 ._-]", "-", f"{bottle} {value[:16] if key == 'sha256' else value}")[:63].rstrip()
    lines = {"name": name, "verdict": verdict, "bottle": bottle, "tool": tool, key: value, "reason": reason}
    return "[[rule]]\n" + "".join(f"{each} = {toml.quoted(text)}\n" for each, text in lines.items())
