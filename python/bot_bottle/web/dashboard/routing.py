"""How does a path lead to what answers it, and how does an answer leave?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from bot_bottle import InvalidInputError
from bot_bottle.web.dashboard import guard
from bot_bottle.web.problems import encode

Handler = Callable[[Request], Awaitable[Response]]
Run = Callable[..., Awaitable[Any]]


class _Endpoint:
    """What is at one path, by method; it knows its path for the log."""

    def __init__(self, path: str, methods: dict[str, Handler]) -> None:
        self.path = path
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._methods.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if handler is None:
            raise HTTPException(405, headers={"Allow": ", ".join(self._methods)})
        response = await handler(Request(scope, receive))
        await response(scope, receive, send)


def at(path: str, **methods: Handler) -> Route:
    """The route of ``path``, with a handler for each method."""
    return Route(path, _Endpoint(path, methods))


def json(value: Any) -> Response:
    """An answer of 200 that is this value."""
    return Response(encode(value), 200, guard.HEADERS, "application/json")


def whole(given: dict[str, str], name: str, least: int, most: int, default: int) -> int:
    """The parameter of a query that is a whole number.

    Raises:
        InvalidInputError: it is not a number, or out of its bounds.
    """
    text = given.get(name, str(default))
    if text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= most:
        return int(text)
    raise InvalidInputError(f"{name} must be a whole number from {least} to {most}")


def flag(given: dict[str, str], name: str, default: bool) -> bool:
    """The parameter of a query that is ``true`` or ``false``.

    Raises:
        InvalidInputError: it is neither.
    """
    text = given.get(name, str(default).lower())
    if text not in ("true", "false"):
        raise InvalidInputError(f"{name} must be true or false")
    return text == "true"
