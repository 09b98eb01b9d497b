"""Which commands work on another host's inbox, and how is that host named? By options before the command."""

from __future__ import annotations

from bot_bottle.cli import PROGRAM
from bot_bottle.errors import InvalidInputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

# What each is called in a help, and what it is.
OPTIONS: Final = {
    "--url": ("URL", "Work on the inbox of another host: where its dashboard is reached, by https or a tunnel."),
    "--token-file": ("FILE", "With --url: what 'bot-bottle operator token' wrote there."),
    "--cert-file": ("FILE", "With --url: the host's certificate, where no authority vouches for it."),
}
# The others are about what only the host itself has: its files, keys, engine and processes.
COMMANDS: Final = frozenset(
    (
        *("supervise", "review", "pending", "show", "approve", "modify", "reject", "ask", "watch"),
        *("history", "archive", "grants", "bottles", "stats"),
    )
)


def taken(words: Sequence[str]) -> list[str]:
    """The words without these options, which stand before the command and name the host from now on.

    Raises:
        InvalidInputError: they do not go together, or the command is about the host itself.
    """
    rest, given = list(words), dict[str, str]()
    while rest:
        flag, equals, value = rest[0].partition("=")
        if flag not in OPTIONS:
            break
        del rest[0]
        if not equals:
            if not rest:
                raise InvalidInputError(f"{flag} needs a value (see '{PROGRAM} --help')")
            value = rest.pop(0)
        given[flag] = value
    if not given:
        return rest
    if "--url" not in given or "--token-file" not in given:
        missing = "--token-file" if "--url" in given else "--url"
        raise InvalidInputError(f"{next(iter(given))} needs {missing} beside it (see '{PROGRAM} --help')")
    command = rest[0] if rest else ""
    if command[:1] != "-" and command not in COMMANDS:
        what = f"'{PROGRAM} {command}'" if command else "what you asked for"
        raise InvalidInputError(
            f"{what} is about the host itself and does not work with --url: run it there, over ssh for example"
        )
    from bot_bottle.operator import remote, seat

    seat.look_at(remote.Host(given["--url"], given["--token-file"], given.get("--cert-file")))
    return rest
