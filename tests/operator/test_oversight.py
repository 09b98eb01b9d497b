"""Are the figures of oversight those of what people did?"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from bot_bottle import Database, GrantStore, Inbox, Proposal, QueueStore
from bot_bottle.operator import oversight, views, words
from cli_process import Host
from store_process import decide, eventually, proposal


def measured(db: Path, **more: Any) -> dict[str, Any]:
    database = Database(db)
    try:
        return oversight.measure(database, **more)
    finally:
        database.close()


def view(inbox: Inbox, asked: Proposal, seconds_before: float, *, whole: bool = False) -> views.View:
    """A review of a decided proposal that was shown so long before the decision."""
    answer = inbox.read(asked.id).response
    assert answer is not None and answer.decided_at is not None and answer.review_sha256 is not None
    decided = datetime.fromisoformat(answer.decided_at.replace("Z", "+00:00"))
    at = (decided - timedelta(seconds=seconds_before)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return views.View(asked.id, answer.review_sha256, "tui", at, at if whole else None)


def test_each_decision_counts_for_its_bottle_tool_and_operator(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    asked = [queue.write_proposal(proposal()) for _ in range(4)]
    for each, status, who in zip(asked, ("approved", "approved", "rejected"), ("ann", "bob", "ann"), strict=False):
        decide(inbox, each, status, decided_by=who)
    found = measured(db)
    assert found["total"]["decided"] == found["by_bottle"]["dev"]["decided"] == 3
    assert found["by_tool"]["capability-block"]["rejected"] == 1
    assert {who: figures["decided"] for who, figures in found["by_operator"].items()} == {"ann": 2, "bob": 1}
    assert found["total"]["seconds"]["p95"] >= found["total"]["seconds"]["median"] >= 0
    assert sum(found["by_day"].values()) == 3
    assert measured(db, bottle="other")["total"]["decided"] == 0
    assert measured(db, since="9999")["total"]["decided"] == 0


def test_what_a_policy_decided_is_no_time_of_a_person(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    decide(inbox, queue.write_proposal(proposal()), surface="policy", decided_by="policy: pypi")
    total = measured(db)["total"]
    assert (total["decided"], total["by_policy"], total["seconds"]["median"], total["seen"]["not_shown"]) == (
        1,
        1,
        None,
        0,
    )


def test_haste_and_half_read_reviews_are_counted_once_they_are_recorded(
    db: Path, queue: QueueStore, inbox: Inbox
) -> None:
    asked = [queue.write_proposal(proposal()) for _ in range(4)]
    for each in asked:
        decide(inbox, each)
    before = measured(db)
    assert (before["views_recorded"], before["total"]["seen"]["not_shown"]) == (False, 4)
    noted = [view(inbox, asked[0], 0.5), view(inbox, asked[1], 20, whole=True), view(inbox, asked[2], 20)]
    assert views.note(noted, str(db)) is None
    after = measured(db)
    assert after["views_recorded"]
    assert after["total"]["seen"] == {"shown": 3, "within_a_second": 1, "not_to_the_end": 2, "not_shown": 1}


def test_a_view_after_the_decision_does_not_count(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    asked = queue.write_proposal(proposal())
    decide(inbox, asked)
    views.note([view(inbox, asked, -5, whole=True)], str(db))
    assert measured(db)["total"]["seen"]["not_shown"] == 1


def test_the_first_view_and_the_end_both_stay(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    asked = queue.write_proposal(proposal())
    decide(inbox, asked)
    views.note([view(inbox, asked, 30)], str(db))
    views.note([view(inbox, asked, 10, whole=True), view(inbox, asked, 0.1)], str(db))
    seen = measured(db)["total"]["seen"]
    assert (seen["within_a_second"], seen["not_to_the_end"]) == (0, 0)


def test_what_expired_is_unseen_unless_it_was_shown(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    asked = [queue.write_proposal(proposal(expires_in=0.001)) for _ in range(2)]
    eventually(lambda: not inbox.pending())
    at = asked[0].arrival_timestamp
    views.note([views.View(asked[0].id, "0" * 64, "cli", at)], str(db))
    total = measured(db)["total"]
    assert (total["decided"], total["expired"], total["expired_unseen"]) == (0, 2, 1)


def test_a_grant_revoked_within_the_hour_is_a_reversal(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    kept, taken_back = (queue.write_proposal(proposal(fingerprint=name)) for name in "ab")
    for each in (kept, taken_back):
        decide(inbox, each, grant="bottle")
    grants = GrantStore(db)
    (grant,) = [each for each in grants.list_grants() if each.proposal_id == taken_back.id]
    grants.revoke_grant(grant.id)
    grants.close()
    assert measured(db)["total"]["reversed"] == 1


def test_pruned_decisions_still_count(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    asked = queue.write_proposal(proposal())
    decide(inbox, asked, "rejected", decided_by="ann")
    queue.archive_proposal(asked.id)
    database = Database(db)
    eventually(lambda: database.prune(older_than=0) == 1)
    database.close()
    total = measured(db)["total"]
    assert (total["decided"], total["rejected"], total["seconds"]["median"]) == (1, 1, None)


def test_a_database_that_is_not_there_has_no_figures(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    assert measured(path)["total"]["decided"] == 0
    assert not path.exists()


def test_a_sparkline_shows_the_least_day_and_the_most() -> None:
    assert oversight.sparkline([0, 1, 100, 50]) == " ▁█▄"
    assert oversight.sparkline([0, 0]) == "  "
    assert oversight.sparkline([1, 1], ascii_only=True) == "@@"
    today = words.days_ago(0)[:10]
    assert oversight.last_days({today: 3, "1999-01-01": 9}) == [0] * 13 + [3]


def test_show_and_a_decision_are_in_the_figures(host: Host) -> None:
    shown, blind = (host.propose(f"FROM {name}\n", tool="capability-block") for name in "ab")
    host.run("show", shown.id)
    host.run("approve", shown.id, "--yes")
    host.run("reject", blind.id)
    figures = host.json("stats", "--since", "1d", "--bottle", "demo")["oversight"]["total"]
    assert figures["seen"] | {"within_a_second": 0} == {
        "shown": 1,
        "within_a_second": 0,
        "not_to_the_end": 0,
        "not_shown": 1,
    }
    printed = host.run("stats").stdout
    assert "capability-block" in printed and "Not shown" in printed and "Last 14 days" in printed
    assert json.loads(host.run("db", "query", "select surface from operator_views", "--json").stdout) == [
        {"surface": "cli"}
    ]
    assert host.run("db", "check").stdout
