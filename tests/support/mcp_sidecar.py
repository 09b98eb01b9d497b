"""How do the MCP tests run a sidecar, its agent and its operator, each a real process on one real database?"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client
from mcp.types import CallToolResult

from bot_bottle import Database, Inbox, InboxItem, Proposal

COMMAND = [sys.executable, "-m", "bot_bottle.sidecars.supervise"]

# Decides on the first proposal that has a word in its file, once somebody waits for it.
_OPERATOR = """
import json, sys, time
from bot_bottle import Database, Inbox
word, decision = sys.argv[1], json.loads(sys.argv[2])
with Inbox() as inbox:
    for change in inbox.watch(0, timeout=60):
        item = inbox.read(change.proposal_id)
        if item.state == "pending" and word in item.proposal.proposed_file:
            break
    while not item.waiting:
        time.sleep(0.01)
        item = inbox.read(item.proposal.id)
    if "final_file" in decision:
        decision["final_file"] = item.proposal.proposed_file.replace(*decision["final_file"])
    inbox.decide(item.proposal.id, payload_sha256=item.proposal.payload_sha256, decided_by="alice", **decision)
"""


def routes(*hosts: str) -> str:
    """A routes.yaml that allows these."""
    return "routes:\n" + "".join(f"  - host: {host}\n" for host in hosts)


@contextmanager
def operator(word: str, **decision: Any) -> Iterator[None]:
    """An operator who decides on the proposal with ``word`` in its file as soon as somebody waits for it.

    ``final_file=[old, new]`` replaces in what was proposed.
    """
    process = subprocess.Popen([sys.executable, "-c", _OPERATOR, word, json.dumps(decision)])
    try:
        yield
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()


class Sidecar:
    """The sidecar of one bottle, as a launch starts it; ``wait_seconds="1"`` sets ``SUPERVISE_WAIT_SECONDS``."""

    def __init__(self, root: Path, slug: str, **settings: str) -> None:
        self.slug = slug
        self.files = root / "bottles" / slug
        self.files.mkdir(parents=True, exist_ok=True, mode=0o700)
        launch = {
            "bottle_slug": slug,
            "host": "127.0.0.1",
            "port": "0",
            "db_path": str(root / "db" / "bot-bottle.db"),
            "files_dir": str(self.files),
            "progress_seconds": "0.1",
            **settings,
        }
        self.environment = environment(launch)
        self.url = ""
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Sidecar:
        self.process = subprocess.Popen(
            COMMAND, env=self.environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        first = self.process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", first)
        assert found, first
        self.url = found[0]
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate()

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def ended(self) -> tuple[int, str]:
        """Exit code and log, once it has ended."""
        assert self.process is not None
        _, log = self.process.communicate(timeout=30)
        return self.process.returncode, log

    def call(self, tool: str, mode: str = "auto", **arguments: object) -> CallToolResult:
        """One tool call, by a client of its own."""
        return asyncio.run(call(self.url, tool, mode, **arguments))


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's, with ``settings`` as ``SUPERVISE_…`` and no others of that name."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("SUPERVISE_")}
    return {**others, **{f"SUPERVISE_{name.upper()}": value for name, value in settings.items()}}


async def call(server: Any, tool: str, mode: str = "auto", **arguments: object) -> CallToolResult:
    """One tool call to ``server`` (a URL or a transport)."""
    async with Client(server, mode=mode) as client:
        return await client.call_tool(tool, arguments)


def outcome(result: CallToolResult) -> dict[str, Any]:
    """The structured result of a call that was no error."""
    assert not result.is_error, result
    assert isinstance(result.structured_content, dict)
    return result.structured_content


def error(result: CallToolResult) -> tuple[str, str]:
    """Class and sentence of a call that was one."""
    assert result.is_error, result
    assert isinstance(result.structured_content, dict)
    message = result.structured_content["message"]
    assert text(result) == message
    assert "\n" not in message
    assert "Traceback" not in message
    return result.structured_content["error"], message


def text(result: CallToolResult) -> str:
    """What a client shows that knows text alone."""
    (content,) = result.content
    assert content.type == "text"
    return content.text


def items(slug: str) -> list[InboxItem]:
    """All that this bottle ever proposed, newest first."""
    with Inbox() as inbox:
        return [inbox.read(item.proposal.id) for item in inbox.history(bottle_slug=slug)]


def ask(sidecar: Sidecar, file: str, tool: str = "allow", mode: str = "auto", **more: object) -> dict[str, Any]:
    """What becomes of a proposal with this file."""
    return outcome(sidecar.call(tool, mode, proposed_file=file, justification="for the build", **more))


def decide(proposal_id: str, status: str, notes: str = "") -> None:
    with Inbox() as inbox:
        digest = inbox.read(proposal_id).proposal.payload_sha256
        inbox.decide(proposal_id, status, payload_sha256=digest, notes=notes, decided_by="alice")


async def until_waited_for(word: str) -> Proposal:
    """The proposal with ``word`` in its file, as soon as somebody waits for its decision."""
    with Inbox() as inbox:
        while True:
            for waiting in [item.proposal.id for item in inbox.pending() if item.waiting]:
                proposal = inbox.read(waiting).proposal
                if word in proposal.proposed_file:
                    return proposal
            await asyncio.sleep(0.01)


@contextmanager
def host(root: Path) -> Iterator[Path]:
    """Makes ``root`` the host's, for this process and the operators it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOT_BOTTLE_ROOT", str(root))
        with Database() as database:
            database.migrate_all()
        yield root
