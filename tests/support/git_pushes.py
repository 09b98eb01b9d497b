"""How do the git gate's tests push, and who decides about what is held?"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bot_bottle import Database, Inbox, InboxItem, Response, host_db_path
from bot_bottle.sidecars.git_gate.hook import HookSettings, found_program, install
from needs import cannot

PROGRAMS = Path(sys.executable).parent
BOTTLE = "demo"
# Longer than any test waits for anything; a test that gets here has failed.
FAR = 60


def gitleaks() -> str:
    """The real gitleaks; a test that needs it is skipped, with the way to get it, where there is none."""
    found = shutil.which("gitleaks", path=f"{os.environ['PATH']}{os.pathsep}{Path.home() / 'go/bin'}")
    if not found:
        cannot("needs gitleaks: go install github.com/zricethezav/gitleaks/v8@v8.30.1")
    return found


def secret(name: str) -> str:
    """What gitleaks takes for an AWS access key; a different one for each name, and none that exists."""
    digest = hashlib.sha256(name.encode()).digest()
    return "AKIA" + "".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[byte % 32] for byte in digest[:16])


def environment(home: Path, **extra: str) -> dict[str, str]:
    """What git runs with: nothing of the tester's own settings."""
    return {
        "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "agent",
        "GIT_AUTHOR_EMAIL": "agent@bottle",
        "GIT_COMMITTER_NAME": "agent",
        "GIT_COMMITTER_EMAIL": "agent@bottle",
        "TMPDIR": str(home / "tmp"),
        **extra,
    }


@dataclass(frozen=True)
class Clone:
    """The agent's working copy; its remote ``origin`` is where it pushes to."""

    path: Path
    home: Path

    def git(self, *arguments: str, stdin: str | bytes = b"", **extra: str) -> str:
        """Runs git, which must succeed; returns what it prints, stripped."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            ["git", *arguments], cwd=self.path, input=data, capture_output=True, env=environment(self.home, **extra)
        )
        assert done.returncode == 0, f"git {arguments}: {done.stderr.decode()}"
        return done.stdout.decode("utf-8", "replace").strip()

    def commit(self, files: dict[str, str | bytes] | None = None, message: str = "a commit") -> str:
        """Commits these files (or nothing) on the current branch; returns the id."""
        for name, content in (files or {}).items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--file=-", stdin=message)
        return self.git("rev-parse", "HEAD")

    def push(self, *refs: str) -> subprocess.CompletedProcess[str]:
        """Pushes to the end; for a push that nobody has to decide about."""
        with self.pushing(*refs) as push:
            _, said = push.communicate(timeout=FAR)
            return subprocess.CompletedProcess(push.args, push.returncode, "", said)

    def pushed(self, *refs: str) -> str:
        """Pushes, which must succeed unasked; returns what git said."""
        done = self.push(*refs)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def refused(self, *refs: str) -> str:
        """Pushes, which must be refused unasked; returns what git said."""
        done = self.push(*refs)
        assert done.returncode != 0, done.stderr
        return done.stderr

    @contextmanager
    def pushing(self, *refs: str) -> Iterator[subprocess.Popen[str]]:
        """A push under way."""
        argv = ["git", "push", "--no-progress", "origin", *refs]
        with subprocess.Popen(
            argv, cwd=self.path, env=environment(self.home), stderr=subprocess.PIPE, text=True, errors="replace"
        ) as push:
            try:
                yield push
            finally:
                if push.poll() is None:
                    push.kill()


def eventually(happened: Callable[[], bool]) -> None:
    """Waits for what nothing announces, such as the end of another program's clearing up."""
    deadline = time.monotonic() + FAR
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


class Operator:
    """Decides about held pushes through the inbox, as the host's surfaces do."""

    def __init__(self) -> None:
        self.inbox = Inbox()
        self._seen = self.inbox.last_change()

    def next(self, push: subprocess.Popen[str]) -> InboxItem:
        """The proposal that a push is held for; waits for it."""
        while push.poll() is None:
            for change in self.inbox.watch(self._seen, timeout=1):
                self._seen = change.seq
                if change.kind == "proposed":
                    return self.inbox.read(change.proposal_id)
        raise AssertionError(f"the push was not held: {push.communicate()[1]}")

    def ends(self, proposal_id: str) -> str:
        """How a proposal ends without a decision; waits for it."""
        for change in self.inbox.watch(self._seen, timeout=FAR):
            self._seen = change.seq
            if change.proposal_id == proposal_id and change.kind != "proposed":
                return change.kind
        raise AssertionError("it did not end")

    def decide(self, item: InboxItem, status: str, notes: str = "looked at it", grant: str | None = None) -> Response:
        return self.inbox.decide(
            item.proposal.id,
            status,
            payload_sha256=item.proposal.payload_sha256,
            notes=notes,
            decided_by="didi",
            grant=grant,
        )


@dataclass(frozen=True)
class Held:
    """How a push that was held went: the proposal, git's exit code and what git said."""

    item: InboxItem
    code: int
    said: str

    @property
    def findings(self) -> set[tuple[str, str]]:
        """Rule and path of each finding of the proposal."""
        lines = self.item.proposal.proposed_file.splitlines()
        heads = [line.partition(". ")[2] for line in lines if line[:1].isdigit()]
        return {(rule, path) for rule, _, path in (head.partition(" in ") for head in heads)}


@dataclass(frozen=True)
class World:
    """A host, a bare repository with the gate's hook, the agent's clone of it and an operator."""

    home: Path
    bare: Path
    clone: Clone
    operator: Operator

    def install(self, **settings: object) -> None:
        """Installs the hook (again) with other settings than usual."""
        usual = {
            "bottle": BOTTLE,
            "database": host_db_path(),
            "helper": found_program("bot-bottle-sidecar"),
            "gitleaks": gitleaks(),
            "timeout": FAR,
        }
        install(self.bare, HookSettings(**(usual | settings)))  # type: ignore[arg-type]

    def held(self, *refs: str, status: str = "rejected", notes: str = "looked at it", grant: str | None = None) -> Held:
        """Pushes, which must be held, and decides."""
        with self.clone.pushing(*refs) as push:
            item = self.operator.next(push)
            self.operator.decide(item, status, notes, grant)
            _, said = push.communicate(timeout=FAR)
        return Held(item, push.returncode, said)

    def ref(self, name: str) -> str:
        """What the bare repository has there, ``""`` for nothing."""
        argv = ["git", f"--git-dir={self.bare}", "rev-parse", "--verify", "--quiet", name]
        return subprocess.run(argv, capture_output=True, text=True).stdout.strip()


def make_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, object_format: str = "sha1") -> World:
    monkeypatch.setenv("BOT_BOTTLE_ROOT", str(tmp_path / "root"))
    (tmp_path / "tmp").mkdir()
    bare, path = tmp_path / "origin.git", tmp_path / "clone"
    clone = Clone(path, tmp_path)
    path.mkdir()
    clone.git("init", "--quiet", "--bare", f"--object-format={object_format}", str(bare))
    clone.git("init", "--quiet", "--initial-branch=main", f"--object-format={object_format}")
    clone.git("remote", "add", "origin", f"file://{bare}")
    with Database() as database:
        database.migrate_all()
    world = World(tmp_path, bare, clone, Operator())
    world.install()
    return world


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return make_world(tmp_path, monkeypatch)
