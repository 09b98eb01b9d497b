"""How does one command line run?

click is imported only for help, completions and lines that are not in order.
"""

from __future__ import annotations

import os

from bot_bottle import __version__
from bot_bottle.cli import PROGRAM, elsewhere
from bot_bottle.cli.commands import ASKED, find
from bot_bottle.cli.declare import Command, MisuseError
from bot_bottle.errors import InvalidInputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def run(arguments: Sequence[str], shared: dict[str, Any]) -> int:
    """Runs one command line, or answers a shell that asks for completions; returns the exit code.

    ``shared`` is filled before the command runs: ``json`` says that the caller asked for JSON.
    """
    instruction = os.environ.get(ASKED)
    if instruction:
        from bot_bottle.cli.explain import complete

        complete(instruction)
        return 0
    if list(arguments) == ["--version"]:
        print(f"{PROGRAM} {__version__}")
        return 0
    arguments = elsewhere.taken(arguments)
    path, command, rest = find(arguments)
    try:
        if isinstance(command, Command) and (values := command.read(rest)) is not None:
            shared["json"] = bool(values.get("as_json"))
            command(**values)
            return 0
        from bot_bottle.cli import explain

        return explain.run(arguments, shared)
    except MisuseError as error:
        raise InvalidInputError(f"{error} (see '{path} --help')") from None
