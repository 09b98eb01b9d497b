"""In which state are a bottle's sidecars? The registration says what was asked for; the engine knows what is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from bot_bottle.errors import BotBottleError
from bot_bottle.launch import client
from bot_bottle.launch.backend import names

_PATIENCE: Final = 30


class Sidecars(NamedTuple):
    """The sidecars of a bottle as they are."""

    state: str
    """``registered`` (there are none), ``created``, ``starting``, ``healthy``, ``degraded``, ``ended``, another word of
    the engine's, or ``unknown`` (it could not be asked)."""
    since: str | None = None
    """RFC 3339, UTC."""
    detail: str = ""
    """Why, in one line; what a daemon has written may be part of it."""


_SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def ask(bottles: Iterable[tuple[str, str]]) -> dict[str, Sidecars]:
    """The sidecars of each bottle, by slug.

    Args:
        bottles: slug and backend of each.
    """
    # An invalid name must not become part of a command line.
    known = {slug: tool for slug, tool in bottles if _SLUG.fullmatch(slug)}
    found = {slug: Sidecars("unknown", None, f"{tool} is not asked yet") for slug, tool in known.items()}
    return found | _docker([slug for slug, tool in known.items() if tool == "docker"])


def _docker(slugs: Sequence[str]) -> dict[str, Sidecars]:
    if not slugs:
        return {}
    containers = {names(slug).sidecars: slug for slug in slugs}
    inspected, problem = _said("container", "inspect", *containers)
    # It names each that is not there; anything else is about the engine itself.
    others = [line for line in problem.splitlines() if line.strip() and "no such container" not in line.lower()]
    if others:
        return dict.fromkeys(slugs, Sidecars("unknown", None, others[0]))
    found = dict.fromkeys(slugs, Sidecars("registered", None, "it has no sidecars"))
    try:
        for each in json.loads(inspected or "[]"):
            name = each["Name"].lstrip("/")
            found[containers[name]] = _read(name, each["State"], each["Created"])
    except (ValueError, TypeError, KeyError):
        # Another program of that name, or one whose words have changed.
        return dict.fromkeys(slugs, Sidecars("unknown", None, "docker's answer cannot be read"))
    return found


def _read(name: str, state: dict[str, Any], created: str) -> Sidecars:
    """A container's state in bot-bottle's words (docs.docker.com/reference/api/engine, ContainerInspect)."""
    status, health = state["Status"], state.get("Health") or {}
    if status == "created":
        return Sidecars("created", _time(created))
    if status in ("exited", "dead"):
        last = f", its last words: {words}" if (words := _last_line(name)) else ""
        return Sidecars("ended", _time(state["FinishedAt"]), f"with exit code {state['ExitCode']}{last}")
    verdict = health.get("Status", "none")
    if status != "running" or verdict == "none":
        return Sidecars(status, _time(state["StartedAt"]))
    if verdict != "unhealthy":
        return Sidecars(verdict, _time(state["StartedAt"]))
    # The engine keeps the last few checks.
    failed: list[dict[str, Any]] = []
    for check in reversed(health.get("Log") or []):
        if check["ExitCode"] == 0:
            break
        failed.append(check)
    since = _time(failed[-1]["Start"]) if failed else None
    output = failed[0]["Output"].strip().splitlines() if failed else []
    words = _last_line(name)
    reasons = [*output[-1:], *([f"the last line of the log: {words}"] if words else [])]
    return Sidecars("degraded", since, "; ".join(reasons))


def _last_line(container: str) -> str:
    out, err = _said("logs", "--tail", "1", container)
    return (out + err).strip().rsplit("\n", 1)[-1]


def _said(*words: str) -> tuple[str, str]:
    """What the engine's client says on standard output and on standard error, which is empty if all went well."""
    try:
        done = client.attempt(*words, patience=_PATIENCE)
    except BotBottleError as error:
        return "", error.message
    # A program that draws over its line has written several.
    out, err = (said.decode(errors="replace").replace("\r", "\n") for said in (done.stdout, done.stderr))
    return out, err


def _time(text: str) -> str:
    """A time of the engine's to the second: it writes nanoseconds, and its own offset where it has one."""
    from datetime import datetime, timezone

    head, _, tail = text.partition(".")
    offset = tail.lstrip("0123456789") if tail else ""
    plain = head.removesuffix("Z") + (offset.removesuffix("Z") or ("+00:00" if tail or head.endswith("Z") else ""))
    moment = datetime.fromisoformat(plain)
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
