"""What may be written on the command line, and what does it mean?"""

from __future__ import annotations

from bot_bottle import BottleStore, Inbox
from bot_bottle.cli.declare import BadValueError, argument, option
from bot_bottle.errors import BotBottleError
from bot_bottle.operator import scopes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])


def duration(text: str) -> float:
    """``90s``, ``15m``, ``2h``, ``30d`` or ``1w`` in seconds."""
    seconds = scopes.seconds(text)
    if seconds is None:
        raise BadValueError(f"'{text}' is not a duration with its unit, such as 90s, 15m, 2h, 30d or 1w")
    return seconds


def moment(text: str) -> str:
    """A time in ISO 8601, or a duration before now, as a timestamp of the kind the store writes."""
    from datetime import datetime, timedelta, timezone

    ago = scopes.seconds(text)
    try:
        if ago is not None:
            at = datetime.now(timezone.utc) - timedelta(seconds=ago)
        else:
            # Python 3.10 does not read the "Z".
            zulu = text[-1:] in ("z", "Z")
            at = datetime.fromisoformat(f"{text[:-1]}+00:00" if zulu else text).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise BadValueError(f"'{text}' is neither a time such as 2026-01-31T12:00:00Z nor an age such as 2h") from None
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def digest(text: str) -> str:
    """The first 16 or more hex digits of a SHA-256, or all 64, in lower case.

    Whoever wants a second proposal with the same 16 has to try 2^64 of them; with 8, a laptop finds one in minutes.
    """
    if not 16 <= len(text) <= 64 or text.lower().strip("0123456789abcdef"):
        raise BadValueError(f"'{text}' is not 16 to 64 hex digits")
    return text.lower()


def tool_file(text: str) -> tuple[str, str]:
    """``TOOL=PATH``: a managed file, as the pair."""
    tool, _, path = text.partition("=")
    if not (tool and path):
        raise BadValueError(f"'{text}' is not TOOL=PATH")
    return tool, path


def json_option(command: F) -> F:
    """Adds ``--json``, and has errors reported as JSON too."""
    return option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def yes_option(command: F) -> F:
    """Adds ``--yes`` for what asks on a terminal."""
    return option("--yes", "-y", is_flag=True, help="Do not ask; needed where there is no terminal to ask on.")(command)


def notes_option(command: F) -> F:
    """Adds ``--notes TEXT``, empty by default."""
    return option("--notes", metavar="TEXT", default="", help="A reason; the agent reads it.")(command)


def hash_option(command: F) -> F:
    """Adds ``--hash HEX`` as ``digest``: what the caller has reviewed."""
    return option(
        "--hash",
        "reviewed",
        type=digest,
        metavar="HEX",
        help="Hash of the review you looked at (show prints it), or its first 16 digits or more.",
    )(command)


def bottle_option(command: F) -> F:
    """Adds ``--bottle SLUG``; the value is ``None`` without it."""
    return option(
        "--bottle", metavar="SLUG", complete=_bottles, check=_is_bottle, help="Only what concerns this bottle."
    )(command)


def pending_id(command: F) -> F:
    """Adds the argument ``ID`` of a proposal that can be decided."""
    return argument("proposal_id", metavar="ID", complete=_pending_ids)(command)


def any_id(command: F) -> F:
    """Adds the argument ``ID`` of a proposal in any state."""
    return argument("proposal_id", metavar="ID", complete=_any_ids)(command)


def bottle_argument(command: F) -> F:
    """Adds the argument ``SLUG`` of a bottle that there is."""
    return argument("slug", complete=_bottles, check=_is_bottle)(command)


def _is_bottle(slug: str) -> None:
    from bot_bottle.operator import known

    known.bottle(slug)


def _bottles(incomplete: str) -> list[tuple[str, str]]:
    try:
        bottles = BottleStore().list_bottles()
    except BotBottleError:  # a shell that completes has nowhere to show an error
        return []
    return [(b.slug, b.backend) for b in bottles if b.slug.startswith(incomplete)]


def _pending_ids(incomplete: str) -> list[tuple[str, str]]:
    return _ids(incomplete, pending_only=True)


def _any_ids(incomplete: str) -> list[tuple[str, str]]:
    return _ids(incomplete, pending_only=False)


def _ids(incomplete: str, *, pending_only: bool) -> list[tuple[str, str]]:
    try:
        with Inbox() as inbox:
            items = inbox.pending() if pending_only else inbox.history()
    except BotBottleError:  # as above
        return []
    proposals = (item.proposal for item in items if item.proposal.id.startswith(incomplete))
    return [(proposal.id, f"{proposal.bottle_slug} {proposal.tool}") for proposal in proposals]
