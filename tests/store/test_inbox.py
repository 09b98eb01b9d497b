"""Does the operator's inbox show what can be decided, and decide it once?"""

from __future__ import annotations

import getpass
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from bot_bottle import (
    MAX_NOTES_BYTES,
    MAX_PAYLOAD_BYTES,
    AlreadyDecidedError,
    AuditStore,
    ClosedError,
    Database,
    GrantStore,
    Inbox,
    InboxItem,
    InboxSummary,
    InvalidInputError,
    NotFoundError,
    Proposal,
    QueueStore,
    StaleReviewError,
    new_id,
    sha256_hex,
)
from store_process import TOOL, decide, eventually, proposal


def with_id(known: str, payload: str) -> Proposal:
    return Proposal(known, "dev", TOOL, payload, "", "2026-01-31T12:00:00Z")


# --- looking


def test_an_inbox_on_nothing_is_empty_and_creates_nothing(db: Path) -> None:
    with Inbox(db) as inbox:
        assert inbox.pending() == inbox.failed() == inbox.history() == inbox.changes() == []
        assert (inbox.last_change(), inbox.recover()) == (0, 0)
        assert inbox.stats()["pending"] == 0
        with pytest.raises(NotFoundError):
            inbox.read(new_id())
        with pytest.raises(NotFoundError):
            inbox.decide(new_id(), "approved", payload_sha256="0" * 64)
    assert list(db.parent.iterdir()) == []


def test_pending_is_of_all_bottles_oldest_first(db: Path, inbox: Inbox) -> None:
    written = [QueueStore(slug, db).write_proposal(proposal(slug=slug)) for slug in ("b", "a", "b", "c")]
    assert [item.proposal.id for item in inbox.pending()] == [each.id for each in written]
    assert [item.proposal.id for item in inbox.pending("b")] == [written[0].id, written[2].id]
    assert inbox.pending("nobody") == []


def test_an_item_says_where_a_proposal_stands(queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal(expires_in=3600))
    (item,) = inbox.pending()
    assert (item.proposal.id, item.queue_key, item.state, item.requests) == (written.id, "dev", "pending", 1)
    assert (item.waiting, item.waiting_until, item.response, item.archived_at) == (False, None, None, None)
    assert (item.managed_file, item.apply_state, item.apply_error) == (None, None, None)
    flat = item.to_dict()
    fields = written.to_dict()
    del fields["proposed_file"]
    assert fields.items() <= flat.items()
    assert flat["payload_bytes"] == item.proposal.payload_bytes == len(written.proposed_file.encode())
    assert flat["state"] == "pending"
    assert json.loads(json.dumps(flat)) == flat
    assert written.proposed_file not in repr(item)
    decide(inbox, written, notes="fine")
    nested = inbox.read(written.id).to_dict()["response"]
    assert (nested["status"], nested["notes"]) == ("approved", "fine")


def test_items_pickle(queue: QueueStore, inbox: Inbox) -> None:
    decide(inbox, queue.write_proposal(proposal()))
    (listed,) = inbox.history()
    for item, kind in ((listed, InboxSummary), (inbox.read(listed.proposal.id), InboxItem)):
        again = pickle.loads(pickle.dumps(item))
        assert isinstance(again, kind)
        assert again.to_dict() == item.to_dict()
    for part in (listed.proposal, listed.response):
        again = pickle.loads(pickle.dumps(part))
        assert again == part
        assert hash(again) == hash(part)
        assert again.to_dict() == part.to_dict()


def test_a_proposal_is_found_by_a_unique_beginning_of_its_id(queue: QueueStore, inbox: Inbox) -> None:
    # The last 12 digits of a UUIDv7 are chance, so these share a beginning that real ones would not.
    ids = [f"01990000-0000-7000-8000-00000000000{n}" for n in range(3)]
    for n, known in enumerate(ids):
        queue.write_proposal(with_id(known, f"x {n}"))
    lone = queue.write_proposal(
        Proposal("ffff0000-0000-7000-8000-000000000000", "dev", "t", "y", "", "2026-01-31T12:00:00Z")
    )
    assert inbox.read("ffff").proposal == inbox.read("FFFF0000-0").proposal == lone
    assert inbox.read(ids[1]).proposal.id == ids[1]
    with pytest.raises(InvalidInputError, match="several") as caught:
        inbox.read("0199")
    assert caught.value.exit_code == 2
    assert caught.value.matches == ids  # type: ignore[attr-defined]
    with pytest.raises(NotFoundError, match="eeee"):
        inbox.read("eeee")


@pytest.mark.parametrize("prefix", ["", "fff", "zzzz", "%%%%", "____", "ffff' OR 1=1"])
def test_what_is_no_beginning_of_an_id_is_refused(queue: QueueStore, inbox: Inbox, prefix: str) -> None:
    queue.write_proposal(proposal())
    with pytest.raises(InvalidInputError, match="id"):
        inbox.read(prefix)


def test_an_alias_is_found_by_its_beginning(queue: QueueStore, inbox: Inbox) -> None:
    first = queue.write_proposal(proposal("same"))
    second = with_id("ffff0000-0000-7000-8000-000000000000", "same")
    queue.write_proposal(second)
    assert inbox.read("ffff").proposal == first
    with pytest.raises(InvalidInputError):
        inbox.read(first.id[:3])


def test_history_pages_backwards(queue: QueueStore, inbox: Inbox, db: Path) -> None:
    written = [queue.write_proposal(proposal()) for _ in range(5)]
    decide(inbox, written[1], "rejected")
    queue.withdraw_proposal(written[2].id)
    queue.archive_proposal(written[3].id)
    QueueStore("other", db).write_proposal(proposal(slug="other"))
    page = inbox.history(bottle_slug="dev", limit=2)
    seen = page
    while page:
        page = inbox.history(bottle_slug="dev", limit=2, before=page[-1].proposal.id)
        seen = seen + page
    assert [item.proposal.id for item in seen] == [each.id for each in written[::-1]]
    assert [item.state for item in seen] == ["pending", "withdrawn", "withdrawn", "rejected", "pending"]
    assert len(inbox.history()) == 6


def test_stats_count_what_there_is(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    written = [queue.write_proposal(proposal()) for _ in range(3)]
    QueueStore("other", db).write_proposal(proposal(slug="other", tool="egress-allow"))
    decide(inbox, written[0])
    stats = inbox.stats()
    assert stats["by_state"] == {"approved": 1, "pending": 3}
    assert stats["by_bottle"] == {"dev": 3, "other": 1}
    assert stats["by_tool"] == {"capability-block": 3, "egress-allow": 1}
    assert (stats["pending"], stats["waiting"], stats["audit_entries"]) == (3, 0, 1)
    assert stats["oldest_pending_seconds"] >= 0
    assert stats["decision_seconds"]["max"] >= stats["decision_seconds"]["median"] >= 0


# --- deciding


@pytest.mark.parametrize("status", ["approved", "modified", "rejected"])
def test_a_decision_and_its_audit_entry_are_there_together(
    db: Path, queue: QueueStore, inbox: Inbox, status: str
) -> None:
    written = queue.write_proposal(proposal("a\n", "please"))
    final = "b\n" if status == "modified" else None
    response = decide(inbox, written, status, notes="as discussed", final_file=final, decided_by="ann", surface="tui")
    assert (response.proposal_id, response.status, response.notes) == (written.id, status, "as discussed")
    assert (response.final_file, response.decided_by, response.surface) == (final, "ann", "tui")
    assert queue.read_response(written.id) == response
    (entry,) = AuditStore(db).read_audit_entries()
    assert (entry.component, entry.bottle_slug, entry.operator_action) == (written.tool, "dev", status)
    assert (entry.operator_notes, entry.justification, entry.decided_by) == ("as discussed", "please", "ann")
    assert (entry.surface, entry.proposal_id, entry.timestamp) == ("tui", written.id, response.decided_at)
    runs = {"approved": written.payload_sha256, "modified": sha256_hex("b\n"), "rejected": None}[status]
    assert (entry.payload_sha256, entry.final_sha256) == (written.payload_sha256, runs)
    assert (entry.final_sha256, entry.payload_sha256) == (response.final_sha256, response.payload_sha256)
    if status == "modified":
        assert "-a\n+b\n" in entry.diff
        assert response.diff is not None
        assert "-a\n+b\n" in response.diff


def test_without_a_name_the_system_s_user_decided(queue: QueueStore, inbox: Inbox) -> None:
    response = decide(inbox, queue.write_proposal(proposal()))
    assert (response.decided_by, response.surface) == (getpass.getuser(), "api")


def test_a_second_decision_is_told_who_was_first(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal())
    first = decide(inbox, written, "rejected", decided_by="ann", surface="web")
    for status, final in (("approved", None), ("rejected", None), ("modified", "x")):
        with pytest.raises(AlreadyDecidedError) as caught:
            decide(inbox, written, status, final_file=final, decided_by="bob")
        error = caught.value
        assert error.exit_code == 5
        assert (error.proposal_id, error.status, error.decided_by) == (written.id, "rejected", "ann")
        assert error.decided_at == first.decided_at
        for said in (written.id, "rejected", "ann", "web", first.decided_at):
            assert str(said) in str(error)
    assert queue.read_response(written.id) == first
    assert len(AuditStore(db).read_audit_entries()) == 1


def test_what_you_approve_is_what_was_shown(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal("one"))
    with pytest.raises(StaleReviewError) as caught:
        decide(inbox, written, payload_sha256=sha256_hex("another"))
    assert caught.value.exit_code == 5
    assert (caught.value.proposal_id, caught.value.expected) == (written.id, sha256_hex("another"))
    assert caught.value.actual == written.payload_sha256
    assert [item.proposal.id for item in inbox.pending()] == [written.id]
    assert AuditStore(db).read_audit_entries() == []


@pytest.mark.parametrize(
    ("decision", "says"),
    [
        ({"status": "maybe"}, "status"),
        ({"status": "expired"}, "status"),
        ({"status": "modified"}, "final_file"),
        ({"status": "modified", "final_file": ""}, "final_file"),
        ({"status": "modified", "final_file": b"ab\xff"}, "offset 2"),
        ({"status": "modified", "final_file": "ab\0"}, "offset 2"),
        ({"status": "modified", "final_file": "x" * (MAX_PAYLOAD_BYTES + 1)}, str(MAX_PAYLOAD_BYTES)),
        ({"status": "rejected", "final_file": "x"}, "final_file"),
        ({"status": "rejected", "notes": "x" * (MAX_NOTES_BYTES + 1)}, "notes"),
        ({"status": "rejected", "notes": "a\0"}, "offset 1"),
        ({"status": "approved", "payload_sha256": "abc"}, "payload_sha256"),
        ({"status": "approved", "surface": "telepathy"}, "surface"),
        ({"status": "approved", "decided_by": "x" * 257}, "decided_by"),
        ({"status": "approved", "grant": "forever"}, "grant"),
        ({"status": "approved", "grant": "once"}, "fingerprint"),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_a_bad_decision_decides_nothing(
    db: Path, queue: QueueStore, inbox: Inbox, decision: dict[str, Any], says: str
) -> None:
    written = queue.write_proposal(proposal())
    with pytest.raises(InvalidInputError, match=says) as caught:
        decide(inbox, written, **decision)
    assert caught.value.exit_code == 2
    assert [item.proposal.id for item in inbox.pending()] == [written.id]
    assert AuditStore(db).read_audit_entries() == []
    assert GrantStore(db).list_grants(live=False) == []


@pytest.mark.parametrize("tool", ["gitleaks-allow", "egress-token-allow"])
def test_a_finding_is_approved_with_a_reason_and_never_modified(queue: QueueStore, inbox: Inbox, tool: str) -> None:
    written = queue.write_proposal(proposal(tool=tool))
    with pytest.raises(InvalidInputError, match="modify"):
        decide(inbox, written, "modified", final_file="x", notes="why")
    for notes in ("", " \n\t"):
        with pytest.raises(InvalidInputError, match="notes"):
            decide(inbox, written, notes=notes)
    assert decide(inbox, written, notes="a test key").status == "approved"
    other = queue.write_proposal(proposal(tool=tool))
    assert decide(inbox, other, "rejected").status == "rejected"  # a no needs none


def test_a_decision_needs_the_whole_id(queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal())
    with pytest.raises(NotFoundError):
        inbox.decide(written.id[:8], "approved", payload_sha256=written.payload_sha256)
    assert len(inbox.pending()) == 1


def test_a_decision_by_an_alias_is_on_its_row(queue: QueueStore, inbox: Inbox) -> None:
    first = queue.write_proposal(proposal("same"))
    second = proposal("same")
    queue.write_proposal(second)
    response = decide(inbox, second)
    assert (response.proposal_id, inbox.pending()) == (first.id, [])


def test_a_requester_s_clock_dates_no_decision(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    ahead = "2999-01-01T00:00:00.000000Z"
    written = queue.write_proposal(Proposal(new_id(), "dev", "t", "x", "", ahead, expires_at="2999-01-02T00:00:00Z"))
    response = decide(inbox, written)
    assert response.decided_at is not None
    assert response.decided_at < ahead
    decide(inbox, queue.write_proposal(proposal()))
    entries = AuditStore(db).read_audit_entries()
    assert [entry.timestamp > ahead for entry in entries] == [False, False]
    assert AuditStore(db).verify().entries == 2
    assert Database(db).check() == []


def test_a_closed_inbox_says_so(queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal())
    inbox.close()
    inbox.close()
    for use in (inbox.pending, inbox.changes, inbox.stats, lambda: decide(inbox, written), lambda: next(inbox.watch())):
        with pytest.raises(ClosedError):
            use()


# --- changes


def test_every_step_is_a_change(queue: QueueStore, inbox: Inbox) -> None:
    one, two, three, four = [queue.write_proposal(proposal()) for _ in range(4)]
    decide(inbox, one)
    decide(inbox, two, "modified", final_file="x")
    decide(inbox, three, "rejected")
    queue.archive_proposal(three.id)
    queue.withdraw_proposal(four.id)
    changes = inbox.changes()
    assert [(change.kind, change.proposal_id) for change in changes[4:]] == [
        ("approved", one.id),
        ("modified", two.id),
        ("rejected", three.id),
        ("archived", three.id),
        ("withdrawn", four.id),
    ]
    assert [change.seq for change in changes] == list(range(1, 10))
    assert {(change.kind, change.bottle_slug, change.tool) for change in changes[:4]} == {("proposed", "dev", one.tool)}
    assert inbox.last_change() == 9
    assert inbox.changes(7) == changes[7:]
    assert inbox.changes(2, limit=3) == changes[2:5]
    assert inbox.changes(99) == []


def test_changes_are_values(queue: QueueStore, inbox: Inbox) -> None:
    queue.write_proposal(proposal())
    (change,), (same,) = inbox.changes(), inbox.changes()
    assert change == same
    assert len({change, same}) == 1
    assert pickle.loads(pickle.dumps(change)) == change
    assert set(change.to_dict()) == {name for name in dir(change) if name[0] != "_"} - {"to_dict"}
    with pytest.raises(AttributeError):
        change.seq = 9  # type: ignore[misc]


def test_what_changes_nothing_is_no_change(queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal("same"))
    queue.write_proposal(proposal("same"))
    queue.write_proposal(written)
    queue.withdraw_proposal(written.id)
    assert inbox.last_change() == 1  # the other request still stands


def test_an_expiry_becomes_a_change_once_somebody_meets_it(queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal(expires_in=0.01))
    eventually(lambda: not inbox.pending())
    queue.write_proposal(proposal())
    queue.write_proposal(proposal())
    kinds = [(change.kind, change.proposal_id) for change in inbox.changes()]
    assert kinds.count(("expired", written.id)) == 1
