"""That clients other than the SDK over HTTP get along with the MCP sidecar: stdio, raw HTTP, npm's tools."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from mcp_sidecar import COMMAND, Sidecar, host, items, operator, outcome, routes, until_waited_for
from needs import cannot

TOOLS = [
    "allow",
    "egress-block",
    "capability-block",
    "check-proposal",
    "withdraw-proposal",
    "list-proposals",
    "list-egress-routes",
    "read-current-file",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with host(tmp_path_factory.mktemp("host")) as path:
        yield path


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


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", ["server-initialize", "ping", "tools-list", "dns-rebinding-protection"])
def test_the_conformance_suite_passes(npx: str, brisk: Sidecar, scenario: str) -> None:
    # 0.1.11 is the last that runs on Node 20; its other scenarios want tools, prompts and resources of a test server.
    package = "@modelcontextprotocol/conformance@0.1.11"
    command = [npx, "--yes", package, "server", "--url", brisk.url, "--scenario", scenario]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout
    assert " 0 failed, 0 warnings" in done.stdout
