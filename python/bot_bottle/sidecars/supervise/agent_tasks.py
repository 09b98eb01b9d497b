"""How does a call that needs a person become a task? The Tasks extension of MCP (SEP-2663, stable with 2026-07-28).

A client that speaks it need not hold a call open: it gets a task at once, and polls the task's status. A task is its
proposal. It has the proposal's id, and its status is read from the proposal's state each time. So it survives every
restart, and nothing about tasks is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from mcp import MCPError
from mcp.server import Server
from mcp.server.context import ServerRequestContext
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolResult,
    RequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from bot_bottle import InboxItem
from bot_bottle.errors import (
    AlreadyDecidedError,
    BotBottleError,
    InvalidInputError,
    ProposalExpiredError,
    ProposalWithdrawnError,
)
from bot_bottle.sidecars.supervise.agent_answers import FILES, Answer, Outcome
from bot_bottle.sidecars.supervise.agent_tools import AgentTools, Call

EXTENSION: Final = "io.modelcontextprotocol/tasks"
# People decide in minutes.
_POLL_MS: Final = 2000

Context = ServerRequestContext[Any, Any]


class TaskParams(RequestParams):
    """Which task it is about."""

    task_id: str


class UpdateParams(TaskParams):
    """Answers to what a task asked."""

    input_responses: dict[str, Any]


def _question(item: InboxItem) -> str:
    """What the answer to the task's question is called: never twice the same in a task's life, so that a late answer is
    not taken for one to the next question."""
    return f"question-{len(item.thread)}"


def _elicitation(outcome: Outcome) -> dict[str, Any]:
    """What the operator asks back, as a client puts it to its agent or user."""
    answer = {"type": "string", "description": "The operator reads it.", "minLength": 1}
    schema = {"type": "object", "properties": {"answer": answer}, "required": ["answer"]}
    message = f"{outcome.message}\n\n{outcome.question}"
    return {
        "method": "elicitation/create",
        "params": {"mode": "form", "message": message, "requestedSchema": schema},
    }


def _answer(response: Any) -> str:
    """The words of an elicitation's result; empty if it has none."""
    content = response.get("content") if isinstance(response, dict) and response.get("action") == "accept" else None
    answer = content.get("answer") if isinstance(content, dict) else None
    return answer if isinstance(answer, str) else ""


async def _silence(waited: float, most: float, sentence: str) -> None:
    pass


AT_ONCE: Final = Call(wait=0, progress=_silence)


def spoken_by(context: Context) -> bool:
    """Did the client say with this request that it takes tasks? The extension is of the newer protocol alone."""
    capabilities = context.session.client_capabilities
    known = capabilities.extensions if capabilities is not None else None
    return context.protocol_version in MODERN_PROTOCOL_VERSIONS and EXTENSION in (known or {})


@dataclass
class AgentTasks:
    """The tasks of one bottle's agent.

    Args:
        tools: what makes proposals, and says where they stand.
        result: an answer as a tool returns it.
    """

    tools: AgentTools
    result: Callable[[Answer], CallToolResult]

    def add_to(self, server: Server[Any]) -> None:
        """Has ``server`` offer the extension."""
        server.extensions[EXTENSION] = {}
        server.add_request_handler("tasks/get", TaskParams, self._get)
        server.add_request_handler("tasks/update", UpdateParams, self._update)
        server.add_request_handler("tasks/cancel", TaskParams, self._cancel)

    async def instead_of(self, outcome: Outcome) -> dict[str, Any]:
        """A task for what is still pending, in place of that answer."""
        item = await self._find(outcome.proposal_id or "")
        return {"resultType": "task", **_task(item, "working", outcome.message)}

    async def _get(self, context: Context, params: TaskParams) -> dict[str, Any]:
        _check(context, params.task_id)
        item = await self._find(params.task_id)
        try:
            outcome = await self.tools.outcome(item.proposal, AT_ONCE)
            item = await self._find(params.task_id)
        except BotBottleError as error:
            # Not the task's end: the next look may find it mended.
            raise MCPError(INTERNAL_ERROR, f"{type(error).__name__}: {error}") from None
        if outcome.status == "withdrawn":
            return {"resultType": "complete", **_task(item, "cancelled", outcome.message)}
        if outcome.status == "pending":
            return {"resultType": "complete", **_task(item, "working", outcome.message)}
        if outcome.status == "question":
            task = _task(item, "input_required", outcome.message)
            return {"resultType": "complete", **task, "inputRequests": {_question(item): _elicitation(outcome)}}
        result = self.result(outcome).model_dump(mode="json", by_alias=True, exclude_none=True)
        return {"resultType": "complete", **_task(item, "completed", outcome.message), "result": result}

    async def _update(self, context: Context, params: UpdateParams) -> dict[str, Any]:
        _check(context, params.task_id)
        item = await self._find(params.task_id)
        text = _answer(params.input_responses.get(_question(item)))
        if text:
            # Answers to what was not asked, or to what is over, are to be ignored.
            with suppress(InvalidInputError, AlreadyDecidedError, ProposalExpiredError, ProposalWithdrawnError):
                await self.tools.queue.answer(item.proposal.id, text)
        return {"resultType": "complete"}

    async def _cancel(self, context: Context, params: TaskParams) -> dict[str, Any]:
        _check(context, params.task_id)
        item = await self._find(params.task_id)
        # Over, one way or another, is what was wanted.
        with suppress(AlreadyDecidedError, ProposalExpiredError, ProposalWithdrawnError):
            await self.tools.queue.withdraw_proposal(item.proposal.id, "the agent")
        return {"resultType": "complete"}

    async def _find(self, task_id: str) -> InboxItem:
        """The proposal.

        Raises:
            MCPError: this bottle's agent made no such task; the error does not say whether somebody else did.
        """
        try:
            item = await self.tools.queue.inspect(task_id)
        except InvalidInputError:
            item = None
        except BotBottleError as error:
            raise MCPError(INTERNAL_ERROR, f"{type(error).__name__}: {error}") from None
        if item is None or item.proposal.tool not in FILES:
            raise MCPError(INVALID_PARAMS, "there is no such task")
        return item


def _check(context: Context, task_id: str) -> None:
    """
    Raises:
        MCPError: the client did not say with this request that it speaks the extension, or its header names another
            task than its body.
    """
    if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        raise MCPError(METHOD_NOT_FOUND, "Method not found", data=context.method)
    if not spoken_by(context):
        raise MCPError(
            MISSING_REQUIRED_CLIENT_CAPABILITY,
            f"{context.method} is for clients that declare the extension {EXTENSION} with the request",
            data={"requiredCapabilities": {"extensions": {EXTENSION: {}}}},
        )
    # The server of the SDK compares it for the methods that it knows.
    name = context.request.headers.get(MCP_NAME_HEADER) if context.request is not None else None
    if name is not None and decode_header_value(name) != task_id:
        raise MCPError(
            HEADER_MISMATCH, f"{MCP_NAME_HEADER} header does not match the request body's 'taskId' parameter"
        )


def _task(item: InboxItem, status: str, message: str) -> dict[str, Any]:
    proposal, response = item.proposal, item.response
    created = proposal.arrival_timestamp
    changed = (response.applied_at or response.decided_at) if response else item.withdrawn_at
    return {
        "taskId": proposal.id,
        "status": status,
        "statusMessage": message,
        "createdAt": created,
        "lastUpdatedAt": changed or created,
        "ttlMs": None if proposal.expires_at is None else round((_time(proposal.expires_at) - _time(created)) * 1000),
        "pollIntervalMs": _POLL_MS,
    }


def _time(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()  # Python 3.10 does not read the Z
