"""What others put into the file's schema: does it stop writes before it acts in one, and is it named?

The planter is always another process, with SQLite's own defences off, as whoever shares the file would have it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bot_bottle import (
    AuditEntry,
    AuditStore,
    BottleStore,
    Database,
    DatabaseCorruptError,
    GrantStore,
    Inbox,
    QueueStore,
)
from cli_process import Host
from store_process import decide, proposal, witness

TRIGGERS = {
    "decides for others": "CREATE TRIGGER x1 AFTER INSERT ON proposals BEGIN"
    " UPDATE proposals SET state = 'approved' WHERE seq = NEW.seq; END",
    "moves a file": "CREATE TRIGGER x1 AFTER INSERT ON managed_files BEGIN"
    " UPDATE managed_files SET path = '/etc/x'; END",
    "runs away": "CREATE TRIGGER x1 AFTER INSERT ON audit_entries BEGIN SELECT count(*) FROM"
    " (WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n); END",
    "in capitals": 'CREATE TRIGGER "X1" AFTER DELETE ON "CHANGES" BEGIN SELECT 1; END',
    "upon the books": "CREATE TRIGGER x1 AFTER UPDATE ON schema_versions BEGIN SELECT 1; END",
    "upon responses": "CREATE TRIGGER x1 BEFORE INSERT ON responses BEGIN SELECT raise(IGNORE); END",
}

WRITES: list[Callable[[Path], object]] = [
    lambda db: QueueStore("dev", db).write_proposal(proposal()),
    lambda db: AuditStore(db).write_audit_entry(AuditEntry("2026-01-31T12:00:00Z", "dev", "test", "x")),
    lambda db: BottleStore(db).register("dev", backend="docker"),
]


@pytest.mark.parametrize("sql", TRIGGERS.values(), ids=TRIGGERS)
def test_a_planted_trigger_stops_every_write_and_is_named(db: Path, queue: QueueStore, sql: str) -> None:
    written = queue.write_proposal(proposal())  # a connection that is open already, too
    witness(db, sql)
    for write in [lambda db: queue.write_proposal(proposal()), *WRITES]:
        with pytest.raises(DatabaseCorruptError, match=r"holds the trigger x1 on \w+, which is not ours.*db restore"):
            write(db)
    item = Inbox(db).read(written.id)  # what is read is as it was
    assert item.state == "pending"
    with pytest.raises(DatabaseCorruptError, match="x1"):
        decide(Inbox(db), written)
    findings = Database(db).check()
    assert [finding for finding in findings if "the trigger x1" in finding] == findings != []
    witness(db, "DROP TRIGGER x1")
    assert Database(db).check() == []
    assert decide(Inbox(db), written).status == "approved"


def test_a_planted_index_stops_writes(db: Path, queue: QueueStore) -> None:
    queue.write_proposal(proposal())
    witness(db, "CREATE UNIQUE INDEX one_for_all ON proposals (tool)")
    with pytest.raises(DatabaseCorruptError, match="the index one_for_all on proposals, which is not ours"):
        queue.write_proposal(proposal())


@pytest.mark.parametrize("table", ["changes", "grants", "proposals", "schema_versions"])
def test_a_view_in_the_place_of_a_table_is_not_even_read(db: Path, queue: QueueStore, table: str) -> None:
    queue.write_proposal(proposal())
    witness(db, "PRAGMA legacy_alter_table = ON", f"ALTER TABLE {table} RENAME TO {table}_",
            f"CREATE VIEW {table} AS SELECT * FROM {table}_")  # fmt: skip
    reads: list[Callable[[Path], object]] = [lambda db: Inbox(db).pending(), lambda db: GrantStore(db).list_grants()]
    for use in (*reads, *WRITES):
        with pytest.raises(DatabaseCorruptError, match=f"a view {table} that is not ours"):
            use(db)


def test_a_table_with_other_constraints_is_not_ours(db: Path, queue: QueueStore) -> None:
    queue.write_proposal(proposal())
    witness(
        db,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_schema SET sql = replace(sql, 'STRICT', '') WHERE name = 'proposals'",
        "PRAGMA schema_version = 1000",
    )
    with pytest.raises(DatabaseCorruptError, match="a table proposals that is not ours"):
        queue.write_proposal(proposal())


def test_the_seatbelt_that_somebody_took_off_is_missed_by_the_check(db: Path) -> None:
    AuditStore(db).write_audit_entry(AuditEntry("2026-01-31T12:00:00Z", "dev", "test", "x"))
    witness(db, "DROP TRIGGER audit_entries_no_update")
    assert Database(db).check() == ["the trigger audit_entries_no_update is gone"]


def test_what_other_modules_have_beside_is_theirs(db: Path, queue: QueueStore) -> None:
    queue.write_proposal(proposal())
    steps = [
        (
            "CREATE TABLE seen (id INTEGER PRIMARY KEY, proposal_seq INTEGER REFERENCES proposals (seq));"
            "CREATE INDEX seen_by_proposal ON seen (proposal_seq);"
            "CREATE VIEW unseen AS SELECT id FROM proposals WHERE seq NOT IN (SELECT proposal_seq FROM seen);"
            "CREATE TRIGGER seen_once BEFORE UPDATE ON seen BEGIN SELECT raise(ABORT, 'seen'); END",
            "DROP VIEW unseen; DROP TABLE seen",
        )
    ]
    Database(db).migrate("dashboard", steps)
    for write in WRITES:
        write(db)
    assert Database(db).check() == []
    assert Database(db).query("SELECT count(*) AS n FROM unseen")[0]["n"] == 2


def test_a_backup_with_a_planted_trigger_is_not_restored(db: Path, queue: QueueStore, tmp_path: Path) -> None:
    written = queue.write_proposal(proposal())
    Database(db).backup(tmp_path / "saved.db")
    witness(tmp_path / "saved.db", TRIGGERS["decides for others"])
    with pytest.raises(DatabaseCorruptError, match="the trigger x1 on proposals"):
        Database(db).restore(tmp_path / "saved.db")
    assert queue.read_proposal(written.id) == written


def test_an_operator_reads_which_trigger_it_is(host: Host) -> None:
    pending = host.propose("routes: []\n")
    witness(
        host.root / "db" / "bot-bottle.db", 'CREATE TRIGGER "x\x1b[2J" AFTER INSERT ON responses BEGIN SELECT 1; END'
    )
    done = host.run("approve", pending.id, "--yes", code=8)
    said = " ".join(done.stderr.split())
    assert (
        "holds the trigger x<U+001B>[2j on responses, which is not ours; to fix it, stop the containers that mount it"
        in said
    )
    assert "x<U+001B>[2j" in host.run("db", "check", code=8).stdout
    assert [item["id"] for item in host.json("pending")] == [pending.id]
    helper = subprocess.run(
        [str(Path(sys.executable).parent / "bot-bottle-sidecar"), "propose", "--bottle", "demo", "--tool", "t",
         "--db", str(host.root / "db" / "bot-bottle.db"), "--justification", "j", "--file", "-"],
        input="x", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert helper.returncode == 8
    assert "\x1b" not in helper.stderr
