"""How does an operator make the sidecars' image, and get rid of those of earlier releases?"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from bot_bottle.cli.declare import group, option
from bot_bottle.cli.options import json_option, yes_option
from bot_bottle.cli.screen import confirm, print_json, print_table, say
from bot_bottle.errors import BotBottleError
from bot_bottle.launch import client
from bot_bottle.launch import image as images


@group()
def image() -> None:
    """Make, list and remove images of the sidecars.

    \b
      bot-bottle image build
      bot-bottle image list     # does it fit this host?
      bot-bottle image prune    # remove those of earlier releases
    """


@image.command(begins=True)
@option("--tag", metavar="IMAGE", help="What it is called; by default what bottles are started from.")
@option("--python-base", metavar="IMAGE", help="Debian with Python 3.13 or newer, instead of the official image.")
@option("--go-base", metavar="IMAGE", help="Debian with Go, which gitleaks is built by, instead of the official image.")
@option("--network", metavar="NAME", help="The network that the build is on, as docker build takes it.")
@option("--wheel", metavar="FILE", help="Take bot-bottle from this wheel, such as one for another architecture.")
@option("--print", "only_print", is_flag=True, help="Print the command and what it would be given; build nothing.")
@json_option
def build(
    tag: str | None,
    python_base: str | None,
    go_base: str | None,
    network: str | None,
    wheel: str | None,
    only_print: bool,
    as_json: bool,
) -> None:
    """Build the sidecars' image from this installation; no checkout is needed.

    What changes seldom comes first, so after an upgrade it takes seconds.

    \b
      bot-bottle image build
      bot-bottle image build --print    # look at it first
    """
    arguments = ["--network", network] if network else []
    for name, value in (("PYTHON_BASE", python_base), ("GO_BASE", go_base)):
        arguments += ["--build-arg", f"{name}={value}"] if value else []
    tags = images.tags(tag)
    with images.context(images.architecture(), wheel) as folder:
        command = images.command(folder, tags, arguments)
        if only_print:
            given = sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())
            if as_json:
                print_json({"command": command, "context": given})
            else:
                say(shlex.join(command))
                say("\n".join(given), "quiet")
            return
        code = images.run(command, quiet=as_json)
    if code != 0:
        raise BotBottleError(
            f"'docker build' ended with {code}, for the reason above; --python-base and --go-base name "
            "other base images, --network another network for the build"
        )
    made = client.inspect("image", tags[0]) or {}
    if as_json:
        print_json({"tags": tags, "id": made.get("Id"), "size": made.get("Size"), "labels": images.labels()})
    else:
        say(f"{tags[0]} is built, {made.get('Size', 0) / 1e6:.0f} MB.")


@image.command("list", begins=True)
@json_option
def list_images(as_json: bool) -> None:
    """List the images of the sidecars, newest first, and whether they fit this host.

    \b
      bot-bottle image list
    """
    found = images.built()
    if as_json:
        print_json([{**each._asdict(), "misfit": images.misfit(each.id)} for each in found])
    elif not found:
        say("There is no image of the sidecars here: 'bot-bottle image build' makes one.")
    else:
        rows = [
            (
                each.id[7:19],
                ", ".join(each.tags) or "(no name)",
                each.version,
                f"{each.size / 1e6:.0f} MB",
                each.created,
            )
            for each in found
        ]
        print_table(("ID", "NAME", "RELEASE", "SIZE", "MADE"), rows)
        for each in found:
            if reason := images.misfit(each.id):
                say(reason, "alarm")


@image.command(begins=True)
@yes_option
@json_option
def prune(yes: bool, as_json: bool) -> None:
    """Remove the images of the sidecars that nothing is started from: earlier releases, unnamed ones.

    \b
      bot-bottle image prune
    """
    spare = images.spare(images.built())
    if spare:
        confirm(f"Remove {_counted(spare)}?", yes=yes, undecided="nothing was removed")
    for each in spare:
        client.run("image", "rm", "--force", each.id)
    if as_json:
        print_json({"removed": [each.id for each in spare]})
    else:
        say(f"{_counted(spare)} removed." if spare else "There is nothing to remove.")


def _counted(spare: Sequence[images.Built]) -> str:
    return f"{len(spare)} image{'s' if len(spare) != 1 else ''} of the sidecars"
