"""The command: ``python -m benchmarks [--full]`` prints a table of what this machine reaches, ours beside its peers."""

import argparse
import tempfile
from pathlib import Path

from benchmarks import waking, writing
from benchmarks.harness import BUILT, Lab, prepare, save


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--full", action="store_true", help="more rounds")
    asked = parser.parse_args()
    prepare()
    results = []
    with tempfile.TemporaryDirectory(dir=BUILT) as disk:
        lab = Lab(Path(disk), asked.full)
        for workload in (waking, writing):
            for result in workload.run(lab):
                results.append(result)
                figures = "  ".join(f"{name} {value:.3f}" for name, value in result.figures.items())
                print(f"{result.workload:<10} {result.case:<24} {result.contender:<12} {figures}", flush=True)
    save(results, BUILT / "results.json")


if __name__ == "__main__":
    main()
