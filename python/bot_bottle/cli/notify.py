"""How is the operator told that something is pending while nobody looks?"""

from __future__ import annotations

import threading
import time
from datetime import datetime
from typing import TYPE_CHECKING

from bot_bottle import GrantStore, Inbox
from bot_bottle.cli.declare import group, option
from bot_bottle.cli.options import json_option
from bot_bottle.cli.screen import print_json, print_table, say, warn
from bot_bottle.errors import BotBottleError, InvalidInputError
from bot_bottle.operator import known, live, words
from bot_bottle.operator.alone import alone, running

if TYPE_CHECKING:
    from bot_bottle import Grant
    from bot_bottle.cli.screen import Cell
    from bot_bottle.notify.ladder import Ladder
    from bot_bottle.notify.settings import Channel, Settings

_TICK = 0.25
_RETRY = 1.0
_GRANTS_EVERY = 5.0


@group()
def notify() -> None:
    """Be told what waits: bell, desktop, a program, a webhook or ntfy.

    The channels stand in config.toml in bot-bottle's root directory (docs/operator.md). A message says who asks for
    what; it never decides.

    \b
      bot-bottle notify test                       # does each channel work?
      bot-bottle notify run                        # until interrupted
      bot-bottle service install notify --start    # in each session
    """


@notify.command()
def run() -> None:
    """Tell the channels what waits, until interrupted.

    It begins with what waits already. Each proposal is told at once, then after 1, 5 and 15 minutes, then every hour
    for as long as its requester waits. A channel with 'after' is told once nobody has answered for so long. A grant is
    told of once, when it is about to end. A channel that fails is tried again and holds up nothing.

    \b
      bot-bottle notify run                        # in a terminal that stays open
      bot-bottle service install notify --start    # in each session
    """
    from bot_bottle.notify import delivery, message
    from bot_bottle.notify.ending import Ending

    settings = _settings()
    with alone("notify"):
        # One ladder for channels that are told at once, one for each that is told only if nobody has answered by then.
        ladders = {after: _ladder(settings, after) for after in sorted({each.after for each in settings.channels})}
        channels = {after: [each for each in settings.channels if each.after == after] for after in ladders}
        first, lock, over = min(ladders), threading.Lock(), threading.Event()
        outbox, ending, looked = delivery.Outbox(settings.channels, warn), Ending(), 0.0
        threading.Thread(target=_follow, args=([*ladders.values()], lock, over), daemon=True).start()
        try:
            while True:
                for after, ladder in ladders.items():
                    with lock:
                        new, again = ladder.due(datetime.now())  # quiet hours use local time
                    for rows, reminder in ((new, after > 0), (again, True)):
                        if rows:
                            told = message.about(rows, reminder=reminder)
                            later = f" (after {words.span(after)})" if after else ""
                            say(f"{words.clock(words.now())}  {told.title}{later}: {told.body}")
                            outbox.send(told, channels[after])
                if time.monotonic() - looked >= _GRANTS_EVERY and not ladders[first].quiet_at(datetime.now()):
                    looked = time.monotonic()
                    for grant in ending.due(_grants()):
                        told = message.ending(grant)
                        say(f"{words.clock(words.now())}  {told.title}: {told.body}")
                        outbox.send(told, channels[first])
                time.sleep(_TICK)
        finally:
            over.set()
            outbox.close()


def _ladder(settings: Settings, after: float) -> Ladder:
    from bot_bottle.notify.ladder import Ladder

    return Ladder(settings.quiet, age=lambda arrived: words.seconds_since(arrived) - after)


def _grants() -> list[Grant]:
    store = GrantStore()
    try:
        return store.list_grants()
    except BotBottleError as error:
        warn(f"{error}; trying again")
        return []
    finally:
        store.close()


def _follow(ladders: list[Ladder], lock: threading.Lock, over: threading.Event) -> None:
    """Keeps the ladders' rows up to date; reports a database that fails, and tries again."""

    def looked_at() -> list[str]:
        with lock:
            return [each for ladder in ladders for each in ladder.looked_at()]

    while not over.is_set():
        try:
            with Inbox() as inbox:
                for rows in live.follow(inbox, on_screen=looked_at, stopped=over.is_set):
                    with lock:
                        for ladder in ladders:
                            ladder.merge(rows)
        except BotBottleError as error:
            warn(f"{error}; trying again")
            over.wait(_RETRY)


@notify.command()
@option("--channel", metavar="NAME", help="Only this one.")
@json_option
def test(channel: str | None, as_json: bool) -> None:
    """Send a test message through each channel, once, and say what became of it.

    \b
      bot-bottle notify test
      bot-bottle notify test --channel phone
    """
    from bot_bottle.notify import channels, message

    results: list[tuple[Channel, str]] = []
    for each in _settings(channel).channels:
        try:
            channels.deliver(each, message.trial())
        except channels.DeliveryError as error:
            results.append((each, str(error)))
        else:
            results.append((each, ""))
    if as_json:
        print_json([{"name": each.name, "kind": each.kind, "error": problem or None} for each, problem in results])
    else:
        for each, problem in results:
            say(f"{each.name}: {problem or 'delivered'}", "alarm" if problem else "good")
    failed = sum(1 for _, problem in results if problem)
    if failed:
        raise BotBottleError(f"{failed} of {len(results)} channels did not take the test message")


@notify.command()
@json_option
def status(as_json: bool) -> None:
    """Say whether somebody is told, and what became of each channel's last messages.

    \b
      bot-bottle notify status    # when a message did not come
    """
    from bot_bottle.notify import delivery, settings

    last, at_work, channels = delivery.status(), running("notify"), settings.read().channels
    if as_json:
        listed = [{"name": each.name, "kind": each.kind, **last.get(each.name, {})} for each in channels]
        print_json({"running": at_work, "channels": listed})
        return
    say("'bot-bottle notify run' is at work." if at_work else "Nobody is told: 'bot-bottle notify run' is not at work.")
    rows: list[tuple[Cell, ...]] = []
    for each in channels:
        of = last.get(each.name, {})
        delivered, failures = of.get("delivered_at"), of.get("failures", 0)
        state: Cell = (
            (f"failing ({failures}x)", "alarm") if failures else ("works", "good") if delivered else "not used yet"
        )
        rows.append((each.name, each.kind, state, words.ago(delivered) if delivered else "never", of.get("error", "")))
    if rows:
        print_table(["Channel", "Kind", "State", "Delivered", "Last error"], rows, text_last=True)


def _settings(only: str | None = None) -> Settings:
    from bot_bottle.notify import settings

    found = settings.read()
    if not found.channels:
        raise InvalidInputError(f"{settings.path()} has no channel; docs/operator.md shows how to write one")
    if only is not None:
        chosen = tuple(each for each in found.channels if each.name == only)
        if not chosen:
            raise known.missing("channel", only, [each.name for each in found.channels], where=f" in {settings.path()}")
        found = found._replace(channels=chosen)
    return found
