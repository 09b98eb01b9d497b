"""How is something that a host needs only once, such as telling its operator, done by a single process?"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from bot_bottle import bot_bottle_root
from bot_bottle.errors import InvalidInputError


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Holds the right to run ``bot-bottle NAME run`` on this host; it ends with the process.

    Raises:
        InvalidInputError: another process holds it.
    """
    os.makedirs(bot_bottle_root(), mode=0o700, exist_ok=True)
    with open(os.path.join(bot_bottle_root(), f"{name}.lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidInputError(f"another 'bot-bottle {name} run' is at work on this host already") from None
        yield


def running(name: str) -> bool:
    """Is such a process running?"""
    try:
        with alone(name):
            return False
    except InvalidInputError:
        return True
