"""How is a contender told what to do? ``python -m benchmarks.actor NAME DIRECTORY`` answers a command a line in a line.

    ask                               -> key
    wait KEY                          -> when it returned
    answer KEY                        -> when it was called, when the disk had it, when it returned
    race KEY                          -> the two above, with the waiter in another thread
    write START SECONDS PER_SECOND    -> number of syncs, number of errors, what each write took; they come
                                         at random moments of equal intervals, or without pause (0)
    decide COUNT, append SIZE COUNT, list COUNT, tail COUNT, filter COUNT -> what each took
    idle COUNT SECONDS                -> CPU nanoseconds used in that time by COUNT waiters, resident KiB

Times and durations are nanoseconds, points in time CLOCK_MONOTONIC's, which all processes share. limits.c speaks the
same.
"""

import ctypes
import random
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.contenders import CONTENDERS, Contender

now = time.monotonic_ns


class Syncs:
    """What synced.c counts, where it is preloaded."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self.count: Callable[[], int] = getattr(library, "synced_count", lambda: 0)
        self.since: Callable[[int], int] = getattr(library, "synced_since", lambda start: 0)
        if hasattr(library, "synced_since"):
            library.synced_count.restype = ctypes.c_int64
            library.synced_since.restype = ctypes.c_int64
            library.synced_since.argtypes = [ctypes.c_int64]


def timed(action: Callable[[], object]) -> int:
    called = now()
    action()
    return now() - called


def answer(contender: Contender, syncs: Syncs, key: str) -> list[int]:
    called = now()
    contender.answer(key)
    returned = now()
    return [called, syncs.since(called), returned]


def race(contender: Contender, syncs: Syncs, key: str) -> list[int]:
    woken: list[int] = []

    def wait() -> None:
        contender.wait(key)
        woken.append(now())

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.02)
    times = answer(contender, syncs, key)
    waiter.join()
    return woken + times


def write(contender: Contender, syncs: Syncs, start: int, length: int, per_second: float) -> list[int]:
    took: list[int] = []
    errors = 0
    syncs_before = syncs.count()
    time.sleep(max(0, start - now()) / 1e9)
    while now() < start + length:
        if per_second:
            due = start + int((len(took) + errors + random.random()) * 1e9 / per_second)
            time.sleep(max(0, due - now()) / 1e9)
        try:
            took.append(timed(contender.write))
        except Exception as error:
            errors += 1
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return [syncs.count() - syncs_before, errors, *took]


def cpu() -> int:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return int((usage.ru_utime + usage.ru_stime) * 1e9)


def idle(contender: Contender, count: int, length: float) -> list[int]:
    contender.idle(count)
    time.sleep(1 + count / 200)  # until all wait
    before = cpu()
    time.sleep(length)
    return [cpu() - before, memory_kib("self")]


def memory_kib(pid: int | str) -> int:
    """Resident size of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS")))


def obey(contender: Contender, syncs: Syncs, verb: str, words: list[str]) -> Iterator[object]:
    match verb:
        case "ask":
            yield contender.ask()
        case "wait":
            contender.wait(words[0])
            yield now()
        case "answer":
            yield from answer(contender, syncs, words[0])
        case "race":
            yield from race(contender, syncs, words[0])
        case "write":
            yield from write(contender, syncs, int(words[0]), int(words[1]), float(words[2]))
        case "idle":
            yield from idle(contender, int(words[0]), float(words[1]))
        case "decide":
            for _ in range(int(words[0])):
                yield timed(contender.decide())
        case "append":
            for _ in range(int(words[1])):
                yield timed(contender.append(int(words[0])))
        case "list" | "tail" | "filter":
            for _ in range(int(words[0])):
                yield timed(getattr(contender, verb))
        case _:
            raise SystemExit(f"actor: unknown command {verb}")


def main() -> None:
    contender = CONTENDERS[sys.argv[1]](Path(sys.argv[2]))
    syncs = Syncs()
    print("ready", flush=True)
    for line in sys.stdin:
        verb, *words = line.split()
        print(*obey(contender, syncs, verb, words), flush=True)


if __name__ == "__main__":
    main()
