"""How does the operator's screen start?"""

from __future__ import annotations

import os

from bot_bottle.cli.declare import command, option
from bot_bottle.cli.options import bottle_option
from bot_bottle.cli.screen import interactive
from bot_bottle.errors import BotBottleError, InvalidInputError


@command()
@bottle_option
@option("--plain", is_flag=True, help="A numbered list and prompts, for screen readers and terminals that cannot draw.")
def supervise(bottle: str | None, plain: bool) -> None:
    """See what waits, live, and decide it with a key.

    The inbox of all bottles on the left, the whole proposal on the right: a approves, r rejects, m opens your editor,
    ? lists all keys. It needs bot-bottle[tui].

    \b
      bot-bottle supervise                 # all bottles
      bot-bottle supervise --bottle dev    # one of them
      bot-bottle supervise --plain         # line by line, for a screen reader
    """
    if not interactive():
        raise InvalidInputError("supervise needs a terminal; 'bot-bottle pending' prints what waits")
    if plain:
        from bot_bottle.cli.walk import in_plain_lines

        in_plain_lines(bottle)
        return
    if os.environ.get("TERM", "dumb") in ("dumb", "unknown", ""):
        raise InvalidInputError(
            "this terminal cannot draw a screen (TERM says so); 'bot-bottle supervise --plain' does without"
        )
    try:
        from bot_bottle.tui import app  # it needs packages that only this command uses
    except ModuleNotFoundError as error:
        raise BotBottleError(f"the Python module {error.name} is missing; install bot-bottle[tui]") from None
    app.run(bottle_slug=bottle)
