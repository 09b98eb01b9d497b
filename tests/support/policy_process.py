"""How do tests write a host's rules, and have `policy run` at work?"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from bot_bottle import Inbox, Proposal
from cli_process import PROGRAMS, Host


def write(host: Host, text: str) -> None:
    """Puts the rules in place at once, as an editor does."""
    host.root.mkdir(mode=0o700, exist_ok=True)
    new = host.root / "policy.new"
    new.touch(0o600)
    new.write_text(text)
    new.rename(host.root / "policy.toml")


@contextmanager
def at_work(host: Host) -> Iterator[subprocess.Popen[str]]:
    """A real ``policy run``; interrupted at the end."""
    process = subprocess.Popen(
        [PROGRAMS / "bot-bottle", "policy", "run"],
        env=host.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


def state(asked: Proposal) -> str:
    with Inbox() as inbox:
        return inbox.read(asked.id).state
