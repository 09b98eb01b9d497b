"""Which host does an operator look at: this one's database, or another host's, through its API?

The command line says so once, with ``--url``. The faces ask here for a store and need not know: a store of another host
has the same verbs, types and errors (``remote.py``), as far as an operator uses them.
"""

from __future__ import annotations

from bot_bottle import AuditStore, BottleStore, Database, GrantStore, Inbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from bot_bottle import BotBottleError
    from bot_bottle.operator.remote import Host
    from bot_bottle.operator.views import View

_elsewhere: Host | None = None


def look_at(host: Host | None) -> None:
    """Makes this process look at another host from now on; at its own with ``None``."""
    global _elsewhere
    _elsewhere = host


def elsewhere() -> Host | None:
    """The other host, if it is one."""
    return _elsewhere


def inbox(db_path: str | None = None) -> Inbox:
    """What waits and was decided there. ``db_path`` is this host's database, for a test."""
    return Inbox(db_path) if _elsewhere is None else _elsewhere.inbox()


def grants(db_path: str | None = None) -> GrantStore:
    """What agents may do again there."""
    return GrantStore(db_path) if _elsewhere is None else _elsewhere.grants()


def audit(db_path: str | None = None) -> AuditStore:
    """What was logged there; to be read."""
    return AuditStore(db_path) if _elsewhere is None else _elsewhere.audit()


def bottles(db_path: str | None = None) -> BottleStore:
    """The bottles of that host; to be listed."""
    return BottleStore(db_path) if _elsewhere is None else _elsewhere.bottles()


def measured(*, since: str = "", bottle: str | None = None, db_path: str | None = None) -> dict[str, Any]:
    """How well the people on that host oversee the agents, as ``oversight.measure`` counts it."""
    from bot_bottle.operator import oversight

    if _elsewhere is not None:
        measured: dict[str, Any] = _elsewhere.stats(since, bottle)["oversight"]
        return measured
    database = Database(db_path)
    try:
        return oversight.measure(database, since=since, bottle=bottle)
    finally:
        database.close()


def note(views: Iterable[View], db_path: str | None = None) -> BotBottleError | None:
    """Notes there that reviews were shown, as ``views.note`` does."""
    from bot_bottle.operator.views import note

    return note(views, db_path) if _elsewhere is None else _elsewhere.note(views)
