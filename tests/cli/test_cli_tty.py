"""How does `bot-bottle` behave on a terminal: what does it ask, draw and colour?"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from bot_bottle import MAX_PAYLOAD_BYTES
from cli_process import MORE_ROUTES, PROGRAMS, ROUTES, Host

Terminal = Callable[..., "pexpect.spawn[str]"]
ANSWERS = "[y]es [n]o [r]eject [m]odify [a]sk back [v]iew again: "


@pytest.fixture
def terminal(host: Host) -> Terminal:
    def start(*arguments: str, columns: int = 100, **extra: str) -> pexpect.spawn[str]:
        return pexpect.spawn(
            str(PROGRAMS / "bot-bottle"),
            list(arguments),
            env=host.environment(**extra),
            dimensions=(60, columns),
            encoding="utf-8",
            timeout=20,
        )

    return start


def finish(child: pexpect.spawn[str]) -> tuple[str, int]:
    """The rest of the output, and the exit code."""
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus is not None
    return child.before, child.exitstatus


def test_approve_shows_the_proposal_and_asks(host: Host, terminal: Terminal) -> None:
    path = host.routes_file()
    proposal = host.propose(justification="to open the pull request", against=ROUTES)
    child = terminal("approve", proposal.id, columns=300)
    child.expect_exact(f"Approve egress-allow of demo: {path} (+1 -0)? {ANSWERS}")
    for part in ("to open the pull request", proposal.payload_sha256, "+  - host: api.github.com"):
        assert part in child.before
    assert path.read_text() == ROUTES
    child.sendline("y")
    output, code = finish(child)
    assert code == 0
    assert f"{path} is in effect" in output
    assert path.read_text() == MORE_ROUTES


@pytest.mark.parametrize("answer", ["n", "", "yep", "\x04"])
def test_anything_but_yes_approves_nothing(host: Host, terminal: Terminal, answer: str) -> None:
    proposal = host.propose()
    child = terminal("approve", proposal.id)
    child.expect_exact(ANSWERS)
    if answer == "\x04":
        child.sendeof()
    else:
        child.sendline(answer)
    output, code = finish(child)
    assert code == 1
    assert "bot-bottle: nothing was decided" in output
    assert [item["id"] for item in host.json("pending")] == [proposal.id]


def test_what_was_typed_before_the_question_is_no_answer(host: Host, terminal: Terminal) -> None:
    proposal = host.propose()
    child = terminal("approve", proposal.id)
    child.sendline("y")  # before anything is on the screen
    child.expect_exact(ANSWERS)
    assert [item["id"] for item in host.json("pending")] == [proposal.id]
    child.sendline("n")
    output, code = finish(child)
    assert code == 1
    assert "nothing was decided" in output
    assert [item["id"] for item in host.json("pending")] == [proposal.id]


@pytest.mark.parametrize("shell", ["{} | cat", "{} < /dev/null", "{} < /dev/null | cat"])
def test_approve_asks_at_both_ends_of_a_terminal_or_refuses(host: Host, shell: str) -> None:
    proposal = host.propose()
    command = shell.format(f"{PROGRAMS / 'bot-bottle'} approve {proposal.id}")
    child: pexpect.spawn[str] = pexpect.spawn(
        "bash", ["-o", "pipefail", "-c", command], env=host.environment(), encoding="utf-8", timeout=20
    )
    output, code = finish(child)
    assert code == 2
    assert "nobody can be asked" in output and "--yes" in output
    assert [item["id"] for item in host.json("pending")] == [proposal.id]


def test_what_is_longer_than_the_screen_goes_through_a_pager_first(host: Host, terminal: Terminal) -> None:
    proposal = host.propose("".join(f"line {n}\n" for n in range(1, 301)), tool="capability-block")
    child = terminal("approve", proposal.id)
    child.expect_exact("More than a screen: less shows it first")
    child.expect_exact("line 40")
    child.send("G")
    child.expect_exact("line 300")
    child.send("q")
    child.expect_exact(f"Approve capability-block of demo (changes nothing on this host)? {ANSWERS}")
    child.sendline("v")
    child.expect_exact("line 40")
    child.send("q")
    child.expect_exact(ANSWERS)
    child.sendline("y")
    _, code = finish(child)
    assert code == 0
    assert host.json("show", proposal.id)["state"] == "approved"


def test_the_question_takes_a_rejection_and_its_reason(host: Host, terminal: Terminal) -> None:
    proposal = host.propose()
    child = terminal("approve", proposal.id)
    child.expect_exact(ANSWERS)
    child.sendline("r")
    child.expect_exact("Why not? The agent reads it: ")
    child.sendline("Use the mirror")
    assert finish(child)[1] == 0
    item = host.json("show", proposal.id)
    assert (item["state"], item["response"]["notes"]) == ("rejected", "Use the mirror")


def test_the_question_takes_a_modification(host: Host, terminal: Terminal) -> None:
    path = host.routes_file()
    proposal = host.propose(against=ROUTES)
    child = terminal("approve", proposal.id, EDITOR="sed -i s/api.github.com/github.com/")
    child.expect_exact(ANSWERS)
    child.sendline("m")
    assert finish(child)[1] == 0
    assert path.read_text() == MORE_ROUTES.replace("api.github.com", "github.com")


def test_a_reason_that_is_needed_is_asked_for_before_the_question(host: Host, terminal: Terminal) -> None:
    proposal = host.propose("a finding", tool="gitleaks-allow", fingerprint="f" * 64)
    child = terminal("approve", proposal.id, "--grant", "for:2h")
    child.expect_exact("Why may this pass? The reason is recorded, and the agent reads it: ")
    child.sendline("A test key")
    child.expect_exact(
        "Approve gitleaks-allow of demo (changes nothing on this host), and the same again for 2 h? " + ANSWERS
    )
    child.sendline("yes")
    assert finish(child)[1] == 0
    assert host.json("show", proposal.id)["response"]["notes"] == "A test key"


def test_stopping_a_bottle_that_runs_asks_first(host: Host, terminal: Terminal) -> None:
    host.routes_file()
    host.propose()
    assert "needs --yes" in host.run("bottle", "stop", "demo", code=2).stderr
    child = terminal("bottle", "stop", "demo")
    child.expect_exact("Stop demo? 1 pending proposal is withdrawn, and its token and its grants end. [y/N] ")
    child.sendline("n")
    assert finish(child)[1] == 1
    assert len(host.json("pending")) == 1


def test_an_interrupt_at_the_question_approves_nothing(host: Host, terminal: Terminal) -> None:
    proposal = host.propose()
    child = terminal("approve", proposal.id)
    child.expect_exact(ANSWERS)
    child.sendintr()
    output, code = finish(child)
    assert code == 130
    assert "Traceback" not in output
    assert "interrupted: nothing was decided" in output
    assert [item["id"] for item in host.json("pending")] == [proposal.id]


@pytest.mark.parametrize("how", ["--yes", "--hash", "--json"])
def test_approve_does_not_ask_who_has_looked(host: Host, terminal: Terminal, how: str) -> None:
    proposal = host.propose()
    reviewed = host.json("show", proposal.id)["review_sha256"]
    output, code = finish(terminal("approve", proposal.id, how, *([reviewed] if how == "--hash" else [])))
    assert code == 0
    assert ANSWERS not in output


def test_approve_does_not_ask_about_what_is_decided(host: Host, terminal: Terminal) -> None:
    proposal = host.propose()
    host.run("reject", proposal.id)
    output, code = finish(terminal("approve", proposal.id))
    assert code == 5
    assert ANSWERS not in output


def test_what_was_shown_is_what_runs_even_if_somebody_decides_meanwhile(host: Host, terminal: Terminal) -> None:
    proposal = host.propose()
    child = terminal("approve", proposal.id)
    child.expect_exact(ANSWERS)
    host.run("reject", proposal.id)
    child.sendline("y")
    _, code = finish(child)
    assert code == 5
    assert host.json("show", proposal.id)["state"] == "rejected"


def test_restoring_asks_first(host: Host, terminal: Terminal, tmp_path: Path) -> None:
    host.propose()
    copy = str(tmp_path / "copy.db")
    host.run("db", "backup", copy)
    child = terminal("db", "restore", copy)
    child.expect_exact("[y/N] ")
    child.sendline("n")
    output, code = finish(child)
    assert code == 1
    assert "nothing was changed" in output


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("command", ["pending", "show", "history", "bottles", "audit"])
def test_every_width_shows_everything(host: Host, terminal: Terminal, command: str, columns: int) -> None:
    host.routes_file("a-bottle-with-quite-a-long-name")
    proposal = host.propose(
        ROUTES + "# " + "0123456789" * 40 + "\n",
        "because it is needed for the task at hand",
        slug="a-bottle-with-quite-a-long-name",
        against=ROUTES,
    )
    arguments = {"show": ["show", proposal.id], "audit": ["audit", "list", "--full"]}.get(command, [command])
    if command == "audit":
        host.run("approve", proposal.id, "--yes")
    output, code = finish(terminal(*arguments, columns=columns, TERM="dumb"))
    assert code == 0
    lines = output.replace("\r", "").split("\n")
    assert all(len(line) <= columns for line in lines)
    whole = "".join("".join(lines).split())
    if command in ("show", "audit"):
        assert "0123456789" * 40 in whole.replace("┊", "")
    assert "…" not in whole


def test_colours_are_for_terminals_that_want_them(host: Host, terminal: Terminal) -> None:
    proposal = host.propose(expires_in=30)
    for arguments in (["pending"], ["show", proposal.id], ["history"]):
        assert "\x1b[" in finish(terminal(*arguments))[0]
        assert "\x1b[3" not in finish(terminal(*arguments, NO_COLOR="1"))[0]
        assert "\x1b" not in finish(terminal(*arguments, TERM="dumb"))[0]
        assert "\x1b" not in host.run(*arguments).stdout
        assert "\x1b" not in finish(terminal(*arguments, "--json"))[0]


def test_modify_opens_the_editor_on_the_terminal(host: Host, terminal: Terminal) -> None:
    path = host.routes_file()
    proposal = host.propose(against=ROUTES)
    child = terminal("modify", proposal.id, EDITOR="vim -u NONE -n")
    child.expect_exact("api.github.com")
    child.send(":%s/api.github.com/github.com/\r:wq\r")
    _, code = finish(child)
    assert code == 0
    assert path.read_text() == MORE_ROUTES.replace("api.github.com", "github.com")


def test_leaving_the_editor_without_writing_decides_nothing(host: Host, terminal: Terminal) -> None:
    proposal = host.propose("no newline at the end", tool="capability-block")
    for leave in (":q!\r", ":wq\r", ":cq\r"):
        child = terminal("modify", proposal.id, EDITOR="vim -u NONE -n")
        child.expect_exact("no newline at the end")
        child.send(leave)
        output, code = finish(child)
        assert code == 1
        assert "nothing was decided" in output
    assert [item["id"] for item in host.json("pending")] == [proposal.id]


@pytest.mark.parametrize("pager", ["less", "head -3"])
def test_a_pager_that_is_left_early_has_not_shown_all_which_is_said(host: Host, terminal: Terminal, pager: str) -> None:
    proposal = host.propose("\n" * MAX_PAYLOAD_BYTES, tool="capability-block")
    child = terminal("approve", proposal.id, PAGER=pager)
    child.expect_exact(f"More than a screen: {pager.split()[0]} shows it first")
    if pager == "less":
        child.expect_exact(":")
        child.send("q")
    child.expect_exact(f"{pager.split()[0]} was left before it had all of the text")
    child.expect_exact(ANSWERS)
    child.sendline("n")
    _, code = finish(child)
    assert code == 1


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_no_line_that_was_broken_ends_in_a_blank(host: Host, terminal: Terminal, columns: int) -> None:
    proposal = host.propose(tool="capability-block")
    shown, _ = finish(terminal("show", proposal.id, columns=columns))
    rejected, _ = finish(terminal("reject", proposal.id, columns=columns))
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown + rejected).split("\r\n")
    broken = [line for line in lines if line.startswith(("File", "Nobody"))]
    assert len(broken) == 2 and [line for line in lines if line.endswith(" ")] == []
