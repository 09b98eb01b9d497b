"""Does anything grow that should not? Fifty bottles' sidecars propose and wait, an operator decides, and beside them
work a pruner, a backup and a reader that holds one snapshot for long.

Each part is a process: ``python -m benchmarks.soak PART DATABASE ...``, which prints what it took, a line a second.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

import bot_bottle
from benchmarks import report
from benchmarks.actor import memory_kib
from benchmarks.harness import BUILT, CHECKOUT, HERE, PEERS, times

PROCESSES = 5
THINK_S = 10.0
"""How long a sidecar has nothing to ask, at the most."""

READER = """
import sqlite3, sys, time
while True:
    time.sleep(20)
    connection = sqlite3.connect(sys.argv[1])
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM changes").fetchone()
    time.sleep(20)
    connection.close()
"""


def run(disk: Path, minutes: float, bottles: int, sidecars: int) -> None:
    database = disk / "bot-bottle.db"
    with bot_bottle.Database(database) as created:
        created.migrate_all()

    def start(*words: object) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "benchmarks.soak", *map(str, words)]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)

    slugs = [[f"b{number}" for number in range(bottles)][part::PROCESSES] for part in range(PROCESSES)]
    asking = [start("sidecars", database, sidecars, *some) for some in slugs]
    others = [start("operator", database), start("pruner", database), start("backup", database, disk / "copy")]
    others.append(subprocess.Popen([sys.executable, "-c", READER, database], text=True))
    try:
        samples = watch(database, asking, others, minutes * 60)
        broken = [process.args for process in [*asking, *others] if process.poll() is not None]
    finally:
        for process in [*asking, *others]:
            process.kill()
            process.wait()
    if broken:
        raise SystemExit(f"benchmarks: ended before its time: {broken}")
    saved = BUILT / "soak.json"
    saved.write_text(json.dumps(samples))
    report.PLOTS.mkdir(exist_ok=True)
    subprocess.run([PEERS, HERE / "plots.py", "soak", saved, report.PLOTS], check=True)
    report.publish_soak(summary(samples, minutes, bottles, sidecars))


def watch(
    database: Path, asking: list[subprocess.Popen[str]], others: list[subprocess.Popen[str]], seconds: float
) -> list[dict[str, float]]:
    samples = []
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        waited, wrote = [], []
        for process in asking:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline() or "{}")
            waited += told.get("waited", [])
            wrote += told.get("wrote", [])
        sample: dict[str, float] = {"second": time.monotonic() - begun, "answers": len(waited)}
        for name, taken in (("wake", waited), ("write", wrote)):
            sample |= {f"{name}_{figure}": value for figure, value in (times(taken) if taken else {}).items()}
        wal = database.with_name(database.name + "-wal")
        sample["file_mib"] = database.stat().st_size / 2**20
        sample["wal_mib"] = wal.stat().st_size / 2**20 if wal.exists() else 0
        sample["resident_mib"] = sum(memory_kib(process.pid) for process in [*asking, *others]) / 1024
        samples.append(sample)
    return samples


def summary(samples: list[dict[str, float]], minutes: float, bottles: int, sidecars: int) -> str:
    middle = len(samples) // 2

    def half(part: list[dict[str, float]], figure: str, of: Callable[[list[float]], float]) -> str:
        values = [sample[figure] for sample in part if figure in sample]
        return report.number(of(values)) if values else ""

    rows: list[tuple[str, ...]] = [("figure", "first half", "second half")]
    figures: list[tuple[str, Callable[[list[float]], float]]] = [
        ("wake_median_ms", median),
        ("wake_p99_ms", median),
        ("write_median_ms", median),
        ("write_p99_ms", median),
        ("file_mib", max),
        ("wal_mib", max),
        ("resident_mib", max),
    ]
    for figure, of in figures:
        halves = [half(part, figure, of) for part in (samples[:middle], samples[middle:])]
        rows.append((f"{figure.replace('_', ' ')}, {of.__name__}", *halves))
    answers = sum(sample["answers"] for sample in samples)
    return (
        f"{minutes:g} minutes, {bottles} bottles with {sidecars} sidecars each, {answers:,.0f} answers; a pruner every "
        f"5 s, a backup every 15 s, a reader that holds a snapshot for 20 s of every 40 s.\n\n"
        f"![soak](performance/soak.svg)\n\n{report.table(rows)}"
    )


# ---- the parts ----


async def sidecars(database: str, count: int, *slugs: str) -> None:
    waited: list[int] = []
    wrote: list[int] = []

    async def sidecar(slug: str, number: int) -> None:
        queue = bot_bottle.AsyncQueueStore(slug, database)
        for step in range(10**9):
            await asyncio.sleep(random.uniform(0, THINK_S))
            payload = f"# {number} {step}\nroutes: []\n" + "# filler\n" * 60
            begun = time.monotonic_ns()
            proposal = await queue.write_proposal(bot_bottle.Proposal.new(slug, "egress-allow", payload, "because"))
            wrote.append(time.monotonic_ns() - begun)
            response = await queue.wait_for_response(proposal.id)
            decided = datetime.fromisoformat(str(response.decided_at).replace("Z", "+00:00"))
            waited.append(int((datetime.now(timezone.utc) - decided).total_seconds() * 1e9))
            await queue.archive_proposal(proposal.id)

    async def tell() -> None:
        while True:
            await asyncio.sleep(1)
            print(json.dumps({"waited": waited, "wrote": wrote}), flush=True)
            waited.clear()
            wrote.clear()

    await asyncio.gather(tell(), *(sidecar(slug, number) for slug in slugs for number in range(count)))


def operator(database: str) -> None:
    with bot_bottle.Inbox(database) as inbox:
        seen = 0
        while True:
            for item in inbox.pending():
                shown = item.proposal.payload_sha256
                inbox.decide(item.proposal.id, "approved", payload_sha256=shown, decided_by="root")
            for change in inbox.watch(seen, timeout=1):
                seen = change.seq
                break


def pruner(database: str) -> None:
    with bot_bottle.Database(database) as opened:
        while True:
            time.sleep(5)
            opened.prune(older_than=20)


def backup(database: str, copy: str) -> None:
    with bot_bottle.Database(database) as opened:
        while True:
            time.sleep(15)
            opened.backup(copy)
            os.unlink(copy)


if __name__ == "__main__":
    part, *words = sys.argv[1:]
    if part == "sidecars":
        asyncio.run(sidecars(words[0], int(words[1]), *words[2:]))
    elif part == "operator":
        operator(words[0])
    elif part == "pruner":
        pruner(words[0])
    else:
        backup(words[0], words[1])
