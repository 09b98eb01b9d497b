"""Which commands are there, and where does each live?

A command's module is imported when the command runs or its help is asked for: `bot-bottle pending`
pays for `pending` alone. To add a command, add its line to ``COMMANDS``.
"""

from __future__ import annotations

from collections import UserDict
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from bot_bottle import __version__
from bot_bottle.cli import PROGRAM

# Section of the help → command → "module:attribute" in this package.
COMMANDS: dict[str, dict[str, str]] = {
    "Decide": {
        "pending": "inbox:pending",
        "show": "inbox:show",
        "approve": "decide:approve",
        "modify": "decide:modify",
        "reject": "decide:reject",
        "watch": "watch:watch",
    },
    "Look back": {
        "history": "inbox:history",
        "archive": "inbox:archive",
        "audit": "audit:audit",
        "grants": "grants:grants",
        "bottles": "bottles:bottles",
        "stats": "inbox:stats",
    },
    "Run": {
        "bottle": "bottle:bottle",
        "serve": "serve:serve",
        "git-gate": "git_gate:git_gate",
    },
    "Trust": {
        "keys": "keys:keys",
        "operator": "operators:operator",
    },
    "Upkeep": {
        "db": "db:db",
        "completion": "completion:completion",
    },
}


class _Lazy(UserDict[str, Any]):
    """Command name → command, imported when it is looked up."""

    def __getitem__(self, name: str) -> click.Command:
        module, attribute = self.data[name].split(":")
        command: click.Command = getattr(import_module(f"bot_bottle.cli.{module}"), attribute)
        return command


class _Root(click.Group):
    """The top level: lists its commands by section and in the order of ``COMMANDS``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        limit = formatter.width - 6 - width
        for section, names in COMMANDS.items():
            with formatter.section(section):
                rows = [(name.ljust(width), self.commands[name].get_short_help_str(limit)) for name in names]
                formatter.write_dl(rows)


@click.group(
    cls=_Root,
    commands=_Lazy({name: target for section in COMMANDS.values() for name, target in section.items()}),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
def cli() -> None:
    """Decide what sandboxed AI agents may do, and see what was decided.

    An agent's sidecar queues a proposal and waits; you look at it and approve, modify or reject it,
    and the agent goes on at once.

    \b
      bot-bottle pending               what waits for you
      bot-bottle show 0199d2c4-1a2b    all of it, as a diff; an id may be shortened
      bot-bottle approve 0199d2c4-1a2b
    """


def run(arguments: Sequence[str], shared: dict[str, Any]) -> int:
    """Runs one command line, or answers a shell that asks for completions; returns the exit code.

    ``shared`` is filled while the command runs: ``json`` says that the caller asked for JSON.
    click's own ``main`` is not used because it exits by itself, with 1 for a broken pipe.
    """
    from bot_bottle.cli.completion import answer_shell

    if answer_shell(cli):
        return 0
    try:
        with cli.make_context(PROGRAM, list(arguments), obj=shared) as context:
            cli.invoke(context)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    return 0
