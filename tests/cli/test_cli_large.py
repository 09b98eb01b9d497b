"""Does the largest payload that an agent may send come to the screen whole, and in little memory?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bot_bottle import visible
from cli_process import PROGRAMS, ROUTES, Host
from large import LARGE

# Kept as whole texts, lists of lines, or Rich's objects for each, they take several times as much.
MOST_MIB = 100


# In a small process of its own: a child begins with the peak of whoever started it.
MEASURE = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, used = os.wait4(pid, 0)
print(used.ru_maxrss // 1024, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def peak(host: Host, output: Path, *arguments: str) -> int:
    """Runs the command; the most memory that it had, in MiB."""
    with output.open("wb") as file:
        command = [sys.executable, "-I", "-S", "-c", MEASURE, str(PROGRAMS / "bot-bottle"), *arguments]
        done = subprocess.run(command, env=host.environment(), stdout=file, stderr=subprocess.PIPE, timeout=120)
    assert done.returncode == 0, done.stderr
    return int(done.stderr)


@pytest.mark.parametrize("kind", LARGE)
def test_all_of_a_large_payload_is_printed_in_little_memory(host: Host, tmp_path: Path, kind: str) -> None:
    asked = host.propose(LARGE[kind], tool="capability-block")
    assert peak(host, tmp_path / "shown", "show", asked.id) < MOST_MIB
    shown = (tmp_path / "shown").read_text().rpartition("\nPayload\n")[2].removesuffix("\n").split("\n")
    lines = visible(LARGE[kind]).removesuffix("\n").split("\n")
    assert shown[: len(lines)] == [f"│ {line}" for line in lines]
    assert all(line.startswith("WARNING: ") for line in shown[len(lines) :] if line)


def test_so_is_the_change_to_a_managed_file(host: Host, tmp_path: Path) -> None:
    host.routes_file()
    asked = host.propose(LARGE["empty lines"], against=ROUTES)
    assert peak(host, tmp_path / "shown", "show", asked.id) < MOST_MIB
    assert (tmp_path / "shown").read_text().count("│ +\n") == len(LARGE["empty lines"])
