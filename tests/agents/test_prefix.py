"""That an approval of first words covers the commands that begin so and nothing else, whatever stands in them."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent_events import EVENTS
from bot_bottle import GrantStore, Inbox, InvalidInputError, QueueStore
from bot_bottle.agents import hooks, prefix
from bot_bottle.agents.hooks import AGENTS
from cli_process import Host

EVASIONS = [
    *(
        "git status; touch x",
        "git status && touch x",
        "git status & touch x",
        "git status | sh",
        "git status || touch x",
    ),
    *("git status $(touch x)", "git status `touch x`", "git status ${x}", "git status <(touch x)", "(git status)"),
    *("git status > x", "git status >> x", "git status 2>x", "git status < x", "git status &> x", "git status <<< x"),
    *("git status\ntouch x", "git status\rtouch x", "git status \\\ntouch x", "git st\\atus", "git status \0 x"),
    *('git status "$(touch x)"', 'git status "`touch x`"', "git status 'a; b'", "git status $'a'"),
    *(
        "git status 'x",
        'git status "x',
        "git\tstatus",
        "git\u00a0status",
        "git status \u202e",
        "git status \u2028touch x",
    ),
    *("PATH=/tmp git status", "git=1 status", "! git status", "{ git status", "", " "),
]


@pytest.mark.parametrize("command", EVASIONS)
def test_what_a_shell_may_take_for_something_else_has_no_words(command: str) -> None:
    assert prefix.words(command) == ()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("git status", ["git", "status"]),
        ("  git  status   --short ", ["git", "status", "--short"]),
        ("'git' \"status\"", ["git", "status"]),
        ("git commit -m 'all of it' --amend", ["git", "commit", "-m"]),
        ("git stat''us *.py", ["git", "status"]),
        ("git {status,--x}", ["git"]),
        ("ls ~/x", ["ls"]),
        ("npm run a b c d e f g", ["npm", "run", "a", "b", "c", "d", "e", "f"]),
    ],
)
def test_the_words_are_the_plain_ones_at_the_beginning(command: str, words: list[str]) -> None:
    assert prefix.words(command) == tuple(words)


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh"])
def test_a_shell_runs_one_program_with_these_words_first(shell: str, tmp_path: Path) -> None:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nprintf '%s\\0' git \"$@\" >>{tmp_path}/ran; echo >>{tmp_path}/ran\n")
    program.chmod(0o755)
    chance = random.Random(15)
    pieces = [*" \"'=~*?[]{},#!^:@%+-/;&|$()<>`\\", "status", "git", "a", "x y", "''", "  ", "--b=c"]
    tried = 0
    while tried < 60:
        command = "git " + "".join(chance.choice(pieces) for _ in range(chance.randint(1, 6)))
        words = prefix.words(command)
        if len(words) < 2:
            continue
        tried += 1
        (tmp_path / "ran").unlink(missing_ok=True)
        subprocess.run([found, "-c", command], env={"PATH": str(program.parent)}, cwd=tmp_path, capture_output=True)
        # A shell that refuses a pattern without a match, as zsh does, runs nothing.
        ran = (tmp_path / "ran").read_bytes() if (tmp_path / "ran").exists() else None
        assert ran is None or ran.startswith(b"\0".join(os.fsencode(word) for word in words) + b"\0"), command
        assert ran is None or ran.count(b"\n") == 1, command


def request(command: str, agent: str = "claude-code", tool: str | None = None, **more: Any) -> hooks.Request:
    event = dict(EVENTS[agent, "PreToolUse"])
    event |= {"tool_name": tool or event["tool_name"], "cwd": more.pop("cwd", event["cwd"])}
    event["tool_input"] = {"command": command, **more}
    return hooks.read(AGENTS[agent], json.dumps(event).encode())


def approved(asked: hooks.Request, grant: str) -> None:
    proposal = hooks.proposal("dev", asked, 60)
    with QueueStore("dev") as queue, Inbox() as inbox:
        queue.write_proposal(proposal)
        inbox.decide(proposal.id, "approved", payload_sha256=proposal.payload_sha256, grant=grant)


def test_a_prefix_covers_the_commands_that_begin_with_its_words_and_no_others(host: Host) -> None:
    approved(request("git status --short"), "prefix:for:3600 git status")
    grants = GrantStore()

    def covers(asked: hooks.Request, bottle: str = "dev") -> bool:
        return hooks.is_granted(grants, bottle, asked)

    for command in ("git status", "git status --short", "git  'status' -- 'a b'"):
        assert covers(request(command)), command
    assert covers(request("git status", cwd="/elsewhere", timeout=60_000, description="another reason"))
    for command in [
        *EVASIONS,
        "git",
        "git stash",
        "git statusx",
        "git -C /x status",
        "sudo git status",
        "/tmp/git status",
    ]:
        if command.strip():
            assert not covers(request(command)), command
    assert not covers(request("git status", dangerouslyDisableSandbox=True))
    assert not covers(request("git status", workdir="/x"))
    assert not covers(request("git status", file_path="/x"))
    assert not covers(request("git status", tool="mcp__ssh__run"))
    assert not covers(request("git status", tool="Bash: git status"))
    assert not covers(request("git status", agent="codex"))
    assert not covers(request("git status"), bottle="other")
    (grant,) = grants.list_grants()
    assert (grant.fingerprint, grant.scope, grant.damaged) == ("claude-code Bash: git status", "until", None)
    grants.revoke_grant(grant.id)
    assert not covers(request("git status"))


@pytest.mark.parametrize(
    ("command", "typed", "says"),
    [
        ("git status", "git stat", 'its command begins with the words "git status", not with "git stat"'),
        ("git status", "git push", "not with"),
        ("git status", "git status --short", "not with"),
        ("git status; make", "git status", "it is not one command of plain words"),
        ("git status", "", "must be once"),
    ],
)
def test_a_prefix_that_does_not_fit_the_command_is_refused(host: Host, command: str, typed: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match="grant") as refused:
        approved(request(command), f"prefix:for:3600 {typed}")
    assert says in str(refused.value)
    with Inbox() as inbox:
        assert inbox.pending()[0].state == "pending"
    assert GrantStore().list_grants() == []
