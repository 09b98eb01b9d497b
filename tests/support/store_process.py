"""What do the store's tests start from, and how do they act or look from another process?"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bot_bottle import Inbox, Proposal, QueueStore, Response
from needs import cannot

SLUG = "dev"
TOOL = "capability-block"
_numbers = itertools.count(1)


@pytest.fixture
def db(transport: str, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Where a test's database will be: its directory is there, the file is not. A broker's is there already."""
    if transport == "broker":
        served: Path = request.getfixturevalue("served_db")
        return served
    path = tmp_path / "shared" / "bot-bottle.db"
    path.parent.mkdir(mode=0o700)
    return path


@pytest.fixture
def queue(way: dict[str, Any]) -> Iterator[QueueStore]:
    """A sidecar's store, over the test's transport."""
    with QueueStore(SLUG, **way) as store:
        yield store


@pytest.fixture
def inbox(db: Path) -> Iterator[Inbox]:
    with Inbox(db) as store:
        yield store


@pytest.fixture
def strace() -> None:
    """System calls can be seen and broken."""
    if shutil.which("strace") is None:
        cannot("needs strace")


def proposal(payload: str | bytes | None = None, justification: str = "because", **fields: Any) -> Proposal:
    """A proposal of this test's bottle, with a payload of its own unless one is given."""
    slug, tool = fields.pop("slug", SLUG), fields.pop("tool", TOOL)
    if payload is None:
        payload = f"FROM debian:{next(_numbers)}\n"
    return Proposal.new(slug, tool, payload, justification, **fields)


def arrived(sent: Proposal, stored: Proposal) -> Proposal:
    """``sent`` as a broker has to store it: the time of arrival is the host's."""
    fields = sent.to_dict() | {"arrival_timestamp": stored.arrival_timestamp}
    fields.pop("payload_sha256")
    return Proposal(**fields)


def decide(inbox: Inbox, proposed: Proposal, status: str = "approved", **more: Any) -> Response:
    """Decides after a look at the payload."""
    more.setdefault("payload_sha256", proposed.payload_sha256)
    return inbox.decide(proposed.id, status, **more)


def eventually(condition: Callable[[], object], within: float = 20) -> None:
    """Returns as soon as ``condition`` holds; the gate for what another thread or process does in its own time."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within} s: {inspect.getsource(condition).strip()}"
        time.sleep(0.002)


@contextlib.contextmanager
def no_heartbeat(db: Path | str) -> Iterator[None]:
    """Takes from this process's waits on ``db`` the look they have each second, so that only a bell wakes them.

    The thread that looks also calls callbacks, and the one here does not return until the end. The same thread sees to
    leases and time-outs, so there are none meanwhile.
    """
    held, go = threading.Event(), threading.Event()

    def hold(_answer: object) -> None:
        held.set()
        go.wait()

    with QueueStore("other", db) as other, Inbox(db) as inbox:
        written = other.write_proposal(proposal(slug="other"))
        other.begin_wait(written.id, hold)
        decide(inbox, written)
        assert held.wait(60)
        try:
            yield
        finally:
            go.set()


class Process:
    """A function that runs in a fresh interpreter. It imports what it uses; arguments are JSON, output is lines.

    ``strace``: options (strace(1)) of a tracer above it, which dies as it does.
    """

    def __init__(self, function: Callable[..., object], *arguments: Any, strace: Sequence[str] = ()):
        call = f"import json, sys\n{function.__name__}(*json.loads(sys.argv[1]))"
        source = f"{textwrap.dedent(inspect.getsource(function))}\n{call}\n"
        # From 3.12 on Python warns of a fork beside threads, which is what some of these are about.
        flags = ["-u", "-W", "ignore:This process:DeprecationWarning"]
        tracer = ["strace", "-f", "--quiet=all", "--output=/dev/null", *strace] if strace else []
        self.popen = subprocess.Popen(
            [*tracer, sys.executable, *flags, "-c", source, json.dumps(arguments, default=str)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def says(self) -> str:
        """The next line it prints; fails with its exit code and traceback if it ends instead."""
        assert self.popen.stdout is not None
        assert self.popen.stderr is not None
        line = self.popen.stdout.readline()
        assert line, f"{self.popen.wait(timeout=60)}: {self.popen.stderr.read()}"
        return line.rstrip("\n")

    def tell(self, line: str = "") -> None:
        """Lets its ``input()`` return."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def ends(self, code: int = 0) -> str:
        """Its remaining output, once it ended with ``code`` and nothing to complain of."""
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        assert self.popen.stderr is not None
        self.popen.stdin.close()
        out, err = self.popen.stdout.read(), self.popen.stderr.read()
        assert (self.popen.wait(timeout=60), err) == (code, ""), out
        return out

    def last_words(self) -> list[str]:
        """The whole lines it had printed when it was killed."""
        assert self.popen.stdout is not None
        assert self.popen.stderr is not None
        self.popen.wait(timeout=60)
        assert self.popen.stderr.read() == ""
        return self.popen.stdout.read().split("\n")[:-1]

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        with self.popen, contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # with whatever it has forked


def witness(db: Path | str, *statements: str) -> list[list[Any]]:
    """Runs SQL with another copy of SQLite, which must be in another process (two in one break each other's locks).

    Returns the last statement's rows; what SQLite refuses is a ``subprocess.CalledProcessError``.
    """
    script = """if True:
        import json, sqlite3, sys
        with sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None) as connection:
            for statement in sys.argv[2:]:
                rows = connection.execute(statement).fetchall()
        print(json.dumps(rows))"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(db), *statements], capture_output=True, text=True, timeout=60, check=True
    )
    rows: list[list[Any]] = json.loads(done.stdout)
    return rows


def assert_sound(db: Path | str) -> None:
    """An independent reader finds the file whole, and every answer with its audit entry."""
    assert witness(db, "PRAGMA integrity_check") == [["ok"]]
    assert witness(db, "PRAGMA foreign_key_check") == []
    unaudited = """SELECT p.id FROM proposals p LEFT JOIN responses r ON r.proposal_seq = p.seq
        LEFT JOIN audit_entries a ON a.proposal_id = p.id AND a.operator_action = p.state
        WHERE (p.state IN ('approved', 'modified', 'rejected')) <> (r.status IS NOT NULL)
           OR (r.status IS NOT NULL AND a.seq IS NULL)"""
    assert witness(db, unaudited) == []
