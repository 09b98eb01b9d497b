"""How do results look? Run in the peers' environment, which has matplotlib: ``plots.py bars|soak JSON DIRECTORY``."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bot-bottle", "font.size": 9})
import matplotlib.pyplot as plt  # noqa: E402  the backend comes first

OURS, OTHERS = "#1b6ca8", "#b8c4cc"


def bars(results: list[dict[str, Any]], directory: Path) -> None:
    """For each workload: a bar to the median, a line from there to the 99th percentile, a dot for the worst, on a
    logarithmic scale; for other contenders, how many times our median theirs is.
    """
    for workload in dict.fromkeys(result["workload"] for result in results):
        for unit in ("ms", "us"):
            rows = [r for r in results if r["workload"] == workload and f"median_{unit}" in r["figures"]]
            if len(rows) < 2:
                continue
            ours = {r["case"]: r["figures"][f"median_{unit}"] for r in rows if r["contender"] == "bot-bottle"}
            figure, axes = plt.subplots(figsize=(7.5, 0.6 + 0.22 * len(rows)))
            for place, row in enumerate(reversed(rows)):
                median, p99, worst = (row["figures"][f"{name}_{unit}"] for name in ("median", "p99", "worst"))
                axes.barh(place, median, color=OURS if row["contender"] == "bot-bottle" else OTHERS)
                axes.plot([median, p99], [place, place], color="black", linewidth=0.8, marker="|")
                axes.plot(worst, place, color="black", marker=".", markersize=3)
                if row["contender"] != "bot-bottle" and row["case"] in ours:
                    times = median / ours[row["case"]]
                    label = f"  {times:,.0f} x" if times >= 10 else f"  {times:.2g} x"
                    axes.text(worst, place, label, va="center", fontsize=7)
            names = [f"{row['case']}: {row['contender']}" for row in reversed(rows)]
            axes.set_yticks(range(len(rows)), names)
            axes.set_xscale("log")
            axes.margins(x=0.12, y=0.01)
            axes.set_xlabel(
                f"{'µs' if unit == 'us' else 'ms'}: median (bar), 99th percentile (line), worst (dot); x: of our median"
            )
            axes.set_title(workload)
            name = "".join(letter if letter.isalnum() else "-" for letter in workload.lower())
            save(figure, directory / f"{name}.svg")


def soak(samples: list[dict[str, Any]], directory: Path) -> None:
    """What was watched, over time: one panel for each."""
    panels = {
        "decision to sidecar, ms": ["wake_median_ms", "wake_p99_ms"],
        "proposal, ms": ["write_median_ms", "write_p99_ms"],
        "database and WAL, MiB": ["file_mib", "wal_mib"],
        "resident memory of all processes, MiB": ["resident_mib"],
    }
    figure, all_axes = plt.subplots(len(panels), figsize=(7.5, 9), sharex=True)
    for axes, (title, names) in zip(all_axes, panels.items(), strict=True):
        for name in names:
            axes.plot(
                [s["second"] for s in samples],
                [s.get(name) for s in samples],
                label=name.replace("_", " "),
                linewidth=1,
            )
        axes.set_title(title)
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper right")
    all_axes[-1].set_xlabel("seconds")
    save(figure, directory / "soak.svg")


def save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    {"bars": bars, "soak": soak}[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3]))
