"""Is leave to do a thing again given as decided, spent once, and taken back?"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from bot_bottle import (
    AuditStore,
    BottleStore,
    ClosedError,
    Grant,
    GrantStore,
    Inbox,
    InvalidInputError,
    NotFoundError,
    QueueStore,
    new_id,
)
from store_process import Process, decide, eventually, proposal, witness
from transports import over_both

TOOL = "egress-token-allow"
PRINT = "api.example.com:5a2c"


@pytest.fixture
def grants(db: Path) -> GrantStore:
    return GrantStore(db)


def give(queue: QueueStore, inbox: Inbox, scope: str, fingerprint: str = PRINT) -> Grant:
    written = queue.write_proposal(proposal(tool=TOOL, fingerprint=fingerprint))
    decide(inbox, written, notes="a test key", decided_by="ann", grant=scope)
    return GrantStore(inbox.db_path).list_grants()[0]


def uses(grants: GrantStore, at_most: int = 20) -> int:
    return sum(grants.use_grant("dev", TOOL, PRINT) is not None for _ in range(at_most))


def test_without_a_grant_there_is_none(db: Path, grants: GrantStore) -> None:
    assert grants.use_grant("dev", TOOL, PRINT) is None
    assert grants.list_grants() == grants.list_grants("dev", live=False) == []
    with pytest.raises(NotFoundError):
        grants.revoke_grant(new_id())
    assert list(db.parent.iterdir()) == []


@over_both
@pytest.mark.parametrize(("scope", "times"), [("once", 1), ("uses:3", 3), ("for:3600", 20), ("bottle", 20)])
def test_a_grant_allows_what_was_decided(
    way: dict[str, Any], queue: QueueStore, inbox: Inbox, grants: GrantStore, scope: str, times: int
) -> None:
    grant = give(queue, inbox, scope)
    assert (grant.bottle_slug, grant.tool, grant.fingerprint, grant.created_by) == ("dev", TOOL, PRINT, "ann")
    assert grant.live
    assert grant.last_used_at is None
    assert GrantStore(**way).find_grant("dev", TOOL, PRINT) == grant
    assert uses(GrantStore(**way)) == times
    (after,) = grants.list_grants(live=False)
    assert after.last_used_at is not None
    assert after.live == (times == 20)
    assert len(grants.list_grants()) == (times == 20)
    assert (GrantStore(**way).find_grant("dev", TOOL, PRINT) is not None) == (times == 20)


def test_an_approval_without_a_scope_grants_nothing(queue: QueueStore, inbox: Inbox, grants: GrantStore) -> None:
    decide(inbox, queue.write_proposal(proposal(tool=TOOL, fingerprint=PRINT)), notes="this once")
    assert grants.list_grants(live=False) == []
    assert grants.use_grant("dev", TOOL, PRINT) is None


def test_a_grant_is_for_one_bottle_tool_and_fingerprint(queue: QueueStore, inbox: Inbox, grants: GrantStore) -> None:
    give(queue, inbox, "bottle")
    for other in (
        ("other", TOOL, PRINT),
        ("dev", "gitleaks-allow", PRINT),
        ("dev", TOOL, PRINT + "x"),
        ("dev", TOOL, ""),
    ):
        assert grants.use_grant(*other) is None
    assert grants.list_grants("other") == []
    assert len(grants.list_grants("dev")) == 1


def test_a_grant_ends_with_its_time(queue: QueueStore, inbox: Inbox, grants: GrantStore) -> None:
    give(queue, inbox, "for:0.3")
    assert grants.use_grant("dev", TOOL, PRINT) is not None
    eventually(lambda: not grants.list_grants())
    assert grants.use_grant("dev", TOOL, PRINT) is None
    (grant,) = grants.list_grants(live=False)
    assert (grant.scope, grant.live) == ("until", False)


def test_a_counted_use_is_kept_while_another_grant_serves(queue: QueueStore, inbox: Inbox, grants: GrantStore) -> None:
    give(queue, inbox, "once")
    give(queue, inbox, "for:3600")
    for _ in range(3):
        used = grants.use_grant("dev", TOOL, PRINT)
        assert used is not None
        assert used.scope == "until"


@pytest.mark.parametrize(
    "scope",
    ["", "ever", "once:1", "uses", "uses:0", "uses:-1", "uses:1.5", "uses:9999999999", "for:0", "for:-1", "for:nan",
     "for:x", "until:tomorrow", "until:2001-01-01T00:00:00Z", "bottle:1", "ONCE"],
)  # fmt: skip
def test_a_scope_that_is_none_decides_nothing(queue: QueueStore, inbox: Inbox, grants: GrantStore, scope: str) -> None:
    written = queue.write_proposal(proposal(tool=TOOL, fingerprint=PRINT))
    with pytest.raises(InvalidInputError, match="grant"):
        decide(inbox, written, notes="n", grant=scope)
    assert queue.list_pending_proposals() == [written]
    assert grants.list_grants(live=False) == []


def test_a_rejection_grants_nothing(queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal(tool=TOOL, fingerprint=PRINT))
    with pytest.raises(InvalidInputError, match="rejection"):
        decide(inbox, written, "rejected", grant="once")
    assert queue.list_pending_proposals() == [written]


@pytest.mark.parametrize("bad", [("Dev", TOOL, PRINT), ("dev", "a tool", PRINT), ("dev", TOOL, "x" * 513)])
def test_a_question_that_breaks_a_rule_is_refused(grants: GrantStore, bad: tuple[str, str, str]) -> None:
    with pytest.raises(InvalidInputError):
        grants.use_grant(*bad)


# --- revoking


def test_a_revoked_grant_allows_nothing_more(queue: QueueStore, inbox: Inbox, grants: GrantStore) -> None:
    grant = give(queue, inbox, "uses:5")
    assert uses(grants, 2) == 2
    ended = grants.revoke_grant(grant.id, revoked_by="bob")
    assert (ended.id, ended.live, ended.revoked_by, ended.uses_left) == (grant.id, False, "bob", 3)
    assert uses(grants) == 0
    again = grants.revoke_grant(grant.id, revoked_by="carol")
    assert (again.revoked_by, again.revoked_at) == ("bob", ended.revoked_at)


def test_a_grant_is_revoked_by_a_unique_beginning(queue: QueueStore, inbox: Inbox, grants: GrantStore) -> None:
    one, two = give(queue, inbox, "once"), give(queue, inbox, "once", "another")
    shared = next(one.id[:n] for n in range(len(one.id), 3, -1) if two.id.startswith(one.id[:n]))
    with pytest.raises(InvalidInputError, match="several") as caught:
        grants.revoke_grant(shared)
    assert caught.value.matches == [one.id, two.id]  # type: ignore[attr-defined]
    for unknown in ("", "01", "zzzz", "%%%%"):
        with pytest.raises((NotFoundError, InvalidInputError)):
            grants.revoke_grant(unknown)
    assert len(grants.list_grants()) == 2
    assert grants.revoke_grant(two.id[: len(shared) + 1]).id == two.id


def test_a_stopped_bottle_s_grants_end_with_it(db: Path, queue: QueueStore, inbox: Inbox, grants: GrantStore) -> None:
    bottles = BottleStore(db)
    bottles.register("dev", backend="docker")
    give(queue, inbox, "bottle")
    kept = give(queue, inbox, "uses:2")
    bottles.stop("dev")
    assert [grant.id for grant in grants.list_grants()] == [kept.id]
    bottles.register("dev", backend="docker")
    assert [grant.id for grant in grants.list_grants()] == [kept.id]


# --- what the log says of it


def test_every_use_is_audited_as_a_policy_s_and_names_its_grant(
    db: Path, queue: QueueStore, inbox: Inbox, grants: GrantStore
) -> None:
    grant = give(queue, inbox, "uses:2")
    uses(grants)
    grants.revoke_grant(grant.id, revoked_by="bob", surface="cli")
    entries = AuditStore(db).read_audit_entries()
    assert [(one.operator_action, one.surface, one.decided_by) for one in entries] == [
        ("approved", "api", "ann"),
        ("grant-given", "api", "ann"),
        ("grant-used", "policy", "ann"),
        ("grant-used", "policy", "ann"),
        ("grant-revoked", "cli", "bob"),
    ]
    assert all(grant.id in one.operator_notes for one in entries[1:])
    assert grant.proposal_id is not None
    assert entries[1].proposal_id == grant.proposal_id
    assert entries[1].operator_notes.endswith(": 2 uses")
    assert grant.proposal_id in entries[2].operator_notes


def test_sql_itself_keeps_a_count_from_going_below_zero(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    give(queue, inbox, "once")
    with pytest.raises(Exception, match="returned non-zero"):
        witness(db, "UPDATE grants SET uses_left = uses_left - 2")


def test_processes_never_spend_the_same_use(db: Path, queue: QueueStore, inbox: Inbox, grants: GrantStore) -> None:
    def spend(db: str, tool: str, fingerprint: str) -> None:
        from bot_bottle import GrantStore

        grants = GrantStore(db)
        print("ready")
        input()
        print(sum(grants.use_grant("dev", tool, fingerprint) is not None for _ in range(40)))

    give(queue, inbox, "uses:50")
    spenders = [Process(spend, db, TOOL, PRINT) for _ in range(4)]
    for spender in spenders:
        assert spender.says() == "ready"
    for spender in spenders:
        spender.tell()
    assert sum(int(spender.ends()) for spender in spenders) == 50
    (grant,) = grants.list_grants(live=False)
    assert (grant.uses_left, grant.live) == (0, False)
    assert len([one for one in AuditStore(db).read_audit_entries() if one.operator_action == "grant-used"]) == 50


def test_grants_are_values(queue: QueueStore, inbox: Inbox, grants: GrantStore) -> None:
    grant = give(queue, inbox, "once")
    (same,) = grants.list_grants()
    assert grant == same
    assert hash(grant) == hash(same)
    assert grant.to_dict()["scope"] == "once"
    assert set(grant.to_dict()) == {name for name in dir(grant) if name[0] != "_"} - {"to_dict"}
    with pytest.raises(AttributeError):
        grant.uses_left = 9  # type: ignore[misc]
    again: Any = pickle.loads(pickle.dumps(grant))
    assert again == grant


def test_a_closed_store_says_so(grants: GrantStore) -> None:
    grants.close()
    with pytest.raises(ClosedError):
        grants.list_grants()
