"""Which keys sign what happens on this host, and how do they change?"""

from __future__ import annotations

from bot_bottle import Keys, TrustedKey
from bot_bottle.cli.declare import argument, group, option
from bot_bottle.cli.options import json_option, moment
from bot_bottle.cli.screen import print_json, print_table, say
from bot_bottle.operator import known, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bot_bottle.cli.screen import Cell


@group()
def keys() -> None:
    """Show, change and trust the keys that sign decisions.

    \b
      bot-bottle keys show
      bot-bottle keys rotate
    """


@keys.command()
@json_option
def show(as_json: bool) -> None:
    """List the keys that this host trusts.

    \b
      bot-bottle keys show
    """
    found = Keys().all()
    if as_json:
        print_json([key.to_dict() for key in found])
    elif found:
        print_keys(found)
    else:
        say("There is no key yet; one is made when something is first signed.")


@keys.command(begins=True, writes=True)
@json_option
def rotate(as_json: bool) -> None:
    """Give this host a new key.

    What the old one signed stands; its private half is deleted.

    \b
      bot-bottle keys rotate    # such as once a year
    """
    key = Keys().rotate()
    if as_json:
        print_json(key.to_dict())
    else:
        say(f"this host signs with {key.id} from now on")


@keys.command(begins=True, writes=True)
@argument("file")
@option("--name", required=True, help="What to call it.")
@json_option
def trust(file: str, name: str, as_json: bool) -> None:
    """Trust the decisions of another host, whose public key is in FILE.

    FILE is PEM ('openssl pkey -pubout') or a line of OpenSSH ('ssh-ed25519 ...').

    \b
      bot-bottle keys trust laptop.pub --name laptop
    """
    key = Keys().trust(name, file)
    if as_json:
        print_json(key.to_dict())
    else:
        say(f"decisions that {key.id} ({key.name}) signs are taken here")


def _is_key(key_id: str) -> None:
    keys = Keys().all()
    if not any(key.id.startswith(key_id) for key in keys):
        raise known.missing("key", key_id, [key.id for key in keys], otherwise="'bot-bottle keys show' lists them")


@keys.command(writes=True)
@argument("key_id", metavar="ID", check=_is_key)
@option("--at", type=moment, metavar="TIME", help="Since when, as a time or an age such as 2h; now by default.")
@json_option
def revoke(key_id: str, at: str | None, as_json: bool) -> None:
    """Take nothing that a key signs from now on.

    What it signed before stands. Whoever has a stolen key can date a statement back: if that may have happened, give
    the time with --at.

    \b
      bot-bottle keys revoke fb3b3957a5666cb2            # an id of keys show
      bot-bottle keys revoke fb3b3957a5666cb2 --at 2h    # when it was stolen
    """
    key = Keys().revoke(key_id, at=at)
    if as_json:
        print_json(key.to_dict())
    else:
        say(f"{key.id} ({key.name}) is revoked from {key.revoked_at} on")


def print_keys(found: list[TrustedKey]) -> None:
    """A table of keys."""
    print_table(
        ["ID", "Role", "Name", "State", "Added", "Public key"],
        [
            (
                (key.id, "strong"),
                key.role,
                key.name,
                _state(key),
                words.ago(key.added_at),
                key.public_key,
            )
            for key in found
        ],
    )


def _state(key: TrustedKey) -> Cell:
    if key.revoked_at:
        return f"revoked {words.ago(key.revoked_at)}", "bad"
    if key.rotated_at:
        return f"rotated {words.ago(key.rotated_at)}", "quiet"
    return "in use", "good"
