"""What the MCP sidecar refuses, from whom, and that it says so in one sentence."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from mcp import MCPError
from mcp.client import Client

from bot_bottle import MAX_PENDING_PER_BOTTLE, Inbox
from mcp_sidecar import COMMAND, Sidecar, ask, error, items, outcome, routes


@pytest.fixture(scope="module")
def brisk(root: Path) -> Iterator[Sidecar]:
    """A sidecar that waits for a moment only, of a bottle without files."""
    with Sidecar(root, "brisk", wait_seconds="0.3") as sidecar:
        yield sidecar


@pytest.mark.parametrize(
    ("tool", "arguments", "name", "says"),
    [
        ("allow", {}, "InvalidInputError", "'proposed_file' is missing"),
        ("allow", {"proposed_file": routes("a.example")}, "InvalidInputError", "'justification' is missing"),
        ("allow", {"proposed_file": routes("a.example"), "justification": " \n"}, "InvalidInputError", "blank"),
        ("allow", {"proposed_file": 7, "justification": "x"}, "InvalidInputError", "should be a valid string"),
        (
            "allow",
            {"proposed_file": routes("a.example"), "justification": "x", "slug": "other"},
            "InvalidInputError",
            "'slug' is not an argument of this tool",
        ),
        (
            "allow",
            {"proposed_file": "routes:\n- hots: x\n", "justification": "x"},
            "RoutesError",
            "line 2: unknown key",
        ),
        ("allow", {"proposed_file": routes("'*'"), "justification": "x"}, "RoutesError", "matches too much"),
        ("egress-block", {"proposed_file": "\x00\x01\x7fELF", "justification": "x"}, "RoutesError", "not YAML"),
        ("capability-block", {"proposed_file": "FROM a\nRUNN x\n", "justification": "x"}, "DockerfileError", "line 2"),
        ("capability-block", {"proposed_file": "\x7fELF\x00", "justification": "x"}, "DockerfileError", "U+007F"),
        ("allow", {"proposed_file": "#" * 300_000, "justification": "x"}, "RoutesError", "larger than 256 KiB"),
        (
            "allow",
            {"proposed_file": routes("a.example"), "justification": "\u00e9" * 16_000},
            "InvalidProposalError",
            "justification",
        ),
        ("read-current-file", {"name": "../../etc/passwd"}, "InvalidInputError", "'routes.yaml' or 'Dockerfile'"),
        ("check-proposal", {"proposal_id": "\u202e\x1b[2J"}, "NotFoundError", r"'\u202e\x1b[2J'"),
        ("check-proposal", {"proposal_id": "x", "wait_seconds": -1}, "InvalidInputError", "greater than or equal to 0"),
        ("list-proposals", {"limit": 0}, "InvalidInputError", "greater than or equal to 1"),
        ("list-egress-routes", {"all": True}, "InvalidInputError", "'all' is not an argument of this tool"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(
    brisk: Sidecar, tool: str, arguments: dict[str, Any], name: str, says: str
) -> None:
    before = len(items("brisk"))
    found, message = error(brisk.call(tool, **arguments))
    assert (found, says in message) == (name, True), message
    assert len(items("brisk")) == before


def test_an_unknown_tool_is_a_protocol_error_that_names_the_known_ones(brisk: Sidecar) -> None:
    async def approve() -> None:
        async with Client(brisk.url) as client:
            with pytest.raises(MCPError, match=r"there is no tool 'approve'; there are allow, egress-block, "):
                await client.call_tool("approve", {"proposal_id": "x"})

    asyncio.run(approve())


def test_a_flood_ends_at_the_cap_and_leaves_the_operator_a_usable_list(root: Path) -> None:
    async def flood(url: str) -> list[object]:
        async with Client(url) as client:
            busy = asyncio.Semaphore(16)

            async def one(number: int) -> object:
                async with busy:
                    arguments = {"proposed_file": routes(f"flood{number}.example"), "justification": "x" * 1000}
                    result = await client.call_tool("allow", arguments)
                return error(result) if result.is_error else outcome(result)["status"]

            return await asyncio.gather(*(one(number) for number in range(MAX_PENDING_PER_BOTTLE + 20)))

    with Sidecar(root, "flood", wait_seconds="0") as sidecar:
        answers = asyncio.run(flood(sidecar.url))
        refused = [answer for answer in answers if answer != "pending"]
        assert len(refused) == 20
        assert all(isinstance(answer, tuple) and answer[0] == "InvalidProposalError" for answer in refused)
        with Inbox() as inbox:
            assert len(inbox.pending("flood")) == MAX_PENDING_PER_BOTTLE
            some = inbox.pending("flood")[7]
            inbox.decide(some.proposal.id, "rejected", payload_sha256=some.proposal.payload_sha256)
        assert ask(sidecar, routes("after.example"))["status"] == "pending"


@pytest.mark.parametrize("why", ["not a database", "no such directory"])
def test_a_database_that_cannot_be_used_ends_the_start_with_the_reason(root: Path, tmp_path: Path, why: str) -> None:
    path = tmp_path / "db" / "bot-bottle.db"
    if why == "not a database":
        path.parent.mkdir()
        path.write_text("no database at all " * 300)
    sidecar = Sidecar(root, "unusable", db_path=str(path))
    done = subprocess.run(COMMAND, env=sidecar.environment, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert done.stdout == ""
    assert str(path) in done.stderr or str(path.parent) in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"bottle_slug": ""}, "SUPERVISE_BOTTLE_SLUG is not set"),
        ({"bottle_slug": "../x"}, "../x"),
        ({"port": "http"}, "SUPERVISE_PORT is 'http'"),
        ({"wait_seconds": "soon"}, "SUPERVISE_WAIT_SECONDS must be a number of seconds"),
        ({"wait_seconds": "nan"}, "SUPERVISE_WAIT_SECONDS must be a number of seconds"),
        ({"progress_seconds": "0"}, "at least 0.05"),
        ({"expires_seconds": "-1"}, "SUPERVISE_EXPIRES_SECONDS"),
        ({"host": "203.0.113.7"}, "cannot listen on 203.0.113.7"),
    ],
)
def test_a_wrong_setting_ends_the_start_with_one_sentence(root: Path, settings: dict[str, str], says: str) -> None:
    sidecar = Sidecar(root, "settings", **settings)
    done = subprocess.run(COMMAND, env=sidecar.environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def post(sidecar: Sidecar, body: bytes, path: str = "/", **headers: str) -> tuple[int, str]:
    """Status and body of a POST as a client's HTTP library would never send it."""
    parts = urlsplit(sidecar.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    usual = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    connection.request("POST", path, body, usual | {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    told = answer.status, answer.read().decode()
    connection.close()
    return told


LIST = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).encode()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "supervise:9100"}, 200),
        ({"host": "supervise"}, 200),
        ({"host": "localhost:1"}, 200),
        ({"host": "bottle.internal:9100"}, 200),
        ({"host": "bottle.internal:9101"}, 421),
        ({"host": "evil.example"}, 421),
        ({"host": "supervise.evil.example:9100"}, 421),
        ({"host": "127.0.0.1.evil.example:9100"}, 421),
        ({"origin": "http://supervise:9100"}, 200),
        ({"origin": "http://localhost:6274"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "https://supervise.evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
@pytest.mark.parametrize("path", ["/", "/mcp"])
def test_only_known_hosts_and_origins_are_served(
    known_hosts: Sidecar, path: str, headers: dict[str, str], status: int
) -> None:
    assert post(known_hosts, LIST, path, **headers)[0] == status
    assert post(known_hosts, LIST, path, mcp_protocol_version="2026-07-28", **headers)[0] in (status, 400)


@pytest.fixture(scope="module")
def known_hosts(root: Path) -> Iterator[Sidecar]:
    with Sidecar(root, "hosts", allowed_hosts=" bottle.internal:9100 ,") as sidecar:
        yield sidecar


@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
@pytest.mark.parametrize(
    ("body", "codes"),
    [
        (b"", {-32700}),
        (b"{", {-32700}),
        (b"\xff\xfe", {-32700}),
        (b"[" * 100_000, {-32700}),
        (b"[]", {-32600, -32602}),
        (b'"x"', {-32600, -32602}),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', {-32600, -32602}),
        (b'{"jsonrpc":"2.0","id":1}', {-32600, -32602}),
        (b'{"jsonrpc":"2.0","id":1,"method":"no/such"}', {-32601, -32602}),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call"}', {-32602}),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":5}}', {-32602}),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"allow","arguments":[]}}', {-32602}),
        (
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"check-proposal",'
            b'"arguments":{"proposal_id":"\\ud800"}}}',
            {-32700, -32602},
        ),
    ],
)
def test_a_malformed_message_is_answered_with_a_protocol_error(
    brisk: Sidecar, version: str, body: bytes, codes: set[int]
) -> None:
    status, answer = post(brisk, body, mcp_protocol_version=version)
    assert status in (200, 400, 404)
    message = json.loads(answer[answer.index("{") :])
    assert message["error"]["code"] in codes
    assert "Traceback" not in answer
    assert post(brisk, LIST)[0] == 200


def test_a_body_larger_than_any_file_may_be_is_not_read(brisk: Sidecar) -> None:
    assert post(brisk, b" " * (2 * 1024 * 1024 + 1))[0] == 413


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_there_is_no_session_to_stream_or_delete(brisk: Sidecar, method: str) -> None:
    parts = urlsplit(brisk.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    connection.request(method, "/")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    connection.close()


def test_health_fails_with_the_database_and_no_call_shows_a_traceback(root: Path, tmp_path: Path) -> None:
    def health(sidecar: Sidecar) -> tuple[int, dict[str, Any]]:
        parts = urlsplit(sidecar.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        told = answer.status, json.load(answer)
        connection.close()
        return told

    path = tmp_path / "db" / "bot-bottle.db"
    path.parent.mkdir(mode=0o700)
    with Sidecar(root, "health", db_path=str(path), wait_seconds="0") as sidecar:
        assert health(sidecar) == (200, {"status": "ok"})
        path.write_text("no database at all " * 300)
        status, told = health(sidecar)
        assert (status, told["status"], told["error"]) == (503, "failing", "DatabaseCorruptError")
        name, _ = error(sidecar.call("allow", proposed_file=routes("a.example"), justification="x"))
        assert name == "DatabaseCorruptError"
        sidecar.signal(signal.SIGTERM)
        _, log = sidecar.ended()
    assert "Traceback" not in log


def test_what_an_agent_sends_cannot_reach_the_terminal_of_a_reader_of_the_log(root: Path) -> None:
    with Sidecar(root, "log") as sidecar:
        assert post(sidecar, LIST, host="\x9b2Jevil\x85")[0] == 421
        sidecar.call("check-proposal", proposal_id="\x1b[2J\u202e\nforged: line")
        sidecar.signal(signal.SIGTERM)
        _, log = sidecar.ended()
    assert all(line.startswith("supervise: ") for line in log.splitlines())
    assert all(char.isprintable() or char == "\n" for char in log)
