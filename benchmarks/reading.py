"""Does a read cost the same however much is archived and however large it is, and how fast is the chain verified?"""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import bot_bottle
from benchmarks.harness import LIMIT, OURS, Lab, Result, times, turns

# In a process of its own: a second copy of SQLite must not open a file that the first has open (docs/security.md).
ARCHIVE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA synchronous=OFF")
connection.execute('''
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    INSERT INTO proposals (id, queue_key, bottle_slug, tool, payload_sha256, justification, arrival_timestamp, state,
                           archived_at, proposed_file)
    SELECT printf('00000000-0000-7000-8000-%012x', i), CASE WHEN i % 10 THEN 'b' || (i % 50) ELSE 'waiting' END,
           'b' || (i % 50), 'egress-allow', printf('%064x', i), 'because', '2026-01-31T12:00:00.000000Z', 'approved',
           '2026-01-31T12:00:01.000000Z', ?
    FROM n''', (int(sys.argv[2]), "routes: []  # " + "x" * 80))
connection.commit()
"""

# In a process of its own, whose memory is its own: what it takes at the most beyond what it had before.
LARGE = """
import resource, sys, time
import bot_bottle
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
with bot_bottle.Inbox(sys.argv[1]) as inbox:
    list_all = {"pending": inbox.pending, "history": inbox.history}[sys.argv[2]]
    inbox.stats()
    before, took = peak(), []
    for _ in range(20):
        start = time.perf_counter_ns()
        items = list_all()
        took.append(time.perf_counter_ns() - start)
    print(len(items), peak() - before, *took)
"""


def run(lab: Lab) -> Iterator[Result]:
    for count in (10**4, 10**5, 10**6, *([10**7] if lab.full else [])):
        with lab.place() as place:
            archive(place, min(count, 10**6))
            write_log(place, count, diff="")
            yield from reads(lab, place, f"among {count:,}")
            yield verify(place, f"{count:,} short entries")
    with lab.place() as place:
        write_log(place, 20_000, diff="+  - host: api.example.com\n" * 300)
        yield verify(place, "20,000 entries of 8 KiB")
    yield hashing()
    with lab.place() as place:
        yield from large(place)


def archive(place: Path, count: int) -> None:
    """`count` archived proposals, a tenth of them in the queue `waiting`, and ten pending ones there."""
    subprocess.run([sys.executable, "-c", ARCHIVE, place / "bot-bottle.db", str(count)], check=True)
    with bot_bottle.QueueStore("waiting", place / "bot-bottle.db") as queue:
        for number in range(10):
            queue.write_proposal(bot_bottle.Proposal.new("waiting", "egress-allow", f"number: {number}", "because"))


def large(place: Path) -> Iterator[Result]:
    """Lists of as many and as large proposals as may be pending of one bottle."""
    with bot_bottle.QueueStore("large", place / "bot-bottle.db") as queue:
        for number in range(bot_bottle.MAX_PENDING_PER_BOTTLE):
            payload = f"{number} ".ljust(bot_bottle.MAX_PAYLOAD_BYTES, "x")
            queue.write_proposal(bot_bottle.Proposal.new("large", "egress-allow", payload, "because"))
    for verb in ("pending", "history"):
        command = [sys.executable, "-c", LARGE, place / "bot-bottle.db", verb]
        count, grown, *took = map(float, subprocess.run(command, check=True, capture_output=True).stdout.split())
        figures = times([round(each) for each in took], "ms")
        yield Result("read: 1 MiB each", f"{count:.0f} {verb}", OURS, figures | {"resident_grows_mib": grown})


def write_log(place: Path, count: int, diff: str) -> None:
    at = "2026-01-31T12:00:00.000000Z"
    entries = [
        bot_bottle.AuditEntry(at, f"b{number % 50}", f"c{number % 7}", "approved", "", "because", diff)
        for number in range(min(count, 10_000))
    ]
    with bot_bottle.AuditStore(place / "bot-bottle.db") as log:
        for _ in range(count // len(entries)):
            log.write_audit_entries(entries)


def reads(lab: Lab, place: Path, case: str) -> Iterator[Result]:
    verbs = {"list": "10 pending", "tail": "last 100 of a bottle", "filter": "last 100 of a bottle and component"}
    took: dict[tuple[str, str], list[int]] = {}
    with ExitStack() as stack:
        actors = {name: stack.enter_context(lab.actor(name, place)) for name in (OURS, LIMIT)}
        for number in range(11):
            for name in turns(actors, number):
                for verb in verbs:
                    if name == LIMIT and verb == "filter":
                        continue
                    numbers = actors[name].numbers(verb, 50)
                    if number:
                        took.setdefault((verb, name), []).extend(numbers)
    for (verb, name), numbers in took.items():
        yield Result(f"read: {verbs[verb]}", case, name, times(numbers, "us"))


def verify(place: Path, case: str) -> Result:
    """By the CPU time of the one thread that it takes, so that a busy machine does not count."""
    with bot_bottle.AuditStore(place / "bot-bottle.db") as log:
        [last] = log.read_audit_entries(limit=1)
        before, wall = time.thread_time(), time.monotonic()
        report = log.verify()
        used, wall = time.thread_time() - before, time.monotonic() - wall
    fields = [value for name, value in last.to_dict().items() if name != "entry_hash"]
    encoded = sum(len(str(value)) + len(str(len(str(value)))) + 2 if value is not None else 1 for value in fields)
    figures = {
        "entries_per_cpu_s": report.entries / used,
        "mb_per_cpu_s": report.entries * (encoded + len("19:bot-bottle.audit.v1,")) / used / 1e6,
        "wall_s": wall,
    }
    return Result("verify the chain", case, OURS, figures)


def hashing() -> Result:
    data = os.urandom(1 << 26)
    before = time.thread_time()
    hashlib.sha256(data).digest()
    figures = {"mb_per_cpu_s": len(data) / (time.thread_time() - before) / 1e6}
    return Result("verify the chain", "SHA-256 alone", "OpenSSL", figures)
