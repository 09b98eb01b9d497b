"""Does `bot-bottle review`, and `supervise --plain`, take an operator through what waits, one answer at a time?"""

from __future__ import annotations

import re
from collections.abc import Callable

import pexpect
import pytest

from bot_bottle import GrantStore, QueueStore
from cli_process import MORE_ROUTES, PROGRAMS, ROUTES, Host

Terminal = Callable[..., "pexpect.spawn[str]"]
SKIP = "[s]kip [q]uit [r]eject [m]odify [a]sk back [v]iew again: "
BACK = "[b]ack [r]eject [m]odify [a]sk back [v]iew again: "
LIST = "A number opens it, a goes through all, Enter lists again, q quits: "


@pytest.fixture
def terminal(host: Host) -> Terminal:
    def start(*arguments: str, **extra: str) -> pexpect.spawn[str]:
        return pexpect.spawn(
            str(PROGRAMS / "bot-bottle"),
            list(arguments),
            env=host.environment(NO_COLOR="1", **extra),
            dimensions=(60, 200),
            encoding="utf-8",
            timeout=60,
        )

    return start


def answer(child: pexpect.spawn[str], prompt: str, typed: str) -> str:
    """Types at a prompt; returns what was printed before it."""
    child.expect_exact(prompt)
    child.sendline(typed)
    return child.before


def ends(child: pexpect.spawn[str]) -> str:
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    return child.before


def test_a_walk_answers_each_in_turn(host: Host, terminal: Terminal) -> None:
    path = host.routes_file()
    first = host.propose(justification="to open the pull request", against=ROUTES)
    second, third, fourth = (host.propose(f"FROM {name}\n", tool="capability-block") for name in "abc")
    child = terminal("review", EDITOR="sed -i s/FROM/from/")
    shown = answer(child, f"Approve egress-allow of demo: {path} (+1 -0)? [y]es {SKIP}", "y")
    assert "-- 1 of 4 --" in shown and "to open the pull request" in shown and "+  - host: api.github.com" in shown
    assert f"{path} is in effect" in answer(child, SKIP, "s")
    answer(child, SKIP, "r")
    answer(child, "Why not? The agent reads it: ", "Use the mirror")
    later = host.propose("FROM d\n", tool="capability-block")
    answer(child, SKIP, "m")
    assert "-- 1 of 1 --" in answer(child, SKIP, "r")
    assert "1  Use the mirror" in answer(child, "Why not? The agent reads it (or the number of one above): ", "1")
    assert "Nothing more waits: 1 approved, 1 skipped, 2 rejected, 1 modified." in ends(child)
    assert path.read_text() == MORE_ROUTES
    items = {item["id"]: item for item in host.json("history")}
    states = [items[each.id]["state"] for each in (first, second, third, fourth, later)]
    assert states == ["approved", "pending", "rejected", "modified", "rejected"]
    assert items[later.id]["response"]["notes"] == "Use the mirror"


def test_a_rejection_in_a_walk_can_be_remembered(host: Host, terminal: Terminal) -> None:
    asked = host.propose("FROM a\n", tool="capability-block")
    child = terminal("review")
    answer(child, SKIP, "r soon")
    assert "'r soon' is not r and a time, such as r 1h; nothing was decided." in answer(child, SKIP, "r 1h")
    answer(child, "Why not? The agent reads it: ", "not today")
    assert "The same is rejected until" in ends(child)
    (rule,) = host.json("policy", "check")["rules"]
    assert (rule["name"], rule["reason"]) == (f"rejected {asked.id}", "not today")
    assert host.json("show", asked.id)["state"] == "rejected"


def test_what_is_no_answer_decides_nothing_and_is_asked_again(host: Host, terminal: Terminal) -> None:
    proposal = host.propose("FROM a\n", tool="capability-block")
    child = terminal("review")
    for typed in ("", "n", "yep", "\x1b[2J"):
        answer(child, SKIP, typed)
        child.expect_exact("nothing was decided")
        assert "\x1b[2J" not in child.before
    child.expect_exact(SKIP)
    child.sendeof()
    assert "Left." in ends(child)
    assert host.json("show", proposal.id)["state"] == "pending"


def test_a_decision_elsewhere_is_told_and_the_walk_goes_on(host: Host, terminal: Terminal) -> None:
    first, second = (host.propose(f"FROM {name}\n", tool="capability-block") for name in "ab")
    child = terminal("review")
    child.expect_exact(SKIP)
    host.run("reject", first.id, "--notes", "too late")
    child.sendline("y")
    child.expect_exact("was rejected")
    answer(child, SKIP, "y")
    assert "1 decided elsewhere, 1 approved." in ends(child)
    assert [host.json("show", each.id)["state"] for each in (first, second)] == ["rejected", "approved"]


def test_a_grant_is_chosen_before_the_yes_and_is_in_the_question(host: Host, terminal: Terminal) -> None:
    host.propose("a finding", tool="gitleaks-allow", fingerprint="f" * 64)
    child = terminal("review")
    answer(child, f"[y]es [g]rant {SKIP}", "g")
    assert "3  such requests for 1 hour" in answer(child, "How far shall an approval reach? Its number: ", "3")
    answer(child, f"and the same again for 60 min? [y]es [g]rant {SKIP}", "y")
    answer(child, "Why may this pass? The reason is recorded, and the agent reads it: ", "A test key")
    assert "1 approved." in ends(child)
    (grant,) = GrantStore().list_grants()
    assert grant.scope == "until"


RUNS = {"tool": "run-command", "fingerprint": "run-command:00ff | codex Bash: git status --short"}


def test_a_prefix_is_typed_and_is_in_the_question(host: Host, terminal: Terminal) -> None:
    host.propose("git status --short", **RUNS)
    child = terminal("review")
    answer(child, f"[y]es [g]rant {SKIP}", "g")
    offered = answer(child, "How far shall an approval reach? Its number: ", "6")
    assert "6  commands that begin with words you type, for 1 hour" in offered
    answer(child, "The first words of the commands, at most: git status --short: ", " git  status ")
    answer(child, f"and commands that begin with 'git status' for 60 min? [y]es [g]rant {SKIP}", "y")
    assert "1 approved." in ends(child)
    (grant,) = GrantStore().list_grants()
    assert (grant.fingerprint, grant.scope) == ("codex Bash: git status", "until")


def test_a_prefix_goes_with_an_approval_for_as_long_as_its_grant_says(host: Host) -> None:
    first, second = (host.propose(f"git status {n}", **RUNS) for n in (1, 2))
    refused = host.run("approve", first.id, "--yes", "--prefix", "git push", code=2).stderr
    assert 'its command begins with the words "git status --short", not with "git push"' in refused
    host.run("approve", first.id, "--yes", "--prefix", "git status")
    host.run("approve", second.id, "--yes", "--prefix", "git", "--grant", "uses:2")
    found = {grant.fingerprint: (grant.scope, grant.uses_left) for grant in GrantStore().list_grants()}
    assert found == {"codex Bash: git status": ("until", None), "codex Bash: git": ("uses", 2)}


def test_one_bottle_is_gone_through(host: Host, terminal: Terminal) -> None:
    host.propose("FROM a\n", tool="capability-block", slug="one")
    host.propose("FROM b\n", tool="capability-block", slug="two")
    child = terminal("review", "--bottle", "two")
    assert "-- 1 of 1 --" in answer(
        child, f"Approve capability-block of two (changes nothing on this host)? [y]es {SKIP}", "q"
    )
    ends(child)


@pytest.mark.parametrize("arguments", [["review"], ["supervise", "--plain"]])
def test_nobody_is_asked_without_a_terminal(host: Host, arguments: list[str]) -> None:
    host.propose()
    assert "needs a terminal" in host.run(*arguments, code=2).stderr


def test_the_plain_list_is_numbered_lines_and_prompts(host: Host, terminal: Terminal) -> None:
    first = host.propose("FROM a\n", "to build", tool="capability-block")
    second = host.propose("FROM b\n", "x" * 300, tool="capability-block", slug="other")
    child = terminal("supervise", "--plain", TERM="dumb", PAGER="false")
    listed = answer(child, LIST, "2")
    assert "2 waiting." in listed
    assert re.search(r"1\. capability-block of demo, \d+ s old, nobody waited: to build\r\n2\. .* of other", listed)
    assert "FROM b" in answer(child, BACK, "b")
    child.expect_exact(LIST)
    third = host.propose("FROM c\n", tool="capability-block")
    child.sendline("")
    listed = answer(child, LIST, "1")
    assert "3 waiting, 1 of them new." in listed
    answer(child, BACK, "y")
    assert "2 waiting." in answer(child, LIST, "9")
    with QueueStore("other") as queue:
        queue.withdraw_proposal(second.id, "no more")
    answer(child, LIST, "a")
    answer(child, SKIP, "y")
    listed = answer(child, LIST, "q")
    assert "Nothing is waiting." in listed
    output = ends(child)
    assert "\x1b" not in output + listed
    assert [host.json("show", each.id)["state"] for each in (first, second, third)] == [
        "approved",
        "withdrawn",
        "approved",
    ]


def test_all_of_a_long_text_is_printed_where_nothing_scrolls(host: Host, terminal: Terminal) -> None:
    host.propose("".join(f"line {number}\n" for number in range(1, 301)), tool="capability-block")
    child = terminal("supervise", "--plain")
    answer(child, LIST, "1")
    shown = answer(child, BACK, "b")
    assert all(f"│ line {number}\r" in shown for number in range(1, 301))
    answer(child, LIST, "q")
    ends(child)
