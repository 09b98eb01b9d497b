"""The command: ``python -m benchmarks [--full]`` measures everything; ``python -m benchmarks soak`` the long run.

Both write docs/performance.md. Without ``--full`` it takes about five minutes.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from benchmarks import brokering, deciding, keeping, reading, report, soak, starting, waking, writing
from benchmarks.harness import BUILT, Lab, Result, prepare

WORKLOADS = {
    "waking": waking,
    "writing": writing,
    "deciding": deciding,
    "reading": reading,
    "keeping": keeping,
    "brokering": brokering,
    "starting": starting,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "what",
        nargs="*",
        choices=[*WORKLOADS, "soak", []],
        metavar="WORKLOAD",
        help="only these, printed and not published",
    )
    parser.add_argument("--full", action="store_true", help="more rounds, 10^7 audit entries, a backup of 1 GiB")
    parser.add_argument("--minutes", type=float, default=30, help="of the soak")
    parser.add_argument("--bottles", type=int, default=50, help="in the soak")
    parser.add_argument("--sidecars", type=int, default=4, help="of each bottle in the soak")
    asked = parser.parse_args()
    prepare()
    disk = Path(tempfile.mkdtemp(dir=BUILT))
    try:
        if asked.what == ["soak"]:
            soak.run(disk, asked.minutes, asked.bottles, asked.sidecars)
            return
        results = measure(Lab(disk, asked.full), asked.what or list(WORKLOADS))
    finally:
        shutil.rmtree(disk)
    for line in report.target_lines(results):
        print(" | ".join(line))
    if not asked.what:
        report.publish(results, "make bench-full" if asked.full else "make bench")


def measure(lab: Lab, names: list[str]) -> list[Result]:
    results = []
    for name in names:
        for result in WORKLOADS[name].run(lab):
            figures = "  ".join(f"{figure} {report.number(value)}" for figure, value in result.figures.items())
            print(f"{result.workload}, {result.case}, {result.contender}: {figures}", flush=True)
            results.append(result)
    return results


if __name__ == "__main__":
    main()
