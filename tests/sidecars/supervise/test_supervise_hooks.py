"""Does the sidecar answer an agent's hook as that agent's yes or no, whatever happens? Over HTTP, with real events."""

from __future__ import annotations

import http.client
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest

from agent_events import COMMAND, EVENTS, YES
from bot_bottle import Inbox, InboxItem
from bot_bottle.agents import hooks
from bot_bottle.agents.hooks import AGENTS
from mcp_sidecar import Sidecar

every_event = pytest.mark.parametrize("kind", EVENTS, ids=" ".join)


@pytest.fixture(scope="module")
def sidecar(root: Path) -> Iterator[Sidecar]:
    with Sidecar(root, "hooked") as sidecar:
        yield sidecar


def event(kind: tuple[str, str], **fields: Any) -> dict[str, Any]:
    """One of that kind, of a session of its own, so that no other test's question is taken for its own."""
    of = dict(EVENTS[kind])
    if "input" in of:
        return {**of, "input": {**of["input"], "sessionID": str(uuid4())}, **fields}
    return {**of, "session_id": str(uuid4()), **fields}


class Post:
    """An event on its way to the sidecar, in a thread of its own."""

    def __init__(self, sidecar: Sidecar, agent: str, event: Any) -> None:
        self.event = event
        self.answer: httpx.Response | None = None
        self.error: Exception | None = None
        content = event if isinstance(event, bytes) else json.dumps(event).encode()
        headers = {"Content-Type": "application/json"}

        def post() -> None:
            try:
                self.answer = httpx.post(f"{sidecar.url}hook/{agent}", content=content, headers=headers, timeout=60)
            except httpx.HTTPError as error:
                self.error = error

        self.thread = threading.Thread(target=post)
        self.thread.start()

    def says(self) -> Any:
        self.thread.join(60)
        assert self.answer is not None, self.error
        assert self.answer.status_code == 200, self.answer.text
        return self.answer.json()


def question(event: Any) -> InboxItem:
    """What the operator is asked because of it."""
    session = event["input"]["sessionID"] if "input" in event else event["session_id"]
    with Inbox() as inbox:
        for change in inbox.watch(0, timeout=60):
            item = inbox.read(change.proposal_id)
            if f"session: {session}\n" in item.proposal.proposed_file:
                return item
    raise AssertionError("nothing was asked")


def decide(item: InboxItem, status: str, **more: Any) -> None:
    with Inbox() as inbox:
        inbox.decide(item.proposal.id, status, payload_sha256=item.proposal.payload_sha256, surface="cli", **more)


def no(kind: tuple[str, str], why: str) -> Any:
    """That agent's no, as it reads it from a body."""
    if kind[0] in ("gemini", "opencode"):
        return {"decision": "deny", "reason": why}
    if kind[1] == "PermissionRequest":
        said: dict[str, Any] = {"decision": {"behavior": "deny", "message": why}}
    else:
        said = {"permissionDecision": "deny", "permissionDecisionReason": why}
    return {"hookSpecificOutput": {"hookEventName": kind[1], **said}}


@every_event
def test_an_approval_is_the_agent_s_yes(sidecar: Sidecar, kind: tuple[str, str]) -> None:
    post = Post(sidecar, kind[0], event(kind))
    item = question(post.event)
    head, _, body = item.proposal.proposed_file.partition("\n\n")
    assert f"agent:   {kind[0]}\n" in head and "cwd:     /work\n" in head
    assert body == COMMAND
    assert (item.proposal.bottle_slug, item.proposal.tool) == ("hooked", "run-command")
    decide(item, "approved")
    # Codex takes an explicit yes for a broken hook; an empty object says nothing against it.
    assert post.says() == (YES[kind] or {})


@every_event
def test_a_rejection_is_the_agent_s_no_with_the_reason(sidecar: Sidecar, kind: tuple[str, str]) -> None:
    post = Post(sidecar, kind[0], event(kind))
    decide(question(post.event), "rejected", notes="not in /work")
    assert post.says() == no(kind, "operator: not in /work")


def test_what_is_to_be_done_instead_is_told(sidecar: Sidecar) -> None:
    kind = ("claude-code", "PreToolUse")
    post = Post(sidecar, kind[0], event(kind))
    item = question(post.event)
    other = item.proposal.proposed_file.replace("/work/made", "/tmp/made").encode()
    decide(item, "modified", final_file=other)
    reason = post.says()["hookSpecificOutput"]["permissionDecisionReason"]
    assert "do it like this instead" in reason and "+touch /tmp/made" in reason


@every_event
def test_a_question_that_nobody_answers_ends_as_a_no(root: Path, kind: tuple[str, str]) -> None:
    with Sidecar(root, "patient", hook_seconds="1") as sidecar:
        post = Post(sidecar, kind[0], event(kind))
        assert post.says() == no(kind, "blocked: the operator did not decide within 1 s")
        with Inbox() as inbox:
            assert inbox.read(question(post.event).proposal.id).state == "expired"


def test_a_try_again_joins_the_question_that_waits(sidecar: Sidecar) -> None:
    kind = ("codex", "PreToolUse")
    first = Post(sidecar, kind[0], event(kind))
    item = question(first.event)
    second = Post(sidecar, kind[0], first.event)
    with Inbox() as inbox:
        while inbox.read(item.proposal.id).requests < 2:
            time.sleep(0.01)
        assert sum(other.proposal.payload_sha256 == item.proposal.payload_sha256 for other in inbox.pending()) == 1
    decide(item, "approved")
    assert (first.says(), second.says()) == ({}, {})


def test_a_grant_answers_the_same_command_in_any_session(sidecar: Sidecar) -> None:
    kind = ("gemini", "BeforeTool")
    command = {"command": "make granted"}
    post = Post(sidecar, kind[0], event(kind, tool_input=command))
    decide(question(post.event), "approved", grant="for:3600")
    assert post.says() == YES[kind]
    assert Post(sidecar, kind[0], event(kind, tool_input=command)).says() == YES[kind]
    elsewhere = Post(sidecar, kind[0], event(kind, tool_input=command, cwd="/"))
    decide(question(elsewhere.event), "rejected", notes="not there")
    assert elsewhere.says() == no(kind, "operator: not there")


def test_an_agent_that_gives_up_withdraws_its_question(sidecar: Sidecar) -> None:
    kind = ("claude-code", "PreToolUse")
    asked = event(kind)
    gone = http.client.HTTPConnection(urlsplit(sidecar.url).netloc, timeout=60)
    gone.request("POST", "/hook/claude-code", json.dumps(asked), {"Content-Type": "application/json"})
    item = question(asked)
    gone.close()
    with Inbox() as inbox:
        while (now := inbox.read(item.proposal.id)).state == "pending":
            time.sleep(0.01)
        assert (now.state, now.withdrawn_reason) == ("withdrawn", "the agent did not wait for the answer")


def test_a_sidecar_that_stops_says_no_and_withdraws(root: Path) -> None:
    kind = ("opencode", "tool.execute.before")
    with Sidecar(root, "stopped") as sidecar:
        post = Post(sidecar, kind[0], event(kind))
        item = question(post.event)
        sidecar.signal(signal.SIGTERM)
        assert post.says() == no(kind, "blocked: the sidecar is stopping")
        assert sidecar.ended()[0] == 0
    with Inbox() as inbox:
        assert inbox.read(item.proposal.id).state == "withdrawn"


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("body", [b"", b"garbage", b"[]", b"{}", b"\xff"], ids=repr)
def test_what_is_not_an_event_is_refused(sidecar: Sidecar, agent: str, body: bytes) -> None:
    answer = httpx.post(f"{sidecar.url}hook/{agent}", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert "not an event of a hook" in answer.json()["message"]


def test_an_event_that_is_too_long_is_refused(sidecar: Sidecar) -> None:
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{sidecar.url}hook/codex", content=b" " * (hooks.MOST_BYTES + 1), headers=headers, timeout=60)
    assert answer.status_code == 422
    assert "longer than" in answer.json()["message"]


@pytest.mark.parametrize(
    ("part", "why"),
    [("command", "proposed_file is not UTF-8"), ("description", "justification is not Unicode text")],
    ids=["command", "description"],
)
def test_what_is_not_text_is_a_no(sidecar: Sidecar, part: str, why: str) -> None:
    kind = ("gemini", "BeforeTool")
    said = Post(sidecar, kind[0], event(kind, tool_input={"command": "true", part: "a\ud800b"})).says()
    assert said["decision"] == "deny" and why in said["reason"]


def test_a_command_too_long_to_be_shown_is_a_no(sidecar: Sidecar) -> None:
    kind = ("gemini", "BeforeTool")
    said = Post(sidecar, kind[0], event(kind, tool_input={"command": "x" * 2**20})).says()
    assert said["decision"] == "deny" and "at most 1048576" in said["reason"]


def test_only_the_agents_that_are_known_can_ask(sidecar: Sidecar) -> None:
    answer = httpx.post(f"{sidecar.url}hook/emacs", json={})
    assert answer.status_code == 404
    assert "claude-code, codex, gemini, opencode" in answer.json()["message"]
    assert httpx.get(f"{sidecar.url}hook/codex").status_code == 405


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Host": "evil.example"}, 421), ({"Origin": "http://evil.example"}, 403), ({"Content-Type": "text/plain"}, 400)],
    ids=str,
)
def test_a_browser_is_kept_out(sidecar: Sidecar, headers: dict[str, str], status: int) -> None:
    sent = {"Content-Type": "application/json", **headers}
    kind = ("codex", "PreToolUse")
    answer = httpx.post(f"{sidecar.url}hook/codex", content=json.dumps(event(kind)), headers=sent)
    assert answer.status_code == status, answer.text
