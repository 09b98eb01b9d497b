"""Does an agent's hook, as it stands in the agent's settings, ask and obey?

The command is run by a shell with events as the agent would send them, and this process answers as the operator: in the
real inbox, so that the real database, its permissions and its bell are what is tried.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import IO, Any, Final, NamedTuple, cast

from bot_bottle import STATUS_APPROVED, STATUS_REJECTED, Inbox, new_id
from bot_bottle.agents import hooks
from bot_bottle.agents.hooks import Agent, Answer
from bot_bottle.errors import BotBottleError
from bot_bottle.states import Status

_PATIENCE: Final = 60
_NOTES: Final = "a trial of the hook"


class Trial(NamedTuple):
    """What was tried, how it ended, and whether the agent would have done the right thing."""

    what: str
    seen: str
    passed: bool


def trial(agent: Agent, command: str) -> list[Trial]:
    """Runs ``command`` for each event of ``agent`` and each answer, and for an invalid event."""
    results = []
    for event in agent.events:
        said = _asked(agent, event, command, STATUS_APPROVED)
        right = said is not None and said[:2] == hooks.allow(agent, event, _NOTES)[:2]
        results.append(_trial(f"an approval of a {event} lets it run", said, right))
        said = _asked(agent, event, command, STATUS_REJECTED)
        right = said == hooks.block(agent, event, f"operator: {_NOTES}")
        results.append(_trial(f"a rejection of a {event} keeps it from running", said, right))
    with _running(command) as process:
        said = _said(process, "this is no event")
    right = said.code == hooks.BLOCKED and bool(said.err)
    return [*results, _trial("what is not an event keeps it from running", said, right)]


def event(agent: Agent, name: str, session: str) -> str:
    """An event about a command that does nothing."""
    command = {"command": "echo a trial of bot-bottle"}
    if agent.name == "opencode":
        document: dict[str, Any] = {
            "hook": name,
            "input": {"tool": "bash", "sessionID": session, "callID": session},
            "output": {"args": command},
        }
    else:
        tool = "run_shell_command" if agent.name == "gemini" else "Bash"
        document = {"hook_event_name": name, "tool_name": tool, "tool_input": command, "session_id": session}
    return json.dumps({**document, "cwd": os.getcwd()})


def _trial(what: str, said: Answer | None, right: bool) -> Trial:
    if said is None:
        return Trial(what, f"nothing was asked within {_PATIENCE} s", False)
    return Trial(what, f"exit code {said.code}, {said.err or said.out or 'nothing said'}", right)


def _asked(agent: Agent, name: str, command: str, status: Status) -> Answer | None:
    """How the hook ends after that decision; ``None`` if it neither asked nor ended."""
    session = f"trial-{new_id()}"
    with Inbox() as inbox, _running(command) as process:
        since = inbox.last_change()
        stdin = cast("IO[str]", process.stdin)
        with contextlib.suppress(BrokenPipeError):
            stdin.write(event(agent, name, session))
            stdin.close()
        deadline = time.monotonic() + _PATIENCE
        while process.poll() is None and time.monotonic() < deadline:
            for change in inbox.watch(since, timeout=1):
                since = change.seq
                if change.kind != "proposed" or change.tool != hooks.TOOL_RUN_COMMAND:
                    continue
                proposal = inbox.read(change.proposal_id).proposal
                if f"session: {session}\n" in proposal.proposed_file:
                    inbox.decide(
                        proposal.id, status, payload_sha256=proposal.payload_sha256, notes=_NOTES, surface="cli"
                    )
                    return _said(process)
        return _said(process) if process.poll() is not None else None


@contextlib.contextmanager
def _running(command: str) -> Iterator[subprocess.Popen[str]]:
    """``command`` in a shell, as an agent starts it; nothing of it is left afterwards."""
    process = subprocess.Popen(
        ["sh", "-c", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def _said(process: subprocess.Popen[str], event: str | None = None) -> Answer:
    if event is None:
        process.stdin = None
    try:
        out, err = process.communicate(event, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        raise BotBottleError(f"the hook did not end within {_PATIENCE} s of its answer") from None
    return Answer(process.returncode, out.strip(), err.strip())
