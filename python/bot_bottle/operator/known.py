"""Is there a bottle, a component or a root of this name, and if not, which was probably meant?

A name that does not exist is an error, because an empty list would say that nothing is pending.
"""

from __future__ import annotations

import os

from bot_bottle import Database
from bot_bottle.errors import NotFoundError
from bot_bottle.operator import seat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

# What a root may hold before there is a database in it.
_PARTS: Final = (
    "db",
    "bot-bottle.db",
    "keys",
    "bottles",
    "config.toml",
    "policy.toml",
    "backups",
    "agreed",
    "operator",
)

# A bottle need not be registered: a sidecar of its name may just ask. Each of these is one look at an index.
_IS_BOTTLE_SQL = """\
SELECT EXISTS (SELECT 1 FROM bottles WHERE slug = :name)
    OR EXISTS (SELECT 1 FROM proposals WHERE bottle_slug = :name)
    OR EXISTS (SELECT 1 FROM audit_entries WHERE bottle_slug = :name) AS known"""
# As bytes: whoever can write the file can store there what is not valid text.
_BOTTLES_SQL = """\
SELECT CAST(slug AS BLOB) AS name FROM bottles UNION SELECT CAST(bottle_slug AS BLOB) FROM tallies LIMIT 10000"""

# One look at the index for each of the few, however many entries there are.
_COMPONENTS_SQL = """\
WITH RECURSIVE found (name) AS (
  SELECT min(component) FROM audit_entries
  UNION ALL
  SELECT (SELECT min(component) FROM audit_entries WHERE component > name) FROM found WHERE name IS NOT NULL)
SELECT CAST(name AS BLOB) AS name FROM found WHERE name IS NOT NULL LIMIT 1000"""


def bottle(slug: str) -> None:
    """Raises:
    NotFoundError: no bottle of this name was ever registered, asked for anything, or stands in the log.
    """
    if seat.elsewhere() is not None:
        return  # the other host says so
    with Database() as database:
        if any(row["known"] for row in database.query(_IS_BOTTLE_SQL, {"name": slug})):
            return
        names = _texts(database, _BOTTLES_SQL)
    raise missing("bottle", slug, names, otherwise="'bot-bottle bottles --all' lists them")


def component(name: str) -> None:
    """Raises:
    NotFoundError: there are entries in the log, and none is of this component.
    """
    with Database() as database:
        names = _texts(database, _COMPONENTS_SQL)
    if names and name not in names:
        raise missing("component", name, names, where=" in the log", otherwise=f"there are {', '.join(names[:20])}")


def _texts(database: Database, sql: str) -> list[str]:
    names = (row["name"] for row in database.query(sql))
    return [name.decode(errors="replace") for name in names if isinstance(name, bytes) and 0 < len(name) < 256]


def root() -> None:
    """Raises:
    NotFoundError: ``BOT_BOTTLE_ROOT`` names a directory that is not there, or is somebody else's. Without the
        variable nothing is wrong: the default root is made when it is first needed.
    """
    path = os.environ.get("BOT_BOTTLE_ROOT", "")
    if seat.elsewhere() is not None:
        return
    if not os.path.isabs(path) or _is_root(path):  # whoever uses it refuses a relative one
        return
    path = path.rstrip("/")
    where = os.path.dirname(path)
    near = [os.path.join(where, name) for name in _names(where)] + [os.path.join(path, name) for name in _names(path)]
    roots = [each for each in (*near, os.path.expanduser("~/.bot-bottle")) if os.path.isdir(os.path.join(each, "db"))]
    what = "root of bot-bottle at" if os.path.isdir(path) else "directory"
    inside = next((each for each in roots if os.path.dirname(each) == path), None)
    otherwise = "'bot-bottle bottle start' or 'bot-bottle db migrate' makes one"
    if inside:
        raise NotFoundError(f"there is no {what} {path!r}, which BOT_BOTTLE_ROOT names; did you mean {inside!r}?")
    raise missing(what, path, roots, where=", which BOT_BOTTLE_ROOT names", otherwise=otherwise)


def missing(what: str, name: str, names: Iterable[str], *, where: str = "", otherwise: str = "") -> NotFoundError:
    """The error that there is no ``what`` of this ``name``: with the nearest of ``names``, or else ``otherwise``."""
    # Imported only after a mistake: it takes longer than most commands do.
    from difflib import get_close_matches

    near = get_close_matches(name[:200], list(names), n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else f"; {otherwise}" if otherwise else ""
    return NotFoundError(f"there is no {what} {name[:200]!r}{where}{hint}")


def _is_root(path: str) -> bool:
    if not os.path.lexists(path):
        return False
    # An empty one is about to be used, and whoever opens something that is not a directory reports it.
    names = _names(path)
    return not names or any(each in names for each in _PARTS)


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))[:10_000]
    except OSError:
        return []
