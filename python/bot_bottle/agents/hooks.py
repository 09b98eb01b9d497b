"""What does an agent's hook ask, and which answer makes the agent do what the operator decided?

Each agent says as JSON what it is about to do, and is told whether it may. It either starts ``bot-bottle hook`` with
the event on standard input, or posts the event to the sidecar of its bottle. Agents differ in what counts as a no.
Claude Code and Codex treat an exit code other than 2 as a broken hook and continue as if there were no hook; Codex and
Gemini CLI do the same if there is nothing on standard error.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple

from bot_bottle._native import (
    MAX_JUSTIFICATION_BYTES,
    MAX_PAYLOAD_BYTES,
    STATUS_MODIFIED,
    STATUS_REJECTED,
    GrantStore,
    Proposal,
    Response,
    render_diff,
    sha256_hex,
    visible,
)
from bot_bottle.agents import prefix
from bot_bottle.errors import InvalidInputError

# The kind of proposal that a hook makes.
TOOL_RUN_COMMAND: Final = "run-command"
# A write is in an event with both its old and its new text, escaped.
MOST_BYTES: Final = 8 * MAX_PAYLOAD_BYTES
BLOCKED: Final = 2
# Stands in a fingerprint between the action and what its command begins with; the core splits there.
_BEGINS: Final = " | "
# What may stand beside a command that a prefix covers: it does not change what the command does.
_HARMLESS: Final = frozenset(("timeout",))
# Seconds past the end of a question's time: for the answer of an operator who was in time.
GRACE: Final = 10


class Agent(NamedTuple):
    """A coding agent as its hooks show it."""

    name: str
    title: str
    prompt: str | None
    """The event when it would ask its own user, if it has one."""
    every: str
    """The event before each use of a tool."""
    longest_reason: int
    """How many characters of a reason reach its model; the hook cuts there, and says so."""

    @property
    def events(self) -> tuple[str, ...]:
        return (self.prompt, self.every) if self.prompt else (self.every,)


AGENTS: Final = {
    agent.name: agent
    for agent in (
        # code.claude.com/docs/en/hooks: what a hook prints is cut at 10,000 characters.
        Agent("claude-code", "Claude Code", "PermissionRequest", "PreToolUse", 9_000),
        Agent("codex", "Codex", "PermissionRequest", "PreToolUse", 9_000),
        Agent("gemini", "Gemini CLI", None, "BeforeTool", 9_000),
        Agent("opencode", "opencode", None, "tool.execute.before", 9_000),
    )
}


class Request(NamedTuple):
    """What an agent wants to do, as an operator is shown it."""

    event: str
    payload: str
    """A few lines of who, where and with what, an empty line, then the command or change itself."""
    justification: str
    fingerprint: str
    """The same for the same action in the same directory, in whatever session. A plain command's ends with
    `` | AGENT TOOL: `` and its first words."""


class Verdict(NamedTuple):
    """What an agent is to be told."""

    allowed: bool
    reason: str = ""


class Answer(NamedTuple):
    """What the hook prints, and the code it ends with."""

    code: int
    out: str = ""
    err: str = ""


def read(agent: Agent, event: bytes) -> Request:
    """The request in an agent's event.

    Raises:
        InvalidInputError: it is not an event of this agent that can be answered.
    """
    try:
        document = json.loads(event)
        if agent.name == "opencode":
            document = _of_opencode(document)
        name, tool, given = document["hook_event_name"], document["tool_name"], document["tool_input"]
        cwd, session = document["cwd"], document["session_id"]
        fits = isinstance(given, dict) and all(isinstance(each, str) and each for each in (name, tool, cwd, session))
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        fits = False
    if not fits:
        raise InvalidInputError(f"what came in is not an event of a hook of {agent.title}")
    if name not in agent.events:
        raise InvalidInputError(f"a {name} event cannot be answered here, only {' and '.join(agent.events)}")
    return _request(agent, name, tool, given, cwd, session)


def is_granted(grants: GrantStore, bottle: str, request: Request) -> bool:
    """Whether an approval covers it, of the same action or of its command's first words; spends one use."""
    action, _, begins = request.fingerprint.partition(_BEGINS)
    about = [action]
    if begins:
        runner, _, words = begins.partition(": ")
        split = words.split(" ")
        about += [f"{runner}: {' '.join(split[:count])}" for count in range(len(split), 0, -1)]
    return any(grants.use_grant(bottle, TOOL_RUN_COMMAND, each) for each in about)


def proposal(bottle: str, request: Request, seconds: float) -> Proposal:
    """The question to the operator, which ends after ``seconds``. An answer that comes too late is refused, so that the
    operator does not believe in an answer that nobody hears."""
    return Proposal.new(
        bottle,
        TOOL_RUN_COMMAND,
        request.payload,
        request.justification,
        expires_in=seconds,
        fingerprint=request.fingerprint,
    )


def verdict(response: Response) -> Verdict:
    """What the operator's answer comes to."""
    if response.status == STATUS_REJECTED:
        return Verdict(False, f"operator: {response.notes or 'no'}")
    if response.status == STATUS_MODIFIED:
        # None of them can be handed another command in a way that all versions obey: it asks again with that one.
        notes = f"{response.notes}\n" if response.notes else ""
        return Verdict(False, f"operator: do it like this instead.\n{notes}{response.diff or ''}")
    return Verdict(True, response.notes)


def _of_opencode(document: Any) -> dict[str, Any]:
    """An event of bot-bottle's plugin, in the format of the others."""
    return {
        "hook_event_name": document["hook"],
        "tool_name": document["input"]["tool"],
        "tool_input": document["output"]["args"],
        "session_id": document["input"]["sessionID"],
        "cwd": document["cwd"],
    }


def _request(agent: Agent, event: str, tool: str, given: dict[str, Any], cwd: str, session: str) -> Request:
    rest = dict(given)
    reason = ""
    for key in ("description", "instruction", "justification"):
        said = rest.get(key)
        # A longer one stays with the arguments, whole. One that is not Unicode text is refused with the proposal.
        if not reason and isinstance(said, str) and len(said.encode(errors="surrogatepass")) <= MAX_JUSTIFICATION_BYTES:
            reason = rest.pop(key)
    path = next((rest.pop(key) for key in ("file_path", "filePath") if isinstance(rest.get(key), str)), None)
    begins = (
        "" if path is not None or rest.keys() - _HARMLESS - {"command"} else _begins(agent, tool, rest.get("command"))
    )
    body = _body(rest, path)
    if body is None:
        body, rest = json.dumps(given, indent=1, ensure_ascii=False), {}
    where = {"agent": agent.name, "tool": tool, "cwd": cwd}
    if path is not None:
        where["file"] = path
    if rest:
        # Such as how long it may take and whether it leaves the agent's own sandbox: this is part of what is approved.
        where["with"] = json.dumps(rest, ensure_ascii=False)
    # Each on one line, so that no value can look like another one, or like the command.
    lines = {name: visible(value, multiline=False) for name, value in where.items()}
    fingerprint = sha256_hex(json.dumps([where, body]))
    lines["session"] = visible(session, multiline=False)
    head = "".join(f"{name + ':':<9}{value}\n" for name, value in lines.items())
    return Request(event, f"{head}\n{body}", reason, f"{TOOL_RUN_COMMAND}:{fingerprint}{begins}")


def _begins(agent: Agent, tool: str, command: object) -> str:
    """What a fingerprint ends with; empty for a command that no prefix covers."""
    words = prefix.words(command) if isinstance(command, str) and re.fullmatch(r"\w{1,64}", tool, re.ASCII) else ()
    return f"{_BEGINS}{agent.name} {tool}: {' '.join(words)}" if words else ""


def _body(rest: dict[str, Any], path: str | None) -> str | None:
    """The command, or the change to a file; what it consists of is taken out of ``rest``."""
    if path is None:
        return rest.pop("command") if isinstance(rest.get("command"), str) else None
    if isinstance(rest.get("content"), str):
        return f"the whole new content:\n{rest.pop('content')}"
    for old, new in (("old_string", "new_string"), ("oldString", "newString")):
        if isinstance(rest.get(old), str) and isinstance(rest.get(new), str):
            return render_diff(rest.pop(old), rest.pop(new), label="part of it")
    return None


def allow(agent: Agent, event: str, notes: str = "") -> Answer:
    """Lets the agent go on."""
    if agent.name in ("gemini", "opencode"):
        return Answer(0, json.dumps({"decision": "allow"}))
    if event == agent.prompt:
        return Answer(0, _specific(event, decision={"behavior": "allow"}))
    if agent.name == "codex":
        # It treats an explicit allow as a failure of the hook.
        return Answer(0)
    because = {"permissionDecisionReason": f"operator: {_cut(agent, notes)}"} if notes else {}
    return Answer(0, _specific(event, permissionDecision="allow", **because))


def block(agent: Agent, event: str | None, reason: str) -> Answer:
    """Keeps the agent from it, and says why. ``event`` is ``None`` where nobody knows which it was."""
    why = _cut(agent, reason)
    if event is not None and event == agent.prompt:
        # The agent falls back on its own prompt where it gets no answer, so this fails closed as well.
        return Answer(0, _specific(event, decision={"behavior": "deny", "message": why}), why)
    return Answer(BLOCKED, "", why)


def reply(agent: Agent, event: str, said: Verdict) -> str:
    """The same as a JSON object, for an agent, or a program that it started, which has posted its event."""
    if said.allowed:
        return allow(agent, event, said.reason).out or "{}"
    why = _cut(agent, said.reason)
    if agent.name in ("gemini", "opencode"):
        return json.dumps({"decision": "deny", "reason": why})
    if event == agent.prompt:
        return block(agent, event, said.reason).out
    return _specific(event, permissionDecision="deny", permissionDecisionReason=why)


def _specific(event: str, **answer: Any) -> str:
    return json.dumps({"hookSpecificOutput": {"hookEventName": event, **answer}})


def _cut(agent: Agent, text: str) -> str:
    hidden = len(text) - agent.longest_reason
    return text if hidden <= 0 else f"{text[: agent.longest_reason]} [+{hidden} characters]"
