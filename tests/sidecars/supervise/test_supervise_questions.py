"""What does an agent hear when its operator asks back, and how does it answer or revise?"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp.types import CallToolResult

from bot_bottle import Inbox, Proposal, QueueStore
from mcp_sidecar import Sidecar, decide, items, outcome, routes, text
from store_process import eventually


@pytest.fixture(scope="module")
def sidecar(root: Path) -> Iterator[Sidecar]:
    with Sidecar(root, "asked", wait_seconds="60") as sidecar:
        yield sidecar


def meanwhile(call: Callable[[], CallToolResult]) -> tuple[threading.Thread, list[dict[str, Any]]]:
    """A call under way, and what it is told once it has ended."""
    told: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: told.append(outcome(call())))
    thread.start()
    return thread, told


def waiting(file: str) -> Proposal:
    """The proposal of that file, once somebody waits for it."""

    def found() -> list[Proposal]:
        return [item.proposal for item in items("asked") if item.waiting and item.proposal.proposed_file == file]

    eventually(lambda: bool(found()), 60)
    return found()[0]


def test_a_question_ends_the_call_and_its_answer_waits_on(sidecar: Sidecar) -> None:
    thread, told = meanwhile(
        lambda: sidecar.call("allow", proposed_file=routes("why.example"), justification="for the build")
    )
    with Inbox() as inbox:
        asked = waiting(routes("why.example"))
        inbox.ask(asked.id, "Only for GET?")
        inbox.ask(asked.id, "And for how long?")
        thread.join(60)
        [question] = told
        assert (question["status"], question["proposal_id"]) == ("question", asked.id)
        assert question["question"].startswith("Only for GET?")
        assert f"answer-question and proposal_id {asked.id}" in question["next_step"]
        # Whoever looks again is asked again, by all that was asked.
        again = sidecar.call("check-proposal", proposal_id=asked.id)
        assert outcome(again)["question"] == "Only for GET?\n\nAnd for how long?"
        assert "The operator asks:\nOnly for GET?" in text(again)
        assert outcome(sidecar.call("list-proposals"))["proposals"][0]["asked_back"] is True

        thread, told = meanwhile(
            lambda: sidecar.call("answer-question", proposal_id=asked.id, text="Yes, for an hour.")
        )
        eventually(lambda: inbox.read(asked.id).last_word == "requester", 60)
        assert inbox.review(asked.id).item.thread[-1].text == "Yes, for an hour."
        decide(asked.id, "approved")
        thread.join(60)
        assert told[0]["status"] == "approved"
    late = outcome(sidecar.call("answer-question", proposal_id=asked.id, text="and more"))
    assert late["status"] == "approved"


def test_an_answer_without_a_question_is_refused(sidecar: Sidecar) -> None:
    with QueueStore("asked") as queue:
        asked = queue.write_proposal(Proposal.new("asked", "egress-allow", routes("unasked.example"), "why"))
        result = sidecar.call("answer-question", proposal_id=asked.id, text="hello?")
        assert result.is_error
        assert "nobody asked about proposal" in text(result)
        queue.withdraw_proposal(asked.id)


def test_a_revision_takes_the_place_of_what_was_asked_about(sidecar: Sidecar) -> None:
    wide, narrow = routes("wide.example", "narrow.example"), routes("narrow.example")
    thread, told = meanwhile(lambda: sidecar.call("allow", proposed_file=wide, justification="for the build"))
    with Inbox() as inbox:
        first = waiting(wide)
        inbox.ask(first.id, "Without wide.example?")
        thread.join(60)
        assert f"with revises {first.id}" in told[0]["next_step"]
        revise = {"proposed_file": narrow, "justification": "as you say", "revises": first.id}
        thread, told = meanwhile(lambda: sidecar.call("allow", **revise))
        second = waiting(narrow)
        review = inbox.review(second.id)
        assert review.item.revision == 2
        assert review.revised is not None
        assert [message.text for message in review.revised.thread] == ["Without wide.example?"]
        # The same call again, as after a lost connection, finds it.
        again, told_again = meanwhile(lambda: sidecar.call("allow", **revise))
        replaced = outcome(sidecar.call("check-proposal", proposal_id=first.id))
        assert replaced["status"] == "withdrawn"
        assert second.id in replaced["next_step"]
        decide(second.id, "approved")
        thread.join(60)
        again.join(60)
        assert (told[0]["status"], told_again[0]["status"]) == ("approved", "approved")
        assert len([item for item in items("asked") if item.proposal.proposed_file == narrow]) == 1


def test_a_held_push_is_answered_for(sidecar: Sidecar) -> None:
    with QueueStore("asked") as queue, Inbox() as inbox:
        held = queue.write_proposal(Proposal.new("asked", "gitleaks-allow", "a finding", "a push", fingerprint="r"))
        inbox.ask(held.id, "Is it a test key?")
        thread, told = meanwhile(lambda: sidecar.call("answer-question", proposal_id=held.id, text="It is."))
        eventually(lambda: inbox.read(held.id).last_word == "requester", 60)
        decide(held.id, "approved", notes="a test key")
        thread.join(60)
        assert told[0]["status"] == "approved"
