"""Is the audit log append-only, chained, and does verify find whatever was done to it?"""

from __future__ import annotations

import hashlib
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import pytest

from bot_bottle import (
    AuditEntry,
    AuditIntegrityError,
    AuditReport,
    AuditStore,
    BottleStore,
    ClosedError,
    Database,
    Inbox,
    InvalidInputError,
    QueueStore,
)
from store_process import Process, decide, proposal, witness

NO_HASH = "0" * 64


@pytest.fixture
def log(db: Path) -> AuditStore:
    return AuditStore(db)


def entry(action: str = "seen", **fields: str) -> AuditEntry:
    slug, component = fields.pop("slug", "dev"), fields.pop("component", "egress")
    timestamp = fields.pop("timestamp", "2026-01-31T12:00:00.000000Z")
    return AuditEntry(timestamp, slug, component, action, **fields)  # type: ignore[arg-type]


def test_an_empty_log_verifies_and_is_not_created(db: Path, log: AuditStore) -> None:
    assert log.read_audit_entries() == []
    assert log.head() == NO_HASH
    report = log.verify()
    assert isinstance(report, AuditReport)
    assert report.to_dict() == {"entries": 0, "first_seq": None, "last_seq": None, "head": NO_HASH}
    assert log.write_audit_entries([]) == []
    assert list(db.parent.iterdir()) == []


def test_an_entry_comes_back_with_its_place_in_the_chain(log: AuditStore) -> None:
    said = entry("reload-failed", operator_notes="ünd why", justification="j", diff="d", decided_by="me", surface="web")
    first = log.write_audit_entry(said)
    second = log.write_audit_entry(said)
    assert said == first == second
    assert (said.seq, first.seq, second.seq) == (None, 1, 2)
    assert (first.prev_hash, second.prev_hash) == (NO_HASH, first.entry_hash)
    read = log.read_audit_entries()
    assert [one.to_dict() for one in read] == [first.to_dict(), second.to_dict()]
    assert log.head() == log.verify().head == second.entry_hash
    assert log.verify().to_dict() == {"entries": 2, "first_seq": 1, "last_seq": 2, "head": second.entry_hash}


def test_the_hashes_are_those_of_the_documented_encoding(db: Path, log: AuditStore) -> None:
    log.write_audit_entry(entry("ä\n", operator_notes="1:x,", diff="~"))
    with QueueStore("dev", db) as queue, Inbox(db) as inbox:
        decide(inbox, queue.write_proposal(proposal("a\n")), "modified", final_file="b\n", notes="n")
    content = (
        "timestamp, bottle_slug, component, operator_action, operator_notes, justification, diff, decided_by, surface, "
        "proposal_id, payload_sha256, final_sha256"
    )
    before = NO_HASH
    for seq, (found, *fields) in enumerate(witness(db, f"SELECT entry_hash, {content} FROM audit_entries"), 1):
        encoded = b""
        for field in ["bot-bottle.audit.v1", str(seq), before, *fields]:
            encoded += b"~" if field is None else b"%d:%s," % (len(field.encode()), field.encode())
        assert found == hashlib.sha256(encoded).hexdigest()
        before = found
    assert seq == 2


def test_a_batch_is_written_whole_or_not_at_all(log: AuditStore, db: Path) -> None:
    def append(db: str) -> None:
        import os
        import resource

        from bot_bottle import AuditEntry, AuditStore, DatabaseUnavailableError

        log = AuditStore(db)
        batch = [AuditEntry("2026-01-31T12:00:00Z", "dev", "test", str(n), "x" * 10_000) for n in range(100)]
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat(f"{db}-wal").st_size + 500_000, most))  # half of it fits
        try:
            log.write_audit_entries(batch)
        except DatabaseUnavailableError:
            print("refused")

    written = log.write_audit_entries([entry(str(n)) for n in range(10)])
    assert [one.seq for one in written] == list(range(1, 11))
    assert log.read_audit_entries() == written
    with Process(append, db) as child:
        assert child.ends() == "refused\n"
    assert log.verify().entries == 10


def test_entries_are_found_by_what_they_are_about(log: AuditStore) -> None:
    written = [
        log.write_audit_entry(entry(slug=slug, component=component, timestamp=f"2026-01-0{day}T00:00:00Z"))
        for day, slug, component in ((1, "a", "egress"), (2, "b", "egress"), (3, "a", "git-gate"), (2, "a", "egress"))
    ]
    assert log.read_audit_entries("egress") == [written[0], written[1], written[3]]
    assert log.read_audit_entries(bottle_slug="a") == [written[0], written[2], written[3]]
    assert log.read_audit_entries("egress", "a", limit=1) == [written[3]]
    assert log.read_audit_entries(since="2026-01-02T00:00:00Z") == written[1:]
    assert log.read_audit_entries(since="2026-01-02T01:00:00+01:00") == written[1:]
    assert log.read_audit_entries(since=datetime(2026, 1, 2, tzinfo=timezone.utc)) == written[1:]
    assert log.read_audit_entries(limit=2) == written[2:]
    assert log.read_audit_entries(limit=0) == log.read_audit_entries("egress' OR 1=1 --") == []
    with pytest.raises(InvalidInputError, match="since"):
        log.read_audit_entries(since="yesterday")


# --- append-only, whoever writes


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entries SET operator_notes = 'never said'",
        "DELETE FROM audit_entries",
        "INSERT OR REPLACE INTO audit_entries SELECT * FROM audit_entries WHERE seq = 1",
        "REPLACE INTO audit_entries SELECT * FROM audit_entries WHERE seq = 1",
        "PRAGMA recursive_triggers = OFF; INSERT OR REPLACE INTO audit_entries SELECT * FROM audit_entries",
        "INSERT INTO audit_entries SELECT * FROM audit_entries WHERE 1 ON CONFLICT DO UPDATE SET diff = 'x'",
        "UPDATE OR REPLACE audit_entries SET seq = 1 WHERE seq = 2",
    ],
)
def test_sql_itself_refuses_to_change_the_log(db: Path, log: AuditStore, statement: str) -> None:
    log.write_audit_entries([entry(), entry()])
    with pytest.raises(subprocess.CalledProcessError) as caught:
        witness(db, *statement.split("; "))
    assert "append-only" in caught.value.stderr
    assert log.verify().entries == 2


def test_nothing_that_is_deleted_takes_the_log_with_it(db: Path, log: AuditStore) -> None:
    BottleStore(db).register("dev", backend="docker")
    with QueueStore("dev", db) as queue, Inbox(db) as inbox:
        decide(inbox, queue.write_proposal(proposal()))
    Database(db).prune(older_than=0)
    witness(db, "PRAGMA foreign_keys = ON", "DELETE FROM bottles", "DELETE FROM proposals")
    assert [entry.operator_action for entry in log.read_audit_entries()] == ["approved", "pruning"]
    assert log.verify().entries == 2


# --- verify


BREAK = ["DROP TRIGGER audit_entries_no_update", "DROP TRIGGER audit_entries_no_delete"]
SWAP_2_AND_3 = """UPDATE audit_entries SET seq = -seq WHERE seq IN (2, 3);
    UPDATE audit_entries SET seq = 5 + seq WHERE seq < 0"""
FIELDS = ["timestamp", "bottle_slug", "operator_action", "operator_notes", "justification", "diff", "decided_by"]


@pytest.mark.parametrize(
    ("damage", "seq"),
    [
        *((f"UPDATE audit_entries SET {field} = {field} || 'x' WHERE seq = 3", 3) for field in FIELDS),
        ("UPDATE audit_entries SET surface = 'policy' WHERE seq = 3", 3),
        ("UPDATE audit_entries SET proposal_id = '' WHERE seq = 3", 3),  # absent is not empty
        (f"UPDATE audit_entries SET entry_hash = '{NO_HASH}' WHERE seq = 5", 5),
        (f"UPDATE audit_entries SET prev_hash = '{NO_HASH}' WHERE seq = 3", 3),
        ("DELETE FROM audit_entries WHERE seq = 3", 3),
        ("DELETE FROM audit_entries WHERE seq = 1", 1),
        ("DELETE FROM audit_entries WHERE seq = 1; UPDATE audit_entries SET seq = seq - 1", 1),
        (SWAP_2_AND_3, 2),
        ("UPDATE audit_entries SET seq = 7 WHERE seq = 5", 5),
    ],
    ids=lambda value: str(value)[21:70],
)
def test_verify_names_the_first_entry_that_does_not_fit(db: Path, log: AuditStore, damage: str, seq: int) -> None:
    log.write_audit_entries([entry(str(n)) for n in range(5)])
    witness(db, *BREAK, *damage.split(";"))
    with pytest.raises(AuditIntegrityError, match=rf"entry {seq}\b") as caught:
        log.verify()
    assert (caught.value.exit_code, caught.value.seq) == (7, seq)
    assert any(f"entry {seq}" in finding for finding in Database(db).check())


def test_a_head_noted_earlier_shows_a_cut_tail(db: Path, log: AuditStore) -> None:
    written = log.write_audit_entries([entry(str(n)) for n in range(5)])
    heads = [one.entry_hash for one in written]
    for head in (NO_HASH, *heads):
        assert log.verify(head=head).entries == 5
    witness(db, *BREAK, "DELETE FROM audit_entries WHERE seq > 3")
    assert log.verify().entries == log.verify(head=heads[2]).entries == 3  # a cut tail alone shows nothing
    with pytest.raises(AuditIntegrityError, match=f"{heads[4]}") as caught:
        log.verify(head=heads[4])
    assert caught.value.seq is None


def test_a_head_noted_earlier_shows_a_rebuilt_chain(tmp_path: Path, db: Path, log: AuditStore) -> None:
    head = log.write_audit_entries([entry("one"), entry("two")])[-1].entry_hash
    rebuilt = AuditStore(tmp_path / "rebuilt.db")
    rebuilt.write_audit_entries([entry("one"), entry("another")])
    assert rebuilt.verify().entries == 2
    with pytest.raises(AuditIntegrityError):
        rebuilt.verify(head=head)
    with pytest.raises(AuditIntegrityError):
        AuditStore(tmp_path / "nothing.db").verify(head=head)


@pytest.mark.parametrize("head", ["", "abc", "A" * 64, "0" * 63])
def test_a_head_that_is_none_is_refused(log: AuditStore, head: str) -> None:
    with pytest.raises(InvalidInputError, match="head"):
        log.verify(head=head)


def test_concurrent_appenders_do_not_fork_the_chain(db: Path, log: AuditStore) -> None:
    def append(db: str, name: str, count: int) -> None:
        from bot_bottle import AuditEntry, AuditStore

        log = AuditStore(db)
        input()
        for n in range(count):
            log.write_audit_entry(AuditEntry("2026-01-31T12:00:00Z", name, "test", str(n)))

    appenders = [Process(append, db, f"a{n}", 40) for n in range(4)]
    for appender in appenders:
        appender.tell()
    for appender in appenders:
        appender.ends()
    assert log.verify().entries == 160
    for n in range(4):
        assert [one.operator_action for one in log.read_audit_entries(bottle_slug=f"a{n}")] == [
            str(i) for i in range(40)
        ]


def test_a_log_reads_while_another_writes_it(db: Path, log: AuditStore) -> None:
    def append(db: str) -> None:
        from bot_bottle import AuditEntry, AuditStore

        log = AuditStore(db)
        for n in range(200):
            log.write_audit_entry(AuditEntry("2026-01-31T12:00:00Z", "dev", "test", str(n)))
            if n == 0:
                print("begun")

    with Process(append, db) as appender:
        assert appender.says() == "begun"
        while (entries := log.verify().entries) < 200:
            assert entries <= len(log.read_audit_entries())
        appender.ends()


def test_a_closed_log_says_so(log: AuditStore) -> None:
    with log:
        log.write_audit_entry(entry())
    for use in (log.verify, log.head, log.read_audit_entries, lambda: log.write_audit_entry(entry())):
        with pytest.raises(ClosedError):
            use()
