"""Can one row, whatever another program wrote into one of its columns, spoil anything but itself?

Each column of each table of ours gets each hostile value, in a copy of one database, by another process with SQLite's
checks off. Then everything that reads or writes is done once, and the rows beside it must be as they were.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bot_bottle import AuditIntegrityError, AuditStore, BottleStore, Database, GrantStore, Inbox, QueueStore
from hostile_values import HOSTILE, TABLES, TOOL
from store_process import decide, proposal, witness

# Makes the copies; prints the names of those in which the value is. One row of each table is the victim: the first.
PLANT = """
import itertools, json, shutil, sqlite3, sys
base, tables, hostile = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
with sqlite3.connect(base) as db:
    columns = {table: [row[1:3] for row in db.execute(f"PRAGMA table_info({table})")] for table in tables}
db.close()
for table, (name, value) in itertools.product(tables, hostile.items()):
    names = [column for column, _ in columns[table]]
    for column, kind in columns[table]:
        number, time = value.lstrip("-").isdigit(), name.endswith("time")
        if value != "NULL" and (number != (kind == "INTEGER") or time and not column.endswith(("_at", "stamp"))):
            continue
        copy = f"{base}.{table}.{column}.{name.replace(' ', '-')}"
        shutil.copy(base, copy)
        shutil.copytree(f"{base}-keys", f"{copy}-keys")  # a copy of the host, not another one
        db = sqlite3.connect(copy, isolation_level=None)
        db.execute("PRAGMA ignore_check_constraints = ON")
        db.execute("PRAGMA synchronous = OFF")
        triggers = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for trigger, _ in triggers:
            db.execute(f"DROP TRIGGER {trigger}")
        key = "bottle_slug" if "bottle_slug" in names else names[0]
        victims = f"{key} = (SELECT min({key}) FROM {table})"
        if (table, column) == ("proposals", "id"):  # unique
            victims = "seq = (SELECT min(seq) FROM proposals)"
        try:
            db.execute(f"UPDATE {table} SET {column} = {value} WHERE {victims}")
        except sqlite3.IntegrityError:  # a value that the column cannot have, whoever writes it
            continue
        finally:
            for _, sql in triggers:
                db.execute(sql)
            db.close()
        print(copy)
"""


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of a database with a victim and a row beside it in each table."""
    home = tmp_path_factory.mktemp("hostile")
    base = home / "bot-bottle.db"
    bottles, inbox = BottleStore(base), Inbox(base)
    for slug in ("aaa", "dev"):  # the first is the victim
        file = home / f"{slug}.yaml"
        file.write_text("routes: []\n")
        bottles.register(slug, backend="docker", files={"egress-allow": str(file)})
        bottles.issue_token(slug)
        queue = QueueStore(slug, base)
        asked = queue.write_proposal(proposal("a finding", slug=slug, tool=TOOL, fingerprint="host:1"))
        decide(inbox, asked, notes="a test key", grant="uses:3")
        GrantStore(base).use_grant(slug, TOOL, "host:1")
        changed = queue.write_proposal(proposal("routes: [] # more\n", slug=slug, tool="egress-allow"))
        decide(inbox, changed)
        twin = proposal("FROM debian\n", slug=slug)
        queue.write_proposal(twin)
        queue.write_proposal(proposal("FROM debian\n", slug=slug))  # coalesces: an alias
        inbox.ask(twin.id, "what for?")
        queue.answer(twin.id, "for the tests")
    inbox.close()
    del inbox, bottles, queue
    witness(base, "PRAGMA wal_checkpoint(TRUNCATE)")
    done = subprocess.run(
        [sys.executable, "-c", PLANT, str(base), json.dumps(TABLES), json.dumps(HOSTILE)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return [Path(line) for line in done.stdout.splitlines()]


def everything(db: Path) -> None:
    """All that is done on a host and by a sidecar, once; what is not of the victim must be there."""
    with Inbox(db) as inbox:
        pending = inbox.pending(bottle_slug="dev")
        assert [item.proposal.bottle_slug for item in pending] == ["dev"], "pending"
        assert any(item.proposal.id == pending[0].proposal.id for item in inbox.pending())
        states = sorted(item.state for item in inbox.history(bottle_slug="dev"))
        assert states == ["approved", "approved", "pending"], "history"
        assert all(item.damaged is None for item in inbox.history(bottle_slug="dev"))
        for item in inbox.history():
            if item.proposal.bottle_slug == "dev":
                assert inbox.review(item.proposal.id).item.proposal.payload_sha256 == item.proposal.payload_sha256
        inbox.stats()
        inbox.failed()
        inbox.recover()
        inbox.changes(0)
        new = QueueStore("dev", db).write_proposal(proposal(slug="dev"))
        assert decide(inbox, new).status == "approved"
        assert QueueStore("dev", db).wait_for_response(new.id, 20).status == "approved"
        assert inbox.review(pending[0].proposal.id).odd == []
        assert [one.damaged for one in inbox.read(pending[0].proposal.id).thread] == [None, None]
        inbox.ask(pending[0].proposal.id, "and why?")
        assert QueueStore("dev", db).answer(pending[0].proposal.id, "to see").damaged is None
    grants, bottles = GrantStore(db), BottleStore(db)
    assert [one.damaged for one in grants.list_grants("dev", live=False)] == [None]
    assert grants.use_grant("dev", TOOL, "host:1") is not None
    assert [one.damaged for one in bottles.list_bottles() if one.slug == "dev"] == [None]
    with AuditStore(db) as log:
        assert [one.proposal_id for one in log.read_audit_entries(bottle_slug="dev")].count(new.id) == 1
        log.read_audit_entries()
        with contextlib.suppress(AuditIntegrityError):
            log.verify()
    with QueueStore("dev", db) as queue:
        assert len(queue.list_items()) == 4
        assert len(queue.list_pending_proposals()) == 1
    with Database(db) as database:
        database.check()
        database.prune(older_than=3600)


@pytest.mark.parametrize("table", TABLES)
def test_a_hostile_value_in_any_column_spoils_its_own_row_alone(copies: list[Path], table: str) -> None:
    failed = {}
    tried = [copy for copy in copies if copy.name.split(".")[2] == table]
    for copy in tried:
        try:
            everything(copy)
        except Exception as error:  # all are told, not the first alone
            failed[copy.name.split(".", 2)[2]] = f"{type(error).__name__}: {str(error)[:150]}"
    assert tried
    assert failed == {}


@pytest.mark.parametrize("number", ["largest", "smallest"])
def test_a_count_that_somebody_wrote_ends_no_write(tmp_path: Path, number: str) -> None:
    db = tmp_path / "bot-bottle.db"
    with Inbox(db) as inbox, QueueStore("dev", db) as queue, Database(db) as database:
        decide(inbox, queue.write_proposal(proposal("one", slug="dev")))
        queue.write_proposal(proposal("two", slug="dev"))
        witness(db, f"UPDATE tallies SET proposals = {HOSTILE[number]}")
        third = queue.write_proposal(proposal("three", slug="dev"))
        decide(inbox, third)
        queue.archive_proposal(third.id)
        assert database.prune(older_than=0) == 2
        assert set(inbox.stats()["by_state"]) <= {"pending", "approved"}
        assert [inbox.read(item.proposal.id).proposal.proposed_file for item in inbox.pending()] == ["two"]
