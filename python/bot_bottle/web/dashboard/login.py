"""Who may use the dashboard? Whoever can write into ``<root>/operator``, by a link that works once.

The command line leaves a link's hash there; the server takes it away as it is used, which the file system lets happen
once, whoever asks at the same time and whatever was restarted meanwhile. In return there are two secrets, and both are
needed. The cookie is what no script can read, but browsers do not keep cookies apart by port: any other server on this
machine's loopback would be sent it. The page key is kept by the page's own origin, port included, and sent as a
header, which no form and no other origin can do. On the disk there are only hashes of them.

A program has a token instead, from a file of 0600, which it sends as a bearer. No browser sends one by itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

from bot_bottle import InvalidInputError
from bot_bottle.web.dashboard import address

LINK_SECONDS: Final = 120
SESSION_SECONDS: Final = 12 * 3600
PAGE_HEADER: Final = "x-bot-bottle-page"

_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")


class Session(NamedTuple):
    """A login: the two secrets, and when they end (seconds since 1970)."""

    cookie: str
    page_key: str
    ends: float


class Who(NamedTuple):
    """Somebody who may use the operator's side: until when, and in whose name they decide (``None``: in that of the
    system's user who serves it)."""

    ends: float
    name: str | None = None


def checked_name(name: str) -> str:
    """``name`` if an operator may be called so.

    Raises:
        InvalidInputError: not so.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInputError(f"an operator's name is 1 to 63 letters, digits or . _ @ -, unlike {name[:80]!r}")
    return name


def make_link(url: str, name: str | None = None) -> str:
    """A link that logs one browser in, once, within two minutes, to decide in the name of ``name``. The secret is in
    its fragment, which browsers send to nobody and keep out of logs and referrers."""
    secret = secrets.token_urlsafe(32)
    _store("links", secret, {"ends": time.time() + LINK_SECONDS, "name": name})
    return f"{url}/login#{secret}"


def use_link(secret: str) -> Session | None:
    """The session that a link leads to; ``None`` if it was used, is too old or was never made."""
    if not _SECRET.fullmatch(secret):
        return None
    path = _file("links", secret)
    link = _read(path)
    try:
        path.unlink()
    except FileNotFoundError:
        return None
    if link is None or link["ends"] < time.time():
        return None
    _sweep()
    made = Session(secrets.token_urlsafe(32), secrets.token_urlsafe(32), time.time() + SESSION_SECONDS)
    _store("sessions", made.cookie, {"ends": made.ends, "page": _hash(made.page_key), "name": link.get("name")})
    return made


def check(cookie: str, page_key: str | None = None) -> Who | None:
    """Who has the session with this cookie; ``None`` if nobody has, or if a page key is given and is not its own."""
    if not _SECRET.fullmatch(cookie):
        return None
    session = _read(_file("sessions", cookie))
    if session is None or session["ends"] < time.time():
        return None
    if page_key is not None and not hmac.compare_digest(_hash(page_key), str(session.get("page"))):
        return None
    return Who(session["ends"], session.get("name"))


def make_token(name: str, lasts: float) -> str:
    """A secret with which a program decides in the name of ``name``, for so many seconds."""
    secret = secrets.token_urlsafe(32)
    _store("tokens", secret, {"ends": time.time() + lasts, "name": checked_name(name), "made": time.time()})
    return secret


def check_token(secret: str) -> Who | None:
    """Who has this token; ``None`` if it has ended or never existed."""
    token = _read(_file("tokens", secret)) if _SECRET.fullmatch(secret) else None
    return None if token is None or token["ends"] < time.time() else Who(token["ends"], token.get("name"))


def tokens() -> list[dict[str, Any]]:
    """The tokens that still open something: ``name``, ``made`` and ``ends``, oldest first."""
    _sweep()
    with contextlib.suppress(FileNotFoundError):
        found = [_read(each) for each in (address.directory() / "tokens").iterdir()]
        return sorted((each for each in found if each is not None), key=lambda each: each["made"])
    return []


def end_tokens(name: str) -> int:
    """Ends the tokens of ``name``; how many there were."""
    ended = 0
    with contextlib.suppress(FileNotFoundError):
        for path in (address.directory() / "tokens").iterdir():
            if (_read(path) or {}).get("name") == name:
                path.unlink(missing_ok=True)
                ended += 1
    return ended


def end(cookie: str) -> None:
    """Logs out."""
    if _SECRET.fullmatch(cookie):
        _file("sessions", cookie).unlink(missing_ok=True)


def cookie_name() -> str:
    """Each root has its own, because two hosts that are tunnelled to one machine would overwrite each other's."""
    return f"bot_bottle_{_hash(str(address.directory()))[:8]}"


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _file(kind: str, secret: str) -> Path:
    return address.directory() / kind / _hash(secret)


def _store(kind: str, secret: str, content: dict[str, float | str | None]) -> None:
    path = _file(kind, secret)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    address.write_privately(path, json.dumps(content))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
        return found if isinstance(found["ends"], float) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _sweep() -> None:
    """Removes what has ended."""
    for kind in ("links", "sessions", "tokens"):
        with contextlib.suppress(FileNotFoundError), os.scandir(address.directory() / kind) as found:
            for each in found:
                content = _read(Path(each.path))
                if content is not None and content["ends"] < time.time():
                    Path(each.path).unlink(missing_ok=True)
