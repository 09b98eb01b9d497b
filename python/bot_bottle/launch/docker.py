"""How does Docker run a bottle?

Two networks: the agent's container is on the inner one alone, which leads nowhere; the sidecars are on both. Two
volumes: the sidecars' state, and the certificate of the egress proxy, which the agent has to trust. Only the sidecars
get the database's directory. Docker Engine on Linux shares the kernel, so the file is safe there; on Docker Desktop the
sidecars find themselves on a foreign filesystem and refuse to open it.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bot_bottle.launch.backend import IMAGE, names
from bot_bottle.launch.coders import HOME, WORKSPACE
from bot_bottle.launch.plan import Agent, Plan

# On macOS every Docker Engine runs in a VM (docs.docker.com/desktop/features/networking).
HOST: Final = "host.docker.internal" if sys.platform == "darwin" else None
# What the agent calls the sidecars; one container answers to all three.
_ALIASES: Final = ("supervise", "egress", "git-gate")
# Where Dockerfile.sidecars has its daemons keep and publish things.
_STATE: Final = "/var/lib/bot-bottle"
_CA: Final = "/run/egress"
# Each of these makes some family of clients trust the proxy's certificate.
_TRUST: Final = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS")

# Both forms of a bottle, commands and Compose, come from these; the keys are Compose's.
_SIDECARS: Final[Mapping[str, Any]] = {
    "read_only": True,
    "tmpfs": ["/tmp"],  # noqa: S108 (a path in the container)
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    # A container inherits its host's forwarding, and this one is on both networks: without it, an agent that writes raw
    # frames would have a router.
    "sysctls": {"net.ipv4.ip_forward": "0"},
}
_AGENT: Final[Mapping[str, Any]] = {
    "cap_drop": ["NET_RAW"],
    # Engines before 25 answer names on an inner network through the host's resolver: a way out (CVE-2024-29018). With a
    # server of its own, which is not there, the agent learns the names of its network only.
    "dns": ["127.0.0.1"],
}
# Without an address of the host's on it: an inner network leads to whatever listens there on all addresses.
_INSIDE: Final = {"com.docker.network.bridge.inhibit_ipv4": "true"}
_OPTIONS: Final = {
    "cap_drop": "--cap-drop",
    "dns": "--dns",
    "driver_opts": "--opt",
    "environment": "--env",
    "read_only": "--read-only",
    "security_opt": "--security-opt",
    "sysctls": "--sysctl",
    "tmpfs": "--tmpfs",
    "user": "--user",
}


def start(plan: Plan, *, image: str = IMAGE, passed: Sequence[str] = ()) -> list[list[str]]:
    """As :meth:`bot_bottle.launch.backend.Backend.start`."""
    called = names(plan.slug)
    create = ["docker", "create", "--name", called.sidecars, "--network", called.inside]
    for alias in _ALIASES:
        create += ["--network-alias", alias]
    create += _options(_sidecars(plan, passed))
    for mount in _sidecar_mounts(plan, called.state, called.ca):
        create += ["--mount", _csv(mount)]
    return [
        ["docker", "network", "create", "--internal", *_options({"driver_opts": _INSIDE}), called.inside],
        ["docker", "network", "create", called.outside],
        # Created, connected, then started: a daemon never sees a moment without its way out.
        [*create, image],
        ["docker", "network", "connect", called.outside, called.sidecars],
        ["docker", "start", called.sidecars],
    ]


def agent(plan: Plan) -> list[str]:
    """As :meth:`bot_bottle.launch.backend.Backend.agent`."""
    called = names(plan.slug)
    run = ["docker", "run", "--rm", "-it", "--name", called.agent, "--network", called.inside]
    return [*run, *_options(_agent(plan)), "--mount", _csv(_ca_mount(called.ca, read_only=True))]


def create_agent(plan: Plan, agent: Agent) -> list[str]:
    """The command that makes the agent's container, with its workspace and its home directory; it does not start it."""
    called = names(plan.slug)
    create = ["docker", "create", "--rm", "-it" if agent.terminal else "-i", "--init", "--name", called.agent]
    create += ["--network", called.inside, *_options(_whole_agent(plan, agent)), "--workdir", WORKSPACE]
    for mount in _agent_mounts(agent, called.ca, called.home):
        create += ["--mount", _csv(mount)]
    if agent.command:
        create += ["--entrypoint", agent.command[0]]
    return [*create, agent.image, *agent.command[1:]]


def stop(slug: str) -> list[list[str]]:
    """As :meth:`bot_bottle.launch.backend.Backend.stop`."""
    called = names(slug)
    return [
        ["docker", "stop", called.sidecars],
        ["docker", "rm", called.sidecars],
        ["docker", "network", "rm", called.inside, called.outside],
    ]


def compose(
    plan: Plan, *, image: str = IMAGE, agent_image: str = "", passed: Sequence[str] = (), agent: Agent | None = None
) -> dict[str, Any]:
    """The whole bottle as a Compose file, JSON-ready (JSON is YAML).

    Args:
        agent: with a workspace and a home directory, instead of ``agent_image`` alone.

    Raises: as :func:`start`.
    """
    called = names(plan.slug)
    service: dict[str, Any] = {"image": agent_image, "volumes": [_ca_mount("ca", read_only=True)], **_agent(plan)}
    if agent is not None:
        service = {
            "image": agent.image,
            "volumes": _agent_mounts(agent, "ca", "home"),
            "working_dir": WORKSPACE,
            "init": True,
            "stdin_open": True,
            "tty": agent.terminal,
            **({"entrypoint": [agent.command[0]], "command": list(agent.command[1:])} if agent.command else {}),
            **_whole_agent(plan, agent),
        }
    return {
        "services": {
            "sidecars": {
                "image": image,
                "container_name": called.sidecars,
                "networks": {"inside": {"aliases": list(_ALIASES)}, "outside": {}},
                "volumes": _sidecar_mounts(plan, "state", "ca"),
                **_sidecars(plan, passed),
            },
            "agent": {
                "container_name": called.agent,
                "depends_on": ["sidecars"],
                "networks": ["inside"],
                **service,
            },
        },
        "networks": {
            "inside": {"name": called.inside, "internal": True, "driver_opts": _INSIDE},
            "outside": {"name": called.outside},
        },
        "volumes": {
            "state": {"name": called.state},
            "ca": {"name": called.ca},
            **({"home": {"name": called.home}} if agent is not None and agent.home is None else {}),
        },
    }


def _sidecars(plan: Plan, passed: Sequence[str]) -> dict[str, Any]:
    return {**_SIDECARS, "user": plan.user, "environment": {**plan.environment, **dict.fromkeys(passed)}}


def _agent(plan: Plan) -> dict[str, Any]:
    proxy = f"http://egress:{plan.ports['egress']}"
    environment = {
        **{name: proxy for each in ("http_proxy", "https_proxy") for name in (each, each.upper())},
        # The others are spoken to directly.
        **dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1,supervise,git-gate"),
        **dict.fromkeys(_TRUST, f"{_CA}/ca.pem"),
    }
    return {**_AGENT, "environment": environment}


def _whole_agent(plan: Plan, agent: Agent) -> dict[str, Any]:
    settings = _agent(plan)
    environment = {**settings["environment"], "HOME": HOME, **agent.environment}
    return {**settings, "user": agent.user, "environment": environment}


def _agent_mounts(agent: Agent, ca: str, home: str) -> list[dict[str, Any]]:
    return [
        _ca_mount(ca, read_only=True),
        {"type": "bind" if agent.home else "volume", "source": agent.home or home, "target": HOME},
        {"type": "bind", "source": agent.workspace, "target": WORKSPACE},
    ]


def _sidecar_mounts(plan: Plan, state: str, ca: str) -> list[dict[str, Any]]:
    return [
        *(
            {"type": "bind", "source": host, "target": container, "read_only": mode == "ro"}
            for host, container, mode in plan.mounts
        ),
        {"type": "volume", "source": state, "target": _STATE},
        _ca_mount(ca, read_only=False),
    ]


def _ca_mount(ca: str, *, read_only: bool) -> dict[str, Any]:
    return {"type": "volume", "source": ca, "target": _CA, "read_only": read_only}


def _options(settings: Mapping[str, Any]) -> list[str]:
    """Settings of a Compose service as options of ``docker create``; a variable without a value is passed on."""
    options: list[str] = []
    for key, value in settings.items():
        if isinstance(value, dict):
            texts = [name if text is None else f"{name}={text}" for name, text in value.items()]
        else:
            texts = [value] if isinstance(value, str) else value
        options += [_OPTIONS[key]] if value is True else [word for text in texts for word in (_OPTIONS[key], text)]
    return options


def _csv(mount: Mapping[str, Any]) -> str:
    """The value of ``--mount``: a line of CSV, so that a path may hold a comma. (``-v`` would make what is missing.)"""
    fields = [f"{key}={mount[key]}" for key in ("type", "source", "target")]
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([*fields, *(["readonly"] if mount.get("read_only") else [])])
    return line.getvalue()
