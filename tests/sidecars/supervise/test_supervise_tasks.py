"""Does a call that needs a person become a task that outlives everything else, for clients that speak the extension?"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bot_bottle import Inbox, Proposal, QueueStore
from mcp_sidecar import Sidecar, ask, decide, items, routes

EXTENSION = "io.modelcontextprotocol/tasks"
MODERN = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}
MISSING = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}


@pytest.fixture(scope="module")
def sidecar(root: Path) -> Iterator[Sidecar]:
    with Sidecar(root, "tasked") as sidecar:
        yield sidecar


def request(sidecar: Sidecar, method: str, *, tasks: bool = True, header: str = "", **params: Any) -> dict[str, Any]:
    """The answer to one request of the newer protocol, result or error."""
    capabilities = {"extensions": {EXTENSION: {}}} if tasks else {}
    meta = {**META, "io.modelcontextprotocol/clientCapabilities": capabilities}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    name = header or params.get("name") or params.get("taskId")
    headers = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": MODERN,
        "Mcp-Method": method,
        **({"Mcp-Name": name} if name else {}),
    }
    answer = httpx.post(sidecar.url, json=body, headers=headers, timeout=60)
    told = answer.json()
    assert isinstance(told, dict)
    return told


def result(sidecar: Sidecar, method: str, **params: Any) -> dict[str, Any]:
    told = request(sidecar, method, **params)
    assert "result" in told, told
    assert isinstance(told["result"], dict)
    return told["result"]


def error(sidecar: Sidecar, method: str, **params: Any) -> dict[str, Any]:
    told = request(sidecar, method, **params)
    assert "error" in told, told
    assert isinstance(told["error"], dict)
    return told["error"]


def create(sidecar: Sidecar, name: str, **more: Any) -> dict[str, Any]:
    """The answer to a call that proposes a route to that host."""
    arguments = {"proposed_file": routes(f"{name}.example"), "justification": "for the build"}
    return result(sidecar, "tools/call", name="allow", arguments=arguments, **more)


def get(sidecar: Sidecar, task: dict[str, Any]) -> dict[str, Any]:
    told = result(sidecar, "tasks/get", taskId=task["taskId"])
    assert told["resultType"] == "complete"
    return told


def test_the_extension_is_declared(sidecar: Sidecar) -> None:
    assert result(sidecar, "server/discover")["capabilities"]["extensions"] == {EXTENSION: {}}


def test_a_call_that_needs_a_person_becomes_a_task_at_once(sidecar: Sidecar) -> None:
    task = create(sidecar, "created")
    item = items("tasked")[0]
    assert (task["resultType"], task["status"], task["taskId"]) == ("task", "working", item.proposal.id)
    assert task["createdAt"] == task["lastUpdatedAt"] == item.proposal.arrival_timestamp
    assert task["ttlMs"] == 86_400_000 and task["pollIntervalMs"] > 0
    assert "still pending" in task["statusMessage"]
    assert not {"task", "result", "content"} & set(task)
    assert get(sidecar, task)["status"] == "working"


@pytest.mark.parametrize("status", ["approved", "rejected"])
def test_a_decision_completes_it_with_what_the_call_would_have_returned(sidecar: Sidecar, status: str) -> None:
    task = create(sidecar, f"decided-{status}")
    decide(task["taskId"], status, "as told")
    told = get(sidecar, task)
    assert told["status"] == "completed"
    outcome = told["result"]["structuredContent"]
    assert (outcome["status"], outcome["notes"]) == (status, "as told")
    assert "as told" in told["result"]["content"][0]["text"]
    assert told["lastUpdatedAt"] == outcome["decided_at"] > told["createdAt"]


def test_a_task_survives_the_sidecar(root: Path) -> None:
    with Sidecar(root, "reborn") as first:
        task = create(first, "reborn")
        first.signal(signal.SIGKILL)
    with Sidecar(root, "reborn") as second:
        assert get(second, task)["status"] == "working"
        decide(task["taskId"], "rejected", "no")
        assert get(second, task)["result"]["structuredContent"]["notes"] == "no"
    with Sidecar(root, "reborn") as third:
        assert get(third, task)["status"] == "completed"
        result(third, "tasks/cancel", taskId=task["taskId"])
        assert get(third, task)["status"] == "completed"


def test_the_same_file_is_the_same_task(sidecar: Sidecar) -> None:
    assert create(sidecar, "twice")["taskId"] == create(sidecar, "twice")["taskId"]


def test_what_needs_nobody_is_answered_at_once(sidecar: Sidecar) -> None:
    task = create(sidecar, "repeated")
    decide(task["taskId"], "rejected", "no")
    told = create(sidecar, "repeated")
    assert told["resultType"] == "complete" and told["structuredContent"]["repeated"]
    listed = result(sidecar, "tools/call", name="list-proposals", arguments={})
    assert listed["resultType"] == "complete"
    refused = result(sidecar, "tools/call", name="allow", arguments={"proposed_file": "x", "justification": "y"})
    assert refused["isError"]


def test_a_cancelled_task_is_withdrawn(sidecar: Sidecar) -> None:
    task = create(sidecar, "cancelled")
    for _ in range(2):
        assert result(sidecar, "tasks/cancel", taskId=task["taskId"]).keys() <= {"resultType", "_meta"}
    told = get(sidecar, task)
    assert told["status"] == "cancelled" and "result" not in told
    assert told["lastUpdatedAt"] > told["createdAt"]
    with Inbox() as inbox:
        assert inbox.read(task["taskId"]).state == "withdrawn"


def test_a_task_that_expired_says_so(root: Path) -> None:
    with Sidecar(root, "brief", expires_seconds="1") as sidecar:
        task = create(sidecar, "brief")
        assert task["ttlMs"] == 1000
        while (told := get(sidecar, task))["status"] == "working":
            time.sleep(0.05)
        assert told["result"]["structuredContent"]["status"] == "expired"
        result(sidecar, "tasks/cancel", taskId=task["taskId"])


def test_a_task_without_an_end_has_no_time_to_live(root: Path) -> None:
    with Sidecar(root, "endless", expires_seconds="0") as sidecar:
        assert create(sidecar, "endless")["ttlMs"] is None


def test_answers_to_what_was_not_asked_are_ignored(sidecar: Sidecar) -> None:
    task = create(sidecar, "updated")
    answers = {"made-up": {"action": "accept", "content": {}}}
    assert result(sidecar, "tasks/update", taskId=task["taskId"], inputResponses=answers)["resultType"] == "complete"
    assert get(sidecar, task)["status"] == "working"


@pytest.mark.parametrize("method", ["tasks/get", "tasks/cancel", "tasks/update"])
def test_another_bottle_s_task_cannot_be_told_from_none(root: Path, sidecar: Sidecar, method: str) -> None:
    with Sidecar(root, "other") as other:
        foreign = create(other, f"foreign-{method[6:]}")["taskId"]
    with QueueStore("tasked") as queue:
        held = queue.write_proposal(Proposal.new("tasked", "gitleaks-allow", method, "a push")).id
    made_up = "0193b6a0-0000-7000-8000-000000000000"
    more = {"inputResponses": {}} if method == "tasks/update" else {}
    told = [
        error(sidecar, method, taskId=each, **more) for each in (foreign, held, made_up, "x", "../x", "x" * 5000, "")
    ]
    assert {json.dumps(each) for each in told} == {json.dumps({"code": -32602, "message": "there is no such task"})}
    with Inbox() as inbox:
        assert inbox.read(foreign).state == "pending"


@pytest.mark.parametrize("method", ["tasks/get", "tasks/cancel", "tasks/update"])
def test_a_client_that_does_not_declare_the_extension_gets_no_task(sidecar: Sidecar, method: str) -> None:
    task = create(sidecar, "declared")
    more = {"inputResponses": {}} if method == "tasks/update" else {}
    told = error(sidecar, method, tasks=False, taskId=task["taskId"], **more)
    assert (told["code"], told["data"]) == (-32021, MISSING)


def test_a_header_that_names_another_task_is_refused(sidecar: Sidecar) -> None:
    task = create(sidecar, "named")
    assert error(sidecar, "tasks/cancel", header="another", taskId=task["taskId"])["code"] == -32020
    assert get(sidecar, task)["status"] == "working"


def test_other_clients_wait_as_before(root: Path) -> None:
    with Sidecar(root, "waits", wait_seconds="0.2") as sidecar:
        for mode in ("auto", "legacy"):
            assert ask(sidecar, routes(f"waits-{mode}.example"), mode=mode)["status"] == "pending"
        # The older protocol has no extension; its experimental tasks are not offered.
        headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"taskId": items("waits")[0].proposal.id}}
        assert "-32601" in httpx.post(sidecar.url, json=body, headers=headers, timeout=60).text


def test_a_question_is_an_input_that_the_task_requires(sidecar: Sidecar) -> None:
    task = create(sidecar, "questioned")
    with Inbox() as inbox:
        inbox.ask(task["taskId"], "Only for GET?")
        told = get(sidecar, task)
        assert told["status"] == "input_required"
        [(key, asked)] = told["inputRequests"].items()
        assert asked["method"] == "elicitation/create"
        assert "Only for GET?" in asked["params"]["message"]
        for ignored in ({"action": "decline"}, {"action": "accept", "content": {"answer": 1}}, "yes"):
            result(sidecar, "tasks/update", taskId=task["taskId"], inputResponses={key: ignored})
        assert get(sidecar, task)["status"] == "input_required"
        answer = {"action": "accept", "content": {"answer": "Yes."}}
        for _ in range(2):  # the second answers nothing
            result(sidecar, "tasks/update", taskId=task["taskId"], inputResponses={key: answer})
        assert get(sidecar, task)["status"] == "working"
        assert [message.text for message in inbox.read(task["taskId"]).thread] == ["Only for GET?", "Yes."]
        inbox.ask(task["taskId"], "For how long?")
        [another] = get(sidecar, task)["inputRequests"]
        assert another != key
        result(sidecar, "tasks/update", taskId=task["taskId"], inputResponses={key: answer})
        assert get(sidecar, task)["status"] == "input_required"
    decide(task["taskId"], "rejected")
    assert get(sidecar, task)["status"] == "completed"
