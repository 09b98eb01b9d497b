"""What does a sidecar under another kernel do: with the database on a share, and with the broker?"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from guest import BROKER, SHARE, Guest, fetch_kernel, missing

from bot_bottle import Inbox, host_db_path
from broker_process import Broker, token
from cli_process import PROGRAMS
from needs import cannot
from store_process import Process, assert_sound, decide, eventually

# A guest boots in three seconds, on a busy machine in thirty.
pytestmark = pytest.mark.timeout(300)

HELPER = PROGRAMS / "bot-bottle-sidecar"
DATABASE = f"{SHARE}/bot-bottle.db"


@pytest.fixture
def guest(request: pytest.FixtureRequest, tmp_path: Path) -> Guest:
    """A machine to boot; without the means the tests are skipped, under `CI=true` they fail."""
    if lacking := missing():
        cannot(f"a VM cannot be tested without {lacking}")
    assert request.config.cache is not None
    kernel = request.config.cache.mkdir("guest-kernel")
    fetch_kernel(kernel)
    scratch = tmp_path / "guest"
    scratch.mkdir()
    return Guest(kernel, scratch)


@pytest.mark.parametrize("kind", ["9p", "virtiofs"])
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
        ThreadPoolExecutor(1) as reader,
        guest.boot(
            f"export SUPERVISE_BOTTLE_SLUG=demo\n{job}",
            share,
            kind,
            programs={"bot-bottle-sidecar": HELPER},
            files=files,
            broker=Path(broker.socket),
        ) as machine,
    ):
        said = reader.submit(guest.said, machine)
        eventually(lambda: said.done() or any(item.waiting for item in inbox.pending()), within=240)
        assert not said.done(), said.result()
        (item,) = inbox.pending()
        asked = inbox.read(item.proposal.id).proposal
        assert asked.proposed_file == "FROM guest\n"
        decide(inbox, asked, "modified", final_file="FROM host\n", notes="from another kernel")
        console = said.result()
    assert f"{DATABASE} lies on {kind}, which shares neither memory nor locks" in console
    assert "refused=8" in console  # UnsafeMountError
    assert f"broker at {BROKER}" in console
    answer = json.loads(next(line for line in console.splitlines() if line.startswith("{")))
    assert (answer["status"], answer["final_file"]) == ("modified", "FROM host\n")
    assert "answered=0" in console
    assert_sound(host_db_path())


def host_writes(database: str) -> None:
    """Inserts until it is told to stop, as any SQLite program would; a line for each commit it was told of."""
    import select
    import sqlite3
    import sys

    connection = sqlite3.connect(database, isolation_level=None, timeout=5)
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        connection.execute("INSERT INTO written VALUES ('host', 0)")
        print("committed")


def test_without_the_guard_acknowledged_rows_vanish(guest: Guest, tmp_path: Path) -> None:
    # Why the store refuses; docs/adr/0004 has what came of this. The file is nobody's, in a directory to throw away.
    share = tmp_path / "share"
    share.mkdir()
    database = share / "throw-away.db"
    schema = "PRAGMA journal_mode = WAL; CREATE TABLE written (who TEXT, number INTEGER);"
    subprocess.run(["sqlite3", database, schema], check=True, capture_output=True)
    job = f"""
        (for i in $(seq 60); do echo "INSERT INTO written VALUES ('guest', $i);"; sleep 0.05; done) |
            sqlite3 -cmd ".timeout 5000" {SHARE}/throw-away.db && echo "told of 60"
    """
    sqlite3 = Path(shutil.which("sqlite3") or "")
    with Process(host_writes, database) as host:
        with guest.boot(job, share, "9p", programs={"sqlite3": sqlite3}, files={}, broker=None) as machine:
            said = guest.said(machine)
        told, _ = host.popen.communicate("\n", timeout=60)
    look = "PRAGMA integrity_check; SELECT count(*) FROM written;"
    found = subprocess.run(["sqlite3", database, look], capture_output=True, text=True)
    committed = 60 * ("told of 60" in said) + told.count("committed")
    # A side dies of it, or the file is malformed, or rows are gone, and that is all that is sure.
    sound = host.popen.returncode == found.returncode == 0 and found.stdout.startswith("ok\n")
    assert not sound or int(found.stdout.split()[1]) < committed, "the share was sound: is the guard still right?"
