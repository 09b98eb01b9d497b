"""How do the tests run containers, and where do they leave what they measured?"""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

FINDINGS: list[str] = []
"""Lines for the end of the run."""


class Images(NamedTuple):
    """Tags of what `Dockerfile.sidecars` builds, and of the plain Debian with Python under it."""

    sidecars: str
    helper: str
    python: str


class Container:
    """A container under way, named so that it can be killed; its output is read by line."""

    def __init__(self, image: str, *command: str, options: Sequence[str] = ()) -> None:
        self.name = f"bot-bottle-test-{secrets.token_hex(4)}"
        run = ["docker", "run", "--interactive", "--name", self.name, *options, image, *command]
        self.client = subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None, text=True)

    def line(self) -> str:
        """The next line it prints."""
        assert self.client.stdout
        line = self.client.stdout.readline()
        assert line, f"{self.name} ended with {self.client.wait()}:\n{self.logs()}"
        return line.strip()

    def say(self, line: str) -> None:
        """Writes a line to its standard input."""
        assert self.client.stdin
        self.client.stdin.write(line + "\n")
        self.client.stdin.flush()

    def code(self) -> int:
        """Waits for it to end; its exit code."""
        return self.client.wait()

    def logs(self) -> str:
        """What it has printed so far, on either stream."""
        done = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True)
        return done.stdout + done.stderr


def mounting(shared: Path) -> list[str]:
    """The options that give a container the database's directory as its owner."""
    return ["--mount", f"type=bind,source={shared},target=/run/supervise", "--user", f"{os.getuid()}:{os.getgid()}"]


def docker(*words: str, code: int = 0) -> str:
    """Runs the client and returns its standard output; `code` is the exit code that it must end with."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True)
    said = f"docker {' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    assert done.returncode == code, said
    return done.stdout


def until_healthy(name: str) -> None:
    """Returns when every daemon of this bundle listens, by the image's own check."""
    deadline = time.monotonic() + 60
    while True:
        check = ["docker", "exec", name, "python3", "-m", "bot_bottle.sidecars", "health"]
        done = subprocess.run(check, capture_output=True, text=True)
        if done.returncode == 0:
            return
        state = ["docker", "container", "inspect", "--format", "{{.State.Status}}", name]
        status = subprocess.run(state, capture_output=True, text=True).stdout.strip()
        logs = subprocess.run(["docker", "logs", name], capture_output=True, text=True).stderr
        # 1 is a daemon that does not listen yet, or a container that was only created, or not yet, when it was asked.
        assert done.returncode == 1 and status in ("", "created", "running") and time.monotonic() < deadline, (
            f"{status}: {done.stderr}{logs}"
        )
        time.sleep(0.2)
