"""May this request go where it wants to go? The answer needs its head and the routes, no network.

The host a request is judged by is the one the proxy connects to. Every other name the request carries (Host header,
``:authority``, an absolute URL, the name in the TLS handshake) must say the same, or the server might serve another
site than the one that was allowed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bot_bottle.documents.routes import Route, Routes, canonical_host

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
# TRACE sends back what it was sent, the injected token included.
_REFUSED_METHODS: Final = ("TRACE", "TRACK", "CONNECT")
_WITH_PORT: Final = re.compile(r"([^:@]+|\[[^]@]+\]):(\d{1,5})")
_OUR_VARIABLES: Final = re.compile(r"(?:BOT_BOTTLE|EGRESS|SUPERVISE)_")


@dataclass(frozen=True)
class Refusal:
    """Why a request is not let through. ``error`` is for programs; ``askable``: a route would help."""

    error: str
    reason: str
    status: int = 403
    askable: bool = False
    more: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Head:
    """What a request says of itself.

    ``host`` and ``port`` are what the proxy would connect to; ``authorities`` all names with optional port it carries
    besides; ``sni`` the name in its TLS handshake. ``path`` is as sent, without query.
    """

    scheme: str
    host: str
    port: int
    method: str
    path: str
    headers: Sequence[tuple[str, str]]
    authorities: Sequence[str] = ()
    sni: str | None = None


def judge_tunnel(host: str, port: int, authority: str, routes: Routes, ports: Collection[int]) -> Route | Refusal:
    """Whether a CONNECT to ``host:port`` may be opened; what goes through it is judged again, request by request."""
    if "@" in authority:
        return Refusal("bad_request", "The CONNECT target holds a user name; write host:port alone.", 400)
    return _judge_host(host, port, routes, ports)


def judge(head: Head, routes: Routes, ports: Collection[int], environment: Mapping[str, str]) -> Route | Refusal:
    """The route that lets this request through, or why none does."""
    found = _judge_host(head.host, head.port, routes, ports)
    if isinstance(found, Refusal):
        return found
    host = canonical_host(head.host)
    same_name = head.sni is None or _names(head.sni, host)
    if not same_name or not all(_leads_to(name, host, head) for name in head.authorities):
        return Refusal(
            "host_mismatch",
            f"The request is for {host} but also names another host or port; send the same in the URL, "
            "the Host header and the TLS handshake.",
            400,
        )
    if head.method.upper() in _REFUSED_METHODS:
        return Refusal("request_denied", f"{head.method.upper()} requests are never let through.")
    if not found.allows(head.method, head.path, head.headers):
        return Refusal(
            "request_denied",
            f"The route for {host} does not cover this method, path or header.",
            askable=True,
        )
    if found.auth:
        if head.scheme != "https":
            return Refusal(
                "cleartext_refused", f"The proxy adds a credential for {host}, which it sends over https only."
            )
        if token(found, environment) is None:
            return Refusal(
                "credential_missing",
                f"The proxy has no value for {found.auth.token_ref}, which the route for {host} needs; "
                "the operator has to give the egress sidecar that variable.",
                503,
            )
    return found


def token(route: Route, environment: Mapping[str, str]) -> str | None:
    """The credential of a route, or ``None`` if there is none to be had."""
    if route.auth is None or _OUR_VARIABLES.match(route.auth.token_ref):
        return None
    value = environment.get(route.auth.token_ref, "").strip()
    return value if value and value.isascii() and value.isprintable() else None


def tokens(routes: Routes, environment: Mapping[str, str]) -> dict[str, str]:
    """What the proxy injects: a name for the operator → the value."""
    found = ((route.auth.token_ref, token(route, environment)) for route in routes.routes if route.auth)
    return {f"value of {name}": value for name, value in found if value is not None}


def _judge_host(host: str, port: int, routes: Routes, ports: Collection[int]) -> Route | Refusal:
    try:
        name = canonical_host(host)
    except ValueError as error:
        return Refusal("host_denied", f"The host {error}.")
    route = routes.find(name)
    if route is None:
        return Refusal("host_denied", f"No route allows {name}.", askable=True)
    if port not in ports:
        allowed = ", ".join(map(str, sorted(ports)))
        return Refusal("port_denied", f"Port {port} is not let through, whatever the host; only {allowed}.")
    return route


def _leads_to(authority: str, host: str, head: Head) -> bool:
    """Whether ``host`` or ``host:port`` in ``authority`` is the place that was judged."""
    name, port = authority, DEFAULT_PORTS.get(head.scheme, head.port)
    if match := _WITH_PORT.fullmatch(authority):
        name, port = match[1], int(match[2])
    return _names(name, host) and port == head.port


def _names(name: str, host: str) -> bool:
    try:
        return canonical_host(name) == host
    except ValueError:
        return False
