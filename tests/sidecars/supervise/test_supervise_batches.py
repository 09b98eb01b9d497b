"""That a batch of MCP 2025-03-26 is answered as one, that other versions refuse it, and what no batch may hold."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bot_bottle.sidecars.supervise.batches import MAX_MESSAGES
from bot_bottle.sidecars.supervise.mcp_server import MAX_BODY_BYTES
from mcp_sidecar import Sidecar, decide, items, routes, until_waited_for


@pytest.fixture(scope="module")
def batched(root: Path) -> Iterator[Sidecar]:
    with Sidecar(root, "batched", wait_seconds="30") as sidecar:
        yield sidecar


def message(method: str, number: int | None = None, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, **({"id": number} if number else {}), "params": params}


def post(sidecar: Sidecar, body: Any, **headers: str) -> httpx.Response:
    usual = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(sidecar.url, content=sent, headers=usual | named, timeout=60)


VERSION = "2025-03-26"
PINGS = [message("ping", 1), message("ping", 2)]


def test_each_call_of_a_batch_is_answered_and_two_wait_for_the_operator_at_once(batched: Sidecar) -> None:
    def asking(number: int, host: str) -> dict[str, Any]:
        given = {"proposed_file": routes(host), "justification": "for the build"}
        return message("tools/call", number, name="allow", arguments=given)

    batch = [asking(1, "one.example"), message("notifications/cancelled", requestId=99), asking(2, "two.example")]
    batch += [message("no/such", 3), message("tools/list", 4)]

    async def together() -> httpx.Response:
        sent = asyncio.create_task(asyncio.to_thread(post, batched, batch, mcp_protocol_version=VERSION))
        waiting = [await until_waited_for(host) for host in ("one.example", "two.example")]
        for proposal, status in zip(waiting, ("approved", "rejected"), strict=True):
            decide(proposal.id, status)
        return await sent

    answer = asyncio.run(asyncio.wait_for(together(), 60))
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    told = answer.json()
    assert [each["id"] for each in told] == [1, 2, 3, 4]
    assert [each["result"]["structuredContent"]["status"] for each in told[:2]] == ["approved", "rejected"]
    assert told[2]["error"]["code"] == -32601 and told[3]["result"]["tools"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # the version that had batches had no header
        ({"mcp_protocol_version": VERSION}, 200),
        ({"mcp_protocol_version": VERSION, "accept": "application/json"}, 200),
        ({"mcp_protocol_version": "2025-06-18"}, 400),
        ({"mcp_protocol_version": "2025-11-25"}, 400),
        ({"mcp_protocol_version": "2026-07-28"}, 400),
        ({"host": "evil.example"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"content_type": "text/plain"}, 400),
    ],
)
def test_a_batch_is_taken_from_known_hosts_by_its_own_version_alone(
    batched: Sidecar, headers: dict[str, str], status: int
) -> None:
    answer = post(batched, PINGS, **headers)
    assert answer.status_code == status
    if status == 200:
        assert answer.json() == [{"jsonrpc": "2.0", "id": number, "result": {}} for number in (1, 2)]


def test_a_batch_of_notifications_has_no_answer(batched: Sidecar) -> None:
    answer = post(batched, [message("notifications/initialized")])
    assert (answer.status_code, answer.content) == (202, b"")


def test_what_is_no_message_is_refused_beside_the_rest(batched: Sidecar) -> None:
    told = post(batched, [7, [message("ping", 5)], message("ping", 6)]).json()
    assert [each.get("error", {}).get("code") in (-32600, -32602, -32700) for each in told] == [True, True, False]
    assert told[2] == {"jsonrpc": "2.0", "id": 6, "result": {}}


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"[]", 400, "a batch has 1 to 32 messages, not 0"),
        ([message("ping", 1)] * (MAX_MESSAGES + 1), 400, "a batch has 1 to 32 messages, not 33"),
        (b"[{", 400, "the batch is not JSON"),
        (b"\n " + b"[" * 100_000, 400, "the batch is not JSON"),
        (b"[\xff]", 400, "the batch is not JSON"),
        (b"[" + b" " * MAX_BODY_BYTES + b"]", 413, "the batch is longer than 2,097,152 bytes"),
        ([message("ping", 1), message("initialize", 2)], 400, "initialize cannot be part of a batch; send it alone"),
    ],
)
def test_a_batch_that_cannot_be_answered_is_refused_as_a_whole(
    batched: Sidecar, body: Any, status: int, says: str
) -> None:
    before = len(items("batched"))
    answer = post(batched, body, mcp_protocol_version=VERSION)
    assert (answer.status_code, answer.json()["error"]["message"]) == (status, says)
    assert len(items("batched")) == before
    assert post(batched, PINGS).status_code == 200
