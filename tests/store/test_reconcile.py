"""Are decisions, grants and applied files held against the log, both ways, and what was not signed named?

Whoever tampers is another process that takes the triggers away and puts them back, so that nothing but rows tell.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bot_bottle import AuditIntegrityError, AuditStore, BottleStore, Database, Grant, GrantStore, Inbox, QueueStore
from cli_process import Host
from store_process import decide, proposal, witness

TOOL = "egress-token-allow"


def tamper(db: Path, *statements: str) -> None:
    """Runs SQL while there are no triggers."""
    triggers = witness(db, "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
    drop = [f"DROP TRIGGER {name}" for name, _ in triggers]
    witness(db, *drop, *statements, *[sql for _, sql in triggers])


def forge(db: Path, *statements: str) -> None:
    """The same, with the log's chain made anew behind it: it has no key."""
    tamper(db, *statements)
    script = """if True:
        import hashlib, sqlite3, sys
        prev = "0" * 64
        with sqlite3.connect(sys.argv[1], isolation_level=None) as db:
            triggers = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
            for name, _ in triggers:
                db.execute(f"DROP TRIGGER {name}")
            # In the order of docs/audit.md.
            columns = ("seq, timestamp, bottle_slug, component, operator_action, operator_notes, justification,"
                       " diff, decided_by, surface, proposal_id, payload_sha256, final_sha256")
            rows = db.execute(f"SELECT {columns} FROM audit_entries ORDER BY seq").fetchall()
            for number, (seq, *content) in enumerate(rows, 1):
                fields = ["bot-bottle.audit.v1", str(number), prev, *content]
                data = b"".join(b"~" if f is None else b"%d:%s," % (len(f.encode()), f.encode()) for f in fields)
                entry = hashlib.sha256(data).hexdigest()
                db.execute("UPDATE audit_entries SET seq = ?, prev_hash = ?, entry_hash = ? WHERE seq = ?",
                           (number, prev, entry, seq))
                prev = entry
            for _, sql in triggers:
                db.execute(sql)"""
    subprocess.run([sys.executable, "-c", script, str(db)], check=True, timeout=60)


def findings(db: Path) -> str:
    """What `db check` says."""
    return "\n".join(Database(db).check())


def refused(db: Path, *parts: str) -> None:
    with pytest.raises(AuditIntegrityError) as caught:
        AuditStore(db).verify()
    for part in parts:
        assert part in str(caught.value)
        assert part in findings(db)


@pytest.fixture
def grant(db: Path, queue: QueueStore, inbox: Inbox) -> Grant:
    """Given for three uses, one of them spent."""
    written = queue.write_proposal(proposal(tool=TOOL, fingerprint="host:1"))
    decide(inbox, written, notes="a test key", decided_by="ann", grant="uses:3")
    used = GrantStore(db).use_grant("dev", TOOL, "host:1")
    assert used is not None
    return used


def test_what_was_decided_given_used_revoked_and_pruned_is_sound(
    db: Path, queue: QueueStore, inbox: Inbox, grant: Grant, tmp_path: Path
) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text("routes: []\n")
    BottleStore(db).register("dev", backend="docker", files={"egress-allow": str(file)})
    managed = queue.write_proposal(proposal("routes: [] # more\n", tool="egress-allow"))
    decide(inbox, managed)
    decide(inbox, queue.write_proposal(proposal()), "rejected")
    decide(inbox, queue.write_proposal(proposal("one\n")), "modified", final_file="two\n")
    GrantStore(db).revoke_grant(grant.id)
    assert findings(db) == ""
    before = AuditStore(db).verify().entries
    with Database(db) as database:
        assert database.prune(older_than=0) == 4
    assert AuditStore(db).verify().entries == before + 1
    assert findings(db) == ""


@pytest.mark.parametrize("column", ["notes", "decided_by", "surface", "decided_at"])
def test_a_decision_that_was_changed_is_named(db: Path, queue: QueueStore, inbox: Inbox, column: str) -> None:
    written = queue.write_proposal(proposal())
    decide(inbox, written, surface="cli")
    other = {"surface": "tui", "decided_at": "2020-01-01T00:00:00.000000Z"}.get(column, "mallory")
    tamper(db, f"UPDATE responses SET {column} = '{other}'")
    refused(db, f"the decision on proposal {written.id} is not the one of entry 1: {column} differs")
    assert f"the decision on proposal {written.id}: what it says is not what key" in findings(db)


def test_a_decision_that_the_log_does_not_have_is_named(db: Path, queue: QueueStore) -> None:
    written = queue.write_proposal(proposal())
    witness(
        db,
        "UPDATE proposals SET state = 'approved'",
        "INSERT INTO responses SELECT seq, 'approved', '', payload_sha256, payload_sha256, 'operator', 'cli', "
        "arrival_timestamp, '', NULL, '', '', NULL FROM proposals",
    )
    refused(db, f"the decision on proposal {written.id} is not in the audit log")
    said = f"the decision on proposal {written.id}: it is not signed"
    assert said in findings(db)
    entries = [one.operator_notes for one in AuditStore(db).read_audit_entries() if one.operator_action == "damaged"]
    assert entries.count(said) == 1  # however often it was checked


def test_an_entry_of_a_decision_that_is_gone_is_named(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    kept, gone = queue.write_proposal(proposal()), queue.write_proposal(proposal())
    for written in (kept, gone):
        decide(inbox, written)
    tamper(db, f"DELETE FROM responses WHERE proposal_seq = (SELECT seq FROM proposals WHERE id = '{gone.id}')")
    refused(db, f"entry 2 says that proposal {gone.id} was approved, and there is no such decision")
    tamper(db, f"DELETE FROM proposals WHERE id = '{gone.id}'")
    refused(db, f"entry 2 says that proposal {gone.id} was approved, and there is no such decision")
    assert kept.id not in findings(db)


def test_pruning_excuses_only_what_it_could_have_deleted(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    old = queue.write_proposal(proposal())
    decide(inbox, old)
    with Database(db) as database:
        assert database.prune(older_than=0) == 1
    late = queue.write_proposal(proposal())
    decide(inbox, late)
    assert findings(db) == ""
    tamper(db, "DELETE FROM proposals", "DELETE FROM responses")
    refused(db, f"proposal {late.id} was approved, and there is no such decision")
    assert old.id not in findings(db)


def test_another_file_than_the_decided_one_is_named(db: Path, queue: QueueStore, inbox: Inbox, tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text("routes: []\n")
    BottleStore(db).register("dev", backend="docker", files={"egress-allow": str(file)})
    written = queue.write_proposal(proposal("routes: [] # more\n", tool="egress-allow"))
    decide(inbox, written)
    witness(db, f"UPDATE applies SET final_sha256 = '{'0' * 64}'")
    refused(db, f"the file that was put in place for proposal {written.id} is not the one of entry 1")


GRANTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a use given back": (
        lambda db: tamper(db, "UPDATE grants SET uses_left = 3"),
        "grant {id} has 3 of its uses left, by the log 2",
    ),
    "made up": (
        lambda db: tamper(db, "UPDATE grants SET id = '0198aaaa-0000-7000-8000-000000000000'"),
        "grant 0198aaaa-0000-7000-8000-000000000000 is not in the audit log",
    ),
    "deleted": (
        lambda db: tamper(db, "DELETE FROM grants"),
        "entry 2 says that grant {id} was given, and there is no such grant",
    ),
    "of somebody else": (
        lambda db: tamper(db, "UPDATE grants SET bottle_slug = 'box'"),
        "grant {id} is not the one of entry 2: bottle_slug differs",
    ),
    "its entry deleted": (
        lambda db: forge(db, "DELETE FROM audit_entries WHERE operator_action = 'grant-given'"),
        "grant {id} is not in the audit log",
    ),
}


@pytest.mark.parametrize(("act", "said"), GRANTS.values(), ids=GRANTS)
def test_a_grant_and_its_entries_are_held_against_each_other(
    db: Path, grant: Grant, act: Callable[[Path], None], said: str
) -> None:
    act(db)
    refused(db, said.format(id=grant.id))


def test_an_end_that_was_undone_is_named(db: Path, grant: Grant) -> None:
    GrantStore(db).revoke_grant(grant.id)
    tamper(db, "UPDATE grants SET revoked_at = NULL, revoked_by = NULL")
    refused(db, f"grant {grant.id} was revoked, and its row says nothing of that")


def test_a_decision_taken_out_of_a_log_that_was_made_anew_is_missed(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal())
    decide(inbox, written)
    decide(inbox, queue.write_proposal(proposal()))
    forge(db, "DELETE FROM audit_entries WHERE seq = 1")
    refused(db, f"the decision on proposal {written.id} is not in the audit log")


END = 2**63 - 1


@pytest.mark.parametrize("number", [END, END - 1, 2**53, 2**53 - 1, 2**53 - 2, 1000, -END])
def test_planted_numbers_end_neither_the_log_nor_the_queue(
    db: Path, queue: QueueStore, inbox: Inbox, number: int
) -> None:
    first = queue.write_proposal(proposal())
    decide(inbox, first)
    zeros, at = "0" * 64, "2026-01-31T12:00:00.000000Z"
    witness(
        db,
        "PRAGMA ignore_check_constraints = ON",
        f"INSERT INTO audit_entries VALUES ({number}, '{at}', 'dev', 'x', 'x', '', '', 'x', 'api', NULL, NULL, NULL"
        f", '{zeros}', 'nothing of a hash', '')",
        f"INSERT INTO changes VALUES ({number}, 'proposed', '{first.id}', 'dev', 'x', '{at}')",
        "INSERT INTO proposals (seq, id, queue_key, bottle_slug, tool, payload_sha256, justification, arrival_timestamp"
        f", proposed_file, state) VALUES ({number}, 'x', 'box', 'box', 'x', '{zeros}', '', '{at}', 'x', 'approved')",
    )
    seen = inbox.last_change()
    written = [queue.write_proposal(proposal()) for _ in range(3)]
    for one in written:
        decide(inbox, one)
    entries = [one for one in AuditStore(db).read_audit_entries() if one.operator_action == "approved"]
    assert {one.proposal_id for one in entries} == {first.id, *[one.id for one in written]}
    history = [one.proposal.id for one in inbox.history(bottle_slug="dev")]
    assert set(history) == {one.id for one in (first, *written)}
    if number == 2**53 - 2:  # the last that counts: one row comes after it, and what follows goes on from before
        return
    assert [one.proposal_id for one in entries] == [first.id, *[one.id for one in written]]
    assert history == [one.id for one in (*reversed(written), first)]
    heard = [(one.kind, one.proposal_id) for one in inbox.changes(seen)]
    assert heard == [("proposed", one.id) for one in written] + [("approved", one.id) for one in written]
    with pytest.raises(AuditIntegrityError, match="entry"):
        AuditStore(db).verify()


@pytest.mark.parametrize(
    ("act", "kept", "counted"),
    [("UPDATE tallies SET proposals = 7", 7, 2), ("DELETE FROM tallies", 0, 2), ("DELETE FROM proposals", 2, 0)],
)
def test_a_tally_that_is_not_what_there_is_is_named(
    db: Path, queue: QueueStore, act: str, kept: int, counted: int
) -> None:
    for _ in range(2):
        queue.write_proposal(proposal())
    assert findings(db) == ""
    tamper(db, act)
    said = f"`stats` counts {kept} proposals of dev for capability-block that are pending, and there are {counted}"
    assert said in findings(db)


def test_on_the_command_line_both_say_so_with_their_exit_codes(host: Host) -> None:
    written = host.propose("a request", tool=TOOL, fingerprint="host:1")
    host.run("approve", written.id, "--yes", "--notes", "a test key", "--grant", "uses:3")
    db = host.root / "db" / "bot-bottle.db"
    tamper(db, "UPDATE grants SET uses = 300, uses_left = 300")
    (listed,) = host.json("grants", "list")
    assert (listed["live"], "is not what key" in listed["damaged"]) == (False, True)
    assert "damaged" in host.run("grants", "list").stdout
    (finding,) = host.json("db", "check", code=8)
    assert listed["id"] in finding
    assert "is not what key" in finding
    host.run("db", "check", code=8)
    entries = host.json("audit", "list")
    assert [one["operator_action"] for one in entries].count("damaged") == 1
    host.run("audit", "verify")  # the log and the rows say the same: the number that was signed is not in the log
    tamper(db, "DELETE FROM responses")
    assert written.id in host.run("audit", "verify", code=7).stderr
