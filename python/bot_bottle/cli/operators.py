"""Who decides with a key of their own?"""

from __future__ import annotations

from bot_bottle import Keys
from bot_bottle.cli.declare import argument, group, option
from bot_bottle.cli.keys import print_keys
from bot_bottle.cli.options import json_option
from bot_bottle.cli.screen import print_json, say
from bot_bottle.operator import known

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


@group()
def operator() -> None:
    """Say who decides with a key of their own.

    Such a decision is in the name of the key, which is proven, not in that of the system's user.
    """


def _is_operator(name: str) -> None:
    names = [key.name for key in Keys().all() if key.role == "operator"]
    if name not in names:
        raise known.missing("operator", name, names, otherwise="'bot-bottle operator list' lists them")


@operator.command(begins=True)
@argument("name")
@option(
    "--key",
    "file",
    metavar="FILE",
    help="Their public key: PEM, or a line of OpenSSH. Without it a key pair is made.",
)
@json_option
def add(name: str, file: str | None, as_json: bool) -> None:
    """Trust the decisions that NAME's key signs."""
    private: Path | None = None
    if file is None:
        key, private = Keys().make_operator(name)
    else:
        key = Keys().add_operator(name, file)
    if as_json:
        print_json({**key.to_dict(), "private_key_file": None if private is None else str(private)})
        return
    say(f"{name} decides with key {key.id}")
    if private is not None:
        say(f"{private} is the private key: give it to {name}, who sets BOT_BOTTLE_OPERATOR_KEY to its path")


@operator.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List operators' keys, the removed ones too."""
    found = [key for key in Keys().all() if key.role == "operator"]
    if as_json:
        print_json([key.to_dict() for key in found])
    elif found:
        print_keys(found)
    else:
        say("No operator has a key; decisions are signed with this host's.")


@operator.command()
@argument("name", check=_is_operator)
@json_option
def remove(name: str, as_json: bool) -> None:
    """Take no more decisions of NAME's key; earlier ones stand."""
    key = Keys().remove_operator(name)
    if as_json:
        print_json(key.to_dict())
    else:
        say(f"{name} does not decide with {key.id} any more")
