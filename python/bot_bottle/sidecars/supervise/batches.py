"""How is a JSON-RPC batch answered? As MCP 2025-03-26 has it: an array in, an array of the answers out.

That version has no header that names it, so a request without one is taken for it, as later versions tell servers to
do. The SDK reads single messages only: each message of a batch becomes a request of its own, beside the others.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from mcp_types import INVALID_REQUEST, PARSE_ERROR
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

# More calls at once than any agent makes; each may wait for the operator.
MAX_MESSAGES: Final = 32
_VERSION: Final = "2025-03-26"


class Batches:
    """An endpoint that takes batches apart, and hands on everything else as it came.

    Args:
        single: answers one message, as JSON where only JSON is accepted.
        check: says of a request why it is refused before it is read, or ``None``.
        longest: bytes of a batch.
    """

    def __init__(
        self,
        single: Callable[[Scope, Receive, Send], Awaitable[None]],
        check: Callable[[Request, bool], Awaitable[Response | None]],
        longest: int,
    ) -> None:
        self._single = single
        self._check = check
        self._longest = longest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if Headers(scope=scope).get("mcp-protocol-version", _VERSION) != _VERSION:
            await self._single(scope, receive, send)
            return
        is_array, receive = await _look(receive)
        if not is_array:
            await self._single(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await self._check(request, True) or await self._answer(request)
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._longest:
                return _refusal(INVALID_REQUEST, f"the batch is longer than {self._longest:,} bytes", 413)
        try:
            messages = json.loads(bytes(body))
        except (ValueError, RecursionError):
            return _refusal(PARSE_ERROR, "the batch is not JSON")
        if not 1 <= len(messages) <= MAX_MESSAGES:
            return _refusal(INVALID_REQUEST, f"a batch has 1 to {MAX_MESSAGES} messages, not {len(messages):,}")
        if any(isinstance(each, dict) and each.get("method") == "initialize" for each in messages):
            return _refusal(INVALID_REQUEST, "initialize cannot be part of a batch; send it alone")
        answers = await asyncio.gather(*(self._one(request, each) for each in messages))
        told = [json.loads(each) for each in answers if each]
        # Notifications have no answer.
        return JSONResponse(told) if told else Response(status_code=202)

    async def _one(self, request: Request, message: Any) -> bytes:
        """What a message is answered with; empty if it is a notification."""
        kept = [(name, value) for name, value in request.scope["headers"] if name not in (b"accept", b"content-length")]
        scope = {**request.scope, "headers": [*kept, (b"accept", b"application/json")]}
        first: Message = {"type": "http.request", "body": json.dumps(message).encode(), "more_body": False}
        answer = bytearray()

        async def send(sent: Message) -> None:
            answer.extend(sent.get("body", b""))

        await self._single(scope, _replaying([first], request.receive), send)
        return bytes(answer)


async def _look(receive: Receive) -> tuple[bool, Receive]:
    """Whether the body begins as an array, and what to read it from."""
    seen: list[Message] = []
    while True:
        seen.append(await receive())
        begins = seen[-1].get("body", b"").lstrip()[:1]
        if begins or not seen[-1].get("more_body"):
            return begins == b"[", _replaying(seen, receive)


def _replaying(seen: list[Message], receive: Receive) -> Receive:
    async def again() -> Message:
        return seen.pop(0) if seen else await receive()

    return again


def _refusal(code: int, message: str, status: int = 400) -> Response:
    return JSONResponse({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}, status)
