"""How do tests use the operator's screen: without a terminal, key by key, and in a real one?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
import subprocess
import termios
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

import pexpect
from pexpect import fdpexpect
from textual.pilot import Pilot
from textual.widgets import Label

from bot_bottle import Proposal
from bot_bottle.tui import dialogs
from bot_bottle.tui.app import Seat
from bot_bottle.tui.dialogs import Dialog
from cli_process import PROGRAMS, Host

Story = Callable[[Seat, "Pilot[None]"], Awaitable[None]]


def play(story: Story, size: tuple[int, int] = (120, 40)) -> None:
    """Runs the real app without a terminal, with the database of the test's root."""

    async def run() -> None:
        app = Seat()
        async with app.run_test(size=size) as pilot:
            await story(app, pilot)

    asyncio.run(run())


async def until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
    """Returns as soon as the screen is so; a wait in vain fails with what is on it."""
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline, on_screen(cast(Seat, pilot.app))
        await pilot.pause(0.01)


async def shown(app: Seat, pilot: Pilot[None], proposal: Proposal) -> None:
    """The proposal is on the screen, long enough to have been looked at."""
    await until(pilot, lambda: app.view.item is not None and app.view.item.proposal.id == proposal.id)
    await until(pilot, lambda: app.view.painted_at is not None)
    await pilot.pause(dialogs.READING_TIME + 0.05)


async def asked(app: Seat, pilot: Pilot[None], question: str) -> Dialog:
    """The dialog that asks this, once it hears keys."""
    await until(pilot, lambda: isinstance(app.screen, Dialog) and question in text(app, "#question"))
    dialog = app.screen
    assert isinstance(dialog, Dialog)
    await until(pilot, lambda: dialog.painted_at is not None)
    await pilot.pause(dialogs.READING_TIME + 0.05)
    return dialog


def text(app: Seat, selector: str) -> str:
    """What a label says; nothing while its screen is still being composed."""
    return "".join(str(label.content) for label in app.screen.query(selector).results(Label))


def told(app: Seat) -> str:
    return str(app.screen_stack[0].query_one("#told", Label).content)


def on_screen(app: Seat) -> str:
    """All that is drawn, as text."""
    return "\n".join("".join(segment.text for segment in line) for line in app.screen._compositor.render_strips())


@contextlib.contextmanager
def terminal(host: Host, *arguments: str, **extra: str) -> Iterator[Any]:
    """``bot-bottle`` in a terminal of 80 by 24. Not pexpect's own: that forks this process, which has threads."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(ours, (24, 80))
    with subprocess.Popen(
        [PROGRAMS / "bot-bottle", *arguments],
        env=host.environment(**extra),
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    ) as child:
        os.close(its)
        screen = fdpexpect.fdspawn(ours, encoding="utf-8", timeout=60)
        try:
            yield screen
        finally:
            child.kill()
            screen.close()


def press(screen: Any, key: str, shown: str) -> None:
    """Sends a key until it is answered: one that comes before what it answers was on the screen counts for nothing."""
    while screen.expect([re.escape(shown), pexpect.TIMEOUT], timeout=1):
        screen.send(key)
