"""What does a ``routes.yaml`` say: which hosts a bottle may reach, with what, and what is checked on the way out?

The reading and the judgement are the egress proxy's own (``rust/routes``); this gives them to Python, so that the MCP
sidecar refuses a bad proposal, and a screen shows a route, with the very code that enforces it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bot_bottle import _native
from bot_bottle.errors import InvalidInputError

MAX_BYTES: Final = 256 * 1024
MAX_ROUTES: Final = 1000
DETECTORS: Final = ("token_patterns", "known_secrets")


class RoutesError(InvalidInputError):
    """The text is no valid ``routes.yaml``; nothing of it applies. Attribute: ``line`` (from 1)."""

    line: int


@dataclass(frozen=True)
class Auth:
    """Whose credential a request goes out with.

    ``kind`` says where the value of the variable ``token_ref`` goes: ``scheme`` (``Authorization: <name> <value>``),
    ``header`` (the bare value in the header ``name``), ``query`` (the parameter ``name``) or ``basic`` (the password of
    the user ``name``). With ``passthrough`` the agent's own credential stays and ``token_ref`` is empty.
    """

    kind: str
    name: str = ""
    token_ref: str = ""

    @property
    def scheme(self) -> str:
        """``Bearer`` or ``token``, or ``""`` for another kind."""
        return self.name if self.kind == "scheme" else ""


@dataclass(frozen=True)
class Match:
    """Requests a route lets through: one of ``paths``, one of ``methods``, all of ``headers``; an empty one: any."""

    paths: tuple[Mapping[str, str], ...] = ()
    methods: tuple[str, ...] = ()
    headers: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True)
class Dlp:
    """Which detectors look at a route's traffic (none: ``()``) and what a match outbound leads to.

    Inbound the default is ``known_secrets`` alone: a server that echoes the injected token must not hand it
    to the agent, while token-shaped text in an answer is usually documentation.
    """

    outbound_detectors: tuple[str, ...] = DETECTORS
    inbound_detectors: tuple[str, ...] = ("known_secrets",)
    outbound_on_match: str = "supervise"


@dataclass(frozen=True)
class Route:
    """What is allowed towards one host; ``*.example.com`` means every name below ``example.com``, not itself.

    A ``tunnel`` is judged by its name alone: TLS passes unopened, nothing is injected or scanned.
    """

    host: str
    auth: Auth | None = None
    matches: tuple[Match, ...] = ()
    dlp: Dlp = Dlp()
    tunnel: bool = False
    override_headers: bool = False
    line: int = 0
    _file: _native.Routes = field(default_factory=lambda: _native.Routes("routes: []"), repr=False, compare=False)
    _at: int = field(default=0, repr=False, compare=False)

    def allows(self, method: str, path: str, headers: Iterable[tuple[str, str]] = ()) -> bool:
        """Whether this request to the route's host goes through; without ``matches`` every request does."""
        return self._file.allows(self._at, method, path, list(headers))

    def to_dict(self) -> dict[str, Any]:
        """The route in the file's own shape, defaults spelled out, JSON-ready. Names tokens, never holds one."""
        return self._file.to_list()[self._at][0]


@dataclass(frozen=True)
class Routes:
    """A whole file. ``Routes()`` denies everything."""

    routes: tuple[Route, ...] = ()
    _file: _native.Routes = field(default_factory=lambda: _native.Routes("routes: []"), repr=False, compare=False)

    def find(self, host: str) -> Route | None:
        """The route for a request's host (no port), or ``None``: denied. The most specific one wins."""
        at = self._file.find(host)
        return None if at is None else self.routes[at]

    def token_refs(self) -> frozenset[str]:
        """The environment variables whose values the proxy injects."""
        return frozenset(route.auth.token_ref for route in self.routes if route.auth and route.auth.token_ref)


def canonical_host(host: str) -> str:
    """``host`` as names are compared: lower case, no final dot, IPv6 without brackets and shortened.

    Raises:
        ValueError: it is neither an ASCII host name nor an IP address; the message ends a sentence ``host "…" …``.
    """
    return _native.canonical_host(host)


def load(text: str) -> Routes:
    """Reads a whole ``routes.yaml``.

    Raises:
        RoutesError: it is not valid; one sentence that names the line and what to write instead.
    """
    try:
        file = _native.Routes(text)
    except InvalidInputError as error:
        raise RoutesError(error.message, **error._data) from None
    routes = tuple(_route(file, at, found, line) for at, (found, line) in enumerate(file.to_list()))
    return Routes(routes, file)


def _route(file: _native.Routes, at: int, found: dict[str, Any], line: int) -> Route:
    dlp = found["dlp"]
    return Route(
        found["host"],
        _auth(found["auth"]),
        tuple(Match(tuple(each["paths"]), tuple(each["methods"]), tuple(each["headers"])) for each in found["matches"]),
        Dlp(tuple(dlp["outbound_detectors"] or ()), tuple(dlp["inbound_detectors"] or ()), dlp["outbound_on_match"])
        if dlp
        else Dlp((), (), "block"),
        found["tunnel"],
        found["override_headers"],
        line,
        file,
        at,
    )


def _auth(found: Any) -> Auth | None:
    if found is None or found == "passthrough":
        return Auth("passthrough") if found else None
    (kind, name), (_, token_ref) = found.items()
    return Auth(kind, name, token_ref)
