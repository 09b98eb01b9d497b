"""What proves one decision to somebody who has only the public keys? docs/statements.md says what a proof holds."""

from __future__ import annotations

from bot_bottle.errors import AuditIntegrityError, InvalidInputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from bot_bottle import Database, Inbox

FORMAT: Final = "bot-bottle/proof/1"

_DECISION_SQL = """\
SELECT p.id, p.bottle_slug, p.tool, p.proposed_file, r.status, r.final_file, r.notes, r.review_sha256, r.scope,
       r.decided_by, r.surface, r.decided_at, r.key_id, r.signature
FROM proposals p JOIN responses r ON r.proposal_seq = p.seq WHERE p.id = :id"""
_QUESTIONS_SQL = """\
SELECT m.id, m.text, m.written_by, m.surface, m.written_at, m.key_id, m.signature
FROM messages m JOIN proposals p ON p.seq = m.proposal_seq
WHERE p.id = :id AND m.sender = 'operator' ORDER BY m.seq"""
_GRANTS_SQL = """\
SELECT id, bottle_slug, tool, fingerprint, scope, uses, expires_at, proposal_id, created_at, created_by, key_id,
       signature
FROM grants WHERE proposal_id = :id"""
# A decision's entries have its time, which an index finds in a log of any length. Whoever can write the log could add
# others that say the same, but only after them.
_ENTRIES_SQL = """\
SELECT seq, prev_hash, timestamp, bottle_slug, component, operator_action, operator_notes, justification, diff,
       decided_by, surface, proposal_id, payload_sha256, final_sha256, entry_hash
FROM audit_entries
WHERE timestamp = :decided_at AND proposal_id = :id AND operator_action IN (:status, 'grant-given')
ORDER BY seq LIMIT :most"""
_HEAD_SQL = "SELECT seq, entry_hash FROM audit_entries ORDER BY seq DESC LIMIT 1"


def prove(inbox: Inbox, database: Database, proposal_id: str) -> dict[str, Any]:
    """The decision on a proposal, what was asked before it and granted with it, its entries, and the head of the log.

    Raises:
        NotFoundError: there is no such proposal.
        InvalidInputError: nobody decided it.
        AuditIntegrityError: its row is damaged, so it proves nothing.
    """
    item = inbox.summary(proposal_id)
    about = {"id": item.proposal.id}
    if item.damaged:
        raise AuditIntegrityError(
            f"there is no proof of {item.proposal.id}, because it is damaged: {item.damaged}", seq=None
        )
    if item.response is None:
        raise InvalidInputError(f"there is nothing to prove of {item.proposal.id}: it is {item.state}, not decided")
    (decision,) = database.query(_DECISION_SQL, about)
    grants = database.query(_GRANTS_SQL, about)
    decided = {name: decision[name] for name in ("id", "decided_at", "status")}
    return {
        "format": FORMAT,
        "decision": decision,
        "questions": database.query(_QUESTIONS_SQL, about),
        "grants": grants,
        "entries": database.query(_ENTRIES_SQL, {**decided, "most": 1 + len(grants)}),
        "head": head(database),
    }


def head(database: Database) -> dict[str, Any] | None:
    """The newest entry of the log, ``seq`` and ``entry_hash``: whoever notes it can tell later that nothing was cut."""
    return next(iter(database.query(_HEAD_SQL)), None)
