"""Where is the dashboard served, and is it right now?

A process that serves it holds the lock in ``<root>/operator`` and has written down its address there. The lock tells
a dashboard from another program that took its port: nobody else can hold it, and it ends with the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from bot_bottle import InvalidInputError, bot_bottle_root

DEFAULT: Final = "127.0.0.1:9102"


class Address(NamedTuple):
    """What a browser opens, the unix socket if there is no TCP port, and the process that serves it."""

    url: str
    socket: str | None
    pid: int


def directory() -> Path:
    """``<root>/operator``, 0700: whoever can write here can log in."""
    path = Path(bot_bottle_root(), "operator")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def lock() -> Iterator[None]:
    """Holds the lock of this root's dashboard.

    Raises:
        InvalidInputError: another process holds it.
    """
    descriptor = os.open(directory() / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidInputError(
                "another process serves this root's dashboard; 'bot-bottle dashboard' leads to it, "
                "and 'bot-bottle dashboard --stop' ends it"
            ) from None
        (directory() / "address.json").unlink(missing_ok=True)
        yield
    finally:
        os.close(descriptor)


def remember(address: Address) -> None:
    """Writes it down for ``running``; the lock is held."""
    write_privately(directory() / "address.json", json.dumps(address._asdict()))


def running() -> Address | None:
    """Where the dashboard is served; ``None`` if no process serves it."""
    folder = directory()
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        # Shared, so that two who ask at once do not take each other for a server.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Address(**json.loads((folder / "address.json").read_text()))
        return None  # it is about to write it
    finally:
        os.close(descriptor)
    return None


def write_privately(path: Path, text: str) -> None:
    """A file of 0600 with this content, there at once or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    os.replace(temporary, path)
