"""Does a bottle's queue do what each of its verbs promises?"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bot_bottle import (
    MAX_NOTES_BYTES,
    MAX_PENDING_PER_BOTTLE,
    AlreadyDecidedError,
    ClosedError,
    Inbox,
    InvalidInputError,
    InvalidProposalError,
    NotFoundError,
    Proposal,
    ProposalExpiredError,
    ProposalWithdrawnError,
    QueueStore,
    Response,
    StaleReviewError,
    new_id,
)
from store_process import SLUG, decide, eventually, proposal, witness
from transports import over_both


def expired(queue: QueueStore) -> Proposal:
    """One that was queued in time and has expired since."""
    written = queue.write_proposal(proposal(expires_in=0.02))
    eventually(lambda: not queue.list_pending_proposals())
    return written


# --- opening


@pytest.mark.parametrize("key", ["", "Dev", "a/b", "../x", "a" * 64, "-x", "x\n"])
def test_a_queue_key_keeps_the_slug_s_rule(db: Path, key: str) -> None:
    with pytest.raises(InvalidProposalError, match="queue_key"):
        QueueStore(key, db)
    assert not db.exists()


def test_reading_what_is_not_there_creates_nothing(db: Path, queue: QueueStore) -> None:
    assert queue.read_proposal(new_id()) is None
    assert queue.read_response(new_id()) is None
    assert queue.inspect(new_id()) is None
    assert queue.list_pending_proposals() == queue.list_items() == []
    assert list(db.parent.iterdir()) == []


def test_the_first_write_creates_private_files(db: Path, queue: QueueStore) -> None:
    queue.write_proposal(proposal())
    assert db.exists()
    for path in db.parent.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_a_database_in_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    queue = QueueStore(SLUG, tmp_path / "nowhere" / "x.db")
    assert queue.list_pending_proposals() == []
    with pytest.raises(OSError, match="nowhere"):
        queue.write_proposal(proposal())
    assert not (tmp_path / "nowhere").exists()


def test_a_relative_path_does_not_follow_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    queue = QueueStore(SLUG, "x.db")
    monkeypatch.chdir(tmp_path / "elsewhere")
    queue.write_proposal(proposal())
    assert (tmp_path / "x.db").exists()
    assert queue.db_path == str(tmp_path / "x.db")


@over_both
def test_a_closed_store_says_so(way: dict[str, Any]) -> None:
    with QueueStore(SLUG, **way) as queue, QueueStore(SLUG, **way) as other:
        written = queue.write_proposal(proposal())
        queue.close()
        queue.close()
        for use in (
            lambda: queue.write_proposal(proposal()),
            lambda: queue.read_proposal(written.id),
            lambda: queue.wait_for_response(written.id, timeout=5),
            lambda: queue.withdraw_proposal(written.id),
            queue.list_pending_proposals,
        ):
            with pytest.raises(ClosedError, match="closed"):
                use()
        assert other.read_proposal(written.id) == written


# --- write_proposal, read_proposal, list_pending_proposals


@over_both
def test_what_is_written_is_read_back_by_another_process(db: Path, queue: QueueStore) -> None:
    written = queue.write_proposal(
        proposal("ä\r\n", "why?\n", current_file_hash="a" * 64, expires_in=3600, fingerprint="f")
    )
    columns = "id, bottle_slug, tool, proposed_file, justification, arrival_timestamp, current_file_hash, expires_at"
    (row,) = witness(db, f"SELECT {columns}, fingerprint, payload_sha256, state FROM proposals")
    assert row[:-1] == [getattr(written, name) for name in [*columns.split(", "), "fingerprint", "payload_sha256"]]
    assert row[-1] == "pending"
    assert queue.read_proposal(written.id) == written


@over_both
def test_pending_proposals_come_in_order_of_arrival_whatever_the_clock_says(queue: QueueStore) -> None:
    written = [
        queue.write_proposal(Proposal(new_id(), SLUG, "t", f"x {year}", "", f"{year}-01-01T00:00:00Z"))
        for year in (2027, 2001, 2026)
    ]
    assert queue.list_pending_proposals() == written
    assert [item.proposal.id for item in queue.list_items(limit=2)] == [each.id for each in written[:0:-1]]


@over_both
def test_the_same_proposal_again_changes_nothing(queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal())
    assert queue.write_proposal(written) == written
    decide(inbox, written)
    assert queue.write_proposal(written) == written
    assert len(queue.list_items()) == 1
    assert queue.list_pending_proposals() == []


@over_both
def test_an_id_stands_for_one_proposal(db: Path, queue: QueueStore) -> None:
    written = queue.write_proposal(proposal("one"))
    other = Proposal(written.id, SLUG, written.tool, "another", "", written.arrival_timestamp)
    with pytest.raises(InvalidProposalError, match=written.id):
        queue.write_proposal(other)
    other = Proposal(written.id, "other", written.tool, "one", "", written.arrival_timestamp)
    with pytest.raises(InvalidProposalError, match=written.id):
        QueueStore("other", db).write_proposal(other)
    assert queue.read_proposal(written.id) == written


@over_both
def test_identical_pending_proposals_become_one(queue: QueueStore, inbox: Inbox) -> None:
    first = queue.write_proposal(proposal("same", "one agent"))
    second = proposal("same", "another agent")
    assert queue.write_proposal(second) == first
    assert queue.write_proposal(second) == first  # and again, after a retry
    assert queue.read_proposal(second.id) == first
    (item,) = inbox.pending()
    assert item.requests == 2
    response = decide(inbox, first, notes="for both")
    assert queue.read_response(second.id) == queue.read_response(first.id) == response
    assert queue.wait_for_response(second.id, timeout=0) == response


def test_only_what_is_the_same_and_pending_coalesces(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    first = queue.write_proposal(proposal("same"))
    for other in (
        proposal("same", tool="egress-allow"),
        proposal("other"),
        proposal("same", current_file_hash="a" * 64),
    ):
        assert queue.write_proposal(other) == other
    elsewhere = proposal("same", slug="another-bottle")
    assert QueueStore("another-bottle", db).write_proposal(elsewhere) == elsewhere
    decide(inbox, first, "rejected")
    again = proposal("same")
    assert queue.write_proposal(again) == again


@over_both
def test_a_queue_takes_so_many_pending_and_no_more(queue: QueueStore, inbox: Inbox, db: Path) -> None:
    written = [queue.write_proposal(proposal()) for _ in range(MAX_PENDING_PER_BOTTLE)]
    with pytest.raises(InvalidProposalError, match=f"{MAX_PENDING_PER_BOTTLE} proposals pending"):
        queue.write_proposal(proposal())
    assert queue.write_proposal(proposal(written[0].proposed_file)) == written[0]  # coalesces: no new row
    QueueStore("other", db).write_proposal(proposal(slug="other"))
    decide(inbox, written[0])
    queue.withdraw_proposal(written[1].id)
    for _ in range(2):
        queue.write_proposal(proposal(expires_in=0.01))
    eventually(lambda: len(queue.list_pending_proposals()) == MAX_PENDING_PER_BOTTLE - 2)
    queue.write_proposal(proposal())
    assert len(queue.list_pending_proposals()) == MAX_PENDING_PER_BOTTLE - 1


def test_a_queue_sees_only_its_own(db: Path, queue: QueueStore) -> None:
    written = queue.write_proposal(proposal())
    other = QueueStore("other-queue", db)
    assert other.read_proposal(written.id) is None
    assert other.inspect(written.id) is None
    assert other.list_pending_proposals() == other.list_items() == []
    for use in (other.wait_for_response, other.withdraw_proposal, other.archive_proposal):
        with pytest.raises(NotFoundError, match=written.id):
            use(written.id)
    with pytest.raises(NotFoundError):
        other.write_response(Response(written.id, "approved"))
    assert queue.list_pending_proposals() == [written]


# --- write_response, read_response


@pytest.mark.parametrize("status", ["approved", "modified", "rejected"])
def test_a_response_is_read_as_it_was_written(queue: QueueStore, status: str) -> None:
    written = queue.write_proposal(proposal("a\n"))
    assert queue.read_response(written.id) is None
    answer = Response(written.id, status, "ünd why", "b\n" if status == "modified" else None, decided_by="me")
    response = queue.write_response(answer)
    assert response == answer == queue.read_response(written.id)
    assert (response.decided_by, response.surface, response.applied_at) == ("me", "api", None)
    assert response.payload_sha256 == written.payload_sha256
    assert (response.diff is not None) == (status == "modified")
    assert queue.list_pending_proposals() == []
    item = queue.inspect(written.id)
    assert item is not None
    assert item.state == status


def test_a_response_survives_archiving(queue: QueueStore) -> None:
    written = queue.write_proposal(proposal())
    response = queue.write_response(Response(written.id, "approved", "yes"))
    queue.archive_proposal(written.id)
    assert queue.read_response(written.id) == response
    assert queue.wait_for_response(written.id, timeout=0) == response
    assert queue.read_proposal(written.id) == written


def test_a_response_to_another_payload_is_stale(queue: QueueStore) -> None:
    written = queue.write_proposal(proposal())
    with pytest.raises(StaleReviewError) as caught:
        queue.write_response(Response(written.id, "approved", payload_sha256="0" * 64))
    assert (caught.value.expected, caught.value.actual) == ("0" * 64, written.payload_sha256)
    assert queue.list_pending_proposals() == [written]


def test_a_response_to_nothing_is_not_found(queue: QueueStore) -> None:
    unknown = new_id()
    with pytest.raises(NotFoundError, match=unknown):
        queue.write_response(Response(unknown, "approved"))


# --- expiry


@over_both
def test_an_expired_proposal_is_so_without_a_sweeper(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    written = expired(queue)
    assert witness(db, "SELECT state FROM proposals") == [["pending"]]  # nobody was told yet
    item = queue.inspect(written.id)
    assert item is not None
    assert (item.state, inbox.read(written.id).state) == ("expired", "expired")
    assert inbox.pending() == []
    assert inbox.stats()["by_state"] == {"expired": 1}


@over_both
def test_nothing_can_be_done_about_an_expired_proposal(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    written = expired(queue)
    for use in (
        lambda: QueueStore(SLUG, db).write_response(Response(written.id, "approved")),
        lambda: decide(inbox, written, "rejected"),
        lambda: queue.withdraw_proposal(written.id),
        lambda: queue.wait_for_response(written.id),
    ):
        with pytest.raises(ProposalExpiredError) as caught:
            use()
        assert caught.value.exit_code == 5
        assert (caught.value.proposal_id, caught.value.expires_at) == (written.id, written.expires_at)
    queue.archive_proposal(written.id)
    assert queue.read_response(written.id) is None


# --- withdraw_proposal


@over_both
def test_a_withdrawn_proposal_cannot_be_decided(queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal())
    queue.withdraw_proposal(written.id, "changed my mind")
    queue.withdraw_proposal(written.id, "said it before")
    assert queue.list_pending_proposals() == inbox.pending() == []
    uses: list[Callable[[], object]] = [
        lambda: decide(inbox, written),
        lambda: queue.wait_for_response(written.id),
    ]
    for use in uses:
        with pytest.raises(ProposalWithdrawnError, match="changed my mind") as caught:
            use()
        assert caught.value.exit_code == 5
        assert (caught.value.proposal_id, caught.value.reason) == (written.id, "changed my mind")
        assert caught.value.withdrawn_at > written.arrival_timestamp
    item = inbox.read(written.id)
    assert (item.state, item.withdrawn_reason) == ("withdrawn", "changed my mind")


@over_both
def test_one_of_several_requesters_leaves_the_row_to_the_others(queue: QueueStore, inbox: Inbox) -> None:
    first = queue.write_proposal(proposal("same"))
    second, third = proposal("same"), proposal("same")
    queue.write_proposal(second)
    queue.write_proposal(third)
    queue.withdraw_proposal(second.id)
    queue.withdraw_proposal(first.id)  # the row bears its id, and stays
    (item,) = inbox.pending()
    assert (item.proposal.id, item.requests) == (first.id, 1)
    with pytest.raises(ProposalWithdrawnError):
        queue.wait_for_response(first.id, timeout=0)
    with pytest.raises(ProposalWithdrawnError):
        queue.wait_for_response(second.id, timeout=0)
    queue.withdraw_proposal(third.id)
    assert inbox.pending() == []


@over_both
def test_withdrawing_what_is_not_there_to_withdraw(queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal())
    decide(inbox, written, decided_by="somebody")
    with pytest.raises(AlreadyDecidedError, match="somebody"):
        queue.withdraw_proposal(written.id)
    with pytest.raises(NotFoundError):
        queue.withdraw_proposal(new_id())
    other = queue.write_proposal(proposal())
    with pytest.raises(InvalidInputError, match="reason"):
        queue.withdraw_proposal(other.id, "x" * (MAX_NOTES_BYTES + 1))
    assert queue.list_pending_proposals() == [other]


# --- archive_proposal


@over_both
def test_archiving_puts_away_and_takes_back_what_was_pending(queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal())
    queue.archive_proposal(written.id)
    queue.archive_proposal(written.id)
    item = inbox.read(written.id)
    assert (item.state, item.archived_at is not None) == ("withdrawn", True)
    assert queue.read_proposal(written.id) == written
    with pytest.raises(ProposalWithdrawnError):
        decide(inbox, written)
    with pytest.raises(NotFoundError):
        queue.archive_proposal(new_id())


@over_both
def test_a_decision_on_an_archived_proposal_is_told_so(queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal())
    decide(inbox, written, "rejected", decided_by="somebody")
    queue.archive_proposal(written.id)
    with pytest.raises(AlreadyDecidedError, match="archived") as caught:
        decide(inbox, written)
    assert (caught.value.status, caught.value.decided_by) == ("rejected", "somebody")


@over_both
def test_archiving_one_of_several_requests_leaves_the_row_to_the_others(queue: QueueStore, inbox: Inbox) -> None:
    first, second = queue.write_proposal(proposal("same")), proposal("same")
    queue.write_proposal(second)
    queue.archive_proposal(second.id)
    (item,) = inbox.pending()
    assert (item.proposal.id, item.requests, item.archived_at) == (first.id, 1, None)
    with pytest.raises(ProposalWithdrawnError):
        queue.wait_for_response(second.id, timeout=0)
    queue.archive_proposal(first.id)
    assert inbox.read(second.id).archived_at is not None


# --- what SQL itself refuses, whoever asks


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE proposals SET proposed_file = 'other'",
        "UPDATE proposals SET payload_sha256 = hex(zeroblob(32))",
        "UPDATE proposals SET state = 'rejected'",
        "UPDATE proposals SET state = 'pending'",
        "UPDATE proposals SET expires_at = '9999-12-31T23:59:59.000000Z'",
        "UPDATE responses SET status = 'rejected'",
        "UPDATE responses SET notes = 'never said'",
        "INSERT INTO responses SELECT * FROM responses",
        "INSERT INTO proposals SELECT * FROM proposals",
        "INSERT INTO changes VALUES (NULL, 'forgotten', 'x', 'x', 'x', 'x')",
    ],
)
def test_a_written_proposal_and_its_answer_are_final(db: Path, queue: QueueStore, inbox: Inbox, statement: str) -> None:
    written = queue.write_proposal(proposal())
    response = decide(inbox, written)
    with pytest.raises(subprocess.CalledProcessError):
        witness(db, statement)
    assert (queue.read_proposal(written.id), queue.read_response(written.id)) == (written, response)
