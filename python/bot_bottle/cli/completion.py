"""How does a shell learn to complete `bot-bottle`?"""

from __future__ import annotations

import os

import click

from bot_bottle.cli import PROGRAM

# The shell's function sets this when it asks for completions; the scripts printed below do so.
_ASKED = "_BOT_BOTTLE_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that makes a shell complete ids and more.

    \b
      bash   bot-bottle completion bash > ~/.local/share/bash-completion/completions/bot-bottle
      zsh    bot-bottle completion zsh > "${fpath[1]}/_bot-bottle"
      fish   bot-bottle completion fish > ~/.config/fish/completions/bot-bottle.fish
    """
    from click.shell_completion import BashComplete, FishComplete, ZshComplete

    script = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}[shell]
    click.echo(script(ctx.find_root().command, {}, PROGRAM, _ASKED).source())


def answer_shell(cli: click.Command) -> bool:
    """Prints completions if a shell asks for them; says whether it did."""
    instruction = os.environ.get(_ASKED)
    if not instruction:
        return False
    from click.shell_completion import shell_complete

    shell_complete(cli, {}, PROGRAM, _ASKED, instruction)
    return True
