"""How are contenders started, told and timed, and what is a result?"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import bot_bottle

HERE = Path(__file__).parent
CHECKOUT = HERE.parent
BUILT = CHECKOUT / "target" / "bench"
PEERS = CHECKOUT / ".venv-bench" / "bin" / "python"
HELPER = Path(sys.executable).parent / "bot-bottle-sidecar"
CLI = Path(sys.executable).parent / "bot-bottle"

OURS, LIMIT = "bot-bottle", "C"
"""Ourselves, and the same rows written and read by limits.c."""


@dataclass
class Result:
    """What one contender reached in one case of one workload; the figures' names end in their unit."""

    workload: str
    case: str
    contender: str
    figures: dict[str, float] = field(default_factory=dict)


def times(nanoseconds: Sequence[int], unit: str = "ms") -> dict[str, float]:
    """Median, 99th percentile and worst of some durations."""
    scale = {"ms": 1e6, "us": 1e3}[unit]
    ordered = sorted(nanoseconds)
    p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return {
        f"median_{unit}": statistics.median(ordered) / scale,
        f"p99_{unit}": p99 / scale,
        f"worst_{unit}": ordered[-1] / scale,
    }


def turns(names: Iterable[str], number: int) -> Iterator[str]:
    """Each name once, another first each time: whoever goes after a slow one has no lasting disadvantage."""
    ordered = list(names)
    start = number % len(ordered)
    rotated = ordered[start:] + ordered[:start]
    yield from rotated if number // len(ordered) % 2 == 0 else reversed(rotated)


class Actor(AbstractContextManager["Actor"]):
    """A contender's process. See actor.py for what it can be told."""

    def __init__(self, argv: Sequence[str]) -> None:
        environment = os.environ | {"LD_PRELOAD": str(BUILT / "synced.so")}
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment, cwd=CHECKOUT
        )
        if self.hear() != ["ready"]:
            raise SystemExit(f"benchmarks: {argv[-2]} did not start")

    def tell(self, *words: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")

    def hear(self) -> list[str]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"benchmarks: {self.process.args} ended with {self.process.wait()}")
        return line.split()

    def ask(self, *words: object) -> list[str]:
        self.tell(*words)
        return self.hear()

    def numbers(self, *words: object) -> list[int]:
        return [int(word) for word in self.ask(*words)]

    def __exit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()


@dataclass
class Lab:
    """Where a run takes place, and whether it is the full one."""

    disk: Path
    full: bool

    @contextmanager
    def root(self) -> Iterator[Path]:
        """A fresh directory."""
        path = Path(tempfile.mkdtemp(dir=self.disk))
        try:
            yield path
        finally:
            shutil.rmtree(path)

    @contextmanager
    def place(self) -> Iterator[Path]:
        """A fresh directory with an empty database of bot-bottle's."""
        with self.root() as path:
            with bot_bottle.Database(path / "bot-bottle.db") as database:
                database.migrate_all()
            yield path

    def actor(self, name: str, place: Path, prefix: Sequence[str] = ()) -> Actor:
        if name == LIMIT:
            return Actor([*prefix, str(BUILT / "limits"), "actor", str(place / "bot-bottle.db")])
        python = sys.executable if name == OURS else PEERS
        return Actor([*prefix, str(python), "-m", "benchmarks.actor", name, str(place)])


def limits(*words: object) -> list[int]:
    """Runs one of limits.c's bare loops: nanoseconds of each round."""
    done = subprocess.run([BUILT / "limits", *map(str, words)], check=True, capture_output=True, text=True)
    return [int(line) for line in done.stdout.split()]


def prepare() -> None:
    """Makes the peers' environment and compiles the C programs, where that has not been done."""
    BUILT.mkdir(parents=True, exist_ok=True)
    wanted = HERE / "requirements.txt"
    stamp = PEERS.parent / ".installed"
    if newer(wanted, stamp):
        say("installing the peers into .venv-bench")
        subprocess.run([sys.executable, "-m", "venv", PEERS.parent.parent], check=True)
        pip = [str(PEERS), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        # Not every machine has a wheel of honker; it is built with the Rust that builds us.
        wheels = ["--only-binary", ":all:", "--no-binary", "honker"]
        subprocess.run([*pip, "install", *wheels, "--require-hashes", "--requirement", str(wanted)], check=True)
        stamp.touch()
    version = sqlite_version()
    if not (sqlite := BUILT / f"sqlite-{version}.o").exists():
        say(f"compiling SQLite {version} for the C limit")
        source = amalgamation()
        shutil.copy(source / "sqlite3.h", BUILT)
        # As bot-bottle's own copy, but for what costs time and is not used: extensions, argument checks.
        options = ["-DSQLITE_THREADSAFE=1", "-DHAVE_USLEEP=1", "-DHAVE_FDATASYNC=1"]
        compile_c("-c", *options, source / "sqlite3.c", to=sqlite.name)
    compile_c("-Wall", "-Wextra", f"-I{BUILT}", HERE / "limits.c", sqlite, "-lm", to="limits")
    prepare_clock()


def prepare_clock() -> None:
    """Compiles what notes in an actor's process when its syncs returned."""
    BUILT.mkdir(parents=True, exist_ok=True)
    compile_c("-Wall", "-Wextra", "-shared", "-fPIC", HERE / "synced.c", to="synced.so")


def sqlite_version() -> str:
    """Of the copy of SQLite inside bot-bottle."""
    with bot_bottle.Database(BUILT / "none.db") as database:
        return str(database.status()["sqlite_version"])


def amalgamation() -> Path:
    """The directory with the source of that SQLite, which Cargo has from building it."""
    asked = ["cargo", "metadata", "--format-version=1", "--locked", "--offline"]
    packages = json.loads(subprocess.run(asked, check=True, capture_output=True, cwd=CHECKOUT).stdout)["packages"]
    manifest = next(package["manifest_path"] for package in packages if package["name"] == "libsqlite3-sys")
    return Path(manifest).parent / "sqlite3"


def compile_c(*arguments: str | Path, to: str) -> None:
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    subprocess.run([shutil.which(compiler) or "cc", "-O2", *arguments, "-o", BUILT / to], check=True)


def newer(source: Path, built: Path) -> bool:
    return not built.exists() or built.stat().st_mtime < source.stat().st_mtime


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def soon() -> int:
    """A moment at which several processes can begin together (CLOCK_MONOTONIC, ns).

    What others left for the disk to do is done by then: databases that were checkpointed without a sync, logs.
    """
    os.sync()
    return time.monotonic_ns() + 200_000_000
