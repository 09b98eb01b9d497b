"""How do the git gate's tests run it before an upstream?"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bot_bottle import host_db_path
from git_pushes import BOTTLE, FAR, Clone, Held, Operator, World, environment, eventually, gitleaks, make_world, secret

KEY = f'key = "{secret("one")}"\n'


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Gate:
    """The daemon with one upstream, ``app``."""

    world: World
    port: int
    process: subprocess.Popen[str]

    @property
    def clone(self) -> Clone:
        return self.world.clone

    @property
    def operator(self) -> Operator:
        return self.world.operator

    def held(self, *refs: str, status: str = "rejected", grant: str | None = None) -> Held:
        return self.world.held(*refs, status=status, grant=grant)

    def has(self, name: str) -> str:
        """What the gate's repository has under a ref."""
        return replace(self.world, bare=self.world.home / "gate" / "app.git").ref(name)

    def upstream(self, name: str) -> str:
        """What the upstream has."""
        return self.world.ref(name)

    def stop(self) -> str:
        """SIGTERM; returns what the daemon logged."""
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=FAR)
        assert self.process.returncode == 0, log
        return log


@contextmanager
def running(world: World, credential: str = "", url: str | None = None, **extra: str) -> Iterator[Gate]:
    """A gate before ``world.bare``, whose clone then pushes to the gate."""
    (world.bare / "hooks" / "pre-receive").unlink(missing_ok=True)
    config = world.home / "upstreams.yaml"
    config.write_text(f"upstreams:\n  - name: app\n    url: {url or world.bare}\n{credential}")
    port = free_port()
    settings = {
        "PATH": f"{Path(gitleaks()).parent}{os.pathsep}{environment(world.home)['PATH']}",
        "SUPERVISE_BOTTLE_SLUG": BOTTLE,
        "SUPERVISE_DB_PATH": host_db_path(),
        "GIT_GATE_UPSTREAMS": str(config),
        "GIT_GATE_ROOT": str(world.home / "gate"),
        "GIT_GATE_PORT": str(port),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "bot_bottle.sidecars.git_gate"],
        env=environment(world.home, **(settings | extra)),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        eventually(lambda: listening(port) or process.poll() is not None)
        world.clone.git("remote", "set-url", "origin", f"git://127.0.0.1:{port}/app.git")
        yield Gate(world, port, process)
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=FAR)


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    with running(make_world(tmp_path, monkeypatch)) as found:
        yield found


def upstream_commit(gate: Gate, name: str = "main") -> str:
    """Somebody else pushes a commit to the upstream."""
    elsewhere = Clone(gate.world.home / "elsewhere", gate.world.home)
    shutil.rmtree(elsewhere.path, ignore_errors=True)
    gate.clone.git("clone", "--quiet", str(gate.world.bare), str(elsewhere.path))
    elsewhere.git("switch", "--quiet", "--force-create", "work", f"origin/{name}")
    commit = elsewhere.commit(message="somebody else's")
    elsewhere.pushed(f"work:{name}")
    return commit


def upstream_hook(gate: Gate, name: str, body: str) -> None:
    """Makes one of the upstream's own hooks."""
    hook = gate.world.bare / "hooks" / name
    hook.write_text(f"#!/bin/sh\n{body}\n")
    hook.chmod(0o755)


def hook_of(gate: Gate, stage: str) -> int:
    """The process of the gate's hook that has a push in hand."""
    found: list[int] = []

    def look() -> bool:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
                here = (process / "cwd").readlink()
            except OSError:  # it has ended
                continue
            if {b"git-gate-hook", stage.encode()} <= set(words) and here == gate.world.home / "gate" / "app.git":
                found.append(int(process.name))
        return bool(found)

    eventually(look)
    return found[0]
