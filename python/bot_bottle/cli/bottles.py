"""Which bottles are there, in which state are their sidecars, and which of their files do decisions write?"""

from __future__ import annotations

from bot_bottle import Bottle
from bot_bottle.cli.declare import command, option
from bot_bottle.cli.options import json_option
from bot_bottle.cli.screen import print_json, print_table, say, say_bypasses
from bot_bottle.launch import engine
from bot_bottle.launch.engine import Sidecars
from bot_bottle.operator import seat, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from bot_bottle.cli.screen import Cell
    from bot_bottle.operator.words import Tone


_TONES: Final[dict[str, Tone]] = {
    "healthy": "good",
    "running": "good",
    "starting": "waits",
    "created": "waits",
    "degraded": "alarm",
    "ended": "alarm",
}
# States in which the engine has something of a bottle at work.
_AT_WORK: Final = ("starting", "healthy", "degraded", "running", "restarting")


@command()
@option("--all", "everything", is_flag=True, help="Also those that have been stopped.")
@json_option
def bottles(everything: bool, as_json: bool) -> None:
    """List the bottles, and what the engine says of their sidecars.

    registered: it has none, as after a start that was only printed. Then created, starting, healthy; degraded: a daemon
    does not answer; ended: they are not running any more. A bottle that is not of Docker is unknown here.

    \b
      bot-bottle bottles
      bot-bottle bottle list --all    # the same command
    """
    found = seat.bottles().list_bottles(running=not everything)
    # A damaged registration must not lead to the name of a container.
    sidecars = dict.fromkeys((bottle.slug for bottle in found), Sidecars("unknown"))
    if (host := seat.elsewhere()) is not None:
        sidecars |= {slug: Sidecars(**each) for slug, each in host.sidecars(running=not everything).items()}
    else:
        sidecars |= engine.ask((bottle.slug, bottle.backend) for bottle in found if not bottle.damaged)
    if as_json:
        print_json([{**bottle.to_dict(), "sidecars": sidecars[bottle.slug]._asdict()} for bottle in found])
        return
    say_bypasses()
    if not found:
        say("There are no bottles." if everything else "No bottle is registered; --all lists former ones.")
        return
    print_table(
        ["Bottle", "Backend", "Started", "State", "Pending", "Managed files"],
        [
            (
                (bottle.slug, "strong"),
                bottle.backend,
                words.clock(bottle.started_at),
                _state(bottle, sidecars[bottle.slug]),
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
        elif bottle.stopped_at is None:
            _explain(bottle.slug, sidecars[bottle.slug])
        elif sidecars[bottle.slug].state in _AT_WORK:
            say(
                f"{bottle.slug} was stopped, but its sidecars run: 'bot-bottle bottle stop {bottle.slug} --run'",
                "alarm",
            )


def _state(bottle: Bottle, sidecars: Sidecars) -> Cell:
    if bottle.damaged:
        return ("damaged", "alarm")
    if bottle.stopped_at:
        return (f"stopped {words.clock(bottle.stopped_at)}", "quiet")
    return (sidecars.state, _TONES.get(sidecars.state, "quiet"))


def _explain(slug: str, sidecars: Sidecars) -> None:
    """What a word in the table does not say."""
    if not sidecars.detail:
        return
    since = f" since {words.clock(sidecars.since)}" if sidecars.since else ""
    say(f"{slug} is {sidecars.state}{since}: {sidecars.detail}", _TONES.get(sidecars.state, "quiet"))
