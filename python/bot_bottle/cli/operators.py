"""Who decides with a key of their own, or from elsewhere?"""

from __future__ import annotations

from bot_bottle import Keys
from bot_bottle.cli.declare import argument, group, option
from bot_bottle.cli.keys import print_keys
from bot_bottle.cli.options import duration, json_option
from bot_bottle.cli.screen import print_json, print_table, say
from bot_bottle.errors import InvalidInputError, NotFoundError
from bot_bottle.operator import known, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


@group()
def operator() -> None:
    """Say who decides with a key of their own, and who from another machine with a token.

    A decision with a key is in the name of the key, which is proven, not in that of the system's user. One with a token
    is signed by this host, in the name that the token was made for.

    \b
      bot-bottle operator add ann                      # a key of her own
      bot-bottle operator token ann --out ann.token    # to decide from elsewhere
      bot-bottle operator list
    """


def _is_operator(name: str) -> None:
    names = [key.name for key in Keys().all() if key.role == "operator"]
    if name not in names:
        raise known.missing("operator", name, names, otherwise="'bot-bottle operator list' lists them")


@operator.command(begins=True, writes=True)
@argument("name")
@option(
    "--key",
    "file",
    metavar="FILE",
    help="Their public key: PEM, or a line of OpenSSH. Without it a key pair is made.",
)
@json_option
def add(name: str, file: str | None, as_json: bool) -> None:
    """Trust the decisions that NAME's key signs.

    \b
      bot-bottle operator add ann                  # makes a key pair
      bot-bottle operator add ann --key ann.pub    # trusts the one she has
    """
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
    """List operators' keys, the removed ones too.

    \b
      bot-bottle operator list
    """
    found = [key for key in Keys().all() if key.role == "operator"]
    if as_json:
        print_json([key.to_dict() for key in found])
    elif found:
        print_keys(found)
    else:
        say("No operator has a key; decisions are signed with this host's.")


@operator.command(writes=True)
@argument("name", check=_is_operator)
@json_option
def remove(name: str, as_json: bool) -> None:
    """Take no more decisions of NAME's key; earlier ones stand.

    \b
      bot-bottle operator remove ann    # when she leaves
    """
    key = Keys().remove_operator(name)
    if as_json:
        print_json(key.to_dict())
    else:
        say(f"{name} does not decide with {key.id} any more")


@operator.command(writes=True)
@argument("name")
@option("--out", "file", metavar="FILE", required=True, help="Where to write it, 0600; - is standard output.")
@option("--lasts", type=duration, metavar="TIME", default="30d", help="For how long it opens anything.")
@json_option
def token(name: str, file: str, lasts: float, as_json: bool) -> None:
    """Make a token with which NAME, or a program of theirs, decides from another machine.

    Carry the file there and keep it to yourself: who has it decides in the name of NAME. 'bot-bottle --url URL
    --token-file FILE pending' uses it, against 'bot-bottle serve --operator' on this host.

    \b
      bot-bottle operator token ann --out ann.token
      bot-bottle operator token robot --lasts 1d --out robot.token
    """
    import os
    import sys

    from bot_bottle.web.dashboard import login

    login.checked_name(name)
    if file == "-":
        sys.stdout.write(f"{login.make_token(name, lasts)}\n")
        return
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InvalidInputError(f"{file} is there already; remove it, or name another file with --out") from None
    with open(descriptor, "w") as out:
        out.write(f"{login.make_token(name, lasts)}\n")
    if as_json:
        print_json({"name": name, "file": file, "lasts": lasts})
    else:
        say(f"{file} is the token of {name}, for {words.span(lasts)}")


@operator.command()
@json_option
def tokens(as_json: bool) -> None:
    """List the tokens that still open something.

    \b
      bot-bottle operator tokens
    """
    from bot_bottle.web.dashboard import login

    found = login.tokens()
    if as_json:
        print_json(found)
    elif found:
        rows = [(each["name"], _at(each["made"]), _at(each["ends"])) for each in found]
        print_table(["Name", "Made", "Ends"], rows)
    else:
        say("Nobody decides with a token; 'bot-bottle operator token' makes one.")


@operator.command(writes=True)
@argument("name")
@json_option
def revoke(name: str, as_json: bool) -> None:
    """End all tokens of NAME now; what was decided with them stands.

    \b
      bot-bottle operator revoke ann    # when her laptop is lost
    """
    from bot_bottle.web.dashboard import login

    ended = login.end_tokens(name)
    if not ended:
        raise NotFoundError(f"{name} has no token; 'bot-bottle operator tokens' lists those that there are")
    if as_json:
        print_json({"name": name, "ended": ended})
    else:
        say(f"ended {ended} token{'s' if ended > 1 else ''} of {name}")


def _at(seconds: float) -> str:
    from datetime import datetime, timezone

    return words.clock(datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
