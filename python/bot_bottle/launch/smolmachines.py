"""How does smolvm run the sidecars of a bottle? In a machine of its own, so only through the broker.

The flags are those of ``smolvm machine create``, ``start`` and ``run`` (smolvm 1.9). Machines that name the same
network reach each other on it; everything else a machine sends passes through its own gateway on the host.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from bot_bottle.errors import InvalidInputError
from bot_bottle.launch.backend import IMAGE, names, require_broker
from bot_bottle.launch.plan import Plan

# A machine's gateway answers to it and relays to the loopback (crates/smolvm-network/src/dns.rs).
HOST: Final = "host.smolvm.internal"
_NOBODY = "192.0.2.1"
# Narrower than a slug (smolvm, src/data/mod.rs: validate_vm_name).
_NAME = re.compile(r"[a-zA-Z0-9](?:-?[a-zA-Z0-9_])*")


def start(plan: Plan, *, image: str = IMAGE, passed: Sequence[str] = ()) -> list[list[str]]:
    """As :meth:`Backend.start`; a local image is a ``docker save`` archive such as ``./x.tar``."""
    require_broker(plan, "smolvm")
    called = names(plan.slug)
    if not _NAME.fullmatch(called.sidecars):
        raise InvalidInputError(
            f"smolvm cannot call a machine {called.sidecars!r}: choose a slug of letters, digits, _ and single hyphens"
        )
    create = ["smolvm", "machine", "create", "--name", called.sidecars, "--image", image]
    create += ["--net", "--network", called.inside, "--label", f"bot-bottle={plan.slug}"]
    for host, guest, mode in plan.mounts:
        create += ["--volume", f"{host}:{guest}:{mode}"]
    for name, value in plan.environment.items():
        create += ["--env", f"{name}={value}"]
    for name in passed:
        create += ["--secret-env", f"{name}={name}"]
    return [create, ["smolvm", "machine", "start", "--name", called.sidecars]]


def agent(plan: Plan) -> list[str]:
    """As :meth:`~bot_bottle.launch.backend.Backend.agent`."""
    command = ["smolvm", "machine", "run", "-it", "--network", names(plan.slug).inside]
    # A network brings a gateway, which would relay to the internet and to this host's loopback: it may reach one
    # address that is nobody's (RFC 5737), and ask no other for names.
    return [*command, "--allow-cidr", f"{_NOBODY}/32", "--dns", _NOBODY, "--unprivileged", "--image"]


def stop(slug: str) -> list[list[str]]:
    """As :meth:`~bot_bottle.launch.backend.Backend.stop`."""
    sidecars = names(slug).sidecars
    return [
        ["smolvm", "machine", "stop", "--name", sidecars],
        ["smolvm", "machine", "delete", "--name", sidecars, "--force"],
    ]
