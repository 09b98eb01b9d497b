"""A signal ends the helper whatever it waits for, and what it had asked is taken back or named."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from accepting import accept
from bot_bottle import Inbox, QueueStore, new_id
from cli_process import PROGRAMS
from store_process import eventually, proposal

# Shorter than any of its own timeouts.
SOON = 20

PROPOSE = ["propose", "--tool", "t", "--wait", "--bottle", "dev"]


def started(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [PROGRAMS / "bot-bottle-sidecar", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={},
    )


def locked(db: Path) -> subprocess.Popen[bytes]:
    """A program that holds SQLite's write lock until its standard input ends."""
    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], isolation_level=None).execute('BEGIN IMMEDIATE'); "
    holder = subprocess.Popen(
        [sys.executable, "-c", f"{code}print('held', flush=True); sys.stdin.read()", db],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout and holder.stdout.readline() == b"held\n"
    return holder


def is_at_work(db: Path, pid: int) -> bool:
    """It has its turn, so what it waits for is SQLite's lock."""
    turn = db.with_name(db.name + "-turn").stat().st_ino
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any(line[1] == "FLOCK" and line[4] == str(pid) and line[5].endswith(f":{turn}") for line in lines)


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux_only
def test_a_proposal_that_waits_for_another_writer_is_not_queued(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    known = queue.write_proposal(proposal())
    holder = locked(db)
    process = started(*PROPOSE, "--db", db)
    assert process.stdin
    process.stdin.write("x")
    process.stdin.close()
    process.stdin = None
    eventually(lambda: process.poll() is not None or is_at_work(db, process.pid))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=SOON)
    assert (process.returncode, out) == (130, "")
    assert err == "bot-bottle-sidecar: interrupted\n"
    holder.communicate(b"")
    assert [item.proposal.id for item in inbox.pending()] == [known.id]


@linux_only
def test_a_question_that_cannot_be_taken_back_is_named(db: Path, inbox: Inbox) -> None:
    process = started(*PROPOSE, "--db", db)
    assert process.stdin and process.stderr
    process.stdin.write("x")
    process.stdin.close()
    process.stdin = None
    assert "waiting for the operator" in process.stderr.readline()
    eventually(lambda: any(item.waiting for item in inbox.pending()))
    holder = locked(db)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=SOON)
    holder.communicate(b"")
    assert (process.returncode, out) == (130, "")
    (item,) = inbox.pending()
    assert f"proposal {item.proposal.id} may stay pending" in err


def test_a_signal_while_it_reads_what_to_propose_ends_it(db: Path) -> None:
    process = started(*PROPOSE, "--db", db)
    # Nothing says that it reads by now; earlier than that the signal ends it as well.
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=SOON) == -signal.SIGINT


def silent(connection: socket.socket) -> None:
    """Takes what comes, and says nothing."""
    while connection.recv(1 << 16):
        pass


def stalls_in_the_head(connection: socket.socket) -> None:
    connection.recv(1 << 16)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Le")
    silent(connection)


def stalls_in_the_body(connection: socket.socket) -> None:
    connection.recv(1 << 16)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    silent(connection)


class Broker:
    """One that takes connections and then behaves as it is told; `met` is set once somebody waits for it."""

    def __init__(self, behave: Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> None:
        self.met = threading.Event()
        self._behave, self._context = behave, context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        accept(self._listener, self._serve)

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.recv(1, socket.MSG_PEEK)  # the request, or the handshake's first message
            self.met.set()
            if self._context:
                connection = self._context.wrap_socket(connection, server_side=True)
            self._behave(connection)
        except OSError:
            pass
        finally:
            connection.close()

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize("behave", [silent, stalls_in_the_head, stalls_in_the_body])
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_a_broker_that_does_not_answer_holds_nobody(
    tmp_path: Path, behave: Callable[[socket.socket], None], secure: bool
) -> None:
    context = None
    cert = tmp_path / "cert.pem"
    if secure:
        issued = trustme.CA().issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(str(cert))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(context)
    ended_by_ctrl_c(tmp_path, Broker(behave, context), ["--cert-file", cert] if secure else [])


def test_a_broker_that_does_not_end_the_handshake_holds_nobody(tmp_path: Path) -> None:
    cert = tmp_path / "cert.pem"
    trustme.CA().issue_cert("127.0.0.1").cert_chain_pems[0].write_to_path(str(cert))
    ended_by_ctrl_c(tmp_path, Broker(silent), ["--cert-file", cert])


@pytest.fixture
def full_port() -> Iterator[int]:
    """Of a listener that has no room for another connection: connecting to it is neither accepted nor refused."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        with socket.create_connection(listener.getsockname()):
            yield listener.getsockname()[1]


def is_connecting(port: int) -> bool:
    """Somebody has sent a SYN to this port, and nothing came back."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(line[2].endswith(f":{port:04X}") and line[3] == "02" for line in lines)


@linux_only
def test_a_signal_ends_what_is_never_connected(tmp_path: Path, full_port: int) -> None:
    process = asking(tmp_path, f"http://127.0.0.1:{full_port}")
    eventually(lambda: process.poll() is not None or is_connecting(full_port))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=SOON)
    assert (process.returncode, out) == (130, ""), err
    assert err.splitlines()[-1] == "bot-bottle-sidecar: interrupted"


@linux_only
def test_a_wait_that_is_never_connected_ends_by_its_deadline(tmp_path: Path, full_port: int) -> None:
    (tmp_path / "token").write_text("secret")
    url = f"http://127.0.0.1:{full_port}"
    wait = started(
        "wait", new_id(), "--timeout", "0", "--bottle", "dev", "--url", url, "--token-file", tmp_path / "token"
    )
    out, err = wait.communicate(timeout=SOON)
    assert (wait.returncode, out) == (1, ""), err
    assert url in err


def asking(tmp_path: Path, url: str, *more: str | Path) -> subprocess.Popen[str]:
    """A helper that asks the broker there, and waits."""
    token = tmp_path / "token"
    token.write_text("secret")
    process = started(*PROPOSE, "--url", url, "--token-file", token, *more)
    assert process.stdin
    process.stdin.write("x")
    process.stdin.close()
    process.stdin = None
    return process


def ended_by_ctrl_c(tmp_path: Path, broker: Broker, more: list[str | Path]) -> None:
    process = asking(tmp_path, f"{'https' if more else 'http'}://127.0.0.1:{broker.port}", *more)
    try:
        eventually(lambda: process.poll() is not None or broker.met.is_set())
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SOON)
    finally:
        process.kill()
        broker.close()
    assert (process.returncode, out) == (130, ""), err
    assert err.splitlines()[-1] == "bot-bottle-sidecar: interrupted"
