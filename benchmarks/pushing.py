"""What does the git gate cost beside git alone? ``python -m benchmarks.pushing``, which needs git and gitleaks.

Repositories behind git daemon: ``plain`` has no hook, ``gitleaks`` one that runs gitleaks over the new commits and
nothing else, ``forward`` the same and one that then pushes to an upstream, ``hook`` has ours, and ``gate`` is our
daemon, which also fetches from its upstream before, and pushes to it after. Their turns alternate. Printed are medians
in seconds and the ratio to the first.
"""

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import bot_bottle
from benchmarks.harness import turns
from bot_bottle.sidecars.git_gate.hook import HookSettings, found_program, install

HOOK = """#!/bin/sh
while read -r old new ref; do
    gitleaks git --no-banner --log-level error --log-opts "$new --not --all" . || exit 1
done
"""
FORWARD = """#!/bin/sh
while read -r old new ref; do
    git push --quiet ../beyond.git "$new:$ref" || exit 1
done
"""
NAMES = ("plain", "gitleaks", "forward", "hook", "gate")
FILES, TAGS = 20_000, 4_000


class Lab:
    """A working copy with all of them as its remotes."""

    def __init__(self, home: Path, running: ExitStack) -> None:
        self.clone = home / "clone"
        self.environment = os.environ | {
            "HOME": str(home),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "a",
            "GIT_AUTHOR_EMAIL": "a@b",
            "GIT_COMMITTER_NAME": "a",
            "GIT_COMMITTER_EMAIL": "a@b",
            "BOT_BOTTLE_ROOT": str(home / "root"),
        }
        with bot_bottle.Database(home / "bot-bottle.db") as database:
            database.migrate_all()
        (home / "served").mkdir()
        self.git("init", "--quiet", "--initial-branch=main", str(self.clone), here=home)
        for name in ("plain", "gitleaks", "forward", "beyond", "hook", "upstream"):
            self.git(
                "init", "--quiet", "--bare", "--initial-branch=main", str(home / "served" / f"{name}.git"), here=home
            )
        for name, stage, text in [
            ("gitleaks", "pre-receive", HOOK),
            ("forward", "pre-receive", HOOK),
            ("forward", "post-receive", FORWARD),
        ]:
            hook = home / "served" / f"{name}.git" / "hooks" / stage
            hook.write_text(text)
            hook.chmod(0o755)
        ours = HookSettings(
            bottle="bench",
            database=str(home / "bot-bottle.db"),
            helper=found_program("bot-bottle-sidecar"),
            gitleaks=found_program("gitleaks"),
        )
        install(home / "served" / "hook.git", ours)
        (home / "upstreams.yaml").write_text(f"upstreams:\n  - name: gate\n    url: {home}/served/upstream.git\n")
        plain, gate = free_port(), free_port()
        daemon = [
            "git",
            "daemon",
            f"--port={plain}",
            "--export-all",
            "--enable=receive-pack",
            f"--base-path={home}/served",
        ]
        running.enter_context(self.started([*daemon, str(home / "served")], plain))
        settings = {
            "SUPERVISE_BOTTLE_SLUG": "bench",
            "SUPERVISE_DB_PATH": str(home / "bot-bottle.db"),
            "GIT_GATE_UPSTREAMS": str(home / "upstreams.yaml"),
            "GIT_GATE_ROOT": str(home / "gates"),
            "GIT_GATE_PORT": str(gate),
        }
        running.enter_context(self.started([sys.executable, "-m", "bot_bottle.sidecars.git_gate"], gate, settings))
        ports = dict.fromkeys(NAMES, plain) | {"gate": gate}
        self.urls = {name: f"git://127.0.0.1:{port}/{name}.git" for name, port in ports.items()}

    @contextmanager
    def started(self, argv: Sequence[str], port: int, settings: dict[str, str] | None = None) -> Iterator[None]:
        process = subprocess.Popen(argv, env=self.environment | (settings or {}), stderr=subprocess.DEVNULL)
        try:
            while not listening(port):
                if process.poll() is not None:
                    raise SystemExit(f"benchmarks: {argv[0]} did not start")
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait()

    def git(self, *arguments: str, here: Path | None = None, stdin: bytes = b"") -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=here or self.clone, env=self.environment, input=stdin, capture_output=True
        )
        if done.returncode:
            raise SystemExit(f"benchmarks: git {' '.join(arguments)}: {done.stderr.decode()}")
        return done.stdout.decode().strip()

    def measure(
        self, what: str, names: Sequence[str], rounds: int, make: Callable[[int], Callable[[str], object]]
    ) -> None:
        """``make`` prepares a round and returns what is timed for each of the names."""
        took: dict[str, list[float]] = {name: [] for name in names}
        for number in range(rounds):
            do = make(number)
            for name in turns(names, number):
                start = time.monotonic()
                do(name)
                took[name].append(time.monotonic() - start)
        base = statistics.median(took[names[0]])
        for name in names:
            median = statistics.median(took[name])
            print(f"{what}, {name}: {median:.3f} s, {median / base:.2f} x {names[0]}", flush=True)


def main() -> None:
    home = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        with ExitStack() as running:
            lab = Lab(home, running)
            tree = b"".join(b"M 100644 inline d%d/f%d\ndata 20\n%019d\n\n" % (n % 100, n, n) for n in range(FILES))
            head = b"commit refs/heads/main\ncommitter a <a@b> 0 +0000\ndata 5\nfirst\n"
            lab.git("fast-import", "--quiet", stdin=head + tree + b"\n")
            lab.git("reset", "--quiet", "--hard", "main")
            for name in NAMES:
                lab.git("push", "--quiet", lab.urls[name], "main")

            def commit(number: int) -> Callable[[str], object]:
                (lab.clone / "d0" / "f0").write_text(f"round {number}\n")
                lab.git("commit", "--quiet", "--all", "--message", "one line")
                return lambda name: lab.git("push", "--quiet", lab.urls[name], "main")

            def bare_clone(number: int) -> Callable[[str], object]:
                return lambda name: lab.git(
                    "clone", "--quiet", "--bare", lab.urls[name], str(home / f"{name}-{number}")
                )

            def tags(number: int) -> Callable[[str], object]:
                commit = lab.git("rev-parse", "main")
                made = (f"create refs/tags/{number}/{tag} {commit}\n" for tag in range(TAGS))
                lab.git("update-ref", "--stdin", stdin="".join(made).encode())
                pattern = f"refs/tags/{number}/*"
                return lambda name: lab.git("push", "--quiet", lab.urls[name], f"{pattern}:{pattern}")

            lab.measure("one commit", ("gitleaks", "hook", "plain"), 15, commit)
            lab.measure("one commit, with an upstream", ("forward", "gate"), 15, commit)
            lab.measure(f"bare clone of {FILES} files", ("plain", "gate"), 9, bare_clone)
            lab.measure(f"{TAGS} tags", ("plain", "gate"), 3, tags)
    finally:
        shutil.rmtree(home)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    main()
