"""What may a rule say, and what do this host's rules say? Reads ``<root>/policy.toml``, or refuses it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, get_args

from bot_bottle import bot_bottle_root, sha256_hex
from bot_bottle.documents import toml
from bot_bottle.documents.routes import canonical_host
from bot_bottle.errors import InvalidInputError
from bot_bottle.operator import hours, scopes, words
from bot_bottle.operator.hours import Hours

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bot_bottle.operator.words import Said


Verdict = Literal["approve", "reject", "ask", "notify"]
"""``ask`` is what happens without a rule, and overrides ``approve``. ``notify`` decides nothing and is only told."""

_MAX_BYTES = 256 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SCOPE = re.compile(r"once|bottle|uses:[1-9][0-9]{0,5}|for:[0-9]+(\.[0-9]+)?|until:\d{4}-\d\d-\d\dT\S+")
# What says of a proposal what it is about. Size and time of day, and whose it is, narrow a rule but never make one.
_ABOUT: Final = ("host_suffix", "path", "sha256")
_KEYS: Final = (
    *("name", "verdict", "scope", "reason", "until"),
    *("bottle", "tool", *_ABOUT, "max_bytes", "over_bytes", "time"),
)


class Rule(NamedTuple):
    """What it matches, all of it at once, and what is then done. Of several values of a kind one has to fit."""

    name: str
    verdict: Verdict
    scope: str | None = None
    reason: str = ""
    until: datetime | None = None
    """From then on it counts no more."""
    bottle: tuple[str, ...] = ()
    tool: tuple[str, ...] = ()
    host_suffix: tuple[str, ...] = ()
    """A host, and all below it."""
    path: tuple[str, ...] = ()
    """A path, and all below it: of requests for a route, of the file for a finding."""
    sha256: tuple[str, ...] = ()
    """Of the whole payload."""
    max_bytes: int | None = None
    over_bytes: int | None = None
    time: Hours | None = None
    everything: bool = False
    """Whatever the bottle asks for: of a bypass alone, no file can say it."""


class Policy(NamedTuple):
    """All rules, and the hash of the file that holds them; a host without a file has none."""

    rules: tuple[Rule, ...] = ()
    sha256: str = ""
    text: str = ""


def path() -> str:
    """Where the rules are."""
    return os.path.join(bot_bottle_root(), "policy.toml")


def read(known: Policy | None = None) -> Policy:
    """The rules of this host; ``known`` itself if the file is still the same.

    Raises:
        InvalidInputError: the file is not this user's alone to write, or something in it is not understood.
    """
    text = private_text(path())
    if known is not None and known.text == (text or ""):
        return known
    return Policy() if text is None else parse(text)


def parse(text: str) -> Policy:
    """The rules in ``text``.

    Raises:
        InvalidInputError: something in it is not understood; the message names it.
    """
    try:
        table = toml.loads(text)
    except ValueError as error:
        raise _wrong(str(error)) from None
    rules = tuple(_rules(table))
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise _wrong(f"two rules are named {name!r}; the log tells them apart by their names")
    return Policy(rules, sha256_hex(text), text)


def private_text(path: str) -> str | None:
    """The text of a file that decides something here; ``None`` without a file.

    Raises:
        InvalidInputError: others may write it, or it is not a regular file, too large, or not text.
    """

    def wrong(what: str) -> InvalidInputError:
        return InvalidInputError(f"{path}: {what}")

    try:
        # A file that never ends, or that another user may write, decides nothing here.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}") from None
    with open(descriptor, "rb") as file:
        of = os.fstat(file.fileno())
        if not stat.S_ISREG(of.st_mode):
            raise wrong("it is no regular file")
        if of.st_uid != os.geteuid():
            raise wrong("it belongs to another user")
        if of.st_mode & 0o077:
            raise wrong(f"others may read or write it; chmod 600 {path}")
        try:
            content = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise InvalidInputError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > _MAX_BYTES:
        raise wrong(f"it is larger than {_MAX_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise wrong(f"it is not UTF-8: {error}") from None


def _rules(table: Mapping[str, Any]) -> Iterator[Rule]:
    _only(table, ("rule", "bottle"), "the file")
    for each in _list(table.get("rule", []), "rule"):
        yield _rule(each, ())
    bottles = table.get("bottle", {})
    if not isinstance(bottles, dict):
        raise _wrong("bottle is not a table; a bottle's rule begins with [[bottle.SLUG.rule]]")
    for slug, layer in bottles.items():
        if not isinstance(layer, dict) or not _SLUG.fullmatch(slug):
            raise _wrong(f"bottle.{slug} is no bottle's table; a bottle's rule begins with [[bottle.SLUG.rule]]")
        _only(layer, ("rule",), f"[bottle.{slug}]")
        for each in _list(layer.get("rule", []), f"bottle.{slug}.rule"):
            if isinstance(each, dict) and "bottle" in each:
                raise _wrong(f"a rule of [[bottle.{slug}.rule]] is that bottle's; bottle has no place in it")
            yield _rule(each, (slug,))


def _rule(table: Any, bottle: tuple[str, ...]) -> Rule:
    if not isinstance(table, dict):
        raise _wrong("a rule begins with [[rule]] or [[bottle.SLUG.rule]]")
    name = table.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _wrong("each rule needs a name of letters, digits, blanks and ._-, at most 63 of them")
    where = f"rule {name!r}"
    _only(table, _KEYS, where)
    verdict = table.get("verdict", "ask")
    if verdict not in get_args(Verdict):
        raise _wrong(f"{where} needs verdict = one of {', '.join(get_args(Verdict))}")
    rule = Rule(
        name,
        verdict,
        _scope(table, where),
        _words(table, "reason", where),
        _end(table, where),
        bottle or _several(table, "bottle", where, _SLUG),
        _several(table, "tool", where, _SLUG),
        tuple(_host(each, where) for each in _several(table, "host_suffix", where)),
        tuple(_path(each, where) for each in _several(table, "path", where)),
        _several(table, "sha256", where, _SHA256),
        _bytes(table, "max_bytes", where),
        _bytes(table, "over_bytes", where),
        _time(table, where),
    )
    _bounded(rule, where)
    return rule


def _bounded(rule: Rule, where: str) -> None:
    """Refuses a rule that matches everything, or everything of a kind that it approves."""
    about = any(getattr(rule, key) for key in _ABOUT)
    if not (about or rule.tool):
        raise _wrong(f"{where} would match everything: it needs one of tool, {', '.join(_ABOUT)}")
    if rule.verdict == "approve":
        if not about:
            raise _wrong(f"{where} would approve whatever is asked with that tool: it needs one of {', '.join(_ABOUT)}")
        for host in rule.host_suffix:
            if "." not in host and ":" not in host:
                raise _wrong(f"{where} would approve every host below {host!r}; name a host")
        if any(scopes.needs_reason(tool) for tool in rule.tool) and not rule.reason:
            raise _wrong(f"{where} needs a reason: an approval of {', '.join(rule.tool)} is recorded with one")
    elif rule.scope:
        raise _wrong(f"{where} has a scope, which goes with verdict = 'approve' alone")
    if rule.verdict == "reject" and not rule.reason:
        raise _wrong(f"{where} needs a reason: the agent reads it")


def _scope(table: Mapping[str, Any], where: str) -> str | None:
    given = _words(table, "scope", where)
    scope = scopes.scope(given)
    if given and not _SCOPE.fullmatch(scope):
        raise _wrong(f"scope in {where} is not once, uses:N, for:2h, until:TIME or bottle: {given!r}")
    return scope or None


def _end(table: Mapping[str, Any], where: str) -> datetime | None:
    end = table.get("until")
    if end is not None and (not isinstance(end, datetime) or end.tzinfo is None):
        raise _wrong(f"until in {where} is no time with its zone, such as 2026-01-31T12:00:00Z (without quotes)")
    return end


def _several(table: Mapping[str, Any], key: str, where: str, form: re.Pattern[str] | None = None) -> tuple[str, ...]:
    value = table.get(key, [])
    found = [value] if isinstance(value, str) else value
    if key in table and not found:
        raise _wrong(f"{key} in {where} is empty, which would match everything; leave it out, or say which")
    if not isinstance(found, list) or not all(isinstance(each, str) and each.strip() for each in found):
        raise _wrong(f"{key} in {where} is neither text nor a list of texts")
    for each in found:
        if form is not None and not form.fullmatch(each):
            raise _wrong(f"{key} in {where} cannot be {each!r}")
    return tuple(found)


def _host(host: str, where: str) -> str:
    try:
        return canonical_host(host.removeprefix("*").removeprefix("."))
    except ValueError as error:
        raise _wrong(f"host_suffix in {where}: {error}") from None


def _path(text: str, where: str) -> str:
    if not text.strip("/") or ".." in text.split("/"):
        raise _wrong(f"path in {where} cannot be {text!r}: it would match everything, or more than it says")
    return text.rstrip("/")


def _bytes(table: Mapping[str, Any], key: str, where: str) -> int | None:
    value = table.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise _wrong(f"{key} in {where} is no number of bytes")
    return value


def _time(table: Mapping[str, Any], where: str) -> Hours | None:
    if "time" not in table:
        return None
    try:
        return hours.parse(table["time"])
    except (AttributeError, ValueError):
        raise _wrong(f'time in {where} is not of the form "09:00-18:00": {table["time"]!r}') from None


def _words(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str) or (key in table and not value.strip()) or len(value) > 1000:
        raise _wrong(f"{key} in {where} is no text, or empty, or longer than 1,000 characters")
    return str(value)


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(f"{where} is no list; a rule begins with [[{where}]]")
    return value


def _only(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            raise _wrong(f"{key} in {where} is not known there; known are {', '.join(known)}")


def _wrong(what: str) -> InvalidInputError:
    return InvalidInputError(f"{path()}: {what}")


def described(rule: Rule) -> tuple[str, str, Said]:
    """Its verdict, what it matches, and when it ends, in words."""
    scope = f"{words.grant(rule.scope)}" if rule.scope else ""
    ends = words.lapse(rule.until.isoformat() if rule.until else None)
    return f"{rule.verdict}{scope}", _conditions(rule), ends


def _conditions(rule: Rule) -> str:
    parts = [
        f"{name} {' | '.join(values)}"
        for name, values in (
            ("bottle", rule.bottle),
            ("tool", rule.tool),
            ("host", rule.host_suffix),
            ("path", rule.path),
            ("sha256", [each[:16] for each in rule.sha256]),
        )
        if values
    ]
    if rule.max_bytes is not None:
        parts.append(f"at most {rule.max_bytes:,} bytes")
    if rule.over_bytes is not None:
        parts.append(f"over {rule.over_bytes:,} bytes")
    if rule.time is not None:
        parts.append("{:02}:{:02}-{:02}:{:02}".format(*divmod(rule.time[0], 60), *divmod(rule.time[1], 60)))
    return ", ".join(parts)
