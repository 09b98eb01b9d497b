"""Is the file taken back as a whole or not at all, with nothing lost that anybody was told is written?"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from bot_bottle import AuditEntry, AuditStore, Database, QueueStore
from store_process import Process, eventually, proposal, witness


def entry(notes: str) -> AuditEntry:
    return AuditEntry("2026-01-31T12:00:00Z", "dev", "capability-block", "noted", notes)


def write_for_ever(db: str, name: str) -> None:
    from bot_bottle import AuditEntry, AuditStore

    log = AuditStore(db)
    for n in range(10**9):
        written = log.write_audit_entry(
            AuditEntry("2026-01-31T12:00:00Z", "dev", "capability-block", "noted", f"{name} {n}")
        )
        print(written.entry_hash, flush=True)


def restore(db: str, backup: str) -> None:
    from bot_bottle import Database

    Database(db).restore(backup)


def roll_back(db: str, _backup: str) -> None:
    from bot_bottle import Database

    Database(db).rollback("queue_store", to=0)


def hashes(db: Path) -> set[str]:
    return {found for (found,) in witness(db, "SELECT entry_hash FROM audit_entries")}


def saved(db: Path) -> list[Path]:
    return sorted((db.parent / "backups").glob("bot-bottle-*.db"))


@pytest.mark.parametrize("module", [None, "audit_store", "queue_store"])
def test_every_acknowledged_entry_is_in_the_file_or_in_the_copy(db: Path, tmp_path: Path, module: str | None) -> None:
    database, backup = Database(db), tmp_path / "backup.db"
    AuditStore(db).write_audit_entries([entry("x" * 4000) for _ in range(500)])
    database.backup(backup)
    writers = [Process(write_for_ever, db, name) for name in ("a", "b", "c")]
    told = [writer.says() for writer in writers]  # all are at it
    copy = Path(database.restore(backup) if module is None else database.rollback(module, to=0))
    told += [writer.says() for writer in writers for _ in range(20)]  # and go on
    for writer in writers:
        writer.kill()
        told += writer.last_words()
    there, before = hashes(db), hashes(copy)
    assert [found for found in told if found not in there and found not in before] == []
    if module is None:
        notes = witness(db, "SELECT operator_notes FROM audit_entries WHERE operator_action = 'restored'")
        head = witness(copy, "SELECT entry_hash FROM audit_entries ORDER BY seq DESC LIMIT 1")
        assert len(notes) == 1
        assert head[0][0] in notes[0][0]
        assert str(copy) in notes[0][0]
    AuditStore(db).verify()


CALLS = [
    *(("pwrite64", when) for when in (1, 2, 5, 13, 34, 55, 64, 72, 80, 144)),
    *((call, when) for call in ("fdatasync", "unlink", "ftruncate") for when in (1, 2, 3)),
]


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("work", [restore, roll_back])
def test_killed_at_a_system_call_it_has_happened_as_a_whole_or_not_at_all(
    db: Path, tmp_path: Path, work: Callable[[str, str], None]
) -> None:
    database, backup = Database(db), tmp_path / "backup.db"
    QueueStore("dev", db).write_proposal(proposal("kept"))
    database.backup(backup)
    ends = set()
    for call, when in CALLS:
        known = QueueStore("dev", db).write_proposal(proposal(f"{call} {when}"))
        AuditStore(db).write_audit_entry(entry(known.id))
        before, copies = witness(db, "SELECT id FROM proposals"), saved(db)
        count = witness(db, "SELECT count(*) FROM audit_entries")[0][0]
        dies = [f"--trace={call}", f"--inject={call}:signal=KILL:when={when}"]
        with Process(work, db, backup, strace=dies) as process:
            killed = process.popen.wait(timeout=60) == -signal.SIGKILL
        assert witness(db, "PRAGMA integrity_check") == [["ok"]], (call, when)
        tables = {name for (name,) in witness(db, "SELECT name FROM sqlite_schema WHERE type = 'table'")}
        after = witness(db, "SELECT id FROM proposals") if "proposals" in tables else []
        ends.add((killed, after == before))
        if after == before:
            assert killed
            assert witness(db, "SELECT count(*) FROM audit_entries")[0][0] == count
        else:
            # What is gone is in the copy, and the log says where that is.
            (copy,) = set(saved(db)) - set(copies)
            assert witness(copy, "SELECT id FROM proposals") == before
            last = "SELECT operator_action, operator_notes FROM audit_entries ORDER BY seq DESC LIMIT 1"
            action, notes = witness(db, last)[0]
            assert action == ("restored" if work is restore else "rolled back")
            assert str(copy) in notes
        AuditStore(db).verify()
        database.migrate_all()
    # It was killed before and after it had happened, and once not at all.
    assert ends >= {(True, True), (False, False)}


def test_whoever_waits_hears_of_a_restore(db: Path, tmp_path: Path) -> None:
    database, backup = Database(db), tmp_path / "backup.db"
    queue = QueueStore("dev", db)
    kept = queue.write_proposal(proposal("kept"))
    database.backup(backup)
    queue.write_proposal(proposal("gone"))
    other = QueueStore("dev", db)
    database.restore(backup)
    eventually(lambda: other.list_pending_proposals() == [kept])
