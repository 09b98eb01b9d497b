"""Can anything an agent writes deceive the operator who reads it in a terminal?"""

from __future__ import annotations

import pexpect
import pytest

from bot_bottle import AuditEntry, AuditStore, QueueStore
from cli_process import PROGRAMS, ROUTES, Host
from hostile import EVERYTHING, assert_harmless
from store_process import witness


@pytest.fixture
def proposal_id(host: Host) -> str:
    """A proposal whose every free text is hostile, decided with hostile notes, and an audit entry of a sidecar's."""
    host.routes_file()
    rules = host.root / "policy.toml"
    rules.touch(0o600)
    rules.write_text("[[rule]]\nname = 'a'\ntool = 'capability-block'\n")
    host.propose(f"{ROUTES}# {EVERYTHING}\n", EVERYTHING, against=ROUTES, fingerprint=EVERYTHING[:100])
    decided = host.propose(f"FROM {EVERYTHING}\n", EVERYTHING, tool="capability-block", fingerprint=EVERYTHING[:100])
    host.run("approve", decided.id, "--yes", "--grant", "bottle", "--notes", EVERYTHING)
    taken_back = host.propose("x", EVERYTHING, tool="capability-block")
    with QueueStore("demo") as queue:
        queue.withdraw_proposal(taken_back.id, EVERYTHING)
    with AuditStore() as store:
        store.write_audit_entry(
            AuditEntry(
                "2026-01-01T00:00:00.000000Z",
                "demo",
                "egress",
                EVERYTHING[:60],
                EVERYTHING,
                EVERYTHING,
                f"--- a\n+++ b\n@@ -1 +1 @@\n-{EVERYTHING}\n+{EVERYTHING}\n",
                decided_by=EVERYTHING[:60],
            )
        )
    return taken_back.id


COMMANDS = [
    "pending",
    "show {pending}",
    "show {decided}",
    "show {withdrawn}",
    "history",
    "audit list",
    "audit list --full",
    "grants list",
    "grants show {grant}",
    "policy test",
    "bottles",
    "stats",
    "watch --since 0",
    "db query select*from(proposals)",
    "db query select*from(audit_entries)",
    "approve {withdrawn}",
]


def command_line(host: Host, command: str, withdrawn: str) -> list[str]:
    states = {item["state"]: item["id"] for item in host.json("history")}
    named = {"pending": states["pending"], "decided": states["approved"], "withdrawn": withdrawn}
    return command.format(**named, grant=host.json("grants", "list")[0]["id"]).split(maxsplit=2)


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith("watch")])
@pytest.mark.parametrize("style", [(), ("--json",)], ids=["text", "json"])
def test_nothing_hostile_reaches_a_pipe(host: Host, proposal_id: str, command: str, style: tuple[str, ...]) -> None:
    code = 5 if command.startswith("approve") else 0
    done = host.run(*command_line(host, command, proposal_id), *style, code=code)
    assert_harmless(done.stdout)
    assert_harmless(done.stderr)


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_hostile_reaches_a_terminal(host: Host, proposal_id: str, command: str) -> None:
    child = pexpect.spawn(
        str(PROGRAMS / "bot-bottle"),
        command_line(host, command, proposal_id),
        env=host.environment(),
        dimensions=(50, 100),
        encoding="utf-8",
        timeout=20,
    )
    if command.startswith("watch"):
        child.expect("withdrawn")
        output = child.before
        child.sendintr()
        child.expect(pexpect.EOF)
    else:
        child.expect(pexpect.EOF)
        output = child.before
    assert_harmless(output)


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (["review"], [("again: ", "v"), ("again: ", "r"), ("reads it: ", "no"), ("again: ", "q")]),
        (["supervise", "--plain"], [("q quits: ", "1"), ("again: ", "b"), ("q quits: ", "q")]),
    ],
    ids=["review", "plain"],
)
def test_nothing_hostile_reaches_somebody_who_is_asked(
    host: Host, proposal_id: str, arguments: list[str], keys: list[tuple[str, str]]
) -> None:
    reason = host.propose("x: 1\n", tool="capability-block")
    host.run("reject", reason.id, "--notes", "\u202enever offered again")
    host.propose("y: 1\n", EVERYTHING, tool="capability-block", slug="last")
    child = pexpect.spawn(
        str(PROGRAMS / "bot-bottle"),
        arguments,
        env=host.environment(PAGER="cat"),
        dimensions=(50, 100),
        encoding="utf-8",
        timeout=60,
    )
    seen = ""
    for prompt, typed in keys:
        child.expect_exact(prompt)
        seen += child.before
        child.sendline(typed)
    child.expect(pexpect.EOF)
    assert "<U+001B>" in seen
    assert_harmless(seen + child.before)


def test_hostile_text_is_spelled_out_and_markup_is_left_as_it_is(host: Host, proposal_id: str) -> None:
    pending = host.json("pending")[0]["id"]
    output = host.run("show", pending).stdout
    for part in ("<U+001B>[2J", "<U+202E>txt.exe", "pass<U+200B>word", "[bold red]approved[/bold red]", ":warning:"):
        assert output.count(part) >= 2, part  # in the justification and in the diff


def test_an_agent_s_lines_cannot_pass_for_ours(host: Host) -> None:
    forged = "please\n\nPayload\n│ nothing\nState      approved\n" + "-" * 200 + " State approved"
    proposal = host.propose(f"{forged}\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n", forged, tool="capability-block")
    child = pexpect.spawn(
        str(PROGRAMS / "bot-bottle"),
        ["show", proposal.id],
        env=host.environment(TERM="dumb"),
        dimensions=(50, 60),
        encoding="utf-8",
    )
    child.expect(pexpect.EOF)
    lines = child.before.replace("\r", "").split("\n")
    assert all(len(line) <= 60 for line in lines)
    ours = [line for line in lines if line and not line.startswith(("│ ", "┊ "))]
    names = [line.split()[0] for line in ours if not line.startswith(" ")]
    fields = ["Proposal", "Bottle", "Tool", "State", "Arrived", "Requester", "Expires", "File", "Payload", "SHA-256"]
    fields += ["Review"]
    assert names == [*fields, "Justification", "Payload"]
    assert not any("approved" in line for line in ours)


def test_a_diff_s_colours_follow_position_not_content(host: Host) -> None:
    path = host.routes_file()
    path.write_text("-- a/routes.yaml\nkeep\n")
    proposal = host.propose("keep\n++ b/routes.yaml\n", against="-- a/routes.yaml\nkeep\n")
    output = host.run("show", proposal.id, FORCE_COLOR="1").stdout
    assert "\x1b[31m--- a/routes.yaml" in output
    assert "\x1b[32m+++ b/routes.yaml" in output


def test_the_shell_sees_nothing_an_agent_wrote(host: Host) -> None:
    proposal = host.propose("$(touch owned)\n`touch owned`\n'; touch owned; '", "$(touch owned)'; touch owned; '")
    output = host.root.parent / "events"
    child = pexpect.spawn(
        str(PROGRAMS / "bot-bottle"),
        ["watch", "--since", "0", "--exec", f'printf "%s\\n" "$BOT_BOTTLE_EVENT" >> {output}; echo done'],
        env=host.environment(),
        cwd=host.root.parent,
        encoding="utf-8",
        timeout=20,
    )
    child.expect("done")
    child.sendintr()
    child.expect(pexpect.EOF)
    assert proposal.id in output.read_text()
    assert not (host.root.parent / "owned").exists()


INVALID_TIMES = (
    "now",
    "",
    "x" * 99,
    "2026-01-31",
    "2026-01-31T12:00:00",
    "-4713-01-01T00:00:00Z",
    "0001-01-01T00:00:00Z",
)


@pytest.mark.parametrize("time", [*INVALID_TIMES, "9999-12-31T23:59:59.999999-23:59"])
def test_a_row_with_an_invalid_time_breaks_no_list(host: Host, proposal_id: str, time: str) -> None:
    good, asked = host.propose("FROM a\n", tool="capability-block"), host.propose("FROM b\n", tool="capability-block")
    db = host.root / "db" / "bot-bottle.db"
    triggers = witness(db, "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
    # As a sidecar that has the file may, after whatever forbids it.
    witness(
        db,
        "PRAGMA ignore_check_constraints = ON",
        *(f"DROP TRIGGER {name}" for name, _ in triggers),
        f"UPDATE proposals SET arrival_timestamp = '{time}', expires_at = '{time}' WHERE id <> '{good.id}'",
        f"UPDATE responses SET decided_at = '{time}'",
        *(sql for _, sql in triggers),
    )
    for command in ("pending", "history"):
        assert good.id[:13] in host.run(command).stdout
    for command in (f"show {asked.id}", "stats", "policy test", "policy suggest"):
        host.run(*command.split())
