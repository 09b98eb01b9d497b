"""Ctrl-C ends a command whatever it waits for: it has decided nothing then, or says what it decided."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from bot_bottle import AuditStore, Inbox, Keys
from cli_process import PROGRAMS, Host
from store_process import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# Shorter than the busy timeout, which would end each of them as well.
SOON = 20

Gate = Callable[[int], bool]


def beside(host: Host, suffix: str) -> Path:
    return host.root / "db" / f"bot-bottle.db{suffix}"


def has_its_turn(host: Host) -> Gate:
    """It is at work: what it waits for is SQLite's lock."""

    def at_work(pid: int) -> bool:
        turn = beside(host, "-turn").stat().st_ino
        lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        return any(line[1] == "FLOCK" and line[4] == str(pid) and line[5].endswith(f":{turn}") for line in lines)

    return at_work


def stands_in_the_queue(host: Host) -> Gate:
    tickets, _ = struct.unpack("=II", beside(host, "-turn").read_bytes()[:8])

    def drew_a_ticket(_pid: int) -> bool:
        return bool(struct.unpack("=II", beside(host, "-turn").read_bytes()[:8])[0] != tickets)

    return drew_a_ticket


def has_open(path: Path) -> Gate:
    def is_open(pid: int) -> bool:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                if os.readlink(descriptor) == str(path):
                    return True
            except FileNotFoundError:
                continue
        return False

    return is_open


@contextmanager
def sqlite_is_locked(host: Host) -> Iterator[Gate]:
    """By a program that knows nothing of turns, in another process."""
    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], isolation_level=None).execute('BEGIN IMMEDIATE'); "
    hold = subprocess.Popen(
        [sys.executable, "-c", f"{code}print('held', flush=True); sys.stdin.read()", beside(host, "")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert hold.stdout and hold.stdout.readline() == b"held\n"
    try:
        yield has_its_turn(host)
    finally:
        hold.communicate(b"")


@contextmanager
def a_rival_is_stopped(host: Host) -> Iterator[Gate]:
    """One of ours, in the middle of a write."""
    code = """
        import bot_bottle, sys
        with bot_bottle.Database().transaction():
            print("held", flush=True)
            sys.stdin.read()
    """
    rival = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=host.environment(),
    )
    assert rival.stdout and rival.stdout.readline() == b"held\n"
    rival.send_signal(signal.SIGSTOP)
    try:
        yield stands_in_the_queue(host)
    finally:
        rival.send_signal(signal.SIGCONT)
        rival.communicate(b"")


@contextmanager
def a_managed_file_is_locked(host: Host) -> Iterator[Gate]:
    path = beside(host, "-apply")
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield has_open(path)


@contextmanager
def the_keys_are_locked(_host: Host) -> Iterator[Gate]:
    directory = Keys().host_file.parent
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield has_open(directory)
    finally:
        os.close(descriptor)


def started(host: Host, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [PROGRAMS / arguments[0], *arguments[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=host.environment(),
    )


@pytest.mark.parametrize(
    ("verb", "held"),
    [
        (["approve", "--yes"], sqlite_is_locked),
        (["approve", "--yes"], a_rival_is_stopped),
        (["approve", "--yes"], a_managed_file_is_locked),
        (["approve", "--yes"], the_keys_are_locked),
        (["reject"], sqlite_is_locked),
        (["reject"], a_rival_is_stopped),
    ],
)
def test_ctrl_c_undoes_a_decision_that_still_waits(
    host: Host, verb: list[str], held: Callable[[Host], AbstractContextManager[Gate]]
) -> None:
    routes = host.routes_file()
    before = routes.read_text()
    proposed = host.propose(against=before)
    with held(host) as waits:
        command = started(host, "bot-bottle", *verb, proposed.id)
        eventually(lambda: command.poll() is not None or waits(command.pid))
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=SOON)
    assert (command.returncode, out, err) == (130, "", "bot-bottle: interrupted: nothing was decided\n")
    with Inbox() as inbox, AuditStore() as log:
        assert inbox.read(proposed.id).state == "pending"
        assert not [entry for entry in log.read_audit_entries() if entry.proposal_id]
    assert routes.read_text() == before
    host.run(*verb, proposed.id)


@pytest.mark.parametrize(
    "words",
    [
        ["modify", "{id}", "--file", "{file}"],
        ["ask", "{id}", "what for?"],
        ["grants", "revoke", "{grant}"],
        ["bottle", "stop", "demo", "--yes"],
        ["db", "rollback", "grant_store", "--to", "0", "--yes"],
    ],
    ids=" ".join,
)
def test_ctrl_c_says_that_what_still_waits_was_not_written(host: Host, tmp_path: Path, words: list[str]) -> None:
    host.run("bottle", "start", "demo")
    given = host.propose("a request", tool="egress-token-allow", fingerprint="host:1")
    host.run("approve", given.id, "--yes", "--notes", "a test key", "--grant", "uses:3")
    (file := tmp_path / "edited").write_text("routes: []\n")
    names = {"id": host.propose().id, "file": file, "grant": host.json("grants", "list")[0]["id"]}
    before = len(host.json("audit", "list"))
    with sqlite_is_locked(host) as waits:
        command = started(host, "bot-bottle", *(word.format(**names) for word in words))
        eventually(lambda: command.poll() is not None or waits(command.pid))
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=SOON)
    done = {"modify": "decided", "ask": "asked"}.get(words[0], "written")
    assert (command.returncode, out, err) == (130, "", f"bot-bottle: interrupted: nothing was {done}\n")
    assert len(host.json("audit", "list")) == before
    assert [item["id"] for item in host.json("pending")] == [names["id"]]


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_decision_that_was_committed_is_told_in_spite_of_ctrl_c(host: Host, form: tuple[str, ...]) -> None:
    proposed = host.propose()
    code = """
        import os, signal, sys
        from bot_bottle.operator import decisions

        decide = decisions.decide

        def and_then_ctrl_c(*arguments, **named):
            answer = decide(*arguments, **named)
            os.kill(os.getpid(), signal.SIGINT)
            return answer

        decisions.decide = and_then_ctrl_c
        from bot_bottle.cli import main

        sys.exit(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), "approve", proposed.id, "--yes", *form],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=host.environment(),
        timeout=60,
    )
    assert done.returncode == 130
    assert "approved" in done.stdout.lower()
    assert "had been made already" in done.stderr
    with Inbox() as inbox:
        assert inbox.read(proposed.id).state == "approved"


def test_a_decision_whose_file_is_still_to_be_noted_is_told_in_spite_of_ctrl_c(host: Host, strace: None) -> None:
    routes = host.routes_file()
    proposed = host.propose(against=routes.read_text())
    argv = [PROGRAMS / "bot-bottle", "approve", proposed.id, "--yes"]
    # It stops itself as it puts the file in place: the decision is committed then.
    inject = ["strace", "-f", "--quiet=all", "--output=/dev/null", "--inject=renameat,renameat2:signal=SIGSTOP:when=1"]
    tracer = subprocess.Popen(
        [*inject, *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=host.environment(),
    )
    with Inbox() as inbox:
        eventually(lambda: tracer.poll() is not None or inbox.read(proposed.id).state == "approved")
    (pid,) = map(int, Path(f"/proc/{tracer.pid}/task/{tracer.pid}/children").read_text().split())
    stopped = ("T (stopped)", "t (tracing stop)")
    eventually(lambda: Path(f"/proc/{pid}/status").read_text().split("State:\t")[1].startswith(stopped))
    with sqlite_is_locked(host) as waits:
        os.kill(pid, signal.SIGCONT)
        eventually(lambda: tracer.poll() is not None or waits(pid))
        os.kill(pid, signal.SIGINT)
        _, err = tracer.communicate(timeout=SOON)
    assert f"proposal {proposed.id} is decided" in err
    assert tracer.returncode == 1


def test_ctrl_c_ends_a_restore_whose_backup_is_another_programs(host: Host, tmp_path: Path) -> None:
    proposed = host.propose()
    backup = tmp_path / "backup.db"
    host.run("db", "backup", backup)
    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], isolation_level=None).execute('BEGIN EXCLUSIVE'); "
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}print('held', flush=True); sys.stdin.read()", backup],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as hold:
        assert hold.stdout and hold.stdout.readline() == b"held\n"
        command = started(host, "bot-bottle", "db", "restore", backup, "--yes")
        eventually(lambda: command.poll() is not None or has_open(backup)(command.pid))
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=SOON)
        hold.communicate(b"")
    assert (command.returncode, out, err) == (130, "", "bot-bottle: interrupted: nothing was written\n")
    with Inbox() as inbox, AuditStore() as log:
        assert inbox.read(proposed.id).state == "pending" and not log.read_audit_entries()
