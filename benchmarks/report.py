"""How does a run become docs/performance.md? Between its marks; what is written around them stays."""

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict
from json import dumps
from pathlib import Path

from benchmarks.harness import BUILT, CHECKOUT, HERE, OURS, PEERS, Result, sqlite_version
from benchmarks.targets import Figures, all_targets

PAGE = CHECKOUT / "docs" / "performance.md"
PLOTS = CHECKOUT / "docs" / "performance"


def publish(results: Sequence[Result], how: str) -> None:
    """Writes tables, targets and plots into the page."""
    PLOTS.mkdir(exist_ok=True)
    saved = BUILT / "results.json"
    saved.write_text(dumps([asdict(result) for result in results], indent=1))
    subprocess.run([PEERS, HERE / "plots.py", "bars", saved, PLOTS], check=True)
    parts = [machine(how), "## Targets\n", table([("what", "bound", "here", ""), *target_lines(results)])]
    for workload in dict.fromkeys(result.workload for result in results):
        parts += [f"## {workload[0].upper()}{workload[1:]}\n"]
        plot = PLOTS / f"{plot_name(workload)}.svg"
        if plot.exists():
            parts += [f"![{workload}](performance/{plot.name})\n"]
        parts += [workload_table([result for result in results if result.workload == workload])]
    replace("measured", "\n".join(parts))


def publish_soak(found: str) -> None:
    replace("soak", found)


def replace(part: str, found: str) -> None:
    """Puts `found` between the marks of a part."""
    begin, end = f"<!-- {part}: begin -->", f"<!-- {part}: end -->"
    before, _, rest = PAGE.read_text().partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(f"{before}{begin}\n\n{found}\n{end}{after}")


def plot_name(workload: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in workload.lower())


def target_lines(results: Sequence[Result]) -> list[tuple[str, str, str, str]]:
    figures = Figures(results)
    return [target.line(figures) for target in all_targets()]


def workload_table(results: Sequence[Result]) -> str:
    names = list(dict.fromkeys(name for result in results for name in result.figures))
    ours = {result.case: result.figures for result in results if result.contender == OURS}
    rivals = {result.case for result in results if result.contender != OURS} & set(ours)
    # What comes first is what a workload is about.
    compared = [name for name in names if name in (names[0], "per_second")] if rivals else []
    titles = [f"{name.removesuffix('_ms').removesuffix('_us')} over ours" for name in compared]
    rows = [("case", "contender", *(name.replace("_", " ") for name in [*names, *titles]))]
    for result in results:
        figures = {} if result.contender == OURS else result.figures
        pairs = [(figures.get(name), ours.get(result.case, {}).get(name)) for name in compared]
        ratios = [f"{other / mine:.2f}" if other and mine else "" for other, mine in pairs]
        rows.append((result.case, result.contender, *(number(result.figures.get(name)) for name in names), *ratios))
    return table(rows)


def number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|---" * len(rows[0]) + "|", *body]) + "\n"


def machine(how: str) -> str:
    processor = next((line for line in lines("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
    disk = subprocess.run(["stat", "-f", "-c", "%T", BUILT], capture_output=True, text=True).stdout.strip()
    peers = subprocess.run(
        [PEERS, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True
    ).stdout.split()
    wanted = ("honker", "huey", "litequeue", "persist-queue")
    versions = ", ".join(line.replace("==", " ") for line in peers if line.startswith(wanted))
    library = subprocess.run(
        [PEERS, "-c", "import sqlite3; print(sqlite3.sqlite_version)"], capture_output=True, text=True
    ).stdout.strip()
    load = " and ".join("".join(lines("/proc/loadavg")).split()[:2]) or "unknown"
    parts = [
        f"{platform.system()} {platform.release()}",
        processor.rpartition(":")[2].strip(),
        f"{os.cpu_count()} cores",
        f"{disk or 'unknown'} filesystem",
        f"load {load} (over 1 and 5 minutes) at the end",
        f"Python {platform.python_version()}",
        f"SQLite {sqlite_version()} in bot-bottle and in the C limit, {library} under the peers",
        versions,
    ]
    return f"{time.strftime('%Y-%m-%d')}, {how}: {', '.join(parts)}.\n"


def lines(path: str, prefix: str = "") -> list[str]:
    file = Path(path)
    return [line for line in file.read_text().splitlines() if line.startswith(prefix)] if file.exists() else []
