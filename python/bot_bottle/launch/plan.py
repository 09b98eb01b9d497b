"""How are a bottle's sidecars to be launched? The plan, which every backend turns into the words of its tool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from bot_bottle.states import Transport

BOTTLE_DIR_IN_CONTAINER: Final = "/run/bottle"
TOKEN_DIR_IN_CONTAINER: Final = "/run/token"  # noqa: S105 (a path)
BROKER_DIR_IN_CONTAINER: Final = "/run/broker"
KEYS_DIR_IN_CONTAINER: Final = "/run/keys"


class Plan(NamedTuple):
    """How a bottle's sidecars are to be launched; ``bot_bottle.launch`` turns it into a tool's arguments.

    ``mounts`` are (host directory, directory in the container, ``rw`` or ``ro``) for the sidecars. The agent's own
    container gets none of them.
    """

    slug: str
    backend: str
    db_dir: str
    """Host directory that holds the database; mounted at ``/run/supervise`` where that is the transport."""
    bottle_dir: str
    """Host directory of the bottle's own files (``routes.yaml``, …), read-only in the sidecars."""
    environment: dict[str, str]
    user: str
    """``uid:gid`` of the host user, so that the sidecars can write the 0600 database."""
    mounts: tuple[tuple[str, str, str], ...]
    ports: dict[str, int]
    """Daemon to the port it listens on inside the bundle."""
    transport: Transport = "mount"
    """How the sidecars reach the queue: ``mount``, the database's directory, or ``broker``, the host's HTTP service."""
    why: str = ""
    """Why that transport, in a few words for the operator."""
    broker_url: str | None = None
    """With the broker: where the sidecars find it."""
    token_file: str | None = None
    """With the broker: host path of the 0600 file with the bottle's token."""


class Agent(NamedTuple):
    """How the agent's own container is to be made, beside the sidecars of a plan."""

    image: str
    command: tuple[str, ...]
    """Empty: what the image starts."""
    user: str
    """``uid:gid`` of the workspace's owner."""
    workspace: str
    """Host directory."""
    environment: Mapping[str, str | None]
    """Besides the proxy's; ``None``: the caller's value, by name."""
    terminal: bool
    home: str | None = None
    """Host directory; ``None``: a volume of the bottle's."""
