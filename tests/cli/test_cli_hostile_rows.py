"""Does every command go on with the rows beside one that another program wrote whatever into?

The database of a host has each hostile value in every column of every table, each in a row of its own, some values at
a time. What a bottle without such a row is told must be the same as without them all.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bot_bottle import BottleStore, GrantStore, Inbox, QueueStore
from cli_process import ROUTES, Host
from hostile import assert_harmless
from hostile_values import HOSTILE, TABLES, TOOL
from store_process import decide, proposal

GOOD = "zzz-good"
VICTIMS = 24
# As many values at a time as there are victims for in the widest table.
GROUPS = [dict(list(HOSTILE.items())[at : at + 3]) for at in range(0, len(HOSTILE), 3)]

# Each column of each table gets the value in the next of the victims' rows.
PLANT = """
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

# What an operator runs, with the exit codes it may have. Findings are what some of them are for.
COMMANDS = {
    "pending": {0},
    "pending --bottle zzz-good": {0},
    "show {pending}": {0},
    "show {decided}": {0},
    "history --limit 500": {0},
    "audit list --limit 500": {0},
    "audit list --full --limit 500": {0},
    "audit list --component egress-allow": {0},
    "audit verify": {0, 7},
    "grants list --all": {0},
    "grants show {grant}": {0},
    "bottles --all": {0},
    "stats": {0},
    "stats --bottle zzz-good": {0},
    "db status": {0},
    "db check": {0, 8},
    "db query select*from(proposals)": {0},
    "db prune --older-than 1h --yes": {0},
    "policy suggest": {0},
    "keys show": {0},
    "notify status": {0, 2},
    "archive {decided}": {0},
    "reject {pending} --notes no": {0},
    "bottle stop zzz-good --yes": {0},
}
HELPER = ("pending", "show {pending}", "use-grant --tool {tool} --fingerprint host:1", "withdraw {pending}")
# What ends by itself only when it is interrupted or asked by a shell.
COMPLETIONS = ("bot-bottle show ", "bot-bottle grants revoke ", "bot-bottle pending --bottle ")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A host with victims and a good bottle, and the ids of the latter."""
    root = tmp_path_factory.mktemp("rows") / "root"
    before = os.environ.get("BOT_BOTTLE_ROOT")
    os.environ["BOT_BOTTLE_ROOT"] = str(root)
    try:
        bottles, inbox, ids = BottleStore(), Inbox(), {"tool": TOOL}
        for slug in [*(f"v{number:02}" for number in range(VICTIMS)), GOOD]:
            file = root / "bottles" / slug / "routes.yaml"
            file.parent.mkdir(parents=True, mode=0o700)
            file.write_text(ROUTES)
            bottles.register(slug, backend="docker", files={"egress-allow": "routes.yaml"})
            bottles.issue_token(slug)
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
        ids |= {"pending": waits.id, "decided": changed.id, "grant": GrantStore().list_grants(GOOD)[0].id}
        inbox.close()
        bottles.close()
    finally:
        if before is None:
            del os.environ["BOT_BOTTLE_ROOT"]
        else:
            os.environ["BOT_BOTTLE_ROOT"] = before
    return root, ids


def of_the_good(document: object) -> list[object]:
    """The rows of a list that are the good bottle's."""
    if not isinstance(document, list):
        return [document]
    return [row for row in document if GOOD in (row.get("bottle_slug"), row.get("slug"))]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("values", GROUPS, ids=", ".join)
def test_every_command_goes_on_and_says_the_same_of_the_rest(
    made: tuple[Path, dict[str, str]], tmp_path: Path, values: dict[str, str]
) -> None:
    base, ids = made
    hosts = {}
    for which in ("sound", "hostile"):
        shutil.copytree(base, tmp_path / which, symlinks=True)
        (tmp_path / which / "bot-bottle.db").unlink()
        (tmp_path / which / "bot-bottle.db").symlink_to("db/bot-bottle.db")
        hosts[which] = Host(tmp_path / which)
    arguments = [str(hosts["hostile"].root / "db" / "bot-bottle.db"), json.dumps(values), json.dumps(TABLES)]
    planted = subprocess.run([sys.executable, "-c", PLANT, *arguments], capture_output=True, text=True, timeout=120)
    assert planted.returncode == 0, planted.stderr
    assert int(planted.stdout) > 0
    wrong = []

    def run(host: Host, line: str, codes: set[int], program: str = "bot-bottle", **extra: str) -> str:
        done = subprocess.run(
            [Path(sys.executable).parent / program, *line.format(**ids).split()],
            env=host.environment(**extra),
            capture_output=True,
            timeout=120,
        )
        output, errors = done.stdout.decode(), done.stderr.decode()
        if done.returncode not in codes or "Traceback" in errors or "this is a bug" in errors:
            wrong.append(f"{line}: {done.returncode} {errors[-300:]}")
        assert_harmless(output)
        assert_harmless(errors)
        return output

    for line, codes in COMMANDS.items():
        shown = run(hosts["hostile"], f"{line} --json", codes)
        if shown.startswith("[") and "query" not in line and "check" not in line:
            # Each side is as the last command left it.
            expected = run(hosts["sound"], f"{line} --json", codes)
            if of_the_good(json.loads(shown)) != of_the_good(json.loads(expected)):
                wrong.append(f"{line}: the good bottle's rows differ")
        elif line.startswith(("archive", "reject", "bottle", "db prune")):
            run(hosts["sound"], f"{line} --json", codes)
            continue  # done; a second time is another question
        run(hosts["hostile"], line, codes)
    database = {"SUPERVISE_DB_PATH": str(hosts["hostile"].root / "db" / "bot-bottle.db")}
    for line in HELPER:
        for style in ("", " --json"):
            good, victim = ({"SUPERVISE_BOTTLE_SLUG": slug, **database} for slug in (GOOD, "v01"))
            run(hosts["hostile"], line + style, {0, 4, 5}, "bot-bottle-sidecar", **good)
            run(hosts["hostile"], line + style, {0, 4, 5, 7}, "bot-bottle-sidecar", **victim)
    for typed in COMPLETIONS:
        asked = {"_BOT_BOTTLE_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
        run(hosts["hostile"], "", {0}, **asked)
    watch = ["timeout", "--signal=INT", "3", "bot-bottle", "watch", "--since", "0"]
    for style in ([], ["--json"]):
        done = subprocess.run([*watch, *style], env=hosts["hostile"].environment(), capture_output=True, timeout=60)
        assert done.returncode in (124, 130), done.stderr
        assert b"Traceback" not in done.stderr
        assert_harmless(done.stdout.decode())
    assert not wrong, "\n".join(wrong)
