"""What must be reached? Mostly ratios within one run, so that they hold on another machine too."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.harness import LIMIT, OURS, Result


class Figures:
    """Results by workload, case and contender."""

    def __init__(self, results: Sequence[Result]) -> None:
        self.results = {(result.workload, result.case, result.contender): result.figures for result in results}

    def __call__(self, workload: str, case: str, contender: str, figure: str) -> float:
        return self.results[workload, case, contender][figure]

    def best(self, workload: str, case: str, figure: str, besides: Sequence[str] = ()) -> float:
        """The largest of all contenders but some."""
        found = [
            figures[figure]
            for (of, at, contender), figures in self.results.items()
            if (of, at) == (workload, case) and contender not in besides
        ]
        return max(found)


@dataclass
class Target:
    """A figure and its bound: at least or at most."""

    what: str
    bound: float
    at_least: bool
    value: Callable[[Figures], float]

    def line(self, figures: Figures) -> tuple[str, str, str, str]:
        """What, bound, value, and whether it is reached; "not measured" if this run left it out."""
        bound = f"{'≥' if self.at_least else '≤'} {self.bound:g}"
        try:
            value = self.value(figures)
        except (KeyError, ValueError):
            return self.what, bound, "", "not measured"
        reached = value >= self.bound if self.at_least else value <= self.bound
        return self.what, bound, f"{value:.3g}", "reached" if reached else "**not reached**"


def at_most(what: str, bound: float, value: Callable[[Figures], float]) -> Target:
    return Target(what, bound, False, value)


def at_least(what: str, bound: float, value: Callable[[Figures], float]) -> Target:
    return Target(what, bound, True, value)


WAKE, WRITE = ("wake-up", "between processes"), "durable proposals"


def all_targets() -> Iterator[Target]:
    yield from waking()
    yield from writing()
    for processes in (4, 16):
        yield from saturating(f"{processes} saturating")
    for case, bound in (("4 at 1,000/s", 1.5), ("8 at 1,000/s", 3)):
        yield paced(case, bound)
    yield from reading("10 pending", 25)
    yield from reading("last 100 of a bottle", 100)
    yield at_most("200 pending of 1 MiB, ms", 5, lambda f: f("read: 1 MiB each", "200 pending", OURS, "median_ms"))
    yield at_most(
        "200 pending of 1 MiB, MiB of memory",
        5,
        lambda f: f("read: 1 MiB each", "200 pending", OURS, "resident_grows_mib"),
    )
    yield from verifying()
    yield from starting()
    yield from brokering()


def waking() -> Iterator[Target]:
    def median(f: Figures, contender: str = OURS) -> float:
        return f(*WAKE, contender, "median_ms")

    def idle(f: Figures, contender: str = OURS) -> float:
        return f("idle waiters", "1", contender, "cpu_s_per_minute")

    after = "wake-up after the decision returned"
    yield at_most(f"{after}, median, ms", 0.2, lambda f: f(*WAKE, OURS, "after_return_median_ms"))
    yield at_most(f"{after}, p99, ms", 1.5, lambda f: f(*WAKE, OURS, "after_return_p99_ms"))
    yield at_most("wake-up, p99 over median", 5, lambda f: f(*WAKE, OURS, "p99_ms") / median(f))
    yield at_most("wake-up over C's bell and indexed read", 2.5, lambda f: median(f) / median(f, LIMIT))
    yield at_least("the old design's wake-up over ours", 1000, lambda f: median(f, "old design") / median(f))
    yield at_least("honker's wake-up over ours", 4, lambda f: median(f, "honker") / median(f))
    yield at_most("an idle waiter, CPU s per minute", 0.05, idle)
    yield at_most("an idle waiter's CPU over honker's", 0.02, lambda f: idle(f) / idle(f, "honker"))


def writing() -> Iterator[Target]:
    def rate(f: Figures, contender: str = OURS) -> float:
        return f(WRITE, "1 saturating", contender, "per_second")

    yield at_least("one writer over C", 0.9, lambda f: rate(f) / rate(f, LIMIT))
    yield at_least(
        "one writer over the best peer",
        1,
        lambda f: rate(f) / f.best(WRITE, "1 saturating", "per_second", [OURS, LIMIT]),
    )


def saturating(case: str) -> Iterator[Target]:
    yield at_most(f"{case}, errors", 0, lambda f: f(WRITE, case, OURS, "errors"))
    yield at_most(f"{case}, lost rows", 0, lambda f: f(WRITE, case, OURS, "lost"))
    yield at_least(f"{case}, slowest over mean", 0.5, lambda f: f(WRITE, case, OURS, "slowest_of_mean"))
    yield at_most(f"{case}, worst write, ms", 100, lambda f: f(WRITE, case, OURS, "worst_ms"))
    yield at_least(
        f"{case}, over the best total",
        0.8,
        lambda f: f(WRITE, case, OURS, "per_second") / f.best(WRITE, case, "per_second"),
    )


def paced(case: str, bound: float) -> Target:
    return at_most(f"{case}, p99, ms", bound, lambda f: f(WRITE, case, OURS, "p99_ms"))


def reading(what: str, bound: float) -> Iterator[Target]:
    def median(f: Figures, case: str) -> float:
        return f(f"read: {what}", case, OURS, "median_us")

    few, many = "among 10,000", "among 1,000,000"
    yield at_most(f"{what}, µs", bound, lambda f: median(f, many))
    yield at_most(f"{what}, among 10^6 over among 10^4", 1.2, lambda f: median(f, many) / median(f, few))


def verifying() -> Iterator[Target]:
    of = "verify the chain"
    yield at_least(
        "verify, entries per s of one core",
        500_000,
        lambda f: f(of, "1,000,000 short entries", OURS, "entries_per_cpu_s"),
    )
    yield at_least(
        "verify, MB per s of one core", 300, lambda f: f(of, "20,000 entries of 8 KiB", OURS, "mb_per_cpu_s")
    )


def starting() -> Iterator[Target]:
    def median(f: Figures, program: str) -> float:
        return f("start", program, "whole process", "median_ms")

    yield at_most(
        "import bot_bottle over bare Python, ms",
        30,
        lambda f: median(f, "import bot_bottle") - median(f, "python -c pass"),
    )
    yield at_most("bot-bottle pending, ms", 200, lambda f: median(f, "bot-bottle pending"))
    yield at_most("helper --version, ms", 3, lambda f: median(f, "helper --version"))
    yield at_most("helper pending, ms", 5, lambda f: median(f, "helper pending"))
    yield at_most("helper, MiB", 4.2, lambda f: f("size", "helper", "file", "size_mib"))


def brokering() -> Iterator[Target]:
    of = "through the broker"
    yield at_most(
        "wake-up of a helper over HTTP, median, ms", 3, lambda f: f(of, "wake-up of a helper", OURS, "median_ms")
    )
    yield at_most("1,000 waits, broker's MiB", 150, lambda f: f(of, "1,000 waits", OURS, "resident_mib"))
    yield at_most("1,000 waits, % of a core", 2, lambda f: f(of, "1,000 waits", OURS, "cpu_percent_of_a_core"))
    yield at_least(
        "proposals over HTTP from 16 clients, per s",
        500,
        lambda f: f(of, "proposals from 16 clients", OURS, "per_second"),
    )
