"""Through which channels, and when, does this host's operator want to be told? ``<root>/config.toml`` says so."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from bot_bottle import bot_bottle_root
from bot_bottle.documents import toml
from bot_bottle.errors import InvalidInputError
from bot_bottle.operator import hours, scopes
from bot_bottle.operator.hours import Hours

# What each kind of channel takes besides its kind; those that it cannot do without come first.
_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "bell": ((), ()),
    "desktop": ((), ()),
    "exec": (("command",), ()),
    "webhook": (("url",), ("token_env",)),
    "ntfy": (("url", "topic"), ("token_env",)),
    "webpush": (("url",), ()),
}

_MOST_AFTER = 86400.0


class Channel(NamedTuple):
    """One way to tell somebody."""

    name: str
    kind: str
    command: str = ""
    url: str = ""
    topic: str = ""
    token_env: str = ""
    """The environment variable that holds a bearer token; the file itself holds no secret."""
    after: float = 0.0
    """It is told of nothing that has not waited for so many seconds: it is whom one turns to next."""


class Settings(NamedTuple):
    """The table ``[notify]``."""

    channels: tuple[Channel, ...] = ()
    quiet: Hours | None = None
    """When nobody is told."""


def path() -> str:
    """Where the settings are."""
    return os.path.join(bot_bottle_root(), "config.toml")


def read() -> Settings:
    """The settings; without a file, none.

    Raises:
        InvalidInputError: something in the file is not understood; the message names it.
    """
    try:
        with open(path(), "rb") as file:
            table = toml.loads(file.read().decode())
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path()} cannot be read: {error}") from None
    notify = _table(table.get("notify", {}), "notify")
    _only(notify, ("quiet", "channels"), "[notify]")
    named = _table(notify.get("channels", {}), "notify.channels")
    channels = tuple(_channel(name, _table(each, f"notify.channels.{name}")) for name, each in named.items())
    return Settings(channels, _quiet(notify["quiet"]) if "quiet" in notify else None)


def _channel(name: str, table: dict[str, Any]) -> Channel:
    where = f"[notify.channels.{name}]"
    kind = table.get("kind")
    if kind not in _KEYS:
        raise _wrong(f"{where} needs kind = one of {', '.join(_KEYS)}")
    needed, possible = _KEYS[kind]
    _only(table, ("kind", "after", *needed, *possible), where)
    for key in needed:
        if not table.get(key):
            raise _wrong(f"{where} is a {kind} and needs {key}")
    for key, value in table.items():
        if not isinstance(value, str):
            raise _wrong(f"{key} in {where} is not text")
    if not table.get("url", "https://").startswith(("https://", "http://")):
        raise _wrong(f"url in {where} begins with neither https:// nor http://")
    after = scopes.seconds(table.pop("after", "0s"))
    if after is None or after > _MOST_AFTER:
        raise _wrong(f'after in {where} is no time of a day at most, such as "10m"')
    return Channel(name, **table, after=after)


def _quiet(value: Any) -> Hours:
    try:
        return hours.parse(value)
    except (AttributeError, ValueError):
        raise _wrong(f'quiet in [notify] is not of the form "22:00-07:00": {value!r}') from None


def _table(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(f"{name} is not a table")
    return value


def _only(table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            raise _wrong(f"{key} in {where} is not known there; known are {', '.join(known)}")


def _wrong(what: str) -> InvalidInputError:
    return InvalidInputError(f"{path()}: {what}")
