"""Which bottles run, and which files of theirs do decisions write?"""

from __future__ import annotations

from bot_bottle import Bottle, BottleStore
from bot_bottle.cli.declare import command, option
from bot_bottle.cli.options import json_option
from bot_bottle.cli.screen import Cell, print_json, print_table, say
from bot_bottle.operator import words


@command()
@option("--all", "everything", is_flag=True, help="Also those that have stopped.")
@json_option
def bottles(everything: bool, as_json: bool) -> None:
    """List the running bottles."""
    found = BottleStore().list_bottles(running=not everything)
    if as_json:
        print_json([bottle.to_dict() for bottle in found])
        return
    if not found:
        say("There are no bottles." if everything else "No bottle is running; --all lists former ones.")
        return
    print_table(
        ["Bottle", "Backend", "Started", "State", "Pending", "Managed files"],
        [
            (
                (bottle.slug, "strong"),
                bottle.backend,
                words.clock(bottle.started_at),
                _state(bottle),
                (str(bottle.pending), "waits" if bottle.pending else "plain"),
                ", ".join(f"{tool} → {path}" for tool, path in sorted(bottle.files.items())),
            )
            for bottle in found
        ],
        text_last=True,
    )
    for bottle in found:
        if bottle.damaged:
            say(f"{bottle.slug}: {bottle.damaged}", "alarm")


def _state(bottle: Bottle) -> Cell:
    if bottle.damaged:
        return ("damaged", "alarm")
    if bottle.stopped_at:
        return (f"stopped {words.clock(bottle.stopped_at)}", "quiet")
    return ("running", "good")
