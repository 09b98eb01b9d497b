"""What does it cost to open the file, to bring a new one to the schema, and to copy it while others write?"""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import bot_bottle
from benchmarks.harness import OURS, Lab, Result, soon, times

FILL = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA synchronous=OFF")
for number in range(int(sys.argv[2])):
    row = (f"00000000-0000-7000-8000-{number:012x}", f"{number:064x}", os.urandom(131072).hex())
    connection.execute('''
        INSERT INTO proposals (id, queue_key, bottle_slug, tool, payload_sha256, justification, arrival_timestamp,
                               state, archived_at, proposed_file)
        VALUES (?, 'dev', 'dev', 'egress-allow', ?, '', '2026-01-31T12:00:00.000000Z', 'approved',
                '2026-01-31T12:00:01.000000Z', ?)''', row)
connection.commit()
connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
"""


def run(lab: Lab) -> Iterator[Result]:
    yield from opening(lab)
    if lab.full:
        yield from backup(lab, 4096)  # times 256 KiB is 1 GiB


def opening(lab: Lab) -> Iterator[Result]:
    took: dict[tuple[str, str], list[int]] = {}

    def timed(case: str, name: str, start: int) -> None:
        took.setdefault((case, name), []).append(time.monotonic_ns() - start)

    for number in range(30):
        place = lab.disk / f"open-{number}"
        place.mkdir()
        for case in ("a fresh file", "an existing file"):
            start = time.monotonic_ns()
            with bot_bottle.Database(place / "bot-bottle.db") as database:
                database.migrate_all() if case == "a fresh file" else database.query("SELECT 1")
                timed(case, OURS, start)
            start = time.monotonic_ns()
            connection = sqlite3.connect(place / "other.db")  # not the file that is open above
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("CREATE TABLE IF NOT EXISTS proposals (id TEXT PRIMARY KEY, payload TEXT)")
            timed(case, "sqlite3", start)
            connection.close()
        shutil.rmtree(place)
    for (case, name), numbers in took.items():
        yield Result("open", case, name, times(numbers))


def backup(lab: Lab, rows: int) -> Iterator[Result]:
    """While one process writes 100 proposals a second."""
    with lab.place() as place, lab.actor(OURS, place) as writer:
        file = place / "bot-bottle.db"
        subprocess.run([sys.executable, "-c", FILL, file, str(rows)], check=True)
        size = file.stat().st_size
        quiet = writer.numbers("write", soon(), 5_000_000_000, 100)[2:]
        begun, copied = time.monotonic_ns(), []
        with bot_bottle.Database(file) as database:
            thread = threading.Thread(
                target=lambda: copied.append((database.backup(place / "copy"), time.monotonic_ns()))
            )
            writer.tell("write", begun, 15_000_000_000, 100)
            thread.start()
            wal = watch_wal(file, thread)
            thread.join()
        meanwhile = [int(word) for word in writer.hear()[2:]]
        seconds = (copied[0][1] - begun) / 1e9
        start = time.monotonic()
        copy_and_sync(file, place / "plain")
        plain = time.monotonic() - start
    rate = size / 2**20
    yield Result("backup of 1 GiB", "while others write", OURS, {"mib_per_s": rate / seconds, "wal_mib": wal / 2**20})
    yield Result("backup of 1 GiB", "while others write", "copy and fsync", {"mib_per_s": rate / plain})
    yield Result("backup of 1 GiB", "a write before", OURS, times(quiet))
    yield Result("backup of 1 GiB", "a write meanwhile", OURS, times(meanwhile[: int(seconds * 100)]))


def watch_wal(file: Path, thread: threading.Thread) -> int:
    largest = 0
    while thread.is_alive():
        largest = max(largest, file.with_name(file.name + "-wal").stat().st_size)
        thread.join(0.05)
    return largest


def copy_and_sync(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as copied:
        os.fsync(copied.fileno())
