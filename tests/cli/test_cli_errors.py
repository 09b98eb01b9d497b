"""Does every failure end with its documented exit code and one helpful sentence, and never a traceback?"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

import bot_bottle.errors
from bot_bottle import MAX_NOTES_BYTES, MAX_PAYLOAD_BYTES, Inbox, QueueStore, new_id
from bot_bottle.errors import BotBottleError
from checkout import CHECKOUT
from cli_process import MORE_ROUTES, PROGRAMS, ROUTES, Host


def decided(host: Host) -> str:
    proposal = host.propose()
    with Inbox() as inbox:
        inbox.decide(proposal.id, "rejected", payload_sha256=proposal.payload_sha256, decided_by="somebody")
    return proposal.id


def expired(host: Host) -> str:
    return host.propose(expires_in=0.001).id


def withdrawn(host: Host) -> str:
    proposal = host.propose()
    with QueueStore("demo") as queue:
        queue.withdraw_proposal(proposal.id, "no longer needed")
    return proposal.id


def archived(host: Host) -> str:
    proposal = host.propose()
    with QueueStore("demo") as queue:
        queue.archive_proposal(proposal.id)
    return proposal.id


def pending(host: Host) -> str:
    return host.propose().id


def ambiguous(host: Host) -> str:
    # The first 16 bits of a UUIDv7 change every 49 days.
    return {host.propose("a: 1\n").id[:4], host.propose("a: 2\n").id[:4]}.pop()


def unknown(host: Host) -> str:
    host.propose()
    return new_id()


def stale(host: Host) -> str:
    path = host.routes_file()
    proposal = host.propose(against=ROUTES)
    path.write_text("routes: []\n")
    return proposal.id


def secret(host: Host) -> str:
    return host.propose("a secret", tool="gitleaks-allow").id


def sql(host: Host, *statements: str) -> None:
    """Runs SQL by another program: a second copy of SQLite must not be in this process."""
    script = "import sqlite3, sys\nwith sqlite3.connect(sys.argv[1]) as c:\n    for s in sys.argv[2:]: c.execute(s)"
    subprocess.run([sys.executable, "-c", script, host.root / "db" / "bot-bottle.db", *statements], check=True)


def garbage(host: Host) -> str:
    (host.root / "db").mkdir(parents=True, mode=0o700)
    (host.root / "db" / "bot-bottle.db").write_bytes(b"this is no database " * 500)
    return new_id()


def newer(host: Host) -> str:
    proposal = host.propose()
    sql(host, "update schema_versions set version = 99, compat = 99 where module = 'queue_store'")
    return proposal.id


def root_is_a_file(host: Host) -> str:
    host.root.write_text("")
    return new_id()


@dataclass(frozen=True)
class Failure:
    """``arguments`` fail with ``code`` on what ``given`` prepares; ``{id}`` is what it returns."""

    given: Callable[[Host], str]
    arguments: str
    code: int
    says: str
    stdin: bytes = b""
    program: str = "bot-bottle"


FAILURES = [
    Failure(pending, "approve", 2, "Missing argument"),
    Failure(pending, "aprove {id}", 2, "No such command"),
    Failure(pending, "audit list --since yesterday-ish", 2, "neither a time"),
    Failure(pending, "db prune --older-than soon", 2, "not a duration"),
    Failure(pending, "show 0", 2, ""),
    Failure(ambiguous, "show {id}", 2, ""),
    Failure(pending, "modify {id} --file -", 2, ""),
    Failure(pending, "modify {id} --file -", 2, "", b"a\0b"),
    Failure(pending, "modify {id} --file -", 2, "3", b"abc\xff"),
    Failure(pending, "modify {id} --file -", 2, "", b"x" * (MAX_PAYLOAD_BYTES + 1)),
    Failure(pending, "modify {id} --file /nowhere/file", 4, "/nowhere/file"),
    Failure(pending, "modify {id} --file /", 1, "Is a directory"),
    Failure(pending, "db restore /nowhere/file --yes", 4, "/nowhere/file"),
    Failure(pending, "reject {id} --notes " + "x" * (MAX_NOTES_BYTES + 1), 2, ""),
    Failure(pending, "approve {id} --grant forever", 2, ""),
    Failure(secret, "approve {id} --yes", 2, "note"),
    Failure(secret, "modify {id} --file - --notes why", 2, "", b"x\n"),
    Failure(pending, "db query drop_table", 2, ""),
    Failure(pending, "archive {id}", 2, "decide it"),
    Failure(pending, "db backup /", 2, ""),
    Failure(unknown, "show {id}", 4, "{id}"),
    Failure(unknown, "approve {id}", 4, "{id}"),
    Failure(unknown, "archive {id}", 4, "{id}"),
    Failure(unknown, "history --before {id}", 4, "{id}"),
    Failure(unknown, "grants revoke {id}", 4, "{id}"),
    *(
        Failure(given, f"{verb} {{id}}{version}", 5, says, b"x\n")
        for given, says in ((decided, "somebody"), (expired, "expired"), (withdrawn, "withdrawn"), (archived, ""))
        for verb, version in (("approve", ""), ("reject", ""), ("modify", " --file -"))
    ),
    Failure(stale, "approve {id} --yes", 5, "changed"),
    Failure(stale, "modify {id} --file -", 5, "changed", b"x\n"),
    Failure(pending, "approve {id} --hash " + "0" * 64, 5, "{id}"),
    Failure(pending, "audit proof {id}", 2, "it is pending, not decided"),
    Failure(unknown, "audit proof {id}", 4, "{id}"),
    Failure(pending, "audit verify --head " + "f" * 64, 7, "noted earlier"),
    *(Failure(given, verb, 8, "") for given in (garbage, newer) for verb in ("pending", "show {id}", "approve {id}")),
    Failure(root_is_a_file, "db migrate", 1, "root"),
    *(
        Failure(given, arguments, code, says, b"", "bot-bottle-sidecar")
        for given, arguments, code, says in (
            (pending, "propose --tool t --file /nowhere/file", 4, "/nowhere/file"),
            (pending, "propose --tool t --file -", 2, ""),
            (unknown, "show {id}", 4, "{id}"),
            (unknown, "wait {id} --timeout 0", 4, "{id}"),
            (unknown, "withdraw {id}", 4, "{id}"),
            (decided, "withdraw {id}", 5, "somebody"),
            (expired, "wait {id} --timeout 5", 5, "expired"),
            (withdrawn, "wait {id} --timeout 5", 5, "withdrawn"),
            (pending, "wait {id} --timeout 0", 6, "{id}"),
            (decided, "wait {id}", 3, ""),
            (garbage, "pending", 8, ""),
            (newer, "pending", 8, ""),
            (newer, "show {id}", 8, ""),
        )
    ),
]


def name(failure: Failure) -> str:
    return f"{failure.program}-{failure.given.__name__}-{failure.arguments[:40]}-{failure.stdin[:4]!r}"


@pytest.mark.parametrize("failure", FAILURES, ids=name)
def test_failures_have_their_exit_code_and_a_sentence(host: Host, failure: Failure) -> None:
    known = failure.given(host)
    before = {path: path.read_bytes() for path in host.root.glob("bottles/*/*")} if host.root.is_dir() else {}
    done = host.run(
        *failure.arguments.format(id=known).split(),
        code=failure.code,
        program=failure.program,
        stdin=failure.stdin,
        SUPERVISE_DB_PATH=str(host.root / "db" / "bot-bottle.db"),
        SUPERVISE_BOTTLE_SLUG="demo",
    )
    if failure.code != 3:  # a rejection is a result
        assert done.stderr.startswith(f"{failure.program}: ")
        assert done.stderr.count("\n") == 1
        assert failure.says.format(id=known) in done.stderr
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.parametrize("program", ["bot-bottle", "bot-bottle-sidecar"])
@pytest.mark.parametrize("arguments", [["shw"], ["show"], ["show", "--nope"], ["pending", "--json", "more"]])
def test_mistakes_of_usage_end_with_2(host: Host, program: str, arguments: list[str]) -> None:
    done = host.run(*arguments, code=2, program=program, SUPERVISE_DB_PATH="db", SUPERVISE_BOTTLE_SLUG="demo")
    assert done.stdout == ""
    assert done.stderr


@pytest.mark.parametrize("arguments", ["show {id}", "approve {id}", "history --before {id}"])
def test_json_errors_are_json(host: Host, arguments: str) -> None:
    known = unknown(host)
    done = host.run(*arguments.format(id=known).split(), "--json", code=4)
    error = json.loads(done.stderr)
    assert (error["error"], error["exit_code"]) == ("NotFoundError", 4)
    assert known in error["message"]
    assert done.stdout == ""


def test_json_errors_carry_the_error_s_data(host: Host) -> None:
    known = decided(host)
    error = json.loads(host.run("approve", known, "--yes", "--json", code=5).stderr)
    assert (error["error"], error["proposal_id"], error["status"]) == ("AlreadyDecidedError", known, "rejected")
    assert error["decided_by"] == "somebody"


def test_usage_errors_are_json_once_json_is_asked_for(host: Host) -> None:
    error = json.loads(host.run("audit", "list", "--json", "--since", "whenever", code=2).stderr)
    assert error["exit_code"] == 2


def test_a_damaged_log_is_told(host: Host) -> None:
    host.run("approve", host.propose().id, "--yes")
    sql(
        host,
        "drop trigger "
        + only(
            host,
            "select name from sqlite_master where type = 'trigger' and sql like '%UPDATE%' and tbl_name like 'audit%'",
        ),
        "update audit_entries set operator_notes = 'never said'",
    )
    assert "1" in host.run("audit", "verify", code=7).stderr
    findings = host.run("db", "check", code=8)
    assert findings.stdout
    assert "db restore" in findings.stderr
    assert json.loads(host.run("db", "check", "--json", code=8).stdout) == findings.stdout.splitlines()


def test_a_decision_that_is_not_in_effect_is_shown(host: Host) -> None:
    path = host.routes_file()
    proposal = host.propose(against=ROUTES)
    host.run("approve", proposal.id, "--yes")
    # As a crash leaves it after the decision is committed; then somebody else writes the file.
    sql(host, "update applies set state = 'intended'")
    path.write_text("somebody: else\n")
    output = host.run("pending").stdout
    assert f"{proposal.id} is approved, but {path} is not in effect: " in output
    assert "NO: " in host.run("show", proposal.id).stdout
    assert path.read_text() == "somebody: else\n"
    assert host.json("archive", proposal.id)["status"] == "archived"
    assert host.run("pending").stdout == "No proposal is pending.\n"


def only(host: Host, query: str) -> str:
    (row,) = host.json("db", "query", query)
    (value,) = row.values()
    return str(value)


def test_a_relative_root_is_refused(host: Host) -> None:
    assert "BOT_BOTTLE_ROOT" in host.run("pending", code=2, BOT_BOTTLE_ROOT="here").stderr


def test_a_reader_that_goes_away_is_no_failure(host: Host) -> None:
    for n in range(100):
        host.propose(f"n: {n}\n", "y" * 900)
    for arguments in ("pending", "pending --json", "history --limit 100 --json", "db query 'select * from proposals'"):
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; bot-bottle {arguments} | head -c 1"],
            env=host.environment(),
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_is_told(host: Host) -> None:
    host.propose()
    for arguments in (["pending"], ["pending", "--json"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [PROGRAMS / "bot-bottle", *arguments],
                env=host.environment(),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
            )
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_change_nothing(host: Host, closed: str) -> None:
    proposal = host.propose()
    for command, code in (
        (f"show {new_id()}", 4),
        (f"show {proposal.id}", 0),
        (f"approve {proposal.id}", 2),
        (f"approve {proposal.id} --yes", 0),
    ):
        done = subprocess.run(["bash", "-c", f"bot-bottle {command} {closed}"], env=host.environment())
        assert done.returncode == code
    assert host.json("db", "check") == []


def test_an_interrupt_ends_with_130_and_no_traceback(host: Host) -> None:
    host.propose()
    with subprocess.Popen(
        [PROGRAMS / "bot-bottle", "watch", "--since", "0", "--json"],
        env=host.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        watch.stdout.readline()  # it is past its start
        watch.send_signal(signal.SIGINT)
        assert watch.wait(timeout=10) == 130
        assert watch.stderr.read() == ""


def test_a_traceback_comes_only_on_demand(host: Host) -> None:
    done = subprocess.run(
        [PROGRAMS / "bot-bottle", "show", new_id()],
        env=host.environment(BOT_BOTTLE_TRACEBACK="1"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 4
    assert "Traceback" in done.stderr


def test_a_terminal_without_unicode_gets_escapes(host: Host) -> None:
    host.propose(MORE_ROUTES, "naïve ☃")
    output = host.run("pending", PYTHONIOENCODING="ascii").stdout
    assert "na\\xefve \\u2603" in output


def test_the_documented_exit_codes_are_those_of_the_errors() -> None:
    documented: dict[str, int] = {}
    for line in (CHECKOUT / "docs" / "cli.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0].isdigit() and len(cells) == 3:
            documented |= {name.strip("` "): int(cells[0]) for name in cells[2].split(",") if "Error" in name}
    classes = {
        error.__name__: error.exit_code
        for error in vars(bot_bottle.errors).values()
        if isinstance(error, type) and issubclass(error, BotBottleError)
    }
    assert documented == classes
