"""How are the rules applied to what arrives, and to what waits already, as ``bot-bottle policy run`` does?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from bot_bottle import AuditEntry, AuditStore, render_diff
from bot_bottle.errors import (
    AlreadyDecidedError,
    BotBottleError,
    InvalidInputError,
    NotFoundError,
    ProposalExpiredError,
    ProposalWithdrawnError,
)
from bot_bottle.operator import decisions
from bot_bottle.policy import bypass, rules
from bot_bottle.policy.judging import judge
from bot_bottle.policy.rules import Policy, Rule
from bot_bottle.policy.subject import of_review

if TYPE_CHECKING:
    from bot_bottle import Inbox, Review
    from bot_bottle.operator.live import Row

# Decided, or over, before the rule's answer came: nothing to say.
_OVER: Final = (AlreadyDecidedError, ProposalExpiredError, ProposalWithdrawnError, NotFoundError)
_HOST = "host"
_COMPONENT = "policy"


class Applied(NamedTuple):
    """What became of a proposal that a rule matched."""

    id: str
    bottle_slug: str
    tool: str
    rule: str
    did: Literal["approved", "rejected", "left", "notify"]
    """``left`` to a person, though the rule would have approved it."""
    why: str = ""


def consider(inbox: Inbox, policy: Policy, proposal_id: str, now: datetime) -> list[Applied]:
    """Decides one pending proposal if a rule says how; what it did, or matched, if anything."""
    try:
        review = inbox.review(proposal_id)
    except NotFoundError:
        return []
    item = review.item
    if item.state != "pending" or item.damaged:
        return []
    found = judge(policy, of_review(review), now)
    done = [_applied(review, rule, "notify", rule.reason) for rule in found.notify]
    rule = found.rule
    if rule is None or rule.verdict == "ask":
        return done
    if why_not := _left(review, rule):
        return [*done, _applied(review, rule, "left", why_not)]
    status: Literal["approved", "rejected"] = "approved" if rule.verdict == "approve" else "rejected"
    try:
        decisions.decide(
            inbox,
            review,
            status,
            surface="policy",
            decided_by=f"policy: {rule.name}",
            notes=notes(policy, rule),
            grant=rule.scope if status == "approved" else None,
        )
    except _OVER:
        return done
    except BotBottleError as error:
        # It may have been decided anyway without its file being in effect; the message says so.
        return [*done, _applied(review, rule, "left", str(error))]
    return [*done, _applied(review, rule, status, rule.reason)]


def notes(policy: Policy, rule: Rule) -> str:
    """What the agent reads, and the log keeps: the reason, the rule, and which file it stood in."""
    if rule.everything and rule.until:
        return f"{rule.reason} [{rule.name!r}, until {rule.until:%Y-%m-%d %H:%M:%SZ}]"
    return f"{rule.reason or 'allowed by a rule'} [policy {rule.name!r}, policy.toml {policy.sha256}]"


def _left(review: Review, rule: Rule) -> str:
    """Why a person has to look at it anyway."""
    if rule.verdict != "approve":
        return ""
    if review.odd:
        return review.odd[0].message
    if rule.scope and not review.item.proposal.fingerprint:
        return "it has no fingerprint, so nothing says what the rule's scope would be about"
    return ""


def _applied(review: Review, rule: Rule, did: Literal["approved", "rejected", "left", "notify"], why: str) -> Applied:
    proposal = review.item.proposal
    return Applied(proposal.id, proposal.bottle_slug, proposal.tool, rule.name, did, why)


class Watcher:
    """Applies the rules to rows of the inbox, again when they change, and each minute if one goes by the clock.

    While the file is unreadable or invalid, no rule applies and everything is asked.
    """

    def __init__(self, inbox: Inbox, told: Callable[[Applied], object], warned: Callable[[str], object]) -> None:
        self._inbox = inbox
        self._told = told
        self._warned = warned
        self._policy = Policy()
        self._bypasses: list[bypass.Bypass] = []
        self._problems: dict[str, str] = {}
        self._pending: set[str] = set()
        self._said: dict[str, set[Applied]] = {}
        self._minute = -1

    def take(self, rows: Iterable[Row]) -> None:
        """What came or changed."""
        for row in rows:
            if not row.pending:
                self._pending.discard(row.id)
                self._said.pop(row.id, None)
            elif row.id not in self._pending:
                self._pending.add(row.id)
                self._consider(row.id)

    def look_again(self) -> bool:
        """Reads the rules again, and applies them to all that waits if they changed, or each minute; always false."""
        changed = self._read() | self._read_bypasses()
        minute = _now().minute
        by_the_clock = any(rule.time or rule.until for rule in self._policy.rules)
        if changed or (by_the_clock and minute != self._minute):
            self._minute = minute
            for each in sorted(self._pending):
                self._consider(each)
        return False

    def _read(self) -> bool:
        try:
            policy, problem = rules.read(self._policy), ""
        except InvalidInputError as error:
            policy, problem = Policy(), f"{error}; until then no rule counts and everything is asked"
        self._warn("rules", problem)
        if policy.sha256 == self._policy.sha256:
            return False
        note(policy, self._policy)
        self._policy = policy
        return True

    def _read_bypasses(self) -> bool:
        try:
            found, problem = bypass.settle(), ""
        except (BotBottleError, OSError) as error:
            found, problem = [], f"{error}; until then no bypass counts"
        self._warn("bypasses", problem)
        if found == self._bypasses:
            return False
        self._bypasses = found
        return True

    def _warn(self, what: str, problem: str) -> None:
        """Says it once."""
        if problem and problem != self._problems.get(what):
            self._warned(problem)
        self._problems[what] = problem

    def _consider(self, proposal_id: str) -> None:
        policy = self._policy._replace(rules=(*self._policy.rules, *(each.rule for each in self._bypasses)))
        if not policy.rules:
            return
        for applied in consider(self._inbox, policy, proposal_id, _now()):
            # One that stays pending is judged again, and told once.
            said = self._said.setdefault(proposal_id, set())
            if applied not in said:
                said.add(applied)
                self._told(applied)


def note(policy: Policy, former: Policy) -> None:
    """Puts the file that counts from now on into the audit log, its hash and text, unless it is the last there."""
    with AuditStore() as store:
        known = store.read_audit_entries(_COMPONENT, _HOST, limit=1)
        text = f"{len(policy.rules)} rules, policy.toml {policy.sha256}" if policy.sha256 else "no rules"
        if (known[-1].operator_notes if known else "no rules") == text:
            return
        entry = AuditEntry.new(
            _HOST,
            _COMPONENT,
            "policy-changed",
            text,
            diff=render_diff(former.text, policy.text, label="policy.toml"),
            surface="policy",
        )
        store.write_audit_entry(entry)


def _now() -> datetime:
    return datetime.now(timezone.utc).astimezone()
