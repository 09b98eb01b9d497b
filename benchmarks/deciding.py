"""What does a decision cost, and an entry of the audit log?

A decision is one transaction: the proposal's state, the answer, the audit entry, a grant, the change. No peer has such
a thing; the C limit commits the same rows, without looking at the proposal first and without hashing.
"""

from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.harness import LIMIT, OURS, Lab, Result, times, turns


def run(lab: Lab) -> Iterator[Result]:
    yield from side_by_side(lab, "decide", "with a grant", ("decide", 25), 1)
    for size in (1, 10, 100, 1000):
        yield from side_by_side(lab, "audit append", f"batch of {size}", ("append", size, max(2, 50 // size)), size)


def side_by_side(lab: Lab, workload: str, case: str, command: tuple[object, ...], size: int) -> Iterator[Result]:
    names = [OURS, LIMIT]
    took: dict[str, list[int]] = {name: [] for name in names}
    with ExitStack() as stack:
        actors = {name: stack.enter_context(lab.actor(name, stack.enter_context(lab.place()))) for name in names}
        for actor in actors.values():  # until both overwrite their WAL and do not lengthen it any more
            actor.numbers("append", 1000, 30)
        for number in range((40 if lab.full else 12) + 1):
            for name in turns(names, number):
                numbers = actors[name].numbers(*command)
                if number:  # the first warms up
                    took[name] += numbers
    for name in names:
        yield Result(
            workload, case, name, times(took[name]) | {"per_second": size * len(took[name]) * 1e9 / sum(took[name])}
        )
