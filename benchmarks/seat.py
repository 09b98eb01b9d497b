"""How fast is the operator's screen under load, and what does it hold? `python -m benchmarks.seat` prints it.

It drives `bot-bottle supervise` in a pseudo-terminal, with a root of its own: 10,000 proposals are pending, a payload
of 1 MiB is on the screen, and another process proposes 100 times a second. docs/operator.md has the figures.
"""

import fcntl
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import termios
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import CLI, times
from bot_bottle import Inbox, Proposal, QueueStore

PENDING, BOTTLES, A_SECOND = 10_000, 100, 100
STARTS, PRESSES = 10, 200
ROWS, COLUMNS = 50, 200
LINE = re.compile(rb"line-(\d{6})")
SELECTED = re.compile("▶..task-(\\d{5})".encode())


def main() -> None:
    if sys.argv[1:] == ["propose"]:
        propose()
        return
    home = Path(tempfile.mkdtemp())
    os.environ |= {"BOT_BOTTLE_ROOT": str(home / "root"), "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    try:
        fill()
        with arriving():
            painted()
            used()
    finally:
        shutil.rmtree(home)


def fill() -> None:
    """The oldest proposal, which the screen opens with, is the large one."""
    large = "".join(f"RUN echo line-{number:06} {'x' * 46}\n" for number in range(2**20 // 69))
    with QueueStore("b0") as queue:
        queue.write_proposal(Proposal.new("b0", "capability-block", large, "the large one"))
    for bottle in range(BOTTLES):
        with QueueStore(f"b{bottle}") as queue:
            for number in range(bottle * PENDING // BOTTLES, (bottle + 1) * PENDING // BOTTLES):
                queue.write_proposal(Proposal.new(f"b{bottle}", f"task-{number:05}", f"{number}\n" * 20, "why"))


def propose() -> None:
    """Proposes at a steady pace until it is ended, and withdraws what is a second old."""
    begin, number = time.monotonic(), 0
    pending: deque[str] = deque()
    with QueueStore("new") as queue:
        while True:
            number += 1
            time.sleep(max(0.0, begin + number / A_SECOND - time.monotonic()))
            made = queue.write_proposal(Proposal.new("new", "capability-block", f"arrived {number}\n", "why"))
            pending.append(made.id)
            if len(pending) > A_SECOND:
                queue.withdraw_proposal(pending.popleft())


@contextmanager
def arriving() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-m", "benchmarks.seat", "propose"]) as process:
        try:
            yield
        finally:
            process.terminate()


class Screen:
    """The program in a terminal that remembers what was drawn last."""

    def __init__(self) -> None:
        self.terminal, its = pty.openpty()
        termios.tcsetwinsize(its, (ROWS, COLUMNS))

        def take_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.began = time.monotonic_ns()
        self.process = subprocess.Popen(
            [CLI, "supervise"], stdin=its, stdout=its, stderr=its, preexec_fn=take_terminal, close_fds=True
        )
        os.close(its)
        self.drawn = b""

    def press(self, key: bytes) -> int:
        """The moment at which it was pressed."""
        self.drawn = b""
        os.write(self.terminal, key)
        return time.monotonic_ns()

    def look(self, seconds: float = 0.0) -> bytes:
        """What was drawn since the last key; waits this long for something new."""
        while select.select([self.terminal], [], [], seconds)[0]:
            self.drawn += os.read(self.terminal, 2**16)
            seconds = 0.0
        return self.drawn

    def until_beyond(self, pattern: re.Pattern[bytes], number: int) -> int:
        """The largest number in what matches, once one larger than ``number`` was drawn."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            found = max(map(int, pattern.findall(self.look(1.0))), default=-1)
            if found > number:
                return found
        raise SystemExit(f"benchmarks: nothing beyond {number} was drawn: {self.drawn[-2000:]!r}")

    def memory(self) -> float:
        """The most that it has held so far, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)


def painted() -> None:
    """From the start of the process to the first frame, and to the one with the rows and the large payload."""
    first, whole = [], []
    for _ in range(STARTS):
        screen = Screen()
        while b"pending" not in screen.look(1.0):
            pass
        first.append(time.monotonic_ns() - screen.began)
        screen.until_beyond(LINE, -1)
        whole.append(time.monotonic_ns() - screen.began)
        screen.close()
    say("start to the first frame", first)
    say("start to the frame with the list and the large payload", whole)


def used() -> None:
    """From a key to the first output that has what it brings on the screen."""
    screen = Screen()
    last = screen.until_beyond(LINE, -1)
    time.sleep(2)
    screen.look()
    took = []
    for _ in range(PRESSES):
        pressed = screen.press(b" ")
        last = screen.until_beyond(LINE, last)
        took.append(time.monotonic_ns() - pressed)
        idle(screen)
    say("a page of the large payload, key to screen", took)
    took, selected = [], -1
    for _ in range(PRESSES):
        pressed = screen.press(b"j")
        selected = screen.until_beyond(SELECTED, selected)
        took.append(time.monotonic_ns() - pressed)
        idle(screen)
    say("the next row of the list, key to screen", took)
    with Inbox() as inbox:
        pending = inbox.stats()["pending"]
    print(f"memory at most: {screen.memory():.0f} MiB, with {pending:,} pending at the end", flush=True)
    screen.close()


def idle(screen: Screen) -> None:
    """A tenth of a second in which arrivals are drawn, so that keys fall between them at random."""
    end = time.monotonic() + 0.1
    while (left := end - time.monotonic()) > 0:
        screen.look(left)


def say(what: str, nanoseconds: list[int]) -> None:
    took = times(nanoseconds)
    print(
        f"{what}: median {took['median_ms']:.1f} ms, p99 {took['p99_ms']:.1f} ms, worst {took['worst_ms']:.1f} ms",
        flush=True,
    )


if __name__ == "__main__":
    main()
