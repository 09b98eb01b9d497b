"""Which commands are there, and where does each live?

A command's module is imported when the command runs or its help is asked for: `bot-bottle pending`
pays for `pending` alone. To add a command, add its line to ``COMMANDS``. Its docstring is its help, and ends
with a block (``\\b``) of examples: lines that a shell runs as they are.
"""

from __future__ import annotations

from importlib import import_module

from bot_bottle.cli import PROGRAM
from bot_bottle.cli.declare import Command, Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


# A shell's function sets this when it asks for completions; the scripts of `bot-bottle completion` do so.
ASKED = "_BOT_BOTTLE_COMPLETE"

# Section of the help → command → "module:attribute" in this package.
COMMANDS: dict[str, dict[str, str]] = {
    "Decide": {
        "supervise": "supervise:supervise",
        "dashboard": "dashboard:dashboard",
        "review": "walk:review",
        "pending": "inbox:pending",
        "show": "inbox:show",
        "approve": "decide:approve",
        "modify": "decide:modify",
        "reject": "decide:reject",
        "ask": "question:ask",
        "watch": "watch:watch",
        "notify": "notify:notify",
        "policy": "policy:policy",
        "bypass": "bypass:bypass",
    },
    "Look back": {
        "history": "inbox:history",
        "archive": "inbox:archive",
        "audit": "audit:audit",
        "grants": "grants:grants",
        "bottles": "bottles:bottles",
        "stats": "stats:stats",
    },
    "Run": {
        "init": "project:init",
        "run": "run:run",
        "image": "image:image",
        "bottle": "bottle:bottle",
        "serve": "serve:serve",
        "service": "service:service",
        "git-gate": "git_gate:git_gate",
        "hook": "hook:hook",
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

HELP = """Decide what sandboxed AI agents may do, and see what was decided.

    An agent's sidecar queues a proposal and waits; you look at it and approve, modify or reject it,
    and the agent goes on at once.

    \b
      bot-bottle pending               # what waits for you
      bot-bottle show 0199d2c4-1a2b    # as a diff; an id may be shortened
      bot-bottle approve 0199d2c4-1a2b
    """


TARGETS = {name: target for section in COMMANDS.values() for name, target in section.items()}


def load(name: str) -> Command | Group:
    """The command or group of this name."""
    module, attribute = TARGETS[name].split(":")
    target: Command | Group = getattr(import_module(f"bot_bottle.cli.{module}"), attribute)
    return target


def find(arguments: Sequence[str]) -> tuple[str, Command | Group | None, Sequence[str]]:
    """The words that lead to a command, the command, and the words after them."""
    path, found, rest = PROGRAM, None, list(arguments)
    if rest and rest[0] in TARGETS:
        found = load(rest[0])
        path += f" {rest.pop(0)}"
    if isinstance(found, Group) and rest and rest[0] in found.commands:
        found = found.commands[rest[0]]
        path += f" {rest.pop(0)}"
    return path, found, rest
