"""Are all of a kind approved after one look and one question, and does Ctrl-C leave none of them untold?"""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pexpect
import pytest

from bot_bottle import Proposal
from bot_bottle.cli.decide import approve
from bot_bottle.operator import decisions
from cli_process import PROGRAMS, Host

TOOL = "egress-token-allow"
KIND = "h.example:00{} | any GitHub token in the body of requests to h.example"


@pytest.fixture
def group(host: Host) -> list[Proposal]:
    return [host.propose(f"request {each}\n", tool=TOOL, fingerprint=KIND.format(each)) for each in "012"]


def states(host: Host, group: list[Proposal]) -> list[str]:
    return [host.json("show", each.id)["state"] for each in group]


@pytest.mark.parametrize(("answer", "code", "state"), [("y", 0, "approved"), ("n", 1, "pending")])
def test_each_is_shown_and_noted_as_shown(
    host: Host, group: list[Proposal], answer: str, code: int, state: str
) -> None:
    child: pexpect.spawn[str] = pexpect.spawn(
        str(PROGRAMS / "bot-bottle"),
        ["approve", group[1].id, "--group", "--notes", "tests"],
        env=host.environment(PAGER="cat"),
        dimensions=(60, 200),
        encoding="utf-8",
        timeout=60,
    )
    child.expect_exact("Approve these 3, each of them once? [y]es [n]o: ")
    assert all(f"request {each}" in child.before for each in "012")
    child.sendline(answer)
    child.expect(pexpect.EOF)
    child.close()
    assert (child.exitstatus, states(host, group)) == (code, [state] * 3)
    noted = host.json("db", "query", "select proposal_id, whole_at from operator_views order by proposal_id")
    assert [each["proposal_id"] for each in noted] == [each.id for each in group]
    assert all(each["whole_at"] for each in noted)


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_ends_it_at_what_was_told(
    host: Host,
    group: list[Proposal],
    as_json: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    decide = decisions.decide

    def interrupted(*given: Any, **more: Any) -> Any:
        answer = decide(*given, **more)
        os.kill(os.getpid(), signal.SIGINT)
        return answer

    monkeypatch.setattr(decisions, "decide", interrupted)
    with pytest.raises(KeyboardInterrupt, match="it stands"):
        approve(
            proposal_id=group[0].id,
            notes="tests",
            grant=None,
            prefix=None,
            group=True,
            reviewed=None,
            yes=True,
            as_json=as_json,
        )
    assert states(host, group) == ["approved", "pending", "pending"]
    said = capsys.readouterr().out
    assert [each["proposal_id"] for each in json.loads(said)] == [group[0].id] if as_json else group[0].id in said


def test_one_that_is_decided_already_names_no_group(host: Host, group: list[Proposal]) -> None:
    host.run("reject", group[0].id)
    host.run("approve", group[0].id, "--group", "--yes", "--notes", "tests", code=5)
    assert states(host, group) == ["rejected", "pending", "pending"]
