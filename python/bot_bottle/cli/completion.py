"""How does a shell learn to complete `bot-bottle`?"""

from __future__ import annotations

from bot_bottle.cli import PROGRAM
from bot_bottle.cli.commands import ASKED
from bot_bottle.cli.declare import OneOf, argument, command


@command(begins=True)
@argument("shell", type=OneOf("bash", "zsh", "fish"))
def completion(shell: str) -> None:
    """Print a script that makes a shell complete ids and more.

    \b
      bot-bottle completion bash >> ~/.bash_completion
      bot-bottle completion zsh > "${fpath[1]}/_bot-bottle"
      bot-bottle completion fish > ~/.config/fish/completions/bot-bottle.fish
    """
    from click.shell_completion import BashComplete, FishComplete, ZshComplete

    from bot_bottle.cli.explain import root

    script = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}[shell]
    print(script(root(), {}, PROGRAM, ASKED).source())
