"""What does a sidecar under another kernel do: with the database on a share, and with the broker?"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from guest import BROKER, SHARE, VIRTIOFSD, Guest, fetch_kernel, missing

from bot_bottle import Inbox, host_db_path
from broker_process import Broker, token
from cli_process import PROGRAMS
from store_process import assert_sound, decide, eventually

# A guest boots in three seconds, on a busy machine in thirty.
pytestmark = pytest.mark.timeout(300)

HELPER = PROGRAMS / "bot-bottle-sidecar"
DATABASE = f"{SHARE}/bot-bottle.db"


@pytest.fixture
def guest(request: pytest.FixtureRequest, tmp_path: Path) -> Guest:
    """A machine to boot; without the means the tests are skipped, under `CI=true` they fail."""
    if lacking := missing():
        if os.environ.get("CI") == "true":
            pytest.fail(f"a VM cannot be tested without {lacking}")
        pytest.skip(f"a VM cannot be tested without {lacking}")
    assert request.config.cache is not None
    kernel = request.config.cache.mkdir("guest-kernel")
    fetch_kernel(kernel)
    return Guest(kernel, tmp_path)


def console(guest: subprocess.Popen[str]) -> str:
    """What the job said, once the guest has ended."""
    said, _ = guest.communicate(timeout=240)
    assert "::end" in said, said
    return said.partition("::begin")[2].partition("::end")[0]


KINDS = ["9p", pytest.param("virtiofs", marks=pytest.mark.skipif(not VIRTIOFSD.exists(), reason="needs virtiofsd"))]


@pytest.mark.parametrize("kind", KINDS)
def test_the_helper_refuses_a_share_and_is_answered_over_the_broker(
    guest: Guest, serve: Callable[..., Broker], kind: str
) -> None:
    broker = serve()
    secret = token("demo")
    job = f"""
        echo "FROM nowhere" | bot-bottle-sidecar propose --db {DATABASE} --tool capability-block; echo "refused=$?"
        export SUPERVISE_URL={BROKER} SUPERVISE_TOKEN_FILE=/token
        bot-bottle-sidecar doctor
        echo "FROM guest" | bot-bottle-sidecar propose --tool capability-block --wait --json; echo "answered=$?"
    """
    share = Path(host_db_path()).resolve().parent
    files = {"/token": secret}
    with (
        Inbox() as inbox,
        guest.boot(
            f"export SUPERVISE_BOTTLE_SLUG=demo\n{job}",
            share,
            kind,
            programs={"bot-bottle-sidecar": HELPER},
            files=files,
            socket=Path(broker.socket),
        ) as machine,
    ):
        said: list[str] = []
        reader = threading.Thread(target=lambda: said.append(console(machine)))
        reader.start()
        eventually(lambda: [item for item in inbox.pending() if item.waiting] or said, within=240)
        assert not said, said
        (item,) = inbox.pending()
        assert item.proposal.proposed_file == "FROM guest\n"
        decide(inbox, item.proposal, "modified", final_file="FROM host\n", notes="from another kernel")
        reader.join()
    assert f"{DATABASE} lies on {kind}, which shares neither memory nor locks" in said[0]
    assert "refused=8" in said[0]  # UnsafeMountError
    assert f"broker at {BROKER}" in said[0]
    answer = json.loads(next(line for line in said[0].splitlines() if line.startswith("{")))
    assert (answer["status"], answer["final_file"]) == ("modified", "FROM host\n")
    assert "answered=0" in said[0]
    assert_sound(host_db_path())


def host_writes(database: str) -> None:
    """Inserts until it is told to stop, as any SQLite program would; says how many it was told were committed."""
    import select
    import sqlite3
    import sys

    connection = sqlite3.connect(database, isolation_level=None, timeout=5)
    count = 0
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        connection.execute("INSERT INTO written VALUES ('host', ?)", (count,))
        count += 1
    print(count)


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="needs the sqlite3 shell")
def test_without_the_guard_acknowledged_rows_vanish_and_nobody_is_told(guest: Guest, tmp_path: Path) -> None:
    # Why the store refuses: docs/adr has what came of this. The files are nobody's, in a directory to throw away.
    share = tmp_path / "share"
    share.mkdir()
    database = share / "throw-away.db"
    schema = "PRAGMA journal_mode = WAL; CREATE TABLE written (who TEXT, number INTEGER);"
    subprocess.run(["sqlite3", database, schema], check=True, capture_output=True)
    job = f"""
        (for i in $(seq 60); do echo "INSERT INTO written VALUES ('guest', $i);"; sleep 0.05; done) |
            sqlite3 -cmd ".timeout 5000" {SHARE}/throw-away.db && echo "guest was told: 60 committed"
    """
    source = f"{_source(host_writes)}\nhost_writes({str(database)!r})"
    pipe = subprocess.PIPE
    host = subprocess.Popen([sys.executable, "-c", source], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    with guest.boot(
        job, share, "9p", programs={"sqlite3": Path(shutil.which("sqlite3") or "")}, files={}, socket=None
    ) as machine:
        said = console(machine)
    told, complaints = host.communicate("\n", timeout=60)
    count = "SELECT count(*) FROM written"
    kept = subprocess.run(["sqlite3", database, count], capture_output=True, text=True)
    committed = 60 * ("guest was told: 60 committed" in said) + int(told or 0)
    # Rows are gone, or the file is malformed; how many and which is chance.
    assert kept.returncode != 0 or complaints or int(kept.stdout) < committed, (said, told, kept.stdout)


def _source(function: Callable[..., object]) -> str:
    import inspect

    return inspect.getsource(function)
