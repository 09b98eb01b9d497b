"""What is an agent told when its request is not let through?

A JSON object with ``error`` (for programs), ``reason`` (a sentence) and, where a route would help, ``what_to_do``.
"""

from __future__ import annotations

import json
from typing import Final

from mitmproxy import http

from bot_bottle.sidecars.egress_policy import Refusal

SUPERVISE_URL: Final = "http://supervise:9100/"
_WHAT_TO_DO: Final = (
    f"Ask for it: call the MCP tool `allow` at {SUPERVISE_URL} with the whole routes.yaml as it should be "
    "(`list-egress-routes` shows what is allowed now) and why you need it. Once approved, send the request again."
)


def answer(refusal: Refusal, *, connect: bool = False) -> http.Response:
    """The response that says so. To a CONNECT its reason phrase says it too: it is all most clients show of it."""
    content: dict[str, str] = {"error": refusal.error, "reason": refusal.reason, **refusal.more}
    if refusal.askable:
        content["what_to_do"] = _WHAT_TO_DO
    response = http.Response.make(
        refusal.status,
        json.dumps(content, indent=2) + "\n",
        {"content-type": "application/json", "cache-control": "no-store", "x-bot-bottle-egress": refusal.error},
    )
    if connect:
        how = f" Ask with the MCP tool allow at {SUPERVISE_URL}" if refusal.askable else ""
        response.reason = (refusal.reason + how).encode("ascii", "replace").decode()
    return response
