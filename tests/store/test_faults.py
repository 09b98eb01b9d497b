"""When the file, its directory, the disk or the mount is not what it should be: a clear refusal, and nothing lost?"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import child_limits
from bot_bottle import (
    AuditStore,
    BotBottleError,
    Database,
    DatabaseCorruptError,
    DatabaseUnavailableError,
    Inbox,
    NotFoundError,
    Proposal,
    QueueStore,
    UnsafeMountError,
    WaitTimeoutError,
)
from cli_process import Host
from store_process import Process, assert_sound, decide, eventually, proposal, witness

needs_mount = pytest.mark.skipif(not child_limits.can_mount(), reason="needs root, to mount")
linux_only = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")

EVERY_USE: list[Callable[[Path], object]] = [
    lambda db: QueueStore("dev", db).write_proposal(proposal()),
    lambda db: QueueStore("dev", db).list_pending_proposals(),
    lambda db: QueueStore("dev", db).wait_for_response("x", 1),
    lambda db: Inbox(db),
    lambda db: AuditStore(db).verify(),
    lambda db: Database(db).query("SELECT 1"),
    lambda db: Database(db).check(),
    lambda db: Database(db).migrate_all(),
]


def filled(db: Path, count: int = 20) -> list[Proposal]:
    """A database with some pages, all of it in the file itself."""
    with QueueStore("dev", db) as queue:
        written = [queue.write_proposal(proposal("x" * 5000 + str(n))) for n in range(count)]
    witness(db, "PRAGMA wal_checkpoint(TRUNCATE)")
    return written


# --- the file


@pytest.mark.parametrize("use", range(len(EVERY_USE)))
def test_garbage_is_told_and_kept(db: Path, use: int) -> None:
    garbage = b"this is no database " * 500
    db.write_bytes(garbage)
    with pytest.raises(DatabaseCorruptError, match=str(db)) as caught:
        EVERY_USE[use](db)
    assert caught.value.exit_code == 8
    assert caught.value.path == str(db)
    assert "db restore" in str(caught.value)
    assert db.read_bytes() == garbage


@pytest.mark.parametrize("keep", [100, 4096 * 3, 4096 * 20 + 100])
def test_a_cut_off_file_is_told_and_not_written(db: Path, keep: int) -> None:
    filled(db)
    os.truncate(db, keep)
    before = db.read_bytes()
    with pytest.raises(DatabaseCorruptError, match=str(db)):
        Database(db).check()
        for use in EVERY_USE[:2]:
            use(db)
        pytest.fail(str(Database(db).check()))
    assert db.read_bytes() == before


def test_an_empty_file_is_a_fresh_one(db: Path) -> None:
    db.touch(0o600)
    assert QueueStore("dev", db).list_pending_proposals() == []
    written = filled(db, 1)
    assert QueueStore("dev", db).list_pending_proposals() == written


def test_another_program_s_file_is_joined(db: Path) -> None:
    """In whatever journal mode it is, as long as nobody else has it open."""
    witness(db, "PRAGMA journal_mode = DELETE", "CREATE TABLE theirs (x)", "INSERT INTO theirs VALUES (7)")
    filled(db, 1)
    assert witness(db, "SELECT x FROM theirs") == [[7]]
    assert witness(db, "PRAGMA journal_mode") == [["wal"]]
    assert_sound(db)


@pytest.mark.parametrize("use", [0, 1, 3])
def test_a_directory_where_the_file_belongs_is_told(db: Path, use: int) -> None:
    db.mkdir()
    with pytest.raises(DatabaseUnavailableError, match=str(db)) as caught:
        EVERY_USE[use](db)
    assert (caught.value.exit_code, caught.value.path) == (1, str(db))
    assert isinstance(caught.value, OSError)


def test_a_name_that_is_too_long_is_told(db: Path) -> None:
    with pytest.raises(DatabaseUnavailableError, match="too long"):
        QueueStore("dev", db.with_name("x" * 300)).write_proposal(proposal())


def test_a_path_with_every_strange_character_works(db: Path) -> None:
    strange = db.with_name("a b#c%d?e&mode=ro'\"\\ä\n.db")
    written = filled(strange, 2)
    assert QueueStore("dev", strange).list_pending_proposals() == written
    assert_sound(strange)


# --- permissions


def act_without_privileges(db: str, kind: str) -> None:
    from bot_bottle import BotBottleError, Inbox, Proposal, QueueStore
    from child_limits import drop_privileges

    drop_privileges()
    try:
        if kind == "write":
            QueueStore("dev", db or None).write_proposal(Proposal.new("dev", "t", "x"))
        elif kind == "read":
            print(len(Inbox(db or None).pending()))
    except BotBottleError as error:
        print(type(error).__name__, error.exit_code, error)


def test_a_directory_that_cannot_be_written_is_told(db: Path) -> None:
    db.parent.chmod(0o500)
    with Process(act_without_privileges, db, "write") as child:
        said = child.ends()
    db.parent.chmod(0o700)
    assert said.startswith("DatabaseUnavailableError 1 ")
    assert str(db) in said
    assert "ermission denied" in said
    assert list(db.parent.iterdir()) == []


def test_a_root_that_cannot_be_written_is_told(host: Host) -> None:
    host.root.mkdir()
    host.root.chmod(0o500)
    with Process(act_without_privileges, "", "write") as child:
        said = child.ends()
    with Process(act_without_privileges, "", "read") as child:
        assert child.ends() == "0\n"  # there is nothing yet, and it can see that
    host.root.chmod(0o700)
    assert said.startswith("DatabaseUnavailableError 1 ")
    assert str(host.root) in said
    assert "ermission denied" in said
    assert list(host.root.iterdir()) == []


def test_a_file_that_may_only_be_read_is_told(db: Path) -> None:
    """Reading it needs its shared memory beside it, which the last to close took away."""
    filled(db, 3)
    for path in (*db.parent.rglob("*"), db.parent):
        path.chmod(0o500 if path.is_dir() else 0o400)
    said = []
    for act in ("write", "read"):
        with Process(act_without_privileges, db, act) as child:
            said.append(child.ends())
    for path in (db.parent, *db.parent.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    for error in said:
        assert error.startswith(f"DatabaseUnavailableError 1 {db} cannot be used: ")
        assert "not writable" in error
    assert_sound(db)


def test_a_file_that_may_not_be_read_is_told(db: Path) -> None:
    filled(db, 1)
    db.chmod(0)
    with Process(act_without_privileges, db, "read") as child:
        said = child.ends()
    db.chmod(0o600)
    assert said.startswith("DatabaseUnavailableError 1 ")
    assert str(db) in said


def test_directories_that_are_too_open_are_no_error(db: Path) -> None:
    """Whoever shares a directory on purpose may; what is created in it is private all the same."""
    db.parent.chmod(0o777)
    filled(db, 1)
    assert db.stat().st_mode & 0o777 == 0o600


@linux_only
def test_a_process_without_descriptors_left_is_told(db: Path) -> None:
    def act(db: str) -> None:
        import resource

        from bot_bottle import BotBottleError, Inbox, Keys, Proposal, QueueStore

        queue, inbox = QueueStore("dev", db), Inbox(db)
        known = queue.list_pending_proposals()[0].id
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        verbs = {
            "written": lambda limit: queue.write_proposal(Proposal.new("dev", "t", f"x {limit}")),
            "waited": lambda _limit: queue.wait_for_response(known, timeout=0),
            "watched": lambda _limit: list(inbox.watch(0, timeout=0)),
            "key": lambda _limit: Keys(db).rotate(),
        }
        for verb, run in verbs.items():
            QueueStore("dev", db).close()
            for limit in range(4, 24):
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
                try:
                    run(limit)
                except BotBottleError as error:
                    if error.exit_code != 6:
                        assert f"EMFILE, its limit is {limit}" in str(error), (verb, error)
                        assert error.exit_code == 1, error
                        continue
                print(verb)

    filled(db, 1)
    with Process(act, db) as child:
        done = child.ends().split()
    assert len(QueueStore("dev", db).list_pending_proposals()) == 1 + done.count("written")
    assert set(done) == {"written", "waited", "watched", "key"}
    assert_sound(db)


# --- the host's layout


def test_a_link_that_leads_elsewhere_is_not_followed(host: Host, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.db"
    filled(elsewhere, 1)
    host.root.mkdir()
    (host.root / "bot-bottle.db").symlink_to(elsewhere)
    for use in (lambda: QueueStore("dev").write_proposal(proposal()), lambda: Inbox().pending()):
        with pytest.raises(DatabaseUnavailableError, match=str(elsewhere)) as caught:
            use()
        assert str(host.root / "bot-bottle.db") in str(caught.value)
    assert len(QueueStore("dev", elsewhere).list_pending_proposals()) == 1


def test_a_file_where_the_link_belongs_is_told_what_to_do_with(host: Host) -> None:
    host.root.mkdir()
    filled(host.root / "old.db", 1)
    (host.root / "old.db").rename(host.root / "bot-bottle.db")
    before = (host.root / "bot-bottle.db").read_bytes()
    for use in (lambda: QueueStore("dev").write_proposal(proposal()), lambda: Inbox().pending()):
        with pytest.raises(DatabaseUnavailableError, match="db restore"):
            use()
    assert (host.root / "bot-bottle.db").read_bytes() == before
    # And what it says works.
    (host.root / "bot-bottle.db").rename(host.root / "old.db")
    Database().restore(host.root / "old.db")
    assert len(Inbox().pending()) == 1


def test_an_absolute_link_to_the_right_place_is_right(host: Host) -> None:
    host.root.mkdir()
    (host.root / "bot-bottle.db").symlink_to(host.root / "db" / "bot-bottle.db")
    assert Inbox().pending() == []
    QueueStore("dev").write_proposal(proposal())
    assert len(Inbox().pending()) == 1


def test_a_link_that_was_lost_is_made_again(host: Host) -> None:
    written = QueueStore("dev").write_proposal(proposal())
    (host.root / "bot-bottle.db").unlink()
    assert [item.proposal.id for item in Inbox().pending()] == [written.id]
    other = QueueStore("other").write_proposal(proposal(slug="other"))
    assert [item.proposal.id for item in Inbox().pending()] == [written.id, other.id]


def test_a_root_that_is_a_file_is_told(host: Host) -> None:
    host.root.write_text("")
    with pytest.raises(DatabaseUnavailableError, match=str(host.root)):
        QueueStore("dev").write_proposal(proposal())


# --- what others put beside it


def plant(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "symlink":
        path.symlink_to(path.parent / "elsewhere")
    else:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))


@pytest.mark.parametrize("kind", ["FIFO", "directory", "symlink", "socket"])
@pytest.mark.parametrize("suffix", ["", "-journal", "-wal", "-shm"])
def test_what_is_no_file_is_refused_by_its_name_at_once(host: Host, suffix: str, kind: str) -> None:
    QueueStore("dev").write_proposal(proposal())
    database = host.root / "db" / "bot-bottle.db"
    planted = database.with_name(database.name + suffix)
    plant(planted, kind)
    for command in (("pending",), ("db", "status"), ("db", "backup", str(host.root / "saved.db")), ("audit", "list")):
        done = host.run(*command, code=1)
        assert f"{planted} cannot be used: it is a {kind}" in " ".join(done.stderr.split()), command
        assert "remove it" in done.stderr
    planted.rmdir() if kind == "directory" else planted.unlink()
    if suffix:
        assert len(host.json("pending")) == 1


@pytest.mark.parametrize("kind", ["FIFO", "directory", "symlink", "socket"])
def test_what_is_planted_for_the_lock_of_managed_files_is_refused_by_its_name(host: Host, kind: str) -> None:
    routes = host.routes_file()
    proposed = host.propose(against=routes.read_text())
    planted = host.root / "db" / "bot-bottle.db-apply"
    plant(planted, kind)
    said = host.run("approve", proposed.id, "--yes", code=1).stderr
    assert f"{planted} cannot be used: it is a {kind} where a file of the database belongs; remove it" in said
    planted.rmdir() if kind == "directory" else planted.unlink()
    host.run("approve", proposed.id, "--yes")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("bot-bottle.db-turn", kind) for kind in ("FIFO", "directory", "symlink", "socket")),
        *(("bells", kind) for kind in ("FIFO", "file", "symlink", "socket")),
    ],
)
def test_what_is_done_without_is_named_by_db_check(host: Host, name: str, kind: str) -> None:
    QueueStore("dev").write_proposal(proposal())
    assert host.json("db", "check") == []
    planted = host.root / "db" / name
    shutil.rmtree(planted) if planted.is_dir() else None
    plant(planted, kind) if kind != "file" else planted.touch()
    assert len(host.json("pending")) == 1
    (finding,) = host.json("db", "check", code=8)
    assert f"{planted} cannot be used: it is a {kind} where" in finding and "remove it" in finding


def test_a_backup_with_a_fifo_beside_it_is_refused(host: Host) -> None:
    QueueStore("dev").write_proposal(proposal())
    Database().backup(host.root / "saved.db")
    os.mkfifo(host.root / "saved.db-journal")
    (host.root / "link").symlink_to("saved.db")
    for source in ("saved.db", "link"):
        with pytest.raises(DatabaseUnavailableError, match=r"saved\.db-journal cannot be used: it is a FIFO"):
            Database().restore(host.root / source)
    (host.root / "saved.db-journal").unlink()
    Database().restore(host.root / "link")
    assert len(Inbox().pending()) == 1


@pytest.mark.parametrize("name", [".", "db"])
def test_a_root_that_every_user_may_write_to_is_refused(host: Host, name: str) -> None:
    QueueStore("dev").write_proposal(proposal())
    (host.root / name).chmod(0o777)
    for use in (lambda: Inbox().pending(), lambda: Database().backup(host.root / "saved.db")):
        with pytest.raises(DatabaseUnavailableError, match=r"every user may write to it \(mode 0777\); `chmod 700` it"):
            use()
    (host.root / name).chmod(0o700)
    assert len(Inbox().pending()) == 1


# --- the disk


def fill_the_disk(dir: str, managed: str) -> None:
    import contextlib
    import os

    from bot_bottle import BotBottleError, BottleStore, Inbox, Keys, Proposal, QueueStore
    from child_limits import mount

    mount("none", dir, "tmpfs", "size=2m")
    db = f"{dir}/x.db"
    Keys(db).rotate()
    os.mkdir(f"{dir}/files")
    with open(f"{dir}/ballast", "wb") as ballast:
        ballast.write(b"x" * 500_000)
    queue, inbox = QueueStore("dev", db), Inbox(db)
    if managed:
        BottleStore(db).register("dev", backend="docker", files={"t": f"{dir}/files/x"})
    acknowledged = []
    full = None
    for n in range(1000):
        try:
            acknowledged.append(queue.write_proposal(Proposal.new("dev", "t", f"{n} " + "x" * 8_000)))
        except BotBottleError as error:
            full = error
            break
    print(type(full).__name__, full.exit_code if full else "", full)
    rest = os.open(f"{dir}/rest", os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while os.write(rest, b"x" * 512):
            pass
    os.close(rest)
    for known in acknowledged:
        assert queue.read_proposal(known.id) == known
    try:
        inbox.decide(acknowledged[0].id, "approved", payload_sha256=acknowledged[0].payload_sha256)
    except BotBottleError as error:
        print(type(error).__name__, error.exit_code, error)
    assert [item.proposal.id for item in inbox.pending()] == [each.id for each in acknowledged]
    assert os.listdir(f"{dir}/files") == []
    os.unlink(f"{dir}/ballast")
    for known in acknowledged[:5]:
        queue.withdraw_proposal(known.id)
    response = inbox.decide(acknowledged[5].id, "approved", payload_sha256=acknowledged[5].payload_sha256)
    assert queue.read_response(acknowledged[5].id) == response
    assert os.listdir(f"{dir}/files") == (["x"] if managed else [])
    print("works again")


@needs_mount
@pytest.mark.parametrize("managed", ["", "with a managed file"])
def test_a_full_disk_is_told_and_loses_nothing(tmp_path: Path, managed: str) -> None:
    with Process(fill_the_disk, tmp_path, managed) as child:
        for _ in range(2):
            said = child.says()
            assert said.startswith("DatabaseUnavailableError 1 "), said
            assert str(tmp_path) in said
            assert "no space left" in said.lower()
        assert child.ends() == "works again\n"


# --- the mount


def use_mounted(source: str, target: str, db: str) -> None:
    from bot_bottle import BotBottleError, Database, Inbox, Proposal, QueueStore
    from child_limits import mount

    mount(source, target)
    status = Database(db).status()
    print(status["mount_safe"])
    try:
        print(len(Inbox(db).pending()))
        print(QueueStore("sidecar", db).write_proposal(Proposal.new("sidecar", "t", "x")).id)
    except BotBottleError as error:
        print(type(error).__name__, error.exit_code, error)


@needs_mount
def test_a_mounted_file_is_refused_before_anything_happens(db: Path, tmp_path: Path) -> None:
    filled(db, 1)
    inside = tmp_path / "run" / "bot-bottle.db"
    inside.parent.mkdir()
    inside.touch()
    with Process(use_mounted, db, inside, inside) as sidecar:
        safe, said = sidecar.ends().splitlines()
    assert safe == "False"
    assert said.startswith("UnsafeMountError 8 ")
    assert str(inside) in said
    assert "mount its directory instead" in said
    assert [path.name for path in inside.parent.iterdir()] == ["bot-bottle.db"]
    assert len(Inbox(db).pending()) == 1


@needs_mount
def test_a_mounted_directory_is_the_host_s(db: Path, tmp_path: Path) -> None:
    filled(db, 1)
    inside = tmp_path / "with blank" / "run"
    inside.mkdir(parents=True)
    with QueueStore("sidecar", db) as queue:
        queue.write_proposal(proposal(slug="sidecar"))
        with Process(use_mounted, db.parent, inside, inside / db.name) as sidecar:
            safe, count, known = sidecar.ends().splitlines()
        assert (safe, count) == ("True", "2")
        assert queue.read_proposal(known) is not None
    assert_sound(db)


def use_mounted_read_only(source: str, target: str, db: str) -> None:
    import subprocess

    from bot_bottle import BotBottleError, Inbox, Proposal, QueueStore
    from child_limits import mount

    mount(source, target)
    subprocess.run(["mount", "-o", "remount,bind,ro", target], check=True)
    written = Proposal.new("dev", "t", "x")
    for use in (lambda: Inbox(db).pending(), lambda: QueueStore("dev", db).write_proposal(written)):
        try:
            use()
        except BotBottleError as error:
            print(type(error).__name__, error.exit_code, error)


@needs_mount
def test_a_directory_mounted_read_only_is_refused_and_the_reason_named(db: Path, tmp_path: Path) -> None:
    filled(db, 1)
    inside = tmp_path / "run"
    inside.mkdir()
    with Process(use_mounted_read_only, db.parent, inside, inside / db.name) as sidecar:
        said = sidecar.ends().splitlines()
    assert len(said) == 2
    for line in said:
        assert line.startswith("DatabaseUnavailableError 1 ")
        assert str(inside) in line and "mounted read-only" in line
    assert len(Inbox(db).pending()) == 1


@needs_mount
def test_a_wait_crosses_a_mounted_directory(db: Path, tmp_path: Path, inbox: Inbox, queue: QueueStore) -> None:
    def wait(source: str, target: str, name: str, known: str) -> None:
        import time

        from bot_bottle import QueueStore
        from child_limits import mount

        mount(source, target)
        queue = QueueStore("dev", f"{target}/{name}")
        for one in known.split():
            queue.wait_for_response(one, 20)
            print(time.monotonic())

    inside = tmp_path / "run"
    inside.mkdir()
    written = [queue.write_proposal(proposal()) for _ in range(12)]
    late = []
    with Process(wait, db.parent, inside, db.name, " ".join(known.id for known in written)) as sidecar:
        for known in written:
            eventually(lambda known=known: inbox.read(known.id).waiting)  # type: ignore[misc]
            decide(inbox, known)
            decided = time.monotonic()
            late.append(float(sidecar.says()) - decided)
        sidecar.ends()
    assert sorted(late)[8] < 0.3  # by the bell: the heartbeat alone would take half a second on average


@needs_mount
@pytest.mark.skipif(shutil.which("bindfs") is None, reason="needs bindfs, a filesystem in user space")
def test_a_foreign_filesystem_is_refused_before_anything_happens(db: Path, tmp_path: Path) -> None:
    filled(db, 1)
    inside = tmp_path / "run"
    inside.mkdir()
    before = sorted(path.name for path in db.parent.iterdir())
    subprocess.run(["bindfs", db.parent, inside], check=True)
    try:
        for use in EVERY_USE:
            with pytest.raises(UnsafeMountError, match="broker") as caught:
                use(inside / db.name)
            assert (caught.value.exit_code, caught.value.path) == (8, str(inside / db.name))
            assert "fuse" in caught.value.filesystem
        with pytest.raises(UnsafeMountError):
            QueueStore("dev", inside / "fresh.db").write_proposal(proposal())
        status = Database(inside / db.name).status()
        assert (status["exists"], status["mount_safe"]) == (True, False)
        assert sorted(path.name for path in db.parent.iterdir()) == before
    finally:
        subprocess.run(["umount", "--lazy", inside], check=True)


# --- files that go away under an open database


def test_a_wal_deleted_between_writes_loses_no_later_write(db: Path, queue: QueueStore) -> None:
    for _ in range(5):
        queue.write_proposal(proposal())
        for suffix in ("-wal", "-shm"):
            db.with_name(db.name + suffix).unlink()
        written = queue.write_proposal(proposal())  # into files that others see
        assert [written.id] in witness(db, "SELECT id FROM proposals")
        assert queue.read_proposal(written.id) == written
    assert_sound(db)


@pytest.mark.parametrize(
    "name", ["the file itself", "a link to it", "a link to the host's link", "a link to its directory"]
)
def test_a_process_that_has_the_file_by_two_names_gets_over_a_lost_wal(host: Host, tmp_path: Path, name: str) -> None:
    real, other = host.root / "db" / "bot-bottle.db", tmp_path / "other"
    targets = {"a link to it": real, "a link to the host's link": host.root / "bot-bottle.db"}
    if name == "a link to its directory":
        real.parent.mkdir(parents=True)
        other.symlink_to(real.parent)
        other = other / real.name
    elif name in targets:
        other.symlink_to(targets[name])
    else:
        other = real
    with QueueStore("dev") as one, QueueStore("dev", other) as two, AuditStore(other) as log:
        for _ in range(3):
            for queue in one, two:
                queue.write_proposal(proposal())
            assert log.verify().entries == 0
            for suffix in ("-wal", "-shm"):
                real.with_name(real.name + suffix).unlink()
            for queue in two, one, two:
                written = queue.write_proposal(proposal())  # into files that others see
                assert [written.id] in witness(real, "SELECT id FROM proposals")
            assert log.verify().entries == 0
    assert_sound(real)


def test_a_database_deleted_and_made_anew_under_a_waiter_ends_its_wait(db: Path, queue: QueueStore) -> None:
    written = queue.write_proposal(proposal())
    got: list[Any] = []
    queue.begin_wait(written.id, got.append)
    shutil.rmtree(db.parent)
    db.parent.mkdir()
    with Process(act_without_privileges, db, "write") as other:
        other.ends()
    eventually(lambda: got)
    assert isinstance(got[0], NotFoundError)
    # The store itself goes on, with the file that is there now.
    assert len(queue.list_pending_proposals()) == 1
    again = queue.write_proposal(proposal())
    assert [again.id] in witness(db, "SELECT id FROM proposals")
    assert queue.wait_for_response(decided_by_another(db, again), 20).status == "approved"


def decided_by_another(db: Path, written: Proposal) -> str:
    with Inbox(db) as inbox:
        decide(inbox, written)
    return written.id


def test_a_database_deleted_under_a_reader_reads_as_none(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal())
    assert len(inbox.pending()) == 1
    shutil.rmtree(db.parent)
    assert inbox.pending() == []
    assert queue.read_proposal(written.id) is None
    with pytest.raises(BotBottleError):
        queue.write_proposal(proposal())  # its directory is not there
    db.parent.mkdir()
    queue.write_proposal(proposal())
    assert len(inbox.pending()) == 1


def test_a_database_replaced_by_another_is_used_from_then_on(db: Path, queue: QueueStore, tmp_path: Path) -> None:
    queue.write_proposal(proposal())
    other = filled(tmp_path / "other.db", 2)
    for suffix in ("-wal", "-shm"):
        db.with_name(db.name + suffix).unlink()
    os.replace(tmp_path / "other.db", db)
    assert queue.list_pending_proposals() == other
    written = queue.write_proposal(proposal())
    assert [written.id] in witness(db, "SELECT id FROM proposals")


def use_as_another_of_the_group(db: str, group: int) -> None:
    import os
    from pathlib import Path

    from bot_bottle import Proposal, QueueStore

    os.setgroups([])
    os.setgid(group)
    os.setuid(65534)
    closed = [str(path) for path in Path(db).parent.rglob("*") if not os.access(path, os.R_OK | os.W_OK)]
    assert closed == [], closed
    QueueStore("dev", db).write_proposal(Proposal.new("dev", "t", "x"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_a_group_that_shares_the_database_shares_its_bells_and_locks(mode: int) -> None:
    group = 54321
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        os.chown(home, -1, group)
        home.chmod(0o770)
        db = home / "bot-bottle.db"
        db.touch()
        db.chmod(mode)
        os.chown(db, -1, group)
        with QueueStore("dev", db) as queue:
            written = queue.write_proposal(proposal())
            with pytest.raises(WaitTimeoutError):
                queue.wait_for_response(written.id, 0.01)  # hangs a bell
            assert (home / "bells" / "dev").exists()
            files = [path for path in home.rglob("*") if path.is_file()]
            assert {path.stat().st_mode & 0o777 for path in files} == {mode}
            assert (home / "bells").stat().st_mode & 0o777 == (0o770 if mode == 0o660 else 0o700)
            if mode == 0o660:
                with Process(use_as_another_of_the_group, db, group) as other:
                    other.ends()
                assert len(queue.list_pending_proposals()) == 2


def test_bells_and_turns_that_cannot_be_made_are_done_without(db: Path) -> None:
    for name in ("bells", f"{db.name}-turn"):
        (db.parent / name).mkdir() if name != "bells" else (db.parent / name).touch()
    with QueueStore("dev", db) as queue, Inbox(db) as inbox:
        written = queue.write_proposal(proposal())
        got: list[Any] = []
        queue.begin_wait(written.id, got.append)
        decide(inbox, written)
        eventually(lambda: got)
        assert got[0].status == "approved"


# --- a second copy of SQLite in this process: it drops the locks of the first


def share_with_another_copy(db: str, rounds: int, also: str) -> None:
    import sqlite3
    import threading
    from contextlib import suppress

    from bot_bottle import Database, Inbox, Proposal, QueueStore, WriteLostError

    queue, inbox = QueueStore("dev", db), Inbox(db)
    lost = 0
    for n in range(rounds):
        first = queue.write_proposal(Proposal.new("dev", "t", f"before {n}"))
        print("acknowledged", first.id)
        if also == "reading":
            inbox.pending()
        if also == "waiting":
            answered = threading.Event()
            queue.begin_wait(first.id, lambda _, answered=answered: answered.set())
        connection = sqlite3.connect(db)  # the mistake: two copies in one process
        connection.execute("SELECT count(*) FROM proposals").fetchall()
        connection.close()
        print("locks dropped")
        input()
        if also == "querying":
            assert Database(db).query("SELECT count(*) AS n FROM proposals")[0]["n"] == 6 * n + 1
        if also == "waiting":
            while queue.read_response(first.id) is None:
                with suppress(WriteLostError):
                    inbox.decide(first.id, "approved", payload_sha256=first.payload_sha256)
            assert answered.wait(20)
        for m in range(5):
            written = Proposal.new("dev", "t", f"{n} {m}")
            try:
                queue.write_proposal(written)
            except WriteLostError as error:
                assert error.exit_code == 9
                lost += 1
                queue.write_proposal(written)
            print("acknowledged", written.id)
        assert len(queue.list_items(limit=1000)) == 6 * (n + 1)
    print("lost", lost)


@pytest.mark.parametrize("also", ["", "reading", "waiting", "querying"])
def test_no_acknowledged_row_is_missing_after_another_copy_of_sqlite_dropped_the_locks(db: Path, also: str) -> None:
    acknowledged = set()
    with Process(share_with_another_copy, db, 12, also) as process:
        while not (line := process.says()).startswith("lost"):
            if line == "locks dropped":
                witness(db, "SELECT count(*) FROM proposals")  # the last closer, as it thinks: removes the WAL
                process.tell()
            else:
                acknowledged.add(line.split()[1])
        process.ends()
    assert len(acknowledged) == 12 * 6
    assert acknowledged <= {row[0] for row in witness(db, "SELECT id FROM proposals")}
    assert_sound(db)


# --- lost while it is written


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("gone", ["-wal", ""], ids=["the WAL", "the database"])
def test_a_write_whose_file_goes_during_its_sync_is_not_acknowledged(
    db: Path, tmp_path: Path, queue: QueueStore, gone: str
) -> None:
    def write(db: str) -> None:
        import os

        from bot_bottle import Proposal, QueueStore, WriteLostError

        queue = QueueStore("dev", db)
        queue.list_pending_proposals()
        print(os.getpid())
        try:
            print("written", queue.write_proposal(Proposal.new("dev", "t", "x")).id)
        except WriteLostError as error:
            print(error)

    queue.write_proposal(proposal())
    log = tmp_path / "log"
    stops = ["--trace=fdatasync", "--inject=fdatasync:signal=STOP:when=1", f"--output={log}"]
    with Process(write, db, strace=stops) as writer:
        pid = int(writer.says())
        eventually(lambda: "stopped by SIGSTOP" in log.read_text())
        os.rename(f"{db}{gone}", tmp_path / "taken")
        os.kill(pid, signal.SIGCONT)
        told = writer.ends()
    assert str(db) in told
    assert "written" not in told.split()
