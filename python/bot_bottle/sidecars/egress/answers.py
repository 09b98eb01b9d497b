"""What is an agent told when its request is not let through?

A JSON object with ``error`` (for programs), ``reason`` (a sentence) and, where a route would help, ``what_to_do``.
"""

from __future__ import annotations

import json
from typing import Final

from mitmproxy import http

from bot_bottle.sidecars.egress.policy import Refusal

SUPERVISE_URL: Final = "http://supervise:9100/"
_WHAT_TO_DO: Final = (
    f"Ask for it: call the MCP tool `allow` at {SUPERVISE_URL} with the whole routes.yaml as it should be "
    "(`list-egress-routes` shows what is allowed now) and why you need it. Once approved, send the request again."
)


def answer(refusal: Refusal, request: http.Request) -> http.Response:
    """The response to ``request`` that says so."""
    content: dict[str, str] = {"error": refusal.error, "reason": refusal.reason, **refusal.more}
    if refusal.askable:
        content["what_to_do"] = _WHAT_TO_DO
    response = http.Response.make(
        refusal.status,
        "" if request.method == "HEAD" else json.dumps(content, indent=2) + "\n",
        {"content-type": "application/json", "cache-control": "no-store", "x-bot-bottle-egress": refusal.error},
    )
    if request.method == "CONNECT":  # of whose answer most clients show nothing but the reason phrase
        how = f" Ask with the MCP tool allow at {SUPERVISE_URL}" if refusal.askable else ""
        response.reason = (refusal.reason + how).encode("ascii", "replace").decode()
    return response
