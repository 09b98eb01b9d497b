"""What may be written on the command line, and what does it mean?"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from bot_bottle import BottleStore, Inbox
from bot_bottle.errors import BotBottleError

F = TypeVar("F", bound=Callable[..., Any])

_SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w|)")


def seconds_of(text: str) -> float | None:
    """``90``, ``90s``, ``15m``, ``2h``, ``30d`` or ``1w`` in seconds; ``None`` for anything else."""
    found = _DURATION.fullmatch(text.strip().lower())
    return float(found[1]) * _SECONDS[found[2]] if found else None


class Duration(click.ParamType):
    """A length of time; the value is in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = value if isinstance(value, float) else seconds_of(value)
        if seconds is None:
            self.fail(f"'{value}' is not a duration such as 90s, 15m, 2h, 30d or 1w.", param, ctx)
        return seconds


class Moment(click.ParamType):
    """A point in time, or a duration before now; the value is a timestamp as the store writes them."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        ago = seconds_of(value)
        try:
            if ago is not None:
                moment = datetime.now(timezone.utc) - timedelta(seconds=ago)
            else:
                moment = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", value))
                moment = moment.astimezone(timezone.utc)
        except (ValueError, OverflowError):
            self.fail(f"'{value}' is neither a time such as 2026-01-31T12:00:00Z nor an age such as 2h.", param, ctx)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Digest(click.ParamType):
    """The first 8 or more hex digits of a SHA-256, or all 64."""

    name = "hex"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).lower()
        if not re.fullmatch("[0-9a-f]{8,64}", text):
            self.fail(f"'{value}' is not 8 to 64 hex digits.", param, ctx)
        return text


class Scope(click.ParamType):
    """How far a grant reaches; the value is in the words of ``Inbox.decide``, durations in seconds."""

    name = "scope"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        kind, _, rest = str(value).partition(":")
        seconds = seconds_of(rest) if kind == "for" else None
        return f"for:{seconds:g}" if seconds is not None else str(value)


def json_option(command: F) -> F:
    """Adds ``--json``, and has errors reported as JSON too."""

    def remember(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
        ctx.ensure_object(dict)["json"] = value
        return value

    # Eager, so that a mistake in a later argument is reported as JSON already.
    option = click.option("--json", "as_json", is_flag=True, is_eager=True, callback=remember, help="Print JSON.")
    return option(command)


def yes_option(command: F) -> F:
    """Adds ``--yes`` for what asks on a terminal."""
    return click.option("--yes", "-y", is_flag=True, help="Do not ask, even on a terminal.")(command)


def notes_option(command: F) -> F:
    """Adds ``--notes TEXT``, empty by default."""
    return click.option("--notes", metavar="TEXT", default="", help="A reason; the agent reads it.")(command)


def hash_option(command: F) -> F:
    """Adds ``--hash HEX`` as ``digest``: what the caller has reviewed."""
    return click.option(
        "--hash", "digest", type=Digest(), help="SHA-256 of the payload you looked at, or its first 8 digits or more."
    )(command)


def bottle_option(command: F) -> F:
    """Adds ``--bottle SLUG``; the value is ``None`` without it."""
    return click.option("--bottle", metavar="SLUG", shell_complete=_bottles, help="Only what concerns this bottle.")(
        command
    )


def pending_id(command: F) -> F:
    """Adds the argument ``ID`` of a proposal that can be decided."""
    return click.argument("proposal_id", metavar="ID", shell_complete=_pending_ids)(command)


def any_id(command: F) -> F:
    """Adds the argument ``ID`` of a proposal in any state."""
    return click.argument("proposal_id", metavar="ID", shell_complete=_any_ids)(command)


def _bottles(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    try:
        bottles = BottleStore().list_bottles()
    except BotBottleError:  # a shell that completes has nowhere to show an error
        return []
    return [CompletionItem(b.slug, help=b.backend) for b in bottles if b.slug.startswith(incomplete)]


def _pending_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    return _ids(incomplete, pending_only=True)


def _any_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    return _ids(incomplete, pending_only=False)


def _ids(incomplete: str, *, pending_only: bool) -> list[CompletionItem[str]]:
    try:
        with Inbox() as inbox:
            items = inbox.pending() if pending_only else inbox.history()
    except BotBottleError:  # as above
        return []
    return [
        CompletionItem(item.proposal.id, help=f"{item.proposal.bottle_slug} {item.proposal.tool}")
        for item in items
        if item.proposal.id.startswith(incomplete)
    ]
