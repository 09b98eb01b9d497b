"""How many proposals does the disk get in a second, and how long does the unluckiest writer wait?

Every write is one durable row with the same payload. Ours and the C limit's are proposals on bot-bottle's schema (a row
of `proposals`, one of `changes`, four indexes); the peers' are one row of their own tables.
"""

import statistics
from collections.abc import Iterator
from contextlib import ExitStack

import bot_bottle
from benchmarks.harness import LIMIT, OURS, Actor, Lab, Result, limits, soon, times, turns

PEERS = ["sqlite3", "honker", "huey", "litequeue", "persist-queue", "old design"]


def run(lab: Lab) -> Iterator[Result]:
    yield from syncs(lab)
    yield from saturated(lab)
    yield from paced(lab)


def syncs(lab: Lab) -> Iterator[Result]:
    for way in ("append", "overwrite"):
        took = limits(way, 1000, lab.disk / "syncs")
        (lab.disk / "syncs").unlink()
        figures = times(took) | {"per_second": 1e9 / statistics.mean(took)}
        yield Result("bare write and fdatasync of 4 KiB", way, LIMIT, figures)


def saturated(lab: Lab) -> Iterator[Result]:
    """As fast as they can, from 1, 4 and 16 processes."""
    for processes in (1, 4, 16):
        rounds, seconds = (10, 2.0) if lab.full else (4, 0.75)
        yield from bursts(lab, f"{processes} saturating", processes, [OURS, LIMIT, *PEERS], rounds, seconds, 0)


def paced(lab: Lab) -> Iterator[Result]:
    """A thousand writes a second in all, as sidecars would at the very most."""
    for processes in (4, 8):
        rounds, seconds = (10, 3.0) if lab.full else (4, 1.0)
        names = [OURS, LIMIT, "sqlite3", "honker", "huey", "litequeue", "persist-queue"]
        yield from bursts(lab, f"{processes} at 1,000/s", processes, names, rounds, seconds, 1000 / processes)


def bursts(
    lab: Lab, case: str, processes: int, names: list[str], rounds: int, seconds: float, per_second: float
) -> Iterator[Result]:
    """Short bursts in turn, so that whatever else the machine does meets all alike. The first is not counted."""
    took: dict[str, list[list[int]]] = {name: [[] for _ in range(processes)] for name in names}
    counted = {name: [0, 0, 0] for name in names}  # syncs, errors, acknowledged
    with ExitStack() as stack:
        teams: dict[str, list[Actor]] = {}
        places = {}
        for name in names:
            places[name] = stack.enter_context(lab.place())
            teams[name] = [stack.enter_context(lab.actor(name, places[name])) for _ in range(processes)]
        for number in range(rounds + 1):
            for name in turns(names, number):
                start = soon()
                for actor in teams[name]:
                    actor.tell("write", start, int(seconds * 1e9), per_second)
                for writer, actor in enumerate(teams[name]):
                    syncs, errors, *writes = map(int, actor.hear())
                    counted[name][2] += len(writes)
                    if number:
                        took[name][writer] += writes
                        counted[name][0] += syncs
                        counted[name][1] += errors
        with bot_bottle.Database(places[OURS] / "bot-bottle.db") as database:
            [found] = database.query("SELECT count(*) AS rows FROM proposals")
        lost = counted[OURS][2] - int(str(found["rows"]))
    for name in names:
        each = [len(writes) for writes in took[name]]
        figures = times([one for writes in took[name] for one in writes])
        figures["per_second"] = sum(each) / seconds / rounds
        figures["slowest_of_mean"] = min(each) / statistics.mean(each)
        figures["syncs_per_write"] = counted[name][0] / max(1, sum(each))
        figures["errors"] = counted[name][1]
        if name == OURS:
            figures["lost"] = lost
        yield Result("durable proposals", case, name, figures)
