"""How does Apple's `container` run the sidecars of a bottle? In a VM of their own, so only through the broker.

The flags are those of ``container run`` and ``container network create`` (container 1.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bot_bottle.errors import InvalidInputError
from bot_bottle.launch.backend import IMAGE, names, require_broker
from bot_bottle.launch.plan import Plan

# Once for a Mac: sudo container system dns create host.container.internal --localhost 203.0.113.113 (docs/broker.md).
HOST: Final = "host.container.internal"
# The name of a container is a DNS label (ManagedContainer.nameValid).
_LONGEST_NAME = 63
# The bundle gives its daemons 8 s; the tool would kill it after 5.
_STOP_SECONDS = "10"


def start(plan: Plan, *, image: str = IMAGE, passed: Sequence[str] = ()) -> list[list[str]]:
    """As :meth:`bot_bottle.launch.backend.Backend.start`."""
    require_broker(plan, "container")
    called = names(plan.slug)
    if len(called.sidecars) > _LONGEST_NAME:
        longest = _LONGEST_NAME - len(called.sidecars) + len(plan.slug)
        raise InvalidInputError(f"slug {plan.slug!r} is too long for a container's name: at most {longest} characters")
    run = ["container", "run", "--detach", "--name", called.sidecars, "--user", plan.user]
    # The first network is the one with the way out.
    run += ["--network", "default", "--network", called.inside]
    run += ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]  # noqa: S108 (a path in the container)
    for host, container, mode in plan.mounts:
        if ":" in host:
            raise InvalidInputError(f"container cannot mount {host!r}: the colon separates; move it elsewhere")
        run += ["--volume", f"{host}:{container}" + (":ro" if mode == "ro" else "")]
    for name, value in plan.environment.items():
        run += ["--env", f"{name}={value}"]
    for name in passed:
        run += ["--env", name]
    return [["container", "network", "create", "--internal", called.inside], [*run, image]]


def agent(plan: Plan) -> list[str]:
    """As :meth:`bot_bottle.launch.backend.Backend.agent`."""
    called = names(plan.slug)
    return ["container", "run", "--rm", "-it", "--name", called.agent, "--network", called.inside]


def stop(slug: str) -> list[list[str]]:
    """As :meth:`bot_bottle.launch.backend.Backend.stop`."""
    called = names(slug)
    return [
        ["container", "stop", "--time", _STOP_SECONDS, called.sidecars],
        ["container", "delete", called.sidecars],
        ["container", "network", "delete", called.inside],
    ]
