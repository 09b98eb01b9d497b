"""Is the database one database on both sides of a directory mount, and refused where it would not be?"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from engine import FINDINGS, Container, Images, docker, mounting

from bot_bottle import AuditEntry, AuditStore, Database, Inbox, Proposal, QueueStore
from bot_bottle.supervise import host_db_path
from cli_process import Host

Sidecar = Callable[..., Container]
Run = Callable[..., Container]


def witness(sql: str) -> str:
    """What the sqlite3 shell, another process with another SQLite, reads from the host's database."""
    done = subprocess.run(["sqlite3", host_db_path(), sql], capture_output=True, text=True, check=True)
    return done.stdout.strip()


WRITER = """
import sys
from bot_bottle import AuditEntry, AuditStore, Database, Proposal, QueueStore
rounds = int(sys.argv[1])
audit, queue = AuditStore("/run/supervise/bot-bottle.db"), QueueStore("inside", "/run/supervise/bot-bottle.db")
print("ready", flush=True)
sys.stdin.readline()
for i in range(rounds):
    audit.write_audit_entry(AuditEntry("2026-01-31T12:00:00.000000Z", "inside", "test", "noted"))
    queue.withdraw_proposal(queue.write_proposal(Proposal.new("inside", "egress-allow", f"routes: []  # {i}")).id)
print("written", flush=True)
sys.stdin.readline()
count = "select count(*) as n from audit_entries"
print(Database("/run/supervise/bot-bottle.db").query(count)[0]["n"], flush=True)
"""


def test_both_sides_write_at_once_and_nothing_is_lost(sidecar: Sidecar) -> None:
    rounds = 300
    inside = sidecar(WRITER, str(rounds))
    assert inside.line() == "ready"
    inside.say("go")
    with AuditStore() as audit, QueueStore("host") as queue:
        for i in range(rounds):
            audit.write_audit_entry(AuditEntry("2026-01-31T12:00:00.000000Z", "host", "test", "noted"))
            queue.withdraw_proposal(queue.write_proposal(Proposal.new("host", "egress-allow", f"routes: []  # {i}")).id)
        assert inside.line() == "written"
        assert audit.verify().entries == 2 * rounds
        inside.say("count")
        assert inside.line() == str(2 * rounds)
        assert inside.code() == 0
    assert witness("select bottle_slug, count(*) from audit_entries group by 1 order by 1") == "host|300\ninside|300"
    assert witness("select count(*) from proposals where withdrawn_at is not null") == str(2 * rounds)
    assert witness("pragma integrity_check") == "ok"


HALF_WRITTEN = """
import sys, time
from bot_bottle import Database
database = Database("/run/supervise/bot-bottle.db")
database.migrate("forge", [("create table blobs (content blob not null) strict", "drop table blobs")])
with database.transaction() as transaction:
    # More than SQLite's page cache: uncommitted pages are in the WAL when the end comes.
    for _ in range(8):
        transaction.execute("insert into blobs values (zeroblob(1048576))")
    print("written, not committed", flush=True)
    sys.stdin.readline()
"""


def test_a_container_killed_inside_a_transaction_leaves_nothing_of_it(sidecar: Sidecar, shared: Path) -> None:
    inside = sidecar(HALF_WRITTEN)
    assert inside.line() == "written, not committed"
    assert (shared / "bot-bottle.db-wal").stat().st_size > 4 * 2**20
    # From outside, so that it reaches PID 1, which would ignore a SIGKILL from within.
    docker("kill", "--signal", "KILL", inside.name)
    assert inside.code() == 137
    assert witness("select count(*) from blobs") == "0"
    assert witness("pragma integrity_check") == "ok"
    # Nor is its lock left.
    with QueueStore("demo") as queue:
        written = queue.write_proposal(Proposal.new("demo", "egress-allow", "routes: []"))
    assert witness("select id from proposals") == written.id


WAITER = """
import sys, time
from bot_bottle import Proposal, QueueStore
queue = QueueStore("demo", "/run/supervise/bot-bottle.db")
for i in range(int(sys.argv[1])):
    proposal = queue.write_proposal(Proposal.new("demo", "egress-allow", f"routes: []  # {i}"))
    print(proposal.id, flush=True)
    response = queue.wait_for_response(proposal.id, timeout=60)
    print(time.monotonic_ns(), response.status, flush=True)
"""


def test_a_decision_wakes_a_waiter_across_the_mount(sidecar: Sidecar) -> None:
    rounds, took = 60, []
    inside = sidecar(WAITER, str(rounds))
    with Inbox() as inbox:
        for _ in range(rounds):
            proposal_id = inside.line()
            item = inbox.read(proposal_id)
            while not item.waiting:
                item = inbox.read(proposal_id)
            time.sleep(0.005)  # from the lease to the sleep itself is a moment nobody can see
            inbox.decide(proposal_id, "approved", payload_sha256=item.proposal.payload_sha256)
            # Both kernels' clocks are the same one.
            decided = time.monotonic_ns()
            woken, status = inside.line().split()
            assert status == "approved"
            took.append(max(0, int(woken) - decided) / 1e6)
    assert inside.code() == 0
    quantiles = statistics.quantiles(took, n=100)
    FINDINGS.append(
        f"woken across the mount: median {statistics.median(took):.3f} ms, p99 {quantiles[98]:.3f} ms, {rounds} rounds"
    )


def test_the_mounted_file_alone_is_refused(images: Images, shared: Path) -> None:
    alone = ["--mount", f"type=bind,source={shared}/bot-bottle.db,target=/run/supervise/bot-bottle.db"]
    refused = subprocess.run(
        ["docker", "run", "--rm", *alone, images.helper, "pending", "--bottle", "demo"], capture_output=True, text=True
    )
    assert refused.returncode == 8, refused.stderr
    assert "directory" in refused.stderr
    code = (
        "from bot_bottle import QueueStore, UnsafeMountError\n"
        "try: QueueStore('demo', '/run/supervise/bot-bottle.db').list_pending_proposals()\n"
        "except UnsafeMountError as error: print(error.exit_code, error.path)"
    )
    said = docker("run", "--rm", *alone, "--entrypoint", "python3", images.sidecars, "-c", code)
    assert said.split() == ["8", "/run/supervise/bot-bottle.db"]


FLOOD = """
import sys
from bot_bottle import BotBottleError, Proposal, QueueStore
queue = QueueStore("flooder", "/run/supervise/bot-bottle.db")
accepted = 0
try:
    for i in range(1000):
        queue.write_proposal(Proposal.new("flooder", "egress-allow", f"routes: []  # {i}"))
        accepted += 1
except BotBottleError as error:
    print(accepted, type(error).__name__, flush=True)
"""


def test_a_flood_ends_at_the_cap_and_the_operator_is_not_drowned(sidecar: Sidecar, host: Host) -> None:
    other = Proposal.new("quiet", "egress-allow", "routes: []", "one small thing")
    with QueueStore("quiet") as quiet, Inbox() as inbox:
        assert sidecar(FLOOD).line() == "200 InvalidProposalError"
        quiet.write_proposal(other)
        assert len(host.json("pending")) == 201
        inbox.decide(other.id, "approved", payload_sha256=other.payload_sha256)
        answer = quiet.read_response(other.id)
    assert answer is not None and answer.status == "approved"


def helper(images: Images, shared: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    run = ["docker", "run", "--rm", "--interactive", "--read-only", "--cap-drop", "ALL", *mounting(shared)]
    return subprocess.run([*run, images.helper, *arguments], input="routes: []\n", capture_output=True, text=True)


def test_the_helper_alone_in_its_image_proposes_and_is_answered(images: Images, shared: Path) -> None:
    doctor = helper(images, shared, "doctor")
    assert doctor.returncode == 0, doctor.stderr
    asking = threading.Thread(target=lambda: answers.append(helper(images, shared, *propose)))
    propose = ["propose", "--bottle", "demo", "--tool", "egress-allow", "--file", "-", "--wait", "--timeout", "60"]
    propose += ["--justification", "from scratch", "--json"]
    answers: list[subprocess.CompletedProcess[str]] = []
    asking.start()
    with Inbox() as inbox:
        change = next(inbox.watch(0, timeout=60))
        item = inbox.read(change.proposal_id)
        assert item.proposal.justification == "from scratch"
        inbox.decide(item.proposal.id, "rejected", payload_sha256=item.proposal.payload_sha256, notes="not today")
    asking.join()
    assert answers[0].returncode == 3, answers[0].stderr
    assert json.loads(answers[0].stdout)["notes"] == "not today"


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--mount", "type=bind,source={shared},target=/run/supervise,readonly", "--user", "{user}"),
        ("--mount", "type=bind,source={shared},target=/run/supervise", "--user", "54321:54321"),
    ],
    ids=["no mount", "read-only mount", "another user"],
)
def test_a_mount_that_cannot_be_written_says_so(images: Images, shared: Path, options: tuple[str, ...]) -> None:
    user = f"{os.getuid()}:{os.getgid()}"
    run = ["docker", "run", "--rm", "--interactive", *(word.format(shared=shared, user=user) for word in options)]
    propose = ["propose", "--bottle", "demo", "--tool", "egress-allow", "--file", "-", "--justification", "why"]
    done = subprocess.run([*run, images.helper, *propose], input="routes: []\n", capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "/run/supervise" in done.stderr and len(done.stderr.splitlines()) == 1
    with Database() as database:
        assert database.query("select count(*) as n from proposals") == [{"n": 0}]
