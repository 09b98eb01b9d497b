"""How do an agent's tools look over MCP? The protocol side of the supervise sidecar: HTTP and stdio.

HTTP is stateless: each POST stands alone, so a restart of the sidecar or of a client costs neither of them a session.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

from mcp import MCPError
from mcp.server import Server
from mcp.server.context import ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from bot_bottle import __version__
from bot_bottle.documents.plain_yaml import quoted
from bot_bottle.errors import BotBottleError, InvalidInputError
from bot_bottle.sidecars.supervise import agent_tasks
from bot_bottle.sidecars.supervise.agent_answers import Answer, Outcome
from bot_bottle.sidecars.supervise.agent_hooks import AgentHooks
from bot_bottle.sidecars.supervise.agent_tasks import AgentTasks
from bot_bottle.sidecars.supervise.agent_tools import AgentTools, Call
from bot_bottle.sidecars.supervise.batches import Batches

# The largest file a tool takes (256 KiB), each byte as a JSON escape of six, and room for the rest.
MAX_BODY_BYTES: Final = 2 * 1024 * 1024

_INSTRUCTIONS: Final = """\
You work in a bottle: a sandbox whose network access (routes.yaml) and software (Dockerfile) a human operator controls.
When something is blocked or missing, do not work around it: ask. Read the file with read-current-file, make the
smallest change that does the job, and propose the whole new file with allow, egress-block or capability-block and an
honest justification. People decide in minutes: a call that returns "pending" is not a refusal, go on with
check-proposal. One that returns "question" is neither: answer with answer-question, or propose a changed file with
revises. A rejection says why; a modification shows what was approved instead. You cannot decide anything."""

_log = logging.getLogger("bot_bottle.supervise")


def mcp_server(tools: AgentTools) -> Server[Any]:
    """An MCP server that offers ``tools`` and nothing else."""
    by_name = {tool.name: tool for tool in tools.all()}
    listing = ListToolsResult(
        tools=[
            Tool(
                name=tool.name,
                description=tool.description,
                input_schema=tool.arguments.model_json_schema(),
                output_schema=tool.result.model_json_schema(),
                annotations=ToolAnnotations(
                    read_only_hint=tool.reads_only, destructive_hint=False, idempotent_hint=True, open_world_hint=False
                ),
            )
            for tool in by_name.values()
        ]
    )

    async def list_tools(context: ServerRequestContext[Any], params: PaginatedRequestParams | None) -> ListToolsResult:
        return listing

    async def call_tool(
        context: ServerRequestContext[Any], params: CallToolRequestParams
    ) -> CallToolResult | dict[str, Any]:
        tool = by_name.get(params.name)
        if tool is None:
            raise MCPError(INVALID_PARAMS, f"there is no tool {quoted(params.name)}; there are {', '.join(by_name)}")
        try:
            try:
                arguments = tool.arguments.model_validate(params.arguments or {})
            except ValidationError as error:
                raise InvalidInputError(f"{tool.name}: {_problem(error)}") from None
            call = _call(tools, context)
            as_task = tool.asks and agent_tasks.spoken_by(context)
            result = await tool.run(arguments, agent_tasks.AT_ONCE if as_task else call)
        except BotBottleError as error:
            _log.info("%s: %s: %s", tool.name, type(error).__name__, error)
            return _failure(type(error).__name__, str(error))
        except Exception:
            _log.exception("%s failed", tool.name)
            return _failure(
                "InternalError", f"{tool.name} failed inside the sidecar; try again, then tell the operator"
            )
        status = result.status if isinstance(result, Outcome) else "done"
        _log.info("%s: %s %s", tool.name, status, getattr(result, "proposal_id", None) or "")
        if as_task and isinstance(result, Outcome) and status == "pending":
            return await tasks.instead_of(result)
        return _success(result)

    server = Server(
        "bot-bottle-supervise",
        title="bot-bottle supervise",
        version=__version__,
        instructions=_INSTRUCTIONS,
        on_list_tools=list_tools,
    )
    # Not as an argument, where the result of a call cannot be a task.
    server.add_request_handler("tools/call", CallToolRequestParams, call_tool)
    tasks = AgentTasks(tools, _success)
    tasks.add_to(server)
    return server


def http_app(tools: AgentTools, hooks: AgentHooks, allowed_hosts: Iterable[str]) -> Starlette:
    """MCP at ``/`` and ``/mcp``, ``/hook/AGENT`` and ``/healthz`` beside it.

    Args:
        allowed_hosts: what a ``Host`` header may say; without a port, any port goes. ``Origin``, where a client sends
            one, must be one of them too.
    """
    hosts = [pattern for host in allowed_hosts for pattern in ([host] if _has_port(host) else [host, f"{host}:*"])]
    security = TransportSecuritySettings(allowed_hosts=hosts, allowed_origins=[f"http://{host}" for host in hosts])
    server = mcp_server(tools)
    streams, plain = (
        StreamableHTTPSessionManager(
            server,
            stateless=True,
            json_response=each,
            security_settings=security,
            max_request_body_size=MAX_BODY_BYTES,
        )
        for each in (False, True)
    )

    async def healthz(request: Request) -> Response:
        try:
            await tools.queue.list_items(limit=1)
        except BotBottleError as error:
            return JSONResponse({"status": "failing", "error": type(error).__name__, "message": str(error)}, 503)
        return JSONResponse({"status": "ok"})

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with streams.run(), plain.run():
            yield

    check = TransportSecurityMiddleware(security).validate_request
    endpoint = _PostOnly(Batches(_Either(streams, plain), check, MAX_BODY_BYTES))
    return Starlette(
        routes=[
            Route("/healthz", healthz),
            *hooks.routes(check),
            Route("/", endpoint),
            Route("/mcp", endpoint),
        ],
        lifespan=lifespan,
    )


async def serve_stdio(tools: AgentTools) -> None:
    """MCP on standard input and output, until the input ends."""
    server = mcp_server(tools)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


class _PostOnly:
    """The MCP endpoint; GET would open a stream on which a stateless server never says anything."""

    def __init__(self, answer: ASGIApp) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await Response(status_code=405, headers={"Allow": "POST"})(scope, receive, send)
            return
        await self._answer(scope, receive, send)


class _Either:
    """A stream or plain JSON, as the client takes it."""

    def __init__(self, streams: StreamableHTTPSessionManager, plain: StreamableHTTPSessionManager) -> None:
        self._streams = streams
        self._plain = plain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        accepted = Headers(scope=scope).get("accept", "*/*")
        # A client that takes JSON alone gets its answer without signs of life, rather than none.
        takes_streams = "text/event-stream" in accepted or "application/json" not in accepted
        await (self._streams if takes_streams else self._plain).handle_request(scope, receive, send)


def _call(tools: AgentTools, context: ServerRequestContext[Any]) -> Call:
    silent = context.meta is None or context.meta.get("progress_token") is None
    wait = tools.silent_wait if silent and tools.silent_wait is not None else tools.wait
    return Call(wait, context.session.report_progress)


def _success(answer: Answer) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=answer.text())], structured_content=answer.model_dump(mode="json"))


def _failure(error: str, message: str) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(text=message)], structured_content={"error": error, "message": message}, is_error=True
    )


def _problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = quoted(".".join(str(part) for part in first["loc"]))
    what = {"missing": "is missing", "extra_forbidden": "is not an argument of this tool"}.get(first["type"])
    return f"{where} {what}" if what else f"{where} is wrong: {first['msg'][:1].lower()}{first['msg'][1:]}"


def _has_port(host: str) -> bool:
    return host.rpartition(":")[2].isdigit() and (host.count(":") == 1 or "]:" in host)
