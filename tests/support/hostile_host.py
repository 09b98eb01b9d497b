"""How is a host made whose database has each hostile value in each column of each table, each in a row of its own?"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bot_bottle import BottleStore, GrantStore, Inbox, QueueStore
from cli_process import ROUTES, Host
from hostile_values import HOSTILE, TABLES, TOOL
from store_process import decide, proposal

GOOD = "zzz-good"
VICTIMS = 24
# As many values at a time as there are victims for in the widest table.
GROUPS = [dict(list(HOSTILE.items())[at : at + 3]) for at in range(0, len(HOSTILE), 3)]

# Each column of each table gets the value in the next of the victims' rows.
_PLANT = """
import json, sqlite3, sys
path, values, tables = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
db = sqlite3.connect(path, isolation_level=None)
db.execute("PRAGMA ignore_check_constraints = ON")
db.execute("PRAGMA recursive_triggers = OFF")
triggers = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
for trigger, _ in triggers:
    db.execute(f"DROP TRIGGER {trigger}")
done = 0
for table in tables:
    columns = [row[1:3] for row in db.execute(f"PRAGMA table_info({table})")]
    names = [name for name, _ in columns]
    whose = next((name for name in ("bottle_slug", "slug", "queue_key") if name in names), None)
    key = ", ".join(row[0] for row in db.execute(f"SELECT name FROM pragma_table_info('{table}') WHERE pk ORDER BY pk"))
    whole = f" WHERE {whose} < 'zzz'" if whose else ""
    rows = db.execute(f"SELECT {key} FROM {table}{whole} ORDER BY 1").fetchall()
    if not whose:
        rows = rows[: len(rows) - 8]  # the good bottle's come last
    tried = [(column, kind, name, value) for column, kind in columns for name, value in values.items()]
    for at, (column, kind, name, value) in enumerate(tried):
        number, time = value.lstrip("-").isdigit(), name.endswith("time")
        if value != "NULL" and (number != (kind == "INTEGER") or time and not column.endswith(("_at", "stamp"))):
            continue
        row = rows[at % len(rows)]
        where = " AND ".join(f"{name} IS ?" for name in key.split(", "))
        try:
            done += db.execute(f"UPDATE {table} SET {column} = {value} WHERE {where}", row).rowcount
        except sqlite3.IntegrityError:
            pass
for _, sql in triggers:
    db.execute(sql)
print(done)
"""


@contextmanager
def _root(root: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOT_BOTTLE_ROOT", str(root))
        yield


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A host with victims and a good bottle: its root, and the ids of the good bottle's rows; under a slug, a token."""
    root = tmp_path_factory.mktemp("rows") / "root"
    with _root(root), Inbox() as inbox:
        bottles, ids = BottleStore(), {"tool": TOOL}
        for slug in [*(f"v{number:02}" for number in range(VICTIMS)), GOOD]:
            file = root / "bottles" / slug / "routes.yaml"
            file.parent.mkdir(parents=True, mode=0o700)
            file.write_text(ROUTES)
            bottles.register(slug, backend="docker", files={"egress-allow": "routes.yaml"})
            ids[slug] = bottles.issue_token(slug)
            with QueueStore(slug) as queue:
                asked = queue.write_proposal(proposal("a finding", slug=slug, tool=TOOL, fingerprint="host:1"))
                decide(inbox, asked, notes="a test key", grant="uses:3")
                GrantStore().use_grant(slug, TOOL, "host:1")
                changed = queue.write_proposal(proposal("routes: []\n", slug=slug, tool="egress-allow"))
                decide(inbox, changed)
                waits = queue.write_proposal(proposal("FROM debian\n", slug=slug))
                queue.write_proposal(proposal("FROM debian\n", slug=slug))  # coalesces: an alias
                inbox.ask(waits.id, "what for?")
                queue.answer(waits.id, "for the tests")
        bottles.close()
        ids |= {"pending": waits.id, "decided": changed.id, "grant": GrantStore().list_grants(GOOD)[0].id}
    return root, ids


def two_hosts(base: Path, place: Path, values: dict[str, str]) -> tuple[Host, Host]:
    """Two copies of a host: one as it was, and one with the values in its rows."""
    sound, hostile = (Host(place / which) for which in ("sound", "hostile"))
    for host in (sound, hostile):
        shutil.copytree(base, host.root, symlinks=True)
        (host.root / "bot-bottle.db").unlink()
        (host.root / "bot-bottle.db").symlink_to("db/bot-bottle.db")
    arguments = [str(hostile.root / "db" / "bot-bottle.db"), json.dumps(values), json.dumps(TABLES)]
    planted = subprocess.run([sys.executable, "-c", _PLANT, *arguments], capture_output=True, text=True, timeout=120)
    assert planted.returncode == 0, planted.stderr
    assert int(planted.stdout) > 0
    return sound, hostile
