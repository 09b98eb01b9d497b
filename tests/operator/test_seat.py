"""What do all faces of the operator's seat share: the review, the words, the decision and the feed?"""

from __future__ import annotations

from pathlib import Path

import pytest

from bot_bottle import (
    AlreadyDecidedError,
    BottleStore,
    Inbox,
    InvalidInputError,
    QueueStore,
    StaleReviewError,
    render_diff,
)
from bot_bottle.operator import decisions, feed, words
from bot_bottle.operator.draft import drafted
from bot_bottle.operator.review import Section, sections, unified
from store_process import SLUG, decide, proposal


def headings(parts: list[Section]) -> list[str]:
    return [section.heading for section in parts]


def test_a_review_shows_the_change_to_the_file_as_it_is_now(db: Path, queue: QueueStore, tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text("routes: []\n")
    BottleStore(db).register(SLUG, backend="docker", files={"egress-allow": str(file)})
    written = queue.write_proposal(proposal("routes: [{host: pypi.org}]\n", tool="egress-allow"))
    with Inbox(db) as inbox:
        _, why, hosts, change = sections(inbox.review(written.id))
        assert hosts.heading == "New hosts"
        assert (why.heading, why.text) == ("Justification", "because")
        assert (change.heading, change.diff, change.remarks) == ("Change", True, ())
        assert change.text is not None
        assert "-routes: []\n+routes: [{host: pypi.org}]\n" in change.text
        file.write_text("routes: [] # by hand\n")
        *_, change, odd = sections(inbox.review(written.id))
        assert "-routes: [] # by hand\n" in str(change.text)
        assert [tone for _, tone in odd.remarks] == ["alarm", "alarm"]
        assert "has changed since this was proposed" in odd.remarks[0][0]


def test_a_review_of_a_decision_says_who_decided_and_when(queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal())
    decide(inbox, written, "rejected", notes="not today", decided_by="alice", surface="web")
    review = inbox.review(written.id)
    item, parts = review.item, sections(review)
    assert headings(parts) == ["", "Justification", "Payload", "Answer", "Notes"]
    assert dict(parts[3].fields)["Status"] == ("rejected", "bad")
    assert dict(parts[3].fields)["Decided"][0].endswith("Z by alice (web)")
    assert words.ended(item).endswith("Z by alice (web): not today")


BEFORE_AND_AFTER = [("", "a\nb"), ("a\nb\n", "a\nc"), ("a\n", "\n"), ("1\n" * 20, "1\n" * 19 + "2\n"), ("a", "a\n")]


@pytest.mark.parametrize(("before", "after"), BEFORE_AND_AFTER)
def test_hunks_read_as_the_unified_diff_of_the_log(
    db: Path, queue: QueueStore, tmp_path: Path, before: str, after: str
) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(before)
    BottleStore(db).register(SLUG, backend="docker", files={"egress-allow": str(file)})
    written = queue.write_proposal(proposal(after, tool="egress-allow"))
    with Inbox(db) as inbox:
        hunks = inbox.review(written.id).hunks
    assert hunks is not None
    assert unified(hunks, "routes.yaml") == render_diff(before, after, label="routes.yaml")


def test_a_decision_names_the_review_that_was_read(queue: QueueStore, inbox: Inbox) -> None:
    review = inbox.review(queue.write_proposal(proposal()).id)
    item = review.item
    with pytest.raises(StaleReviewError):
        decisions.check_hash(review, "0" * 16)
    decisions.check_hash(review, review.review_sha256[:16])
    answer = decisions.decide(inbox, review, "approved", surface="tui")
    assert (answer.review_sha256, answer.surface) == (review.review_sha256, "tui")
    assert answer.payload_sha256 == item.proposal.payload_sha256
    with pytest.raises(AlreadyDecidedError):
        decisions.refuse_early(inbox, item, surface="tui")


def test_asking_early_decides_nothing(queue: QueueStore, inbox: Inbox) -> None:
    item = inbox.read(queue.write_proposal(proposal()).id)
    decisions.refuse_early(inbox, item, surface="tui")
    assert inbox.read(item.proposal.id).state == "pending"


def test_a_draft_is_kept_only_if_there_is_work_in_it(queue: QueueStore, inbox: Inbox) -> None:
    item = inbox.read(queue.write_proposal(proposal()).id)
    told: list[str] = []
    with pytest.raises(KeyboardInterrupt), drafted(item, told.append) as draft:
        raise KeyboardInterrupt
    assert not draft.parent.exists()
    assert told == []
    with pytest.raises(KeyboardInterrupt), drafted(item, told.append) as draft:
        draft.write_text("an hour's work")
        raise KeyboardInterrupt
    assert draft.read_text() == "an hour's work"
    assert told == [f"your version is kept in {draft}"]
    kept = pytest.raises(InvalidInputError, match=f"^no; your version is kept in {draft.parent.parent}")
    with kept, drafted(item, told.append) as draft:
        draft.write_text("an hour's work")
        raise InvalidInputError("no")


def test_the_pending_list_says_what_came_and_what_became_of_what_went(queue: QueueStore, inbox: Inbox) -> None:
    first = queue.write_proposal(proposal())
    pending = feed.PendingList(inbox)
    at, update = pending.open()
    assert (update.arrived, update.ended) == ([first.id], [])
    second = queue.write_proposal(proposal())
    decide(inbox, first, decided_by="alice")
    seen = feed.events(inbox, at, timeout=5)
    assert [(change.kind, change.proposal_id) for change in (next(seen), next(seen))] == [
        ("proposed", second.id),
        ("approved", first.id),
    ]
    update = pending.update()
    assert [item.proposal.id for item in update.items] == [second.id]
    assert update.arrived == [second.id]
    assert [(item.proposal.id, item.state) for item in update.ended] == [(first.id, "approved")]
    assert "by alice (api)" in words.ended(update.ended[0])
    assert pending.update()[1:] == ([], [])


def test_only_the_events_of_a_bottle_are_told(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    at = inbox.last_change()
    with QueueStore("other", db) as other:
        other.write_proposal(proposal(slug="other"))
    mine = queue.write_proposal(proposal())
    assert next(feed.events(inbox, at, bottle_slug=SLUG, timeout=5)).proposal_id == mine.id
