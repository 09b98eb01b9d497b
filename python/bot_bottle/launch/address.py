"""Where does the broker listen, and how does a bottle's launch learn it?

``bot-bottle serve`` writes it down in ``<root>/broker.json`` when it listens, and leaves it there: a bottle that is
started while the broker is not running is told where it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Final, NamedTuple

from bot_bottle._native import bot_bottle_root
from bot_bottle.errors import InvalidInputError

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 9101
SOCKET_NAME: Final = "broker.sock"


class Address(NamedTuple):
    """TCP ``host`` and ``port``, whether TLS is spoken there, and the path of the unix socket."""

    host: str
    port: int
    tls: bool
    socket: str

    def url(self, host: str | None = None) -> str:
        """The TCP listener's, as ``host`` where the client knows it by another name."""
        name = host or self.host
        return f"http{'s' if self.tls else ''}://{f'[{name}]' if ':' in name else name}:{self.port}"


def parse(text: str) -> tuple[str, int]:
    """``ADDR:PORT``, an IPv6 address in brackets, as the pair.

    Raises:
        InvalidInputError: it is not of that form.
    """
    host, _, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise InvalidInputError(f"{text!r} is not an address and port such as {DEFAULT_HOST}:{DEFAULT_PORT}")
    return host, int(port)


def socket_dir() -> Path:
    """Holds nothing but the broker's socket and its lock: a container gets this directory, as a new socket after a
    restart is another file, which a mount of the socket itself would not show."""
    return Path(bot_bottle_root(), "broker")


def default_socket() -> Path:
    """``<root>/broker/broker.sock``; ``<root>/broker.sock`` leads to it."""
    return socket_dir() / SOCKET_NAME


def link_default_socket() -> None:
    """Makes ``<root>/broker.sock``, as the database's well-known path leads to where it really lies."""
    socket_dir().mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        Path(bot_bottle_root(), SOCKET_NAME).symlink_to(Path(socket_dir().name, SOCKET_NAME))


def certificate_file() -> Path:
    """The host's certificate, once there is one; its key is beside it."""
    return Path(bot_bottle_root(), "tls", "cert.pem")


def remember(address: Address) -> None:
    """Writes it down for launches to come."""
    target = _file()
    temporary = target.with_suffix(f".{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w") as file:
        json.dump(address._asdict(), file)
    os.replace(temporary, target)


def recall() -> Address:
    """The last one written down, or the default."""
    with contextlib.suppress(FileNotFoundError):
        try:
            return Address(**json.loads(_file().read_text()))
        except (ValueError, TypeError):
            raise InvalidInputError(f"{_file()} is damaged; remove it and start 'bot-bottle serve' again") from None
    return Address(DEFAULT_HOST, DEFAULT_PORT, False, str(default_socket()))


def answers(path: str) -> bool:
    """Whether somebody listens on the unix socket at ``path``."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        try:
            client.connect(path)
        except OSError:
            return False
    return True


def _file() -> Path:
    return Path(bot_bottle_root(), "broker.json")
