"""That clients other than the SDK over HTTP get along with the MCP sidecar: stdio, raw HTTP, npm's tools."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

import npm_packages
from mcp_sidecar import COMMAND, Sidecar, items, operator, outcome, routes, until_waited_for
from needs import cannot

TOOLS = [
    "allow",
    "egress-block",
    "capability-block",
    "check-proposal",
    "answer-question",
    "withdraw-proposal",
    "list-proposals",
    "list-egress-routes",
    "read-current-file",
]


@pytest.fixture(scope="module")
def brisk(root: Path) -> Iterator[Sidecar]:
    """A sidecar that waits for a moment only, of a bottle without files."""
    with Sidecar(root, "brisk", wait_seconds="0.3") as sidecar:
        yield sidecar


def over_stdio(sidecar: Sidecar) -> object:
    return stdio_client(
        StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], "--stdio"], env=sidecar.environment)
    )


def test_stdio_offers_the_same(root: Path) -> None:
    async def talk() -> tuple[list[str], dict[str, Any]]:
        async with Client(over_stdio(Sidecar(root, "stdio", wait_seconds="60"))) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            arguments = {"proposed_file": routes("stdio.example"), "justification": "x"}
            return names, outcome(await client.call_tool("allow", arguments))

    with operator("stdio.example", status="approved", notes="ok"):
        names, told = asyncio.run(talk())
    assert names == TOOLS
    assert (told["status"], told["notes"]) == ("approved", "ok")


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_call_cancelled_over_stdio_leaves_its_proposal_pending(root: Path, mode: str) -> None:
    async def cancel_then_check() -> dict[str, Any]:
        async with Client(over_stdio(Sidecar(root, "cancel", wait_seconds="60")), mode=mode) as client:
            arguments = {"proposed_file": routes(f"cancel-{mode}.example"), "justification": "x"}
            waiting = asyncio.ensure_future(client.call_tool("allow", arguments))
            proposal = await until_waited_for(f"cancel-{mode}")
            waiting.cancel()
            await asyncio.wait([waiting])
            return outcome(await client.call_tool("check-proposal", {"proposal_id": proposal.id, "wait_seconds": 0}))

    assert asyncio.run(cancel_then_check())["status"] == "pending"


def test_stdio_ends_with_its_input_and_survives_garbage(root: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--stdio"],
        env=Sidecar(root, "garbage").environment,
        input=b"garbage\n\x00\xff\n[]\n",
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


@pytest.fixture(scope="module")
def npx() -> str:
    """npm's runner of packages; in CI it has to be there."""
    found = shutil.which("npx")
    if found is None:
        cannot("npx is not installed: the npm tools were not run")
    return found


@pytest.mark.timeout(300)
def test_the_inspector_lists_and_calls(npx: str, brisk: Sidecar) -> None:
    def inspector(*arguments: str) -> dict[str, Any]:
        package = "@modelcontextprotocol/inspector@2.12.0"
        command = [npx, "--yes", package, "--cli", brisk.url, "--transport", "http", "--method", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
        told = json.loads(done.stdout)
        assert isinstance(told, dict)
        return told

    assert [tool["name"] for tool in inspector("tools/list", "--strict")["tools"]] == TOOLS
    file = routes("inspector.example")
    told = inspector(
        "tools/call", "--tool-name", "allow", "--tool-arg", f"proposed_file={file}", "--tool-arg", "justification=x"
    )
    assert told["structuredContent"]["status"] == "pending"
    assert items("brisk")[0].proposal.proposed_file == file


# The scenarios that want no tools, prompts or resources of a test server, by the versions that they are for.
SCENARIOS = [
    ("server-initialize", "2025-06-18"),
    ("server-initialize", "2025-11-25"),
    ("ping", "2025-11-25"),
    ("tools-list", "2025-06-18"),
    ("tools-list", "2025-11-25"),
    ("tools-list", "2026-07-28"),
    ("server-session-lifecycle", "2025-03-26"),
    ("server-sse-multiple-streams", "2026-07-28"),
    ("dns-rebinding-protection", "2025-11-25"),
    ("dns-rebinding-protection", "2026-07-28"),
    ("input-required-result-unsupported-methods", "2026-07-28"),
]
# Of the others, the checks that fail, all for want of such a tool, prompt or resource.
PARTLY = {
    ("server-stateless", "2026-07-28"): {
        "sep-2575-server-rejects-undeclared-capability",
        "sep-2575-missing-capability-http-400",
        "sep-2575-http-server-no-independent-requests-on-stream",
        "sep-2575-server-no-log-without-loglevel",
    },
    ("caching", "2026-07-28"): {
        "sep-2549-prompts-list-caching-hints",
        "sep-2549-resources-list-caching-hints",
        "sep-2549-resources-templates-list-caching-hints",
    },
    ("http-header-validation", "2026-07-28"): set(),
    ("tasks-capability-negotiation", ""): {
        "sep-2663-server-rejects-undeclared-client",
        "tasks-per-request-meta-opt-in",
    },
    ("tasks-request-headers", ""): {
        "tasks-headers-tolerate-mcp-method-on-tools-call",
        "sep-2663-routing-headers-accepted-on-tasks-get",
        "sep-2663-server-rejects-mismatched-mcp-name-on-tasks-get",
    },
    ("tasks-dispatch-and-envelope", ""): {
        "tasks-server-directed-creation-no-hint",
        "sep-2663-legacy-task-param-ignored",
        "tasks-immediate-result-shortcut",
        "tasks-result-type-complete-on-non-task-responses",
        "sep-2663-durable-create-strong-consistency",
    },
}


def conformance(sidecar: Sidecar, scenario: str, version: str, folder: Path) -> dict[str, set[str]]:
    """The checks of a scenario, by what came of them."""
    of = ["--spec-version", version] if version else []
    command = [*npm_packages.conformance(), "server", "--url", sidecar.url, "--scenario", scenario, *of]
    subprocess.run([*command, "--output-dir", str(folder)], capture_output=True, timeout=240)
    (file,) = folder.rglob("checks.json")
    found: dict[str, set[str]] = {}
    for check in json.loads(file.read_text()):
        found.setdefault(check["status"], set()).add(check["id"])
    return found


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("scenario", "version"), SCENARIOS, ids=" ".join)
def test_the_conformance_suite_passes(brisk: Sidecar, tmp_path: Path, scenario: str, version: str) -> None:
    found = conformance(brisk, scenario, version, tmp_path)
    assert set(found) <= {"SUCCESS", "INFO", "SKIPPED"}, found


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("scenario", "version"), PARTLY, ids=" ".join)
def test_the_conformance_suite_fails_only_for_want_of_its_own_tools(
    brisk: Sidecar, tmp_path: Path, scenario: str, version: str
) -> None:
    found = conformance(brisk, scenario, version, tmp_path)
    assert found.get("FAILURE", set()) == PARTLY[scenario, version]
    assert found["SUCCESS"]


@pytest.mark.parametrize("version", ["2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"])
def test_a_client_that_takes_json_alone_is_answered_in_json(brisk: Sidecar, version: str) -> None:
    meta = {"io.modelcontextprotocol/protocolVersion": version, "io.modelcontextprotocol/clientCapabilities": {}}
    params = {"name": "list-proposals", "arguments": {}, **({"_meta": meta} if version == "2026-07-28" else {})}
    headers = {"Accept": "application/json", "MCP-Protocol-Version": version}
    headers |= {"Mcp-Method": "tools/call", "Mcp-Name": "list-proposals"}
    body = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}
    answer = httpx.post(brisk.url, json=body, headers=headers, timeout=60)
    assert answer.headers["content-type"].startswith("application/json")
    told = answer.json()
    assert told["id"] == 7 and "proposals" in told["result"]["structuredContent"]
