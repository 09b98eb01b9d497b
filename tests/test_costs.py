"""What does each hot path ask of the kernel? Counted, not timed: a busy machine says the same as an idle one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

_PROGRAM = """
import sys
from bot_bottle import AuditEntry, AuditStore, Inbox, Proposal, QueueStore

verb, path, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
queues, inbox, audit = [QueueStore(f"dev-{n}", path) for n in range(2)], Inbox(path), AuditStore(path)

def propose(n):
    return queues[0].write_proposal(Proposal.new("dev-0", "egress-allow", f"number: {n}", "because"))

def decide(n):
    inbox.decide(written[n].id, "approved", payload_sha256=written[n].payload_sha256)

written = [propose(-n) for n in range(1, 3)]
if verb == "decide":
    written = [propose(n) for n in range(150)]
entry = AuditEntry("2026-01-31T12:00:00Z", "dev-0", "egress", "reload-failed", "line 3")
work = {
    "propose": propose,
    "decide": decide,
    "append": lambda n: audit.write_audit_entry(entry),
    "pending": lambda n: inbox.pending(),
    "look": lambda n: queues[0].read_response(written[0].id),
    "tail": lambda n: audit.read_audit_entries(limit=100),
}[verb]
for n in range(number):
    work(n)
"""


def calls(verb: str, path: Path, number: int) -> Counter[str]:
    """How often a process that does it so many times makes each system call, in all its threads."""
    counted = path.with_name(f"{verb}-{number}.trace")
    program = [sys.executable, "-c", _PROGRAM, verb, str(path.with_name(f"{verb}-{number}.db")), str(number)]
    subprocess.run(["strace", "--follow-forks", "--quiet=all", f"--output={counted}", *program], check=True)
    return Counter(re.findall(r"^\d+ +(\w+)\(", counted.read_text(), re.MULTILINE))


@pytest.mark.parametrize(
    ("verb", "syncs", "most"),
    [("propose", 1, 55), ("decide", 1, 90), ("append", 1, 36), ("pending", 0, 8), ("look", 0, 8), ("tail", 0, 8)],
)
def test_an_operation_makes_few_system_calls_and_syncs_once_if_it_writes(
    tmp_path: Path, verb: str, syncs: int, most: int
) -> None:
    if shutil.which("strace") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("system calls cannot be counted without strace")
        pytest.skip("system calls cannot be counted without strace")
    few, many = (calls(verb, tmp_path / "bot-bottle.db", number) for number in (20, 120))
    many.subtract(few)
    each = {name: count / 100 for name, count in many.items() if count > 5}
    assert sum(each.get(name, 0) for name in ("fsync", "fdatasync")) == pytest.approx(syncs, abs=0.1), each
    # Half more than when this was written: enough for another SQLite or kernel, not for a connection at each operation.
    assert sum(each.values()) <= most, json.dumps(each, indent=1)
