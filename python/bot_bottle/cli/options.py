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


def _seconds(text: str) -> float | None:
    found = _DURATION.fullmatch(text.strip().lower())
    return float(found[1]) * _SECONDS[found[2]] if found else None


def duration(text: str) -> float:
    """``90``, ``90s``, ``15m``, ``2h``, ``30d`` or ``1w`` in seconds."""
    seconds = _seconds(text)
    if seconds is None:
        raise click.BadParameter(f"'{text}' is not a duration such as 90s, 15m, 2h, 30d or 1w")
    return seconds


def moment(text: str) -> str:
    """A time in ISO 8601, or a duration before now, as a timestamp of the kind the store writes."""
    ago = _seconds(text)
    try:
        if ago is not None:
            at = datetime.now(timezone.utc) - timedelta(seconds=ago)
        else:
            # Python 3.10 does not read the "Z".
            at = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text)).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"'{text}' is neither a time such as 2026-01-31T12:00:00Z nor an age such as 2h"
        ) from None
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def digest(text: str) -> str:
    """The first 8 or more hex digits of a SHA-256, or all 64, in lower case."""
    if not re.fullmatch("[0-9a-f]{8,64}", text.lower()):
        raise click.BadParameter(f"'{text}' is not 8 to 64 hex digits")
    return text.lower()


def scope(text: str) -> str:
    """How far a grant reaches, in the words of ``Inbox.decide``, which has ``for`` in seconds alone."""
    kind, _, rest = text.partition(":")
    seconds = _seconds(rest) if kind == "for" else None
    return text if seconds is None else f"for:{seconds:g}"


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
        "--hash",
        "reviewed",
        type=digest,
        metavar="HEX",
        help="SHA-256 of the payload you looked at, or its first 8 digits or more.",
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
