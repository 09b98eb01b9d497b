"""Which requests are refused before a route is looked at, and what goes with every answer?

A page of somebody else must neither reach the dashboard under a name of its own (DNS rebinding), nor send it anything,
nor show it in a frame; and nothing that the dashboard sends may load or run what is not its own.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.requests import Request

from bot_bottle import AccessDeniedError, InvalidInputError
from bot_bottle.web.problems import Refusal

# Any port: the browser may come through a tunnel. It is the name that a rebinding page cannot choose.
_HOST: Final = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?")
_FRAMES: Final = frozenset(("iframe", "frame", "embed", "object", "fencedframe"))

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def check(request: Request, *, landing: bool) -> None:
    """Refuses what does not come from the dashboard's own pages. The ``landing`` page may be led to from anywhere.

    Raises:
        Refusal: 421 for another host name, 403 for another origin, a frame, or a change without an origin.
    """
    hosts = request.headers.getlist("host")
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0].lower()):
        raise Refusal(421, InvalidInputError("the dashboard answers to localhost, 127.0.0.1 and [::1] only"))
    origins = request.headers.getlist("origin")
    if origins not in ([], [f"http://{hosts[0]}"]):
        raise _foreign("another origin")
    if request.method not in ("GET", "HEAD") and not origins:
        raise _foreign("no page")
    if request.headers.get("sec-fetch-dest", "") in _FRAMES:
        raise _foreign("a frame")
    site = request.headers.get("sec-fetch-site", "none")
    navigates = request.headers.get("sec-fetch-mode") == "navigate" and request.method == "GET"
    if site not in ("none", "same-origin") and not (landing and navigates):
        raise _foreign("another site")


def _foreign(whence: str) -> Refusal:
    return Refusal(403, AccessDeniedError(f"this request came from {whence}; only the dashboard's own pages may ask"))
