"""Does the operator's screen work in a real terminal of the smallest usual size, with a real editor?"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import termios
from collections.abc import Iterator
from typing import Any

import pexpect
from pexpect import fdpexpect

from bot_bottle import Inbox
from cli_process import PROGRAMS, Host


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


def test_an_edit_is_sent_once_its_whole_diff_was_seen(host: Host) -> None:
    payload = "FROM debian:12\n" + "".join(f"RUN echo {number}\n" for number in range(200))
    proposal = host.propose(payload, tool="capability-block")
    with terminal(host, "supervise", EDITOR="sed -i s/echo/printf/") as screen:
        press(screen, "m", "Send your version instead?")
        press(screen, "\x1b[1;5F", "Enter yes")  # Ctrl+End
        screen.send("\r")
        screen.expect_exact(f"modified {proposal.id}")
    with Inbox() as inbox:
        answer = inbox.read(proposal.id).response
    assert answer is not None
    assert answer.final_file == payload.replace("echo", "printf")
