"""How does the helper pass on what the operator asks back, and how is it answered with it?"""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_helper import Helper

from bot_bottle import Inbox
from store_process import decide, eventually
from transports import over_both

pytestmark = over_both


@pytest.fixture
def helper(reach: dict[str, str]) -> Helper:
    """One of the test's bottle, over the test's transport."""
    return Helper(**reach)


def queued(helper: Helper, *more: str, payload: str = "x") -> str:
    out, _ = helper.run("propose", "--tool", "egress-allow", *more, stdin=payload.encode())
    return out.strip()


def test_a_wait_can_end_with_a_question_that_is_answered(helper: Helper, inbox: Inbox) -> None:
    asked = queued(helper)
    question = inbox.ask(asked, "what for?", asked_by="ann")
    out, _ = helper.run("wait", asked, "--stop-on-question", code=11)
    assert out == f"ann asks about proposal {asked}:\nwhat for?\n"
    out, _ = helper.run("wait", asked, "--stop-on-question", "--json", code=11)
    told: dict[str, Any] = json.loads(out)
    assert (told["status"], told["notes"], told["question_id"]) == ("question", "what for?", question.id)
    assert told["next_step"] == f"bot-bottle-sidecar answer {asked} TEXT, then wait again"
    out, _ = helper.run("answer", asked, "-", stdin=b"for the tests\n")
    assert out == f"answered {asked}\n"
    assert [message.text for message in inbox.read(asked).thread] == ["what for?", "for the tests"]
    shown, _ = helper.run("show", asked)
    assert "asked          what for?\nanswered       for the tests\n" in shown
    _, err = helper.run("answer", asked, "again", code=2)
    assert "it is answered already" in err
    _, err = helper.run("wait", asked, "--timeout", "0.1", "--stop-on-question", code=6)
    assert "still undecided after 0.1 s" in err


def test_a_wait_that_does_not_stop_prints_each_question_once(helper: Helper, inbox: Inbox) -> None:
    process = helper.start("propose", "--wait", "--tool", "egress-allow")
    assert process.stdin is not None
    process.stdin.write(b"x")
    process.stdin.close()
    eventually(lambda: bool(inbox.pending()) and inbox.pending()[0].waiting, 60)
    proposal = inbox.pending()[0].proposal
    for text in ("what for?", "\x1b[2Jreally?"):
        inbox.ask(proposal.id, text, asked_by="ann")
    assert process.stderr is not None
    lines = [process.stderr.readline().decode() for _ in range(5)]
    assert lines[1:] == [
        f"ann asks about proposal {proposal.id}:\n",
        "what for?\n",
        f"ann asks about proposal {proposal.id}:\n",
        "<U+001B>[2Jreally?\n",
    ]
    decide(inbox, proposal)
    assert process.wait(60) == 0
    assert process.stderr.read() == b""
    assert process.stdout is not None
    assert process.stdout.read().startswith(b"approved by")


def test_a_proposal_can_take_the_place_of_another(helper: Helper, inbox: Inbox) -> None:
    first = queued(helper)
    second = queued(helper, "--revises", first, payload="y")
    assert [item.proposal.id for item in inbox.pending()] == [second]
    assert inbox.read(second).revision == 2
    _, err = helper.run("propose", "--tool", "egress-allow", "--revises", first, stdin=b"z", code=5)
    assert f"revised as {second}" in err
    _, err = helper.run("propose", "--tool", "egress-allow", "--revises", "first", stdin=b"z", code=2)
    assert "must be the id of the proposal to replace" in err
