"""What does the project in this directory say about its bottle, and has the operator agreed to that?

The file lies in the workspace, so the agent may have written it, and it can name host files and commands. So it counts
only as it was when the operator last agreed to it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bot_bottle import bot_bottle_root, render_diff
from bot_bottle.cli.declare import OneOf, command, option
from bot_bottle.cli.options import yes_option
from bot_bottle.cli.screen import answered, confirm, interactive, print_json, print_quoted, say
from bot_bottle.documents import bottle_file, presets
from bot_bottle.errors import InvalidInputError
from bot_bottle.launch import managed
from bot_bottle.launch.coders import CODERS

NAME: Final = bottle_file.NAME


def settings(*, yes: bool, remember: bool) -> dict[str, Any]:
    """What this directory's file says; empty without one.

    Args:
        yes: do not ask about a file that is not as it was.
        remember: it is agreed to from now on.

    Raises:
        BotBottleError: the operator did not agree.
        InvalidInputError: the file is not as its schema says, or nobody can be asked.
    """
    file = Path.cwd() / NAME
    content = managed.content(file)
    if content is None:
        return {}
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise InvalidInputError(f"{file} is not UTF-8 text") from None
    said = bottle_file.load(text)
    known = _agreed(file)
    before = managed.content(known)
    if before == content:
        return said
    if not yes:
        what = "has changed since you agreed to it" if before else "is new to this host"
        say(f"{file} {what}:")
        print_quoted(render_diff((before or b"").decode(), text, label=NAME), diff=True)
        confirm("It decides what the agent gets. Go on with it?", yes=False, undecided="nothing was started")
    if remember:
        managed.write(known, content)
    return said


def _agreed(file: Path) -> Path:
    """Where a copy is kept of what the operator agreed to."""
    return Path(bot_bottle_root(), "agreed", hashlib.sha256(str(file).encode()).hexdigest() + ".toml")


@command(begins=True)
@option("--bottle", metavar="SLUG", help="The bottle's name; the directory's by default.")
@option("--agent", type=OneOf(*CODERS), help="Who works there.")
@option("--image", metavar="IMAGE", help="What the agent runs from.")
@option("--allow", metavar="NAMES", multiple=True, help="Presets and hosts it may reach: pypi,example.com. Repeatable.")
@option(
    "--secret", "secrets", metavar="NAME[=SOURCE]", multiple=True, help="A key that only the proxy gets. Repeatable."
)
@option("--schema", is_flag=True, help="Print the JSON schema of the file instead.")
@yes_option
def init(
    bottle: str | None,
    agent: str | None,
    image: str | None,
    allow: Sequence[str],
    secrets: Sequence[str],
    schema: bool,
    yes: bool,
) -> None:
    """Write a bottle.toml for the project here, by asking what is not given.

    \b
      bot-bottle init    # asks, and writes bottle.toml
      bot-bottle init --image my-agent --agent claude --allow pypi --yes
      bot-bottle run     # starts what bottle.toml says
    """
    if schema:
        print_json(bottle_file.schema())
        return
    file = Path.cwd() / NAME
    if file.exists() or file.is_symlink():
        raise InvalidInputError(f"{file} is there already: change it with an editor, or remove it")
    asks = interactive() and not yes
    if not asks and image is None:
        raise InvalidInputError("without a terminal to ask on, --image is needed")
    here = re.sub(r"[^a-z0-9._-]+", "-", Path.cwd().name.lower()).strip("-._")[:40] or "dev"
    bottle = bottle or _asked(asks, "What is the bottle called?", here)
    agent = agent or _asked(asks, f"Who works there: {', '.join(CODERS)}?", "shell")
    image = image or _asked(asks, "Which image has the agent's program and your project's tools?", "")
    names = ",".join(allow) or _asked(
        asks, f"What may it reach, with commas: hosts, or {', '.join(presets.PRESETS)}?", ""
    )
    wanted = list(secrets)
    variables = CODERS[agent].variables if agent in CODERS else ()
    if not wanted and variables:
        found = _asked(
            asks, f"Which variable has its key ({', '.join(variables)})? The proxy alone gets it.", variables[0]
        )
        wanted = [found] if found else []
    text = bottle_file.write(
        {
            "bottle": bottle,
            "image": image,
            "agent": agent,
            "allow": [name.strip() for name in names.split(",") if name.strip()],
            "secrets": wanted,
        }
    )
    said = bottle_file.load(text)
    presets.added(None, presets.expand(said.get("allow", [])))
    print_quoted(text)
    if asks:
        confirm(f"Write this to {file}?", yes=False, undecided="nothing was written")
    with file.open("x", encoding="utf-8") as new:
        new.write(text)
    managed.write(_agreed(file), text.encode())
    say(f"{file} is written; 'bot-bottle run' starts what it says, 'bot-bottle run --dry-run' shows it.")


def _asked(asks: bool, question: str, default: str) -> str:
    if not asks:
        return default
    answer = answered(f"{question} [{default}]" if default else question, as_typed=True)
    return answer or default
