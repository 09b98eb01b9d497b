"""Is the file where it belongs, private, readable by SQL alone, and can it be saved, restored and pruned?"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from bot_bottle import (
    AsyncInbox,
    AsyncQueueStore,
    AuditEntry,
    AuditStore,
    BotBottleError,
    BottleStore,
    ClosedError,
    Database,
    DatabaseCorruptError,
    GrantStore,
    Inbox,
    InvalidInputError,
    Keys,
    NotFoundError,
    QueueStore,
    SchemaTooNewError,
    WaitTimeoutError,
    bot_bottle_root,
    host_db_path,
)
from cli_process import Host
from store_process import Process, assert_sound, decide, eventually, proposal, witness

MODULES = {"audit_store", "bottle_store", "grant_store", "queue_store"}


@pytest.fixture
def database(db: Path) -> Database:
    return Database(db)


# --- where a database is


def test_a_store_says_which_it_is(db: Path, host: Host) -> None:
    where = f'"{db}"'
    assert repr(QueueStore("dev", db)) == f'QueueStore("dev", {where})'
    assert repr(AsyncQueueStore("dev", db)) == f'AsyncQueueStore("dev", {where})'
    for store in (Inbox, AsyncInbox, AuditStore, GrantStore, BottleStore, Database):
        assert repr(store(db)) == f"{store.__name__}({where})"
    assert repr(Keys(db)) == f'Keys("{db}-keys")'
    assert repr(Database()) == f'Database("{host.root}/bot-bottle.db")'


@pytest.mark.parametrize("store", [Inbox, AsyncInbox, AuditStore, GrantStore, BottleStore, Database, Keys])
def test_a_database_in_memory_is_refused(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for use in (lambda: store(":memory:"), lambda: QueueStore("dev", Path(":memory:"))):
        with pytest.raises(InvalidInputError, match=r"^db_path cannot be in memory, where no other process reads it"):
            use()
    assert list(tmp_path.iterdir()) == []


# --- where a host's database lives


def test_the_root_moves_as_a_whole(host: Host) -> None:
    assert bot_bottle_root() == str(host.root)
    assert host_db_path() == Database().path == Inbox().db_path == str(host.root / "bot-bottle.db")
    assert Database().real_path == str(host.root / "db" / "bot-bottle.db")
    assert not host.root.exists()


def test_the_root_is_in_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for unset in ("", None):
        monkeypatch.delenv("BOT_BOTTLE_ROOT", raising=False)
        if unset is not None:
            monkeypatch.setenv("BOT_BOTTLE_ROOT", unset)
        assert bot_bottle_root() == str(tmp_path / ".bot-bottle")


def test_a_relative_root_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT_BOTTLE_ROOT", "here")
    for use in (bot_bottle_root, host_db_path, Database, Inbox, lambda: QueueStore("dev")):
        with pytest.raises(InvalidInputError, match="BOT_BOTTLE_ROOT"):
            use()


def test_no_other_variable_points_a_host_elsewhere(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERVISE_DB_PATH", str(tmp_path / "other.db"))
    assert QueueStore("dev").db_path == str(host.root / "bot-bottle.db")


def test_the_well_known_path_is_a_link_into_a_directory_of_its_own(host: Host) -> None:
    queue = QueueStore("dev")
    written = queue.write_proposal(proposal())
    link = host.root / "bot-bottle.db"
    assert os.readlink(link) == "db/bot-bottle.db"
    names = {path.name for path in (host.root / "db").iterdir()}
    assert {"bot-bottle.db", "bot-bottle.db-wal", "bot-bottle.db-shm"} <= names
    assert all(name.startswith("bot-bottle.db") or name == "bells" for name in names)
    assert {path.name for path in host.root.iterdir()} == {"bot-bottle.db", "db"}
    # Whoever opens either path sees the rows, the WAL's included.
    for path in (link, host.root / "db" / "bot-bottle.db"):
        assert witness(path, "SELECT id FROM proposals") == [[written.id]]
        assert QueueStore("dev", path).list_pending_proposals() == [written]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_files_are_private_from_the_first_moment_whatever_the_umask(host: Host, umask: int) -> None:
    host.root.parent.chmod(0o755)
    before = os.umask(umask)
    try:
        queue = QueueStore("dev")
        written = queue.write_proposal(proposal())
        with pytest.raises(WaitTimeoutError):
            queue.wait_for_response(written.id, 0.01)
        BottleStore().register("dev", backend="docker", files={"egress-allow": "routes.yaml"})
        decide(Inbox(), queue.write_proposal(proposal(tool="egress-allow")))
        Database().backup(host.root / "saved.db")
        Database().rollback("grant_store", to=0)
    finally:
        os.umask(before)
    for path in (host.root, *host.root.rglob("*")):
        if not path.is_symlink():
            assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


# --- query


@pytest.fixture
def filled(db: Path, queue: QueueStore, inbox: Inbox, database: Database) -> Database:
    for n in range(3):
        decide(inbox, queue.write_proposal(proposal(f"{n}\n", f"reason {n}")), notes=f"note {n}")
    return database


def test_one_query_joins_the_tables(filled: Database) -> None:
    rows = filled.query(
        """SELECT p.justification AS why, r.notes, a.seq FROM proposals p JOIN responses r ON r.proposal_seq = p.seq
           JOIN audit_entries a ON a.proposal_id = p.id WHERE p.bottle_slug = :slug ORDER BY a.seq""",
        {"slug": "dev"},
    )
    assert rows == [{"why": f"reason {n}", "notes": f"note {n}", "seq": n + 1} for n in range(3)]


EVERYTHING = """SELECT json_group_array(sql), (SELECT json_group_array(notes) FROM responses),
    (SELECT count(*) FROM proposals), (SELECT count(*) FROM audit_entries), (SELECT count(*) FROM changes),
    (SELECT journal_mode FROM pragma_journal_mode), (SELECT user_version FROM pragma_user_version) FROM sqlite_schema"""
VALUES: list[Any] = [None, 0, -(2**63), 2**63 - 1, 1.5, "ä\n", "", b"\0\xff", b""]


def test_values_come_back_as_they_went_in(filled: Database) -> None:
    for value in VALUES:
        assert filled.query("SELECT ? AS v", [value]) == filled.query("SELECT :v AS v", {"v": value}) == [{"v": value}]
    assert filled.query("SELECT ?1 AS a, ?2 AS b, ?1 AS c", ("x", 2)) == [{"a": "x", "b": 2, "c": "x"}]
    assert filled.query("SELECT @v AS v", {"v": True}) == [{"v": 1}]
    assert filled.query("SELECT 1 WHERE 0") == []


@pytest.mark.parametrize(
    ("sql", "params"),
    [
        ("SELECT ?", []),
        ("SELECT ?", [1, 2]),
        ("SELECT :a", {"b": 1}),
        ("SELECT :a, :b", {"a": 1}),
        ("SELECT 1; SELECT 2", []),
        ("SELECT nope FROM proposals", []),
        ("SELEC 1", []),
        ("", []),
    ],
)
def test_a_query_that_is_none_is_refused(filled: Database, sql: str, params: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"sql|params") as caught:
        filled.query(sql, params)
    assert caught.value.exit_code == 2


def test_columns_of_one_name_are_refused_before_anything_runs(filled: Database) -> None:
    said = 'sql returns two columns named "id"; rename one of them with AS'
    with pytest.raises(InvalidInputError, match=f"^{re.escape(said)}$"):
        filled.query("SELECT p.id, 1 AS x, c.proposal_id AS id FROM proposals p, changes c")
    assert filled.query("SELECT 1 AS id, 2 AS ID") == [{"id": 1, "ID": 2}]
    filled.migrate("forge", [("CREATE TABLE pulls (id INTEGER) STRICT", "DROP TABLE pulls")])
    with filled.transaction() as transaction:
        with pytest.raises(InvalidInputError, match=re.escape(said)):
            transaction.execute("INSERT INTO pulls VALUES (1) RETURNING id, id")
        assert transaction.execute("SELECT * FROM pulls") == []


@pytest.mark.parametrize("value", [object(), [1], {"a"}], ids=repr)
def test_a_parameter_that_sql_does_not_know_is_refused(filled: Database, value: Any) -> None:
    with pytest.raises(TypeError):
        filled.query("SELECT ?", [value])


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO changes VALUES (99, 'proposed', 'x', 'x', 'x', 'x')",
        "INSERT INTO changes VALUES (99, 'proposed', 'x', 'x', 'x', 'x') RETURNING seq",
        "UPDATE responses SET notes = 'never said'",
        "DELETE FROM proposals",
        "WITH gone AS (SELECT 1) DELETE FROM proposals",
        "REPLACE INTO audit_entries SELECT * FROM audit_entries",
        "CREATE TABLE mine (x)",
        "CREATE TEMP TABLE mine (x)",
        "DROP TABLE audit_entries",
        "DROP TRIGGER audit_entries_no_update",
        "ALTER TABLE proposals ADD COLUMN x",
        "ATTACH '/tmp/other.db' AS other",
        "DETACH main",
        "VACUUM",
        "VACUUM INTO '/tmp/other.db'",
        "REINDEX",
        "ANALYZE",
        "BEGIN",
        "COMMIT",
        "SAVEPOINT here",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA user_version = 7",
        "PRAGMA writable_schema = ON",
        "PRAGMA query_only = OFF",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA trusted_schema = ON",
        "SELECT * FROM pragma_journal_mode('delete')",
        "SELECT load_extension('/tmp/x.so')",
        "SELECT writefile('/tmp/x', 'x')",
        "SELECT readfile('/etc/passwd')",
        "SELECT * FROM fts3_tokenizer('x')",
    ],
)
def test_a_query_only_reads(db: Path, filled: Database, sql: str) -> None:
    before = witness(db, EVERYTHING)
    with pytest.raises(InvalidInputError) as caught:
        filled.query(sql)
    assert caught.value.exit_code == 2
    assert witness(db, EVERYTHING) == before


@pytest.mark.parametrize("sql", ["PRAGMA optimize", "PRAGMA incremental_vacuum", "PRAGMA shrink_memory"])
def test_a_pragma_without_an_argument_writes_nothing_either(db: Path, filled: Database, sql: str) -> None:
    before = witness(db, EVERYTHING)
    with contextlib.suppress(InvalidInputError):
        filled.query(sql)
    assert witness(db, EVERYTHING) == before


def test_pragmas_that_ask_are_answered(filled: Database) -> None:
    assert filled.query("PRAGMA user_version") == [{"user_version": 0}]
    columns = {str(row["name"]) for row in filled.query("PRAGMA table_info(proposals)")}
    assert "payload_sha256" in columns
    assert filled.query("SELECT count(*) AS n FROM pragma_table_info('proposals')") == [{"n": len(columns)}]
    assert filled.query("EXPLAIN QUERY PLAN SELECT * FROM proposals")


def test_a_long_query_is_stopped(filled: Database) -> None:
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
    with pytest.raises(WaitTimeoutError, match=r"0\.1 s") as caught:
        filled.query(endless, timeout=0.1)
    assert caught.value.exit_code == 6
    with pytest.raises(InvalidInputError, match="timeout"):
        filled.query("SELECT 1", timeout=-1)
    assert filled.query("SELECT 1 AS x", timeout=float("inf")) == [{"x": 1}]


def test_a_long_query_holds_nobody_up(db: Path, filled: Database, queue: QueueStore) -> None:
    def ask(db: str) -> None:
        from bot_bottle import Database, WaitTimeoutError

        print("asking")
        try:
            Database(db).query(
                "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
                "SELECT max(x), (SELECT count(*) FROM proposals) FROM n",
                timeout=3600,
            )
        except WaitTimeoutError:
            print("stopped")

    with Process(ask, db) as asker:
        assert asker.says() == "asking"
        for _ in range(20):
            queue.write_proposal(proposal())
        assert asker.popen.poll() is None


def test_a_query_on_nothing_finds_nothing(db: Path, database: Database) -> None:
    assert database.query("SELECT * FROM proposals") == []
    assert list(db.parent.iterdir()) == []


def test_listing_costs_the_same_however_much_is_archived(db: Path, queue: QueueStore) -> None:
    def list_pending(db: str) -> None:
        from bot_bottle import Inbox, QueueStore

        assert len(Inbox(db).pending()) == len(QueueStore("dev", db).list_pending_proposals()) == 10
        with open("/proc/self/io") as counters:
            print(counters.readline().split()[1])  # bytes read

    def reads() -> int:
        with Process(list_pending, db) as lister:
            return int(lister.ends())

    for _ in range(10):
        queue.write_proposal(proposal())
    few = reads()
    witness(
        db,
        """INSERT INTO proposals (id, queue_key, bottle_slug, tool, payload_sha256, justification, arrival_timestamp,
                                  state, archived_at, proposed_file)
           WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 20000)
           SELECT x, 'dev', 'dev', 't', hex(zeroblob(32)), '', '', 'expired', '', hex(zeroblob(300)) FROM n""",
        "PRAGMA wal_checkpoint(TRUNCATE)",
    )
    assert db.stat().st_size > 10_000_000
    assert reads() < 2 * few


# --- backup, restore


def test_a_backup_is_one_private_sound_file(db: Path, filled: Database, tmp_path: Path) -> None:
    saved = tmp_path / "saved.db"
    assert filled.backup(saved) == saved.stat().st_size
    assert saved.stat().st_mode & 0o777 == 0o600
    assert_sound(saved)
    assert [path.name for path in tmp_path.glob("saved.db*")] == ["saved.db"]
    for table in ("proposals", "responses", "audit_entries", "changes", "schema_versions"):
        assert witness(saved, f"SELECT * FROM {table}") == witness(db, f"SELECT * FROM {table}")
    with pytest.raises(InvalidInputError, match="exists"):
        filled.backup(saved)
    for nowhere in (tmp_path / "nowhere" / "x.db", Path("/")):
        with pytest.raises(BotBottleError, match=str(nowhere)):
            filled.backup(nowhere)


def test_a_backup_of_nothing_is_none(database: Database, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        database.backup(tmp_path / "saved.db")
    assert not (tmp_path / "saved.db").exists()


def test_a_backup_is_of_one_moment_while_others_write(db: Path, filled: Database, tmp_path: Path) -> None:
    def write(db: str) -> None:
        from bot_bottle import Inbox, Proposal, QueueStore

        queue, inbox = QueueStore("dev", db), Inbox(db)
        print("writing")
        n = 0
        while True:
            written = queue.write_proposal(Proposal.new("dev", "t", f"n {n} " + "x" * 9000))
            inbox.decide(written.id, "approved", payload_sha256=written.payload_sha256)
            n += 1

    with Process(write, db) as writer:
        assert writer.says() == "writing"
        for n in range(3):
            count = len(AuditStore(db).read_audit_entries())
            filled.backup(tmp_path / f"{n}.db")
            assert_sound(tmp_path / f"{n}.db")
            assert AuditStore(tmp_path / f"{n}.db").verify().entries >= count


def test_a_backup_restores_what_it_saved_and_the_log_says_so(
    db: Path, filled: Database, queue: QueueStore, inbox: Inbox, tmp_path: Path
) -> None:
    kept = [item.to_dict() for item in inbox.history()]
    head = AuditStore(db).head()
    filled.backup(tmp_path / "saved.db")
    lost = queue.write_proposal(proposal())
    decide(inbox, lost)
    replaced = AuditStore(db).head()
    aside = filled.restore(tmp_path / "saved.db")
    assert [item.to_dict() for item in inbox.history()] == kept
    assert queue.read_proposal(lost.id) is None
    assert AuditStore(db).verify(head=head).entries == 4
    entry = AuditStore(db).read_audit_entries()[-1]
    assert (entry.operator_action, entry.component) == ("restored", "database")
    assert replaced in entry.operator_notes
    assert aside in entry.operator_notes
    assert QueueStore("dev", aside).read_proposal(lost.id) == lost
    assert Path(aside).stat().st_mode & 0o777 == 0o600
    assert_sound(db)
    queue.write_proposal(proposal())


def test_a_garbage_database_can_be_restored_and_is_kept(db: Path, filled: Database, tmp_path: Path) -> None:
    filled.backup(tmp_path / "saved.db")
    filled.close()
    garbage = b"this is no database " * 500
    for path in db.parent.glob("bot-bottle.db*"):
        if path.is_file():  # not the keys
            path.unlink()
    db.write_bytes(garbage)
    aside = Database(db).restore(tmp_path / "saved.db")
    assert Path(aside).read_bytes() == garbage
    assert len(Inbox(db).history()) == 3
    assert_sound(db)


def test_what_is_no_backup_is_not_restored(db: Path, filled: Database, tmp_path: Path) -> None:
    (tmp_path / "garbage").write_bytes(b"this is no database " * 500)
    witness(tmp_path / "foreign.db", "CREATE TABLE x (y)")
    (tmp_path / "empty.db").write_bytes(b"")
    filled.backup(tmp_path / "newer.db")
    witness(tmp_path / "newer.db", "UPDATE schema_versions SET version = 99, compat = 99 WHERE module = 'audit_store'")
    filled.backup(tmp_path / "broken.db")
    orphan = "INSERT INTO aliases (id, proposal_seq, justification, arrival_timestamp) VALUES ('a', 99, '', '')"
    witness(tmp_path / "broken.db", orphan)
    filled.backup(tmp_path / "cut.db")
    os.truncate(tmp_path / "cut.db", (tmp_path / "cut.db").stat().st_size // 2)
    AuditStore(db).write_audit_entry(AuditEntry.new("dev", "egress", "what no backup has"))
    before = witness(db, "SELECT * FROM audit_entries")
    for name, error in [
        ("nowhere", NotFoundError),
        ("garbage", DatabaseCorruptError),
        ("cut.db", DatabaseCorruptError),
        ("broken.db", DatabaseCorruptError),
        ("foreign.db", InvalidInputError),
        ("empty.db", InvalidInputError),
        ("newer.db", SchemaTooNewError),
    ]:
        with pytest.raises(error):
            filled.restore(tmp_path / name)
    assert witness(db, "SELECT * FROM audit_entries") == before


# --- status, check, prune, rollback, ring_test


def test_status_tells_without_writing(db: Path, database: Database, queue: QueueStore) -> None:
    status = database.status()
    assert (status["exists"], status["path"], status["size_bytes"]) == (False, str(db), 0)
    assert list(db.parent.iterdir()) == []
    queue.write_proposal(proposal())
    status = database.status()
    assert (status["exists"], status["mount_safe"], status["real_path"]) == (True, True, str(db))
    assert status["wal_bytes"] > 0
    assert set(status["modules"]) == MODULES
    assert all(module["found"] == module["supported"] >= 1 for module in status["modules"].values())
    assert re.fullmatch(r"\d+\.\d+\.\d+", status["sqlite_version"])
    assert status["filesystem"] not in ("", "unknown")


def test_check_finds_what_is_wrong(db: Path, filled: Database) -> None:
    assert filled.check() == []
    witness(db, "PRAGMA foreign_keys = OFF", "DELETE FROM proposals WHERE seq = 2")
    findings = filled.check()
    assert findings
    assert all("responses" in finding or "no such decision" in finding for finding in findings)


def test_check_finds_a_page_of_garbage(db: Path, filled: Database, queue: QueueStore) -> None:
    for _ in range(40):
        queue.write_proposal(proposal(f"{os.urandom(9).hex()}" + "x" * 9000))
    filled.backup(db.with_name("copy.db"))
    with db.with_name("copy.db").open("r+b") as file:
        file.seek(4096 * 60)
        file.write(os.urandom(4096))
    try:
        findings = Database(db.with_name("copy.db")).check()
    except DatabaseCorruptError:
        findings = ["so bad that it cannot be checked"]
    assert findings


def test_prune_deletes_what_ended_long_ago_and_never_the_log(
    db: Path, filled: Database, queue: QueueStore, inbox: Inbox
) -> None:
    pending = queue.write_proposal(proposal())
    withdrawn = queue.write_proposal(proposal())
    queue.withdraw_proposal(withdrawn.id)
    expired = queue.write_proposal(proposal(expires_in=0.01))
    eventually(lambda: inbox.read(expired.id).state == "expired")
    last = inbox.last_change()
    assert filled.prune(older_than=3600) == 0
    assert filled.prune(older_than=0) == 5
    assert [item.proposal.id for item in inbox.history()] == [pending.id]
    assert AuditStore(db).verify().entries == 4  # and one that says so
    assert_sound(db)
    queue.write_proposal(proposal())
    assert [change.seq for change in inbox.changes(last)] == [last + 1]  # who remembered a place goes on from it
    for bad in (-1, float("nan"), float("inf")):
        with pytest.raises(InvalidInputError, match="older_than"):
            filled.prune(older_than=bad)
    assert Database(db.with_name("nothing.db")).prune(older_than=0) == 0


def test_a_rollback_saves_first_and_the_next_use_comes_forward_again(
    db: Path, filled: Database, queue: QueueStore
) -> None:
    saved = filled.rollback("queue_store", to=0)
    assert len(witness(saved, "SELECT * FROM proposals")) == 3
    assert witness(db, "SELECT version FROM schema_versions WHERE module = 'queue_store'") == [[0]]
    assert witness(db, "SELECT count(*) FROM sqlite_schema WHERE name = 'proposals'") == [[0]]
    assert AuditStore(db).verify().entries == 4
    assert AuditStore(db).read_audit_entries()[-1].operator_action == "rolled back"
    with QueueStore("dev", db) as again:
        written = again.write_proposal(proposal())
        assert again.list_pending_proposals() == [written]
    assert_sound(db)


@pytest.mark.parametrize(("module", "to"), [("nope", 0), ("queue_store", -1), ("queue_store", 99)])
def test_a_rollback_to_nowhere_is_refused(filled: Database, module: str, to: int) -> None:
    with pytest.raises((NotFoundError, InvalidInputError)) as caught:
        filled.rollback(module, to=to)
    assert caught.value.exit_code in (2, 4)
    assert filled.check() == []


def test_a_bell_is_heard_here(db: Path, filled: Database) -> None:
    assert 0 < filled.ring_test() < 2
    assert not [path for path in (db.parent / "bells").iterdir() if "test" in path.name]


def test_migrate_all_creates_the_file(db: Path, database: Database) -> None:
    versions = database.migrate_all()
    assert set(versions) == MODULES
    assert database.migrate_all() == versions
    assert_sound(db)


def test_a_closed_database_says_so(filled: Database) -> None:
    with filled:
        pass
    for use in (filled.check, lambda: filled.query("SELECT 1"), filled.migrate_all):
        with pytest.raises(ClosedError):
            use()


def test_a_copied_file_is_a_database_like_any_other(db: Path, filled: Database, tmp_path: Path) -> None:
    filled.backup(tmp_path / "a.db")
    shutil.copy(tmp_path / "a.db", tmp_path / "b.db")
    queue = QueueStore("dev", tmp_path / "b.db")
    written = queue.write_proposal(proposal())
    assert [item.proposal.id for item in Inbox(tmp_path / "b.db").pending()] == [written.id]
    assert Inbox(tmp_path / "a.db").pending() == []
