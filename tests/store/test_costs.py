"""What does each hot path ask of the kernel, and in which order? Counted, not timed: a busy machine says the same as an
idle one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

import bot_bottle
from store_process import Process, eventually

_PROGRAM = """
import sys
from bot_bottle import AuditEntry, AuditStore, Inbox, Proposal, QueueStore

verb, path, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
queues, inbox, audit = [QueueStore(f"dev-{n}", path) for n in range(2)], Inbox(path), AuditStore(path)

def propose(n):
    return queues[0].write_proposal(Proposal.new("dev-0", "egress-allow", f"number: {n}", "because"))

def decide(n):
    inbox.decide(written[n].id, "approved", payload_sha256=written[n].payload_sha256)

written = [propose(-n) for n in range(1, 3)]
if verb == "decide":
    written = [propose(n) for n in range(150)]
entry = AuditEntry("2026-01-31T12:00:00Z", "dev-0", "egress", "reload-failed", "line 3")
if verb == "filter":  # half of the log is the bottle's and half the component's, a page each: more than SQLite keeps
    others = ("dev-0", "git-gate"), ("dev-1", "egress")
    whose = [others[n % 2] if n % 300 else ("dev-0", "egress") for n in range(3000)]
    audit.write_audit_entries([AuditEntry(entry.timestamp, *both, "x", diff="d" * 3000) for both in whose])
work = {
    "propose": propose,
    "decide": decide,
    "append": lambda n: audit.write_audit_entry(entry),
    "pending": lambda n: inbox.pending(),
    "look": lambda n: queues[0].read_response(written[0].id),
    "tail": lambda n: audit.read_audit_entries(limit=100),
    "filter": lambda n: audit.read_audit_entries("egress", "dev-0"),
}[verb]
for n in range(number):
    work(n)
"""


pytestmark = pytest.mark.usefixtures("strace")


def traced(verb: str, path: Path, number: int) -> list[str]:
    """The system calls of a process that does it so many times, in all its threads, with the paths of descriptors."""
    log = path.with_name(f"{verb}-{number}.trace")
    program = [sys.executable, "-c", _PROGRAM, verb, str(path.with_name(f"{verb}-{number}.db")), str(number)]
    subprocess.run(["strace", "-f", "-y", "--quiet=all", f"--output={log}", *program], check=True)
    return re.findall(r"^\d+ +(\w+\(.*)", log.read_text(), re.MULTILINE)


def calls(verb: str, path: Path, number: int) -> Counter[str]:
    """How often it makes each."""
    return Counter(call.partition("(")[0] for call in traced(verb, path, number))


@pytest.mark.parametrize(
    ("verb", "syncs", "most"),
    [
        ("propose", 1, 55),
        ("decide", 1, 90),
        ("append", 1, 36),
        ("pending", 0, 8),
        ("look", 0, 8),
        ("tail", 0, 8),
        ("filter", 0, 36),
    ],
)
def test_an_operation_makes_few_system_calls_and_syncs_once_if_it_writes(
    tmp_path: Path, verb: str, syncs: int, most: int
) -> None:
    few, many = (calls(verb, tmp_path / "bot-bottle.db", number) for number in (20, 120))
    many.subtract(few)
    each = {name: count / 100 for name, count in many.items() if count > 5}
    assert sum(each.get(name, 0) for name in ("fsync", "fdatasync")) == pytest.approx(syncs, abs=0.1), each
    # Half more than when this was written: enough for another SQLite or kernel, not for a connection at each operation.
    assert sum(each.values()) <= most, json.dumps(each, indent=1)


_STEPS = {
    "stirred": r"utimensat\(.*/bells/dev-0",
    "written": r"pwrite64\(\d+<.*-wal>",
    "synced": r"f(data)?sync\(\d+<.*-wal>",
    "unlocked": r"fcntl\(\d+<.*-shm>, F_SETLK, {l_type=F_UNLCK, l_whence=SEEK_SET, l_start=120,",  # WAL_WRITE_LOCK
    "rung": r"utimensat\(.*/bells/\.inbox",
}


@pytest.mark.parametrize(
    ("verb", "order"),
    [
        ("propose", ["written", "unlocked", "synced", "rung"]),  # others' writes need not wait for the disk
        (
            "decide",
            ["stirred", "written", "synced", "unlocked", "rung"],
        ),  # nobody reads what a power cut may undo, but is up
    ],
)
def test_a_write_is_on_the_disk_before_anybody_is_told(tmp_path: Path, verb: str, order: list[str]) -> None:
    steps = [
        next((name for name, call in _STEPS.items() if re.match(call, line)), "")
        for line in traced(verb, tmp_path / "x.db", 20)
    ]
    last = len(steps) - 1 - steps[::-1].index("rung")
    before = [step for step in steps[:last] if step]
    start = len(before) - 1 - before[::-1].index("rung")
    assert list(dict.fromkeys([*before[start + 1 :], "rung"])) == order


def test_a_checkpoint_does_not_hold_up_others_who_were_not_waiting(tmp_path: Path) -> None:
    steps = {"taken": r"flock\(\d+<.*-turn>, LOCK_SH", "passed": r"flock\(\d+<.*-turn>, LOCK_UN"}
    steps |= {"copied": r"pwrite64\(\d+<.*\.db>", "written": _STEPS["written"]}
    seen = [
        next((name for name, call in steps.items() if re.match(call, line)), "")
        for line in traced("append", tmp_path / "x.db", 400)
    ]
    # Without the making of the file, and the end of the process.
    seen = seen[seen.index("written") : len(seen) - seen[::-1].index("written")]
    turns = [name for name in seen if name in ("taken", "passed", "copied")]
    before = [earlier for earlier, name in pairwise(turns) if name == "copied" != earlier]
    assert set(before) == {"passed"}


def propose_two(db: str) -> None:
    import shutil

    from bot_bottle import Proposal, QueueStore, errors

    for payload in ("a: 1", "b: 2"):
        try:
            QueueStore("dev", db).write_proposal(Proposal.new("dev", "egress-allow", payload))
            print("queued")
        except errors.BotBottleError as error:
            print(error)
        shutil.copy(db, db + payload[0])  # without its WAL


def where_syncs_fail(path: Path, failing: str) -> list[str]:
    """What comes of two proposals where the syncs so named fail."""
    with bot_bottle.Database(path) as database:
        database.migrate_all()
        broken = ["--trace=fdatasync,fsync", f"--inject=fdatasync,fsync:error=EIO:when={failing}"]
        with Process(propose_two, path, strace=broken) as process:
            return process.ends().splitlines()


def test_nothing_is_acknowledged_on_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bot-bottle.db"
    said = where_syncs_fail(path, "1+")
    assert [line for line in said if str(path) in line and "disk" in line] == said and len(said) == 2


@pytest.mark.parametrize(("failing", "found"), [("1", "1"), ("100", "")])
def test_what_could_not_be_synced_in_the_wal_is_put_into_the_database(tmp_path: Path, failing: str, found: str) -> None:
    path = tmp_path / "bot-bottle.db"
    assert where_syncs_fail(path, failing) == ["queued", "queued"]
    count = ["sqlite3", f"{path}a", "SELECT count(*) FROM proposals"]  # no table yet where all is in the WAL
    assert subprocess.run(count, capture_output=True, text=True).stdout.strip() == found
    with bot_bottle.QueueStore("dev", path) as queue:
        assert len(queue.list_pending_proposals()) == 2


def propose_until_interrupted(db: str) -> None:
    import os
    import time

    from bot_bottle import Proposal, QueueStore, errors

    queue = QueueStore("dev", db)
    queue.pending()
    print(os.getpid())
    start = time.monotonic()
    try:
        print(queue.write_proposal(Proposal.new("dev", "egress-allow", "a: 1")))
    except errors.DatabaseUnavailableError as error:
        print(type(error.__cause__).__name__, time.monotonic() - start)


def hold_a_snapshot(db: str) -> None:
    import sqlite3

    with sqlite3.connect(db, isolation_level=None) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM proposals").fetchall()
        print("held")
        input()


def test_a_signal_ends_the_wait_to_mend_what_was_not_synced(tmp_path: Path) -> None:
    """The WAL cannot go to the database while somebody reads an older state: that is waited for, for 30 s."""
    path, log = tmp_path / "bot-bottle.db", tmp_path / "log"
    with bot_bottle.QueueStore("dev", path) as queue:
        queue.write_proposal(bot_bottle.Proposal.new("dev", "egress-allow", "old: 1"))
    broken = ["--trace=fdatasync", "--inject=fdatasync:error=EIO:when=1", f"--output={log}"]
    with Process(hold_a_snapshot, path) as reader:
        assert reader.says() == "held"
        with Process(propose_until_interrupted, path, strace=broken) as writer:
            pid = int(writer.says())
            eventually(lambda: "EIO" in log.read_text(), within=60)
            os.kill(pid, signal.SIGINT)
            cause, seconds = writer.ends().split()
        reader.tell()
        reader.ends()
    assert cause == "KeyboardInterrupt"
    assert float(seconds) < 20
