"""How soon does a waiter go on once its answer is on the disk, and what does waiting cost meanwhile?

The time runs from the return of the sync that made the answer durable to the return of the wait: what is left of the
commit, the bell, the kernel's wake-up, and reading the answer. ``after_return`` runs from the return of the call that
answered: less than nothing, where the waiter is faster.
"""

import itertools
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from subprocess import DEVNULL, PIPE

import bot_bottle
from benchmarks.actor import memory_kib
from benchmarks.harness import HELPER, LIMIT, OURS, Actor, Lab, Result, limits, times, turns

POLLING = {"old design": 0.5, "huey": 0.5}
"""Contenders that look so rarely that the moment of the answer matters: it is drawn from so many seconds."""


def run(lab: Lab) -> Iterator[Result]:
    yield from hops()
    yield from between_processes(lab)
    yield from between_threads(lab)
    yield from through_helper(lab)
    yield from through_mount(lab)
    yield from idle(lab)


def hops() -> Iterator[Result]:
    for name in ("inotify", "futex"):
        yield Result("wake-up", "bare hop", name, times(limits(name, 300)))


def between_processes(lab: Lab) -> Iterator[Result]:
    names = [OURS, LIMIT, "sqlite3", "honker", "huey", "old design"]
    rounds = 1000 if lab.full else 200
    took: dict[str, list[tuple[int, int]]] = {name: [] for name in names}
    with ExitStack() as stack:
        teams = {}
        for name in names:
            place = stack.enter_context(lab.place())
            teams[name] = [stack.enter_context(lab.actor(name, place)) for _ in ("waiter", "answerer")]
        for number in range(rounds):
            for name in turns(names, number):
                if name in POLLING and number % 5:
                    continue
                waiter, answerer = teams[name]
                took[name].append(wake(waiter, answerer, POLLING.get(name, 0.01)))
    for name in names:
        synced, returned = (times(clock) for clock in zip(*took[name], strict=True))
        after_return = {f"after_return_{figure}": value for figure, value in returned.items()}
        yield Result("wake-up", "between processes", name, synced | after_return)


def wake(waiter: Actor, answerer: Actor, spread: float) -> tuple[int, int]:
    """By both clocks."""
    [key] = answerer.ask("ask")
    waiter.tell("wait", key)
    time.sleep(0.01 + random.uniform(0, spread))  # until it sleeps
    _, synced, returned = answerer.numbers("answer", key)
    woken = int(waiter.hear()[0])
    return woken - synced, woken - returned


def between_threads(lab: Lab) -> Iterator[Result]:
    names = [OURS, "sqlite3"]
    took: dict[str, list[int]] = {name: [] for name in names}
    with ExitStack() as stack:
        actors = {name: stack.enter_context(lab.actor(name, stack.enter_context(lab.place()))) for name in names}
        for _number, name in itertools.product(range(200), names):
            actor = actors[name]
            woken, _, synced, _ = actor.numbers("race", *actor.ask("ask"))
            took[name].append(woken - synced)
    for name in names:
        yield Result("wake-up", "between threads", name, times(took[name]))


def through_helper(lab: Lab) -> Iterator[Result]:
    with lab.place() as place:
        database = place / "bot-bottle.db"
        figures = wake_helpers(lab, database, {"SUPERVISE_DB_PATH": str(database)})
    yield Result("wake-up", "through the helper", OURS, figures)


def wake_helpers(lab: Lab, database: Path, way: dict[str, str]) -> dict[str, float]:
    """From the sync of a decision until the line that a helper prints has been read; ``way`` is its environment."""
    took = []
    resident = 0
    propose = [HELPER, "propose", "--bottle", "helper", "--tool", "egress-allow", "--wait"]
    with lab.actor(OURS, database.parent) as answerer, bot_bottle.Inbox(database) as inbox:
        for number in range(200 if lab.full else 50):
            with subprocess.Popen(propose, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=os.environ | way) as helper:
                assert helper.stdin is not None and helper.stdout is not None
                helper.stdin.write(f"number: {number}\n".encode())
                helper.stdin.close()
                while not (waiting := [item for item in inbox.pending() if item.waiting]):
                    time.sleep(0.005)
                time.sleep(0.02)  # until it sleeps
                resident = memory_kib(helper.pid)
                proposal = waiting[0].proposal
                _, synced, _ = answerer.numbers("answer", f"{proposal.id}/{proposal.payload_sha256}")
                helper.stdout.read(1)
                took.append(time.monotonic_ns() - synced)
    return times(took) | {"resident_mib": resident / 1024}


def through_mount(lab: Lab) -> Iterator[Result]:
    """The waiter sees the database's directory through a bind mount, as in a container."""
    script = 'mount --bind "$0" "$1" && shift && exec "$@"'
    enter = ["unshare", "--mount", "sh", "-c", script]
    possible = ["unshare", "--mount", "mount", "--bind", "/tmp", "/tmp"]
    if not shutil.which("unshare") or subprocess.run(possible, capture_output=True).returncode:
        return  # needs root
    with (
        lab.place() as place,
        lab.place() as seen,
        lab.actor(OURS, place) as answerer,
        lab.actor(OURS, seen, prefix=[*enter, str(place), str(seen)]) as waiter,
    ):
        took = [wake(waiter, answerer, 0.01)[0] for _ in range(200)]
    yield Result("wake-up", "through a bind mount", OURS, times(took))


def idle(lab: Lab) -> Iterator[Result]:
    """All contenders at once: none of them writes."""
    crowds = [(OURS, 1), (OURS, 100), (OURS, 1000), ("honker", 1), ("honker", 100), ("sqlite3", 1), ("huey", 1)]
    crowds += [("old design", 1), ("old design", 100)]
    seconds = 60 if lab.full else 15
    with ExitStack() as stack:
        actors = []
        for name, count in crowds:
            actor = stack.enter_context(lab.actor(name, stack.enter_context(lab.place())))
            actor.tell("idle", count, seconds)
            actors.append(actor)
        for (name, count), actor in zip(crowds, actors, strict=True):
            used, resident = map(int, actor.hear())
            figures = {"cpu_s_per_minute": used / 1e9 * 60 / seconds, "resident_mib": resident / 1024}
            yield Result("idle waiters", str(count), name, figures)
