"""Which requests are refused before a route is looked at, and what goes with every answer?

Somebody else's page must neither reach the dashboard under a name of its own (DNS rebinding), nor send it anything,
nor show it in a frame. Nothing that the dashboard sends may load or run anything but the dashboard's own files.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from starlette.requests import Request

from bot_bottle import AccessDeniedError, InvalidInputError
from bot_bottle.web.problems import Refusal

# Any port, because the browser may come through a tunnel. A rebinding page cannot choose the name.
_LOOPBACK: Final = re.compile(r"127\.0\.0\.1|localhost|\[::1\]")
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?")
_FRAMES: Final = frozenset(("iframe", "frame", "embed", "object", "fencedframe"))

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "manifest-src 'self'; worker-src 'self'; "
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
# A worker can only be registered with a policy for its address (Trusted Types). The one page that does so shows nothing
# that an agent wrote, and its policy knows that one address.
WORKER: Final = {
    **HEADERS,
    "Content-Security-Policy": HEADERS["Content-Security-Policy"].replace(
        "trusted-types 'none'", "trusted-types worker"
    ),
}


class Names(NamedTuple):
    """By what may the dashboard be called besides this machine's own loopback names, and does it speak TLS itself?"""

    hosts: tuple[str, ...] = ()
    tls: bool = False


def check(request: Request, names: Names, *, landing: bool, program: bool) -> None:
    """Refuses what does not come from the dashboard's own pages. The ``landing`` page may be led to from anywhere, and
    a ``program``, which has no cookie that a page could make it send, comes from no page.

    Raises:
        Refusal: 421 for another host name, 403 for another origin, a frame, or a change without an origin.
    """
    hosts = request.headers.getlist("host")
    named = _HOST.fullmatch(hosts[0].lower()) if len(hosts) == 1 else None
    if named is None or not (_LOOPBACK.fullmatch(named[1]) or named[1] in names.hosts):
        known = ", ".join(("localhost, 127.0.0.1 and [::1] only", *names.hosts))
        raise Refusal(421, InvalidInputError(f"the dashboard answers to {known}; serve --operator-name adds another"))
    if request.headers.getlist("origin") not in ([], [origin(request, names)]):
        raise _foreign("another origin")
    if request.method not in ("GET", "HEAD") and "origin" not in request.headers and not program:
        raise _foreign("no page")
    if request.headers.get("sec-fetch-dest", "") in _FRAMES:
        raise _foreign("a frame")
    site = request.headers.get("sec-fetch-site", "none")
    navigates = request.headers.get("sec-fetch-mode") == "navigate" and request.method == "GET"
    if site not in ("none", "same-origin") and not (landing and navigates):
        raise _foreign("another site")


def origin(request: Request, names: Names) -> str:
    """The origin of the dashboard's own pages, as this request reached them. Another name than a loopback one is one's
    own tunnel or proxy, and what it says to the browser is TLS."""
    host = request.headers["host"]
    named = _HOST.fullmatch(host.lower())
    plain = not names.tls and named is not None and _LOOPBACK.fullmatch(named[1])
    return f"http{'' if plain else 's'}://{host}"


def _foreign(whence: str) -> Refusal:
    return Refusal(403, AccessDeniedError(f"this request came from {whence}; only the dashboard's own pages may ask"))
