"""How is the one database file looked at, kept and brought back?"""

from __future__ import annotations

import os

from bot_bottle import Database, host_db_path
from bot_bottle.cli.declare import Whole, argument, group, option
from bot_bottle.cli.options import duration, json_option, yes_option
from bot_bottle.cli.screen import confirm, print_fields, print_json, print_table, say
from bot_bottle.errors import DatabaseCorruptError
from bot_bottle.operator import known

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bot_bottle.cli.screen import Cell


@group()
def db() -> None:
    """Look after the database: state, schema, backups, queries.

    \b
      bot-bottle db status
      bot-bottle db check
      bot-bottle db backup before-the-upgrade.db
    """


@db.command(begins=True)
@json_option
def path(as_json: bool) -> None:
    """Print where the database is.

    \b
      ls -l "$(bot-bottle db path)"
    """
    if as_json:
        print_json({"path": host_db_path()})
    else:
        say(host_db_path())


@db.command(begins=True)
@json_option
def status(as_json: bool) -> None:
    """Say what the file is, where it lies and its schema.

    \b
      bot-bottle db status    # for a report of a fault
    """
    with Database() as database:
        state = database.status()
    if as_json:
        print_json(state)
        return
    fields: list[tuple[str, Cell]] = []
    for name, value in state.items():
        if name != "modules":
            text = ("no", "yes")[value] if isinstance(value, bool) else str("-" if value is None else value)
            fields.append((name.replace("_", " "), text))
    for module, version in state["modules"].items():
        found, supported = version["found"], version["supported"]
        fields.append((module, (f"schema {found} of {supported}", "plain" if found == supported else "soon")))
    print_fields(fields)


@db.command(begins=True, writes=True)
@json_option
def migrate(as_json: bool) -> None:
    """Create the database, or bring it to this release's schema.

    \b
      bot-bottle db migrate    # after an upgrade
    """
    with Database() as database:
        versions = database.migrate_all()
    if as_json:
        print_json(versions)
    else:
        print_fields([(module, f"schema {version}") for module, version in versions.items()])


def _is_module(name: str) -> None:
    with Database() as database:
        names = list(database.status()["modules"])
    if name not in names:
        raise known.missing("module", name, names, otherwise=f"there are {', '.join(names)}")


@db.command(writes=True)
@argument("module", check=_is_module)
@option("--to", type=Whole(0), required=True, metavar="N", help="The schema version to go back to.")
@yes_option
@json_option
def rollback(module: str, to: int, yes: bool, as_json: bool) -> None:
    """Take one module's tables back to an older schema.

    A backup is taken first; its path is printed.

    \b
      bot-bottle db rollback grant_store --to 0 --yes
    """
    _ask(f"Take {module} back to schema {to}? Data that only newer ones hold stays in the backup alone.", yes)
    with Database() as database:
        backup_path = database.rollback(module, to=to)
    if as_json:
        print_json({"module": module, "version": to, "backup": backup_path})
    else:
        say(f"{module} is at schema {to}; the backup from before is {backup_path}")


@db.command()
@argument("dest")
@json_option
def backup(dest: str, as_json: bool) -> None:
    """Copy the database to DEST while it is in use.

    \b
      bot-bottle db backup before-the-upgrade.db
      bot-bottle db backup "inbox-$(date +%F).db"    # once a day, from cron
    """
    with Database() as database:
        size = database.backup(dest)
    if as_json:
        print_json({"path": os.path.abspath(dest), "bytes": size})
    else:
        say(f"{dest} has {size:,} bytes")


@db.command(begins=True, writes=True)
@argument("src")
@yes_option
@json_option
def restore(src: str, yes: bool, as_json: bool) -> None:
    """Replace the database's content with a backup's.

    What is there now is copied first; the path is printed.

    \b
      bot-bottle db restore before-the-upgrade.db --yes
    """
    _ask(f"Replace all that is in {host_db_path()} with {src}? What is there now is copied first.", yes)
    with Database() as database:
        before = database.restore(src)
    if as_json:
        print_json({"restored": os.path.abspath(src), "backup": before})
    else:
        say(f"restored {src}; what was there before is {before}")


@db.command()
@json_option
def check(as_json: bool) -> None:
    """Check the file, its references and the audit chain.

    The exit code is 8 if anything is wrong.

    \b
      bot-bottle db check
      bot-bottle db check --json > findings.json
    """
    with Database() as database:
        findings = database.check()
        where = database.path
    if as_json:
        print_json(findings)
    else:
        for finding in findings:
            say(finding, "bad")
    if findings:
        raise DatabaseCorruptError(
            f"{where} is damaged (see the {len(findings)} findings above): keep it as evidence, "
            "and bring back a backup with 'bot-bottle db restore'",
            path=where,
        )
    if not as_json:
        say("The database is sound.", "good")


@db.command(writes=True)
@option(
    "--older-than", type=duration, required=True, metavar="DURATION", help="Ended longer ago than this, such as 30d."
)
@yes_option
@json_option
def prune(older_than: float, yes: bool, as_json: bool) -> None:
    """Delete proposals that ended long ago; never the audit log.

    The database is copied first; the path is printed.

    \b
      bot-bottle db prune --older-than 30d --yes
    """
    with Database() as database:
        found = database.prunable(older_than=older_than)
        saved = None
        if found:
            _ask(f"Delete {_proposals(found)}? The audit log keeps its entries, and a copy is made first.", yes)
            saved = _beside(host_db_path())
            database.backup(saved)
        count = database.prune(older_than=older_than)
    if as_json:
        print_json({"deleted": count, "backup": saved})
    else:
        say(f"{_proposals(count)} deleted" + (f"; what was there before is {saved}" if saved else ""))


@db.command()
@argument("sql")
@option("--timeout", type=duration, default="5s", metavar="DURATION", help="Give up after so long.")
@json_option
def query(sql: str, timeout: float, as_json: bool) -> None:
    """Run one read-only SQL statement over all tables.

    \b
      bot-bottle db query "select tool, count(*) n from proposals group by tool"
      bot-bottle db query "select name from sqlite_schema" --json
    """
    with Database() as database:
        rows = database.query(sql, timeout=timeout)
    if as_json:
        print_json([{name: _json_value(value) for name, value in row.items()} for row in rows])
    elif rows:
        print_table(list(rows[0]), [[_cell(value) for value in row.values()] for row in rows])
    else:
        say("no rows")


def _json_value(value: Any) -> Any:
    """JSON has neither bytes nor infinities: the first become hex digits, the second text."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and abs(value) == float("inf"):  # SQLite has no NaN
        return str(value)
    return value


def _cell(value: Any) -> Cell:
    return ("NULL", "quiet") if value is None else str(_json_value(value))


def _proposals(count: int) -> str:
    return f"{count} proposals" if count != 1 else "1 proposal"


def _beside(path: str) -> str:
    """Where a copy of the database goes, as ``db restore`` and ``db rollback`` name theirs."""
    from datetime import datetime, timezone

    directory = os.path.join(os.path.dirname(path), "backups")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H-%M-%S-%fZ")
    return os.path.join(directory, f"bot-bottle-{now}.db")


def _ask(question: str, yes: bool) -> None:
    confirm(question, yes=yes, undecided="nothing was changed")
