"""What does a push become when the gate's own means fail: a full disk, a detector that hangs, a death at any step?"""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from git_gates import KEY, Gate, hook_of, running, upstream_hook
from git_pushes import FAR, eventually, gitleaks, make_world
from needs import cannot


def noise(size: int) -> bytes:
    """Bytes that nothing compresses."""
    return random.Random(size).randbytes(size)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk of 6 MiB."""
    if os.geteuid() != 0:
        cannot("mounting a small disk takes root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m,mode=700", "none", disk], capture_output=True)
    if mounted.returncode != 0:
        cannot(f"a small disk cannot be mounted: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("size", [8 << 20, 4 << 20], ids=["for the push", "for the copies that are scanned"])
def test_a_full_disk_refuses_the_push_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_disk: Path, size: int
) -> None:
    with running(make_world(tmp_path, monkeypatch), GIT_GATE_ROOT=str(small_disk)) as gate:
        gate.clone.commit({"small": "1\n"})
        gate.clone.pushed("main")
        used = sum(file.stat().st_blocks for file in small_disk.rglob("*"))
        gate.clone.commit({"large": noise(size)})
        said = gate.clone.refused("main")
        assert "No space left" in said
        assert gate.upstream("main") == gate.clone.git("rev-parse", "HEAD^")
        assert sum(file.stat().st_blocks for file in small_disk.rglob("*")) <= used + 64
        gate.clone.git("reset", "--quiet", "--hard", "HEAD^")
        gate.clone.commit({"small": "2\n"})
        gate.clone.pushed("main")


@pytest.mark.timeout(600)  # gitleaks reads a few MB a second of a core's
def test_a_large_file_takes_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the hook, and the git that it reads from, have had when the last of the file is scanned."""
    (tmp_path / "bin").mkdir()
    seen, between = tmp_path / "seen", tmp_path / "bin" / "gitleaks"
    between.write_text(
        "#!/bin/sh\nfor each in /proc/[0-9]*; do\n"
        '    grep -qs "^PPid:[[:space:]]*$PPID$" $each/status || test $each = /proc/$PPID || continue\n'
        '    echo "$(tr "\\0" " " < $each/cmdline) $(grep RssAnon $each/status) $(grep VmHWM $each/status)"'
        f" >> {seen}\n"
        f'done\nexec {gitleaks()} "$@"\n'
    )
    between.chmod(0o755)
    world = make_world(tmp_path, monkeypatch)
    with running(world, PATH=f"{between.parent}{os.pathsep}{os.environ['PATH']}") as gate:
        gate.clone.commit({"small": "1\n"})
        gate.clone.pushed("main")
        seen.unlink()
        commit = gate.clone.commit({"large": "".join(f"line {number}\n" for number in range(1_600_000))})
        with gate.clone.pushing("main") as push:
            assert push.wait(500) == 0
        assert gate.upstream("main") == commit
    lines = [line.split() for line in seen.read_text().splitlines()]
    hook = [int(line[-2]) for line in lines if "git-gate-hook" in line]
    reader = [int(line[line.index("RssAnon:") + 1]) for line in lines if "cat-file" in line]
    assert hook and max(hook) < 20 << 10, hook
    assert reader and max(reader) < 20 << 10, reader


def test_a_gate_that_is_stopped_while_gitleaks_hangs_ends_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hangs").mkdir()
    hanging, started = tmp_path / "hangs" / "gitleaks", tmp_path / "started"
    # With a child of its own, as a wrapper has one.
    hanging.write_text(f"#!/bin/sh\nsleep 3600 &\necho $! > {started}.new\nmv {started}.new {started}\nwait\n")
    hanging.chmod(0o755)
    world = make_world(tmp_path, monkeypatch)
    path = f"{hanging.parent}{os.pathsep}{os.environ['PATH']}"
    with running(world, PATH=path) as gate:
        gate.clone.commit({"a": "1\n"})
        with gate.clone.pushing("main") as push:
            eventually(started.exists)
            gate.stop()
            assert push.wait(FAR) != 0
    eventually(lambda: not Path("/proc", started.read_text().strip()).exists())
    assert gate.upstream("main") == gate.has("main") == ""


def test_a_gate_that_is_stopped_while_the_upstream_hangs_ends_what_it_started(gate: Gate) -> None:
    reached, go = gate.world.home / "reached", gate.world.home / "go"
    upstream_hook(gate, "pre-receive", f"echo $$ > {reached}.new; mv {reached}.new {reached}; read _ < {go}")
    os.mkfifo(go)
    gate.clone.commit({"a": "1\n"})
    with gate.clone.pushing("main") as push:
        eventually(reached.exists)
        gate.stop()
        assert push.wait(FAR) != 0
    eventually(lambda: not Path("/proc", reached.read_text().strip()).exists())
    assert gate.upstream("main") == gate.has("main") == ""


@pytest.mark.parametrize("step", ["pre-receive", "update", "post-receive"])
def test_a_hook_killed_at_any_step_loses_nothing_and_the_next_push_tells(gate: Gate, step: str) -> None:
    """While it asks, while the upstream has not decided, and when it has, but nobody has heard."""
    reached, go = gate.world.home / "reached", gate.world.home / "go"
    if step != "pre-receive":
        upstream_hook(gate, step, f"touch {reached}; while [ ! -e {go} ]; do sleep 0.02; done")
    commit = gate.clone.commit({"a": KEY})
    with gate.clone.pushing("main") as push:
        item = gate.operator.next(push)
        if step == "pre-receive":
            os.kill(hook_of(gate, "pre-receive"), signal.SIGKILL)
        else:
            gate.operator.decide(item, "approved")
            eventually(reached.exists)
            os.kill(hook_of(gate, "proc-receive"), signal.SIGKILL)
        assert push.wait(FAR) != 0
    go.touch()
    # The gate waits for the git that it had started, and looks at what became of it.
    gate.clone.git("ls-remote", "origin")
    eventually(lambda: gate.upstream("main") == gate.has("main"))
    if step == "post-receive":
        assert gate.upstream("main") == commit
    if step == "pre-receive":
        assert gate.operator.ends(item.proposal.id) == "withdrawn" and gate.upstream("main") == ""
    if gate.upstream("main") == commit:
        gate.clone.pushed("main")
    else:
        assert gate.held("main", status="approved").code == 0
    assert gate.upstream("main") == gate.has("main") == commit


def test_an_upstream_that_is_slow_is_waited_for_and_says_what_it_says(gate: Gate) -> None:
    go = gate.world.home / "go"
    upstream_hook(gate, "pre-receive", f"echo checking >&2; while [ ! -e {go} ]; do sleep 0.02; done; echo done >&2")
    commit = gate.clone.commit({"a": "1\n"})
    with gate.clone.pushing("main") as push:
        assert push.stderr is not None
        said = ""
        while "the upstream says: checking" not in said:
            line = push.stderr.readline()
            assert line, said
            said += line
        assert push.poll() is None and gate.upstream("main") == ""
        go.touch()
        said += push.communicate(timeout=FAR)[1]
    assert push.returncode == 0 and "the upstream says: done" in said
    assert gate.upstream("main") == gate.has("main") == commit
