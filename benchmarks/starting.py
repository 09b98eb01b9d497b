"""How long until a program is there, and how big is it?"""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import bot_bottle._native
from benchmarks.harness import CLI, HELPER, Lab, Result, times, turns


def run(lab: Lab) -> Iterator[Result]:
    with lab.place() as place:
        environment = os.environ | {"BOT_BOTTLE_ROOT": str(place / "root")}
        run_to_end([str(CLI), "db", "migrate"], environment)
        database = str(place / "root" / "db" / "bot-bottle.db")
        propose = ["--bottle", "dev", "--tool", "egress-allow", "--file", str(place / "payload"), "--db", database]
        (place / "payload").write_text("routes: []\n")
        programs: dict[str, list[str]] = {
            "nothing (/bin/true)": ["/bin/true"],
            "python -c pass": [sys.executable, "-c", "pass"],
            "import bot_bottle": [sys.executable, "-c", "import bot_bottle"],
            "bot-bottle --version": [str(CLI), "--version"],
            "bot-bottle pending": [str(CLI), "pending"],
            "helper --version": [str(HELPER), "--version"],
            "helper pending": [str(HELPER), "pending", "--bottle", "dev", "--db", database],
            "helper propose": [str(HELPER), "propose", *propose],
        }
        took: dict[str, list[int]] = {name: [] for name in programs}
        for number in range(60 if lab.full else 20):
            (place / "payload").write_text(f"number: {number}\n")  # the same again would be merged
            for name in turns(programs, number):
                took[name].append(run_to_end(programs[name], environment))
    for name in programs:
        yield Result("start", name, "whole process", times(took[name]))
    extension = bot_bottle._native.__file__
    for name, path in {"helper": HELPER, "extension": Path(extension)}.items():
        yield Result("size", name, "file", {"size_mib": path.stat().st_size / 2**20})


def run_to_end(argv: list[str], environment: dict[str, str]) -> int:
    """Nanoseconds until it has ended."""
    quiet = [(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)]
    start = time.monotonic_ns()
    pid = os.posix_spawn(argv[0], argv, environment, file_actions=quiet)
    _, status = os.waitpid(pid, 0)
    took = time.monotonic_ns() - start
    if status:
        raise SystemExit(f"benchmarks: {' '.join(argv)} ended with {os.waitstatus_to_exitcode(status)}")
    return took
