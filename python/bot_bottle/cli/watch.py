"""What happens in the inbox, as it happens?"""

from __future__ import annotations

import os
import sys

from bot_bottle import Change
from bot_bottle.cli import PROGRAM
from bot_bottle.cli.declare import Whole, command, option
from bot_bottle.cli.options import bottle_option, json_option
from bot_bottle.cli.screen import print_json_line, say, say_bypasses
from bot_bottle.operator import feed, seat, words


@command()
@bottle_option
@option(
    "--exec",
    "command",
    metavar="CMD",
    help="Run CMD in the shell for each event, which it gets as JSON in $BOT_BOTTLE_EVENT and on its input.",
)
@option(
    "--since",
    type=Whole(0, 2**63 - 1),
    metavar="N",
    help="Begin after event N (an event's seq); 0 is all there are. Without it: from now on.",
)
@json_option
def watch(bottle: str | None, command: str | None, since: int | None, as_json: bool) -> None:
    """Print what waits already, then each event as it happens, until interrupted.

    With --json or --since it is the events alone: proposed, asked, answered, approved, modified, rejected,
    expired, withdrawn, applied, apply_failed, archived. They come one at a time and in order. None is lost while
    CMD runs. Its failure is reported and the watch goes on. Nothing an agent wrote becomes part of the command line.

    \b
      bot-bottle watch --bottle dev
      bot-bottle watch --since 0 --json    # all that has happened, too
      bot-bottle watch --exec 'jq -r .kind | xargs notify-send bot-bottle'
    """
    with seat.inbox() as inbox:
        if not as_json:
            say_bypasses()
        if since is None and not as_json:
            # The number is read first, so that what arrives in between is reported twice and never left out.
            since = inbox.last_change()
            for item in inbox.pending(bottle):
                asked = item.proposal
                _say(asked.arrival_timestamp, "waiting", asked.id, asked.bottle_slug, asked.tool)
        for change in feed.events(inbox, since, bottle_slug=bottle):
            _print(change, as_json)
            if command:
                _execute(command, change)


def _print(change: Change, as_json: bool) -> None:
    if as_json:
        print_json_line(change.to_dict())
        return
    _say(change.at, change.kind, change.proposal_id, change.bottle_slug, change.tool)


def _say(at: str, kind: str, proposal_id: str, bottle_slug: str, tool: str) -> None:
    short = words.short_ids([proposal_id])[proposal_id]
    say(f"{words.clock(at)}  {kind:<9}  {short}  {bottle_slug}  {tool}", words.state(kind)[1])


def _execute(command: str, change: Change) -> None:
    import json
    import subprocess

    event = json.dumps(change.to_dict())
    sys.stdout.flush()
    done = subprocess.run(  # noqa: S602  the operator's own command line; the event is no part of it
        command,
        shell=True,
        check=False,
        input=event + "\n",
        text=True,
        env={**os.environ, "BOT_BOTTLE_EVENT": event},
    )
    if done.returncode != 0:
        print(
            f"{PROGRAM}: --exec ended with exit code {done.returncode} for event {change.seq}; watching on",
            file=sys.stderr,
            flush=True,
        )
