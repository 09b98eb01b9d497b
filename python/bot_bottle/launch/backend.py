"""How does a plan become the commands of one tool? Each module here answers for its tool; what they share is here.

``Supervise.prepare`` decides what the sidecars of a bottle need, a ``Plan``. A backend says the same in the words of
its tool: pure functions from a plan to argument vectors, which ``bot-bottle bottle start`` prints or runs in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Final, NamedTuple, Protocol

from bot_bottle.errors import InvalidInputError, UnsafeMountError
from bot_bottle.launch.plan import Plan

IMAGE: Final = "bot-bottle-sidecars"
_MODULES: Final = {
    "docker": "docker",
    "smolmachines": "smolmachines",
    "macos-container": "macos_container",
}
NAMES: Final = tuple(_MODULES)


class Names(NamedTuple):
    """What a bottle's parts are called in its tool.

    A slug may contain any separator, so the part that says what is named comes before the slug.
    """

    sidecars: str
    agent: str
    inside: str
    outside: str
    state: str
    ca: str
    home: str


def names(slug: str) -> Names:
    """The names of the two containers (or machines), the two networks and the three volumes of a bottle."""
    return Names(*(f"bot-bottle-{part}-{slug}" for part in ("sidecars", "agent", "in", "out", "state", "ca", "home")))


class Backend(Protocol):
    """What each module offers."""

    HOST: str | None
    """The name by which the sidecars reach this machine's loopback; ``None`` where they share its kernel."""

    @staticmethod
    def start(plan: Plan, *, image: str = IMAGE, passed: Sequence[str] = ()) -> list[list[str]]:
        """The commands that start the sidecars, in order.

        Args:
            image: what they run from, as the tool names images.
            passed: variables of the caller's environment that the sidecars get as well, the tokens that ``routes.yaml``
                refers to. Their values stand in no command.

        Raises:
            InvalidInputError: the slug or a path cannot be written in the tool's words.
            UnsafeMountError: the tool runs a VM, and the plan has no broker.
        """

    @staticmethod
    def agent(plan: Plan) -> list[str]:
        """The command that runs the agent beside them, up to the image; it has none of the plan's mounts."""

    @staticmethod
    def stop(slug: str) -> list[list[str]]:
        """The commands that end what ``start`` began, in order; the sidecars' own state (keys, mirrors) is kept."""


def load(name: str) -> Backend:
    """The backend of that name.

    Raises:
        InvalidInputError: there is no backend of this name.
    """
    if name not in _MODULES:
        raise InvalidInputError(f"there is no backend {name!r}: it is one of {', '.join(NAMES)}")
    backend: Backend = import_module(f"bot_bottle.launch.{_MODULES[name]}")  # type: ignore[assignment]
    return backend


def require_broker(plan: Plan, tool: str) -> None:
    """Lets only a plan with a broker pass: a VM shares neither the memory nor the locks of a SQLite file with its host.

    Raises:
        UnsafeMountError: it has none.
    """
    if plan.broker_url is None:
        raise UnsafeMountError(
            f"{tool} runs the sidecars of {plan.slug} in a VM, where writing the database as a file would corrupt it: "
            "they need the host's broker, and this plan has none; prepare it with transport 'broker'",
            path=plan.db_dir,
            filesystem="virtiofs",
        )
