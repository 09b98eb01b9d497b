"""How does `bot-bottle` behave on a terminal: what does it ask, draw and colour?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from cli_process import MORE_ROUTES, PROGRAMS, ROUTES, Host

Terminal = Callable[..., "pexpect.spawn[str]"]


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
    child.expect_exact("Approve this? [y/N] ")
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
    child.expect_exact("[y/N] ")
    if answer == "\x04":
        child.sendeof()
    else:
        child.sendline(answer)
    output, code = finish(child)
    assert code == 1
    assert "bot-bottle: nothing was decided" in output
    assert [item["id"] for item in host.json("pending")] == [proposal.id]


def test_an_interrupt_at_the_question_approves_nothing(host: Host, terminal: Terminal) -> None:
    proposal = host.propose()
    child = terminal("approve", proposal.id)
    child.expect_exact("[y/N] ")
    child.sendintr()
    output, code = finish(child)
    assert code == 130
    assert "Traceback" not in output
    assert [item["id"] for item in host.json("pending")] == [proposal.id]


@pytest.mark.parametrize("how", ["--yes", "--hash", "--json"])
def test_approve_does_not_ask_who_has_looked(host: Host, terminal: Terminal, how: str) -> None:
    proposal = host.propose()
    output, code = finish(
        terminal("approve", proposal.id, how, *([proposal.payload_sha256] if how == "--hash" else []))
    )
    assert code == 0
    assert "[y/N]" not in output


def test_approve_does_not_ask_about_what_is_decided(host: Host, terminal: Terminal) -> None:
    proposal = host.propose()
    host.run("reject", proposal.id)
    output, code = finish(terminal("approve", proposal.id))
    assert code == 5
    assert "[y/N]" not in output


def test_what_was_shown_is_what_runs_even_if_somebody_decides_meanwhile(host: Host, terminal: Terminal) -> None:
    proposal = host.propose()
    child = terminal("approve", proposal.id)
    child.expect_exact("[y/N] ")
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
        host.run("approve", proposal.id)
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
