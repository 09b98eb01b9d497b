"""How does an error travel over HTTP? As a problem document (RFC 9457) that names the class a client raises for it."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import Response

from bot_bottle.errors import (
    AccessDeniedError,
    AlreadyDecidedError,
    BotBottleError,
    DatabaseBusyError,
    InvalidInputError,
    NotFoundError,
    ProposalExpiredError,
    ProposalWithdrawnError,
    StaleReviewError,
)

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = 1

# The first class that an error is an instance of; anything else is the broker's own fault, 500.
_STATUS: Final[Mapping[type[BotBottleError], int]] = {
    InvalidInputError: 422,
    AccessDeniedError: 403,
    NotFoundError: 404,
    AlreadyDecidedError: 409,
    ProposalExpiredError: 409,
    ProposalWithdrawnError: 409,
    StaleReviewError: 409,
    DatabaseBusyError: 503,
}


class Refusal(Exception):
    """An error whose status says more than its class does, such as 413 for a body that is too long."""

    def __init__(self, status: int, error: BotBottleError) -> None:
        super().__init__(str(error))
        self.status = status
        self.error = error


def status_of(error: BotBottleError) -> int:
    """The status of a problem of this class, unless the error says otherwise."""
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)


def refusal_of(error: Exception, *, nothing_here: str, other_methods: str, our_fault: str) -> Refusal:
    """Any exception as what the client is told; of one that should not happen the host's log has the reason.

    The sentences are for an unknown path, for a method that a path does not have, and for what should not happen.
    """
    if isinstance(error, Refusal):
        return error
    if isinstance(error, BotBottleError):
        return Refusal(status_of(error), error)
    if isinstance(error, HTTPException):
        if error.status_code == 404:
            return Refusal(404, NotFoundError(nothing_here))
        return Refusal(error.status_code, InvalidInputError(other_methods))
    print(f"bot-bottle: this is a bug, please report it: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    if os.environ.get("BOT_BOTTLE_TRACEBACK") == "1":
        traceback.print_exception(error)
    return Refusal(500, BotBottleError(our_fault))


def document(error: BotBottleError, status: int | None = None) -> dict[str, Any]:
    """The problem, JSON-ready; ``data`` has the attributes that the class documents.

    A bottle reads it and must not learn where a file is on the host, so it gets only the name of a path.
    """
    kind, detail = type(error).__name__, str(error)
    data = {name: value for name, value in vars(error).items() if name != "message" and name[0] != "_"}
    path = data.get("path")
    if isinstance(path, str) and path:
        data["path"] = os.path.basename(path)
        detail = detail.replace(path, data["path"])
    return {
        "type": f"urn:bot-bottle:error:{kind}",
        "title": kind,
        "status": status or status_of(error),
        "detail": detail,
        "data": data,
    }


def encode(value: Any) -> bytes:
    """JSON as it is sent."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def problem(error: BotBottleError, status: int | None = None, headers: Mapping[str, str] | None = None) -> Response:
    """The problem as a response. One that is safe to retry says when."""
    content = document(error, status)
    more = {"Cache-Control": "no-store", **(headers or {})}
    if isinstance(error, DatabaseBusyError):
        more["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if content["status"] == 401:
        more["WWW-Authenticate"] = "Bearer"
    return Response(encode(content), content["status"], more, MEDIA_TYPE)
