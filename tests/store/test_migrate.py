"""Does the schema come up and go back in whole steps, and can other programs keep tables beside it?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bot_bottle import (
    ClosedError,
    Database,
    Inbox,
    InvalidInputError,
    MigrationError,
    QueueStore,
    SchemaTooNewError,
)
from checkout import CHECKOUT
from store_process import Process, assert_sound, decide, proposal, witness

MIGRATIONS = CHECKOUT / "migrations"
MODULES = sorted(path.name for path in MIGRATIONS.iterdir() if path.is_dir())
STEPS = [
    ("CREATE TABLE forge_issues (id INTEGER PRIMARY KEY, proposal_id TEXT NOT NULL) STRICT", "DROP TABLE forge_issues"),
    ("ALTER TABLE forge_issues ADD COLUMN url TEXT", "ALTER TABLE forge_issues DROP COLUMN url"),
]


@pytest.fixture
def database(db: Path) -> Database:
    return Database(db)


def versions(db: Path) -> dict[str, int]:
    return dict(witness(db, "SELECT module, version FROM schema_versions"))


def schema(db: Path) -> list[list[str]]:
    return witness(db, "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'schema_%' ORDER BY name")


# --- bot-bottle's own modules


@pytest.mark.parametrize("module", MODULES)
def test_every_step_has_its_way_back_and_opens_with_why(module: str) -> None:
    ups = sorted((MIGRATIONS / module).glob("*.up.sql"))
    downs = sorted((MIGRATIONS / module).glob("*.down.sql"))
    assert [path.name[:-7] for path in ups] == [path.name[:-9] for path in downs]
    assert [int(path.name[:4]) for path in ups] == list(range(1, len(ups) + 1))
    for path in (*ups, *downs):
        assert path.read_text().startswith("-- "), path


def test_a_fresh_file_has_every_module_at_the_version_of_its_last_step(db: Path, database: Database) -> None:
    steps = {module: len(list((MIGRATIONS / module).glob("*.up.sql"))) for module in MODULES}
    assert database.migrate_all() == steps == versions(db)
    status = database.status()["modules"]
    assert status == {module: {"found": count, "compat": 1, "supported": count} for module, count in steps.items()}


@pytest.mark.parametrize("module", MODULES)
def test_each_module_goes_back_alone_step_by_step_and_comes_again(db: Path, database: Database, module: str) -> None:
    database.migrate_all()
    before, reached = schema(db), versions(db)
    for to in range(reached[module] - 1, -1, -1):
        database.rollback(module, to=to)
        assert versions(db) == reached | {module: to}
    gone = {name for _, name, _ in before} - {name for _, name, _ in schema(db)}
    assert gone
    with QueueStore("dev", db) as queue:  # any first use brings it forward
        queue.write_proposal(proposal())
    assert (schema(db), versions(db)) == (before, reached)
    assert_sound(db)


@pytest.mark.parametrize("module", MODULES)
def test_a_newer_file_is_refused_and_left_alone(db: Path, module: str) -> None:
    QueueStore("dev", db).write_proposal(proposal())
    witness(db, f"UPDATE schema_versions SET version = 99, compat = 99 WHERE module = '{module}'")
    before = witness(db, "SELECT * FROM sqlite_schema"), witness(db, "SELECT * FROM schema_versions")
    for use in (
        lambda: QueueStore("dev", db).write_proposal(proposal()),
        lambda: QueueStore("dev", db).list_pending_proposals(),
        lambda: Inbox(db).pending(),
        lambda: Database(db).migrate_all(),
        lambda: Database(db).query("SELECT 1"),
    ):
        with pytest.raises(SchemaTooNewError, match=f"{module} at version 99") as caught:
            use()
        error = caught.value
        assert (error.exit_code, error.module, error.found) == (8, module, 99)
        assert error.supported == len(list((MIGRATIONS / module).glob("*.up.sql")))
        assert "upgrade" in str(error)
    assert (witness(db, "SELECT * FROM sqlite_schema"), witness(db, "SELECT * FROM schema_versions")) == before
    assert Database(db).status()["modules"][module]["found"] == 99


def test_a_process_that_has_it_open_stops_writing_too(db: Path, queue: QueueStore) -> None:
    queue.write_proposal(proposal())
    witness(  # what a newer release does to the file meanwhile
        db,
        "BEGIN IMMEDIATE",
        "ALTER TABLE proposals ADD COLUMN priority INTEGER",
        "UPDATE schema_versions SET version = 99, compat = 99 WHERE module = 'queue_store'",
        "COMMIT",
    )
    with pytest.raises(SchemaTooNewError):
        queue.write_proposal(proposal())
    assert witness(db, "SELECT count(*) FROM proposals") == [[1]]


def next_release(db: Path, module: str, *sql: str, version: int, compat: int) -> None:
    """What a release that does not exist yet would do to the file, in its one transaction."""
    witness(
        db,
        "BEGIN IMMEDIATE",
        *sql,
        f"UPDATE schema_versions SET version = {version}, compat = {compat} WHERE module = '{module}'",
        f"INSERT INTO schema_steps VALUES ('{module}', {version}, '{'0' * 64}', '2030-01-01T00:00:00.000000Z')",
        "COMMIT",
    )


def test_a_sidecar_of_the_release_before_goes_on_after_a_step_that_adds_and_stops_at_one_that_breaks(
    db: Path, queue: QueueStore
) -> None:
    program = Path(sys.executable).with_name("bot-bottle-sidecar")
    environment = {"SUPERVISE_DB_PATH": str(db), "SUPERVISE_BOTTLE_SLUG": "dev"}

    def sidecar(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *arguments], input=text, env=environment, capture_output=True, text=True, timeout=60
        )

    queue.write_proposal(proposal("before"))
    next_release(
        db,
        "queue_store",
        "ALTER TABLE proposals ADD COLUMN urgency INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE responses ADD COLUMN weight BLOB",
        "CREATE TABLE reminders (proposal_seq INTEGER PRIMARY KEY, at TEXT NOT NULL) STRICT",
        "CREATE INDEX proposals_by_tool ON proposals (tool)",
        version=2,
        compat=1,
    )
    asked = sidecar("propose", "--tool", "capability-block", "--justification", "j", "--json", text="FROM debian:13\n")
    assert asked.returncode == 0, asked.stderr
    ident = json.loads(asked.stdout)["proposal_id"]
    inbox = Inbox(db)
    item = inbox.read(ident)
    answer = inbox.decide(ident, "approved", payload_sha256=item.proposal.payload_sha256)
    assert (answer.status, Database(db).check()) == ("approved", [])
    waited = sidecar("wait", ident, "--json")
    assert (waited.returncode, json.loads(waited.stdout)["status"]) == (0, "approved"), waited.stderr
    status = Database(db).status()["modules"]["queue_store"]
    assert status == {"found": 2, "compat": 1, "supported": 1}

    next_release(db, "queue_store", "ALTER TABLE responses RENAME COLUMN notes TO operator_notes", version=3, compat=3)
    before = witness(db, "SELECT count(*) FROM proposals")
    refused = sidecar(
        "propose", "--tool", "capability-block", "--justification", "j", "--json", text="FROM debian:12\n"
    )
    assert refused.returncode == 8
    error = json.loads(refused.stderr)
    assert error["error"] == "SchemaTooNewError"
    assert "version 3" in error["message"]
    assert "knows 1" in error["message"]
    with pytest.raises(SchemaTooNewError):
        inbox.pending()
    assert witness(db, "SELECT count(*) FROM proposals") == before


def test_a_step_edited_after_its_release_is_noticed(db: Path) -> None:
    QueueStore("dev", db).write_proposal(proposal())
    witness(db, f"UPDATE schema_steps SET checksum = '{'0' * 64}' WHERE module = 'queue_store' AND version = 1")
    with pytest.raises(MigrationError, match="never edited") as caught:
        QueueStore("dev", db).list_pending_proposals()
    assert (caught.value.exit_code, caught.value.module, caught.value.version) == (8, "queue_store", 1)


def test_a_foreign_table_in_the_way_fails_the_step_and_harms_nothing(db: Path) -> None:
    witness(db, "CREATE TABLE bottles (mine)", "INSERT INTO bottles VALUES (1)")
    with pytest.raises(MigrationError, match="bottles") as caught:
        QueueStore("dev", db).write_proposal(proposal())
    assert (caught.value.module, caught.value.version) == ("bottle_store", 1)
    assert witness(db, "SELECT * FROM bottles") == [[1]]
    assert "bottle_store" not in versions(db)
    witness(db, "DROP TABLE bottles")
    QueueStore("dev", db).write_proposal(proposal())
    assert_sound(db)


# --- other programs' modules


def test_another_program_keeps_tables_of_its_own(db: Path, database: Database, queue: QueueStore) -> None:
    assert database.migrate("forge", STEPS[:1]) == 1
    assert database.migrate("forge", STEPS) == 2
    assert database.migrate("forge", STEPS) == 2
    assert versions(db)["forge"] == 2
    assert database.status()["modules"]["forge"] == {"found": 2, "compat": 2, "supported": None}
    written = queue.write_proposal(proposal())
    with database.transaction() as transaction:
        assert transaction.execute("INSERT INTO forge_issues VALUES (?, ?, ?) RETURNING id", [7, written.id, "u"]) == [
            {"id": 7}
        ]
        transaction.execute("UPDATE forge_issues SET url = :url WHERE id = :id", {"url": "v", "id": 7})
        assert transaction.execute("SELECT count(*) AS n FROM proposals") == [{"n": 1}]
    joined = "SELECT f.url FROM forge_issues f JOIN proposals p ON p.id = f.proposal_id"
    assert database.query(joined) == [{"url": "v"}]
    assert database.check() == []
    assert queue.list_pending_proposals() == [written]


def test_a_failed_step_leaves_the_one_before_it(db: Path, database: Database) -> None:
    broken = ("CREATE TABLE forge_more (x); CREATE TABLE forge_issues (x)", "")
    with pytest.raises(MigrationError, match="forge_issues") as caught:
        database.migrate("forge", [STEPS[0], broken])
    assert (caught.value.exit_code, caught.value.module, caught.value.version) == (8, "forge", 2)
    assert versions(db)["forge"] == 1
    names = {name for _, name, _ in schema(db)}
    assert "forge_issues" in names
    assert "forge_more" not in names
    assert database.migrate("forge", STEPS) == 2


def test_a_foreign_module_ahead_or_edited_is_refused(db: Path, database: Database) -> None:
    database.migrate("forge", STEPS)
    with pytest.raises(SchemaTooNewError, match=r"version 2\b.* knows 1") as too_new:
        database.migrate("forge", STEPS[:1])
    error = too_new.value
    assert (error.module, error.found, error.compat, error.supported) == ("forge", 2, 2, 1)
    for edited in ([(STEPS[0][0] + " ", STEPS[0][1]), STEPS[1]], [(STEPS[0][0], "SELECT 1"), STEPS[1]]):
        with pytest.raises(MigrationError, match="never edited") as caught:
            database.migrate("forge", edited)
        assert (caught.value.module, caught.value.version) == ("forge", 1)
    assert versions(db)["forge"] == 2


def test_a_foreign_module_ahead_that_only_adds_is_left_as_it_is(db: Path, database: Database) -> None:
    assert database.migrate("forge", STEPS, compat=1) == 2
    assert database.migrate("forge", STEPS[:1]) == 2
    assert database.status()["modules"]["forge"] == {"found": 2, "compat": 1, "supported": None}
    for compat in (-1, 3):
        with pytest.raises(InvalidInputError, match="compat"):
            database.migrate("forge", STEPS, compat=compat)


@pytest.mark.parametrize("module", [*MODULES, "", "For ge", "x" * 64, "../x"])
def test_a_module_s_name_is_its_own(database: Database, module: str) -> None:
    with pytest.raises(InvalidInputError, match="module"):
        database.migrate(module, STEPS)


OWN = [
    "UPDATE proposals SET state = 'approved'",
    "DELETE FROM proposals",
    "INSERT INTO responses VALUES (1, 'approved', '', '', NULL, 'x', 'api', '', '', NULL, '', '', NULL)",
    "DELETE FROM audit_entries",
    "DROP TABLE audit_entries",
    "DROP TRIGGER audit_entries_no_delete",
    "DROP INDEX proposals_pending",
    "ALTER TABLE proposals ADD COLUMN x",
    "ALTER TABLE proposals RENAME TO mine",
    "ALTER TABLE forge_issues RENAME TO proposals2; DELETE FROM grants",
    "CREATE INDEX mine ON proposals (tool)",
    "CREATE TRIGGER mine AFTER INSERT ON proposals BEGIN SELECT 1; END",
    "CREATE TEMP TRIGGER mine AFTER INSERT ON proposals BEGIN SELECT 1; END",
    "UPDATE schema_versions SET version = 7",
    "DELETE FROM schema_steps",
    "UPDATE tallies SET proposals = 7",
    "DELETE FROM Applies",
    "INSERT INTO changes VALUES (99, 'approved', 'x', 'x', 'x', 'x')",
    "ATTACH '/tmp/other.db' AS other",
    "PRAGMA writable_schema = ON",
    "PRAGMA foreign_keys = OFF",
    "PRAGMA user_version = 7",
    "COMMIT",
    "ROLLBACK",
]


@pytest.mark.parametrize("sql", OWN)
def test_a_foreign_transaction_writes_none_of_bot_bottle_s_tables(
    db: Path, database: Database, queue: QueueStore, sql: str
) -> None:
    queue.write_proposal(proposal())
    database.migrate("forge", STEPS)
    before = schema(db), versions(db), witness(db, "SELECT * FROM proposals"), witness(db, "SELECT * FROM changes")
    with pytest.raises(InvalidInputError), database.transaction() as transaction:
        transaction.execute("INSERT INTO forge_issues VALUES (1, 'x', NULL)")
        for statement in sql.split("; "):
            transaction.execute(statement)
    after = schema(db), versions(db), witness(db, "SELECT * FROM proposals"), witness(db, "SELECT * FROM changes")
    assert after == before
    assert witness(db, "SELECT * FROM forge_issues") == []


@pytest.mark.parametrize("sql", [sql for sql in OWN if ";" not in sql])
def test_a_foreign_step_writes_none_of_them_either(db: Path, database: Database, queue: QueueStore, sql: str) -> None:
    queue.write_proposal(proposal())
    before = schema(db), witness(db, "SELECT * FROM proposals")
    with pytest.raises((InvalidInputError, MigrationError)):
        database.migrate("forge", [(sql, "")])
    assert (schema(db), witness(db, "SELECT * FROM proposals")) == before
    assert versions(db).get("forge", 0) == 0


def test_a_trigger_of_one_s_own_does_not_reach_them(db: Path, database: Database, queue: QueueStore) -> None:
    written = queue.write_proposal(proposal())
    trigger = "CREATE TRIGGER forge_t AFTER INSERT ON forge_issues BEGIN DELETE FROM proposals; END"
    with pytest.raises((InvalidInputError, MigrationError)):
        database.migrate("forge", [*STEPS, (trigger, "DROP TRIGGER forge_t")])
        with database.transaction() as transaction:
            transaction.execute("INSERT INTO forge_issues VALUES (1, 'x', NULL)")
    assert queue.list_pending_proposals() == [written]


# --- transaction


def test_an_exception_rolls_back_and_passes_through(db: Path, database: Database) -> None:
    database.migrate("forge", STEPS)
    with pytest.raises(KeyError, match="mine"), database.transaction() as transaction:
        transaction.execute("INSERT INTO forge_issues VALUES (1, 'x', NULL)")
        raise KeyError("mine")
    assert witness(db, "SELECT * FROM forge_issues") == []
    with pytest.raises(ClosedError):
        transaction.execute("SELECT 1")
    with transaction:  # and can be begun again
        transaction.execute("INSERT INTO forge_issues VALUES (2, 'x', NULL)")
    assert witness(db, "SELECT id FROM forge_issues") == [[2]]


def test_a_refused_statement_spares_what_went_before_if_it_is_caught(db: Path, database: Database) -> None:
    database.migrate("forge", STEPS)
    with database.transaction() as transaction:
        transaction.execute("INSERT INTO forge_issues VALUES (1, 'x', NULL)")
        for bad in (
            "INSERT INTO forge_issues VALUES (1, 'x', NULL)",
            "SELECT nope",
            "INSERT INTO forge_issues VALUES ('x', 1)",
        ):
            with pytest.raises(InvalidInputError, match="sql"):
                transaction.execute(bad)
    assert witness(db, "SELECT id FROM forge_issues") == [[1]]


def test_a_transaction_is_seen_whole_or_not_at_all(db: Path, database: Database, queue: QueueStore) -> None:
    database.migrate("forge", STEPS)
    with database.transaction() as transaction:
        transaction.execute("INSERT INTO forge_issues VALUES (1, 'x', NULL)")
        assert database.query("SELECT * FROM forge_issues") == []
        assert queue.list_pending_proposals() == []  # readers go on
    assert len(database.query("SELECT * FROM forge_issues")) == 1


def test_a_killed_transaction_never_was(db: Path, database: Database, queue: QueueStore) -> None:
    def write(db: str) -> None:
        from bot_bottle import Database

        with Database(db).transaction() as transaction:
            transaction.execute("INSERT INTO forge_issues VALUES (1, 'x', NULL)")
            print("written")
            input()

    database.migrate("forge", STEPS)
    with Process(write, db) as writer:
        assert writer.says() == "written"
        writer.kill()
    queue.write_proposal(proposal())
    assert database.query("SELECT * FROM forge_issues") == []
    assert_sound(db)


def test_a_write_inside_one_s_own_transaction_is_refused_at_once(db: Path, database: Database, inbox: Inbox) -> None:
    queue = QueueStore("dev", db)
    written = queue.write_proposal(proposal())
    with database.transaction() as transaction:
        # Each would wait for its own thread, until the busy timeout.
        for write in (
            lambda: queue.write_proposal(proposal()),
            lambda: decide(inbox, written),
            lambda: database.transaction().__enter__(),
            lambda: database.rollback("queue_store", to=0),
            lambda: database.restore(db),
            lambda: database.migrate("other", []),
        ):
            with pytest.raises(InvalidInputError, match=r"own transaction\(\)"):
                write()
        assert [item.proposal.id for item in inbox.pending()] == [written.id]
        assert transaction.execute("SELECT 1 AS one") == [{"one": 1}]
    decide(inbox, written)
    with database.transaction():
        pass
