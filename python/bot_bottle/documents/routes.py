"""What does a ``routes.yaml`` say: which hosts a bottle may reach, with what, and what is checked on the way out?

One reading for everybody: the MCP sidecar refuses a bad proposal with it and the egress proxy enforces it.
Whatever no route names is denied. The file is YAML in its plainest form: anything that would let it read
differently to a human and to the proxy (anchors, tags, a key twice, look-alike host names) is refused.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal
from urllib.parse import unquote

import re2  # type: ignore[import-untyped]

from bot_bottle.documents.plain_yaml import Node, PlainYamlError, parse, quoted
from bot_bottle.errors import InvalidInputError

MAX_BYTES: Final = 256 * 1024
MAX_ROUTES: Final = 1000
DETECTORS: Final = ("token_patterns", "known_secrets")

_HOST_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2
_METHOD: Final = re.compile(r"[A-Z][A-Z-]{0,31}")
_ENV_NAME: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")
_ON_THE_WIRE: Final = re.compile(r"[\x21\x24-\x3b\x3d\x40-\x5a_a-z~]+")  # RFC 3986 pchar, / and %


class RoutesError(InvalidInputError):
    """The text is no valid ``routes.yaml``; nothing of it applies. Attribute: ``line`` (from 1)."""

    line: int


@dataclass(frozen=True)
class PathMatch:
    """One rule about a request's path, which comes as sent: percent-encoded, without ``?`` and what follows.

    ``prefix`` ``/a`` covers ``/a`` and ``/a/b`` but not ``/ab``; ``regex`` (RE2) must match the whole path.
    """

    type: Literal["prefix", "exact", "regex"]
    value: str

    def matches(self, path: str) -> bool:
        # ``/public/../admin`` starts with ``/public``, but the server would answer for ``/admin``.
        if _walks(path):
            return False
        if self.type == "exact":
            return path == self.value
        if self.type == "prefix":
            return path == self.value or path.startswith(self.value.rstrip("/") + "/")
        return _regex(self.value).fullmatch(path) is not None


@dataclass(frozen=True)
class HeaderMatch:
    """A header that must be there with this value; ``regex`` (RE2) must match the whole value."""

    name: str
    value: str
    type: Literal["exact", "regex"] = "exact"

    def matches(self, headers: Iterable[tuple[str, str]]) -> bool:
        values = (value for name, value in headers if name.lower() == self.name.lower())
        if self.type == "exact":
            return any(value == self.value for value in values)
        return any(_regex(self.value).fullmatch(value) is not None for value in values)


@dataclass(frozen=True)
class Match:
    """Requests a route lets through: one of ``paths``, one of ``methods``, all of ``headers``; an empty one: any."""

    paths: tuple[PathMatch, ...] = ()
    methods: tuple[str, ...] = ()
    headers: tuple[HeaderMatch, ...] = ()

    def matches(self, method: str, path: str, headers: Iterable[tuple[str, str]] = ()) -> bool:
        pairs = tuple(headers)
        return (
            (not self.methods or method.upper() in self.methods)
            and (not self.paths or any(rule.matches(path) for rule in self.paths))
            and all(rule.matches(pairs) for rule in self.headers)
        )


@dataclass(frozen=True)
class Auth:
    """The credential the proxy adds: ``Authorization: <scheme> <value of the variable token_ref>``."""

    scheme: Literal["Bearer", "token"]
    token_ref: str


@dataclass(frozen=True)
class Dlp:
    """Which detectors look at a route's traffic (none: ``()``) and what a match outbound leads to.

    Inbound the default is ``known_secrets`` alone: a server that echoes the injected token must not hand it
    to the agent, while token-shaped text in an answer is usually documentation.
    """

    outbound_detectors: tuple[str, ...] = DETECTORS
    inbound_detectors: tuple[str, ...] = ("known_secrets",)
    outbound_on_match: Literal["supervise", "redact", "block"] = "supervise"


@dataclass(frozen=True)
class Route:
    """What is allowed towards one host; ``*.example.com`` means every name below ``example.com``, not itself."""

    host: str
    auth: Auth | None = None
    matches: tuple[Match, ...] = ()
    dlp: Dlp = Dlp()
    line: int = 0

    def covers(self, host: str) -> bool:
        """Whether ``host`` (canonical, see :func:`canonical_host`) is this route's."""
        return host.endswith(self.host[1:]) if self.host.startswith("*.") else host == self.host

    def allows(self, method: str, path: str, headers: Iterable[tuple[str, str]] = ()) -> bool:
        """Whether this request to the route's host goes through; without ``matches`` every request does."""
        pairs = tuple(headers)
        return not self.matches or any(match.matches(method, path, pairs) for match in self.matches)

    def to_dict(self) -> dict[str, Any]:
        """The route in the file's own shape, defaults spelled out, JSON-ready. Names tokens, never holds one."""
        return {
            "host": self.host,
            "auth": {"scheme": self.auth.scheme, "token_ref": self.auth.token_ref} if self.auth else None,
            "matches": [
                {
                    "paths": [{"type": rule.type, "value": rule.value} for rule in match.paths],
                    "methods": list(match.methods),
                    "headers": [{"name": rule.name, "type": rule.type, "value": rule.value} for rule in match.headers],
                }
                for match in self.matches
            ],
            "dlp": {
                "outbound_detectors": list(self.dlp.outbound_detectors) or False,
                "inbound_detectors": list(self.dlp.inbound_detectors) or False,
                "outbound_on_match": self.dlp.outbound_on_match,
            },
        }


@dataclass(frozen=True)
class Routes:
    """A whole file. ``Routes()`` denies everything."""

    routes: tuple[Route, ...] = ()

    def find(self, host: str) -> Route | None:
        """The route for a request's host (no port), or ``None``: denied. The most specific one wins."""
        try:
            name = canonical_host(host)
        except ValueError:
            return None
        covering = [route for route in self.routes if route.covers(name)]
        return max(covering, key=lambda route: (not route.host.startswith("*"), len(route.host)), default=None)

    def token_refs(self) -> frozenset[str]:
        """The environment variables whose values the proxy injects."""
        return frozenset(route.auth.token_ref for route in self.routes if route.auth)


def canonical_host(host: str) -> str:
    """``host`` as names are compared: lower case, no final dot, IPv6 without brackets and shortened.

    Raises:
        ValueError: it is neither an ASCII host name nor an IP address; the message ends a sentence ``host "…" …``.
    """
    name = host.lower().removesuffix(".")
    if not name.isascii():
        raise ValueError("is not ASCII; write the xn-- form of an international name")
    if "://" in name or "/" in name:
        raise ValueError("is a URL; write the host name alone and put paths under matches")
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    if ":" in bare:
        try:
            return str(ipaddress.IPv6Address(bare))
        except ValueError:
            raise ValueError("has a port; write the host name alone") from None
    labels = bare.split(".")
    if bare != name or len(name) > 253 or not all(_HOST_LABEL.fullmatch(label) for label in labels):
        raise ValueError("is not a host name")
    if labels[-1].isdigit() or labels[-1].startswith("0x"):
        # Resolvers read 127.1 and 0x7f.1 as addresses, each in its own way; only the dotted form is unmistakable.
        try:
            return str(ipaddress.IPv4Address(name))
        except ValueError:
            raise ValueError("looks like an IP address but is not written as four decimal numbers") from None
    return name


def load(text: str) -> Routes:
    """Reads a whole ``routes.yaml``.

    Raises:
        RoutesError: it is not valid; one sentence that names the line and what to write instead.
    """
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise _fail(1, f"the file is larger than {MAX_BYTES // 1024} KiB; shorten it")
    try:
        root = parse(text)
    except PlainYamlError as error:
        raise _fail(error.line, str(error)) from None
    if root is None:
        raise _fail(1, "the file is empty; write routes: [] to deny everything")
    top = _mapping(root, "the file", ("routes",), required=("routes",))
    entries = _items(top["routes"], "routes")
    if len(entries) > MAX_ROUTES:
        raise _fail(entries[MAX_ROUTES], f"a file may have {MAX_ROUTES} routes and this is one more; remove some")
    routes: dict[str, Route] = {}
    for entry in entries:
        route = _route(entry)
        if route.host in routes:
            raise _fail(entry, f"host {route.host} has a route on line {routes[route.host].line} already; merge them")
        routes[route.host] = route
    return Routes(tuple(routes.values()))


def _fail(where: Node | int, problem: str) -> RoutesError:
    line = where if isinstance(where, int) else where.line
    return RoutesError(f"routes.yaml line {line}: {problem}", line=line)


def _mapping(node: Node, what: str, known: tuple[str, ...], required: tuple[str, ...] = ()) -> dict[str, Node]:
    if not isinstance(node.value, dict):
        raise _fail(node, f"{what} must be a mapping of {', '.join(known)}")
    for key, value in node.value.items():
        if key not in known:
            raise _fail(value, f"unknown key {quoted(key)} in {what}; known are {', '.join(known)}")
    for key in required:
        if key not in node.value:
            raise _fail(node, f"{what} has no {key}; add it")
    return node.value


def _items(node: Node, what: str) -> list[Node]:
    if not isinstance(node.value, list):
        raise _fail(node, f"{what} must be a list")
    return node.value


def _some(fields: dict[str, Node], key: str) -> list[Node]:
    if key not in fields:
        return []
    items = _items(fields[key], key)
    if not items:
        raise _fail(fields[key], f"{key} is empty, which could mean all or none; leave {key} out for all")
    return items


def _text(node: Node, what: str) -> str:
    if not isinstance(node.value, str) or not node.value:
        raise _fail(node, f"{what} must be text")
    return node.value


def _choice(node: Node, what: str, choices: tuple[str, ...]) -> Any:
    text = _text(node, what)
    if text not in choices:
        raise _fail(node, f"{what} is {quoted(text)}; it must be one of {', '.join(choices)}")
    return text


def _route(node: Node) -> Route:
    fields = _mapping(node, "a route", ("host", "auth", "matches", "dlp"), required=("host",))
    host = _host(fields["host"])
    auth = _auth(fields["auth"]) if "auth" in fields else None
    if auth and host.startswith("*."):
        raise _fail(fields["auth"], f"auth for {host} would send the token to every host below; name one host")
    matches = tuple(_match(item) for item in _some(fields, "matches"))
    return Route(host, auth, matches, _dlp(fields["dlp"]) if "dlp" in fields else Dlp(), node.line)


def _host(node: Node) -> str:
    text = _text(node, "host")
    wild = text.startswith("*.")
    name = text[2:] if wild else text
    if "*" in name or (wild and "." not in name.rstrip(".")):
        raise _fail(node, f"host {quoted(text)} matches too much; name a host, or *.example.com for those below one")
    try:
        canonical = canonical_host(name)
    except ValueError as error:
        raise _fail(node, f"host {quoted(text)} {error}") from None
    if wild and _is_address(canonical):
        raise _fail(node, f"host {quoted(text)} has a wildcard before an IP address; write the address alone")
    return "*." + canonical if wild else canonical


def _auth(node: Node) -> Auth:
    fields = _mapping(node, "auth", ("scheme", "token_ref"), required=("scheme", "token_ref"))
    ref = fields["token_ref"]
    if not isinstance(ref.value, str) or not _ENV_NAME.fullmatch(ref.value):
        # Not quoted: somebody who pasted the token itself must not find it in a log.
        raise _fail(ref, "token_ref must be the name of an environment variable (A-Z, 0-9, _), never the token")
    return Auth(_choice(fields["scheme"], "scheme", ("Bearer", "token")), ref.value)


def _match(node: Node) -> Match:
    fields = _mapping(node, "a match", ("paths", "methods", "headers"))
    if not fields:
        raise _fail(node, "an empty match matches everything; leave matches out to allow the whole host")
    return Match(
        tuple(_path(item) for item in _some(fields, "paths")),
        tuple(_method(item) for item in _some(fields, "methods")),
        tuple(_header(item) for item in _some(fields, "headers")),
    )


def _path(node: Node) -> PathMatch:
    fields = _mapping(node, "a path", ("type", "value"), required=("type", "value"))
    value = _text(fields["value"], "a path's value")
    rule = PathMatch(_choice(fields["type"], "a path's type", ("prefix", "exact", "regex")), value)
    if rule.type == "regex":
        _check_regex(fields["value"], value)
        if all(rule.matches(probe) for probe in ("/", "/a1/B2.c", "/x-probe_/%20~/0:")):
            raise _fail(fields["value"], f"regex {quoted(value)} matches every path; leave paths out to allow them all")
    elif not value.startswith("/") or not _ON_THE_WIRE.fullmatch(value) or _walks(value):
        raise _fail(
            fields["value"],
            f"path {quoted(value)} can match no request; start it with / and write it percent-encoded, "
            "without query and without . or .. steps",
        )
    return rule


def _method(node: Node) -> str:
    method = _text(node, "a method").upper()
    if not _METHOD.fullmatch(method):
        raise _fail(node, f"{quoted(method)} is not an HTTP method; leave methods out to allow them all")
    return method


def _header(node: Node) -> HeaderMatch:
    fields = _mapping(node, "a header", ("name", "value", "type"), required=("name", "value"))
    name = _text(fields["name"], "a header's name")
    if not _TOKEN.fullmatch(name):
        raise _fail(fields["name"], f"{quoted(name)} is not a header's name")
    if name.lower() in ("authorization", "proxy-authorization"):
        raise _fail(fields["name"], f"the proxy replaces {name}, so no route can depend on it; use auth instead")
    value = _text(fields["value"], "a header's value")
    rule = HeaderMatch(name, value)
    if "type" in fields:
        rule = HeaderMatch(name, value, _choice(fields["type"], "a header's type", ("exact", "regex")))
    if rule.type == "regex":
        _check_regex(fields["value"], value)
    return rule


def _dlp(node: Node) -> Dlp:
    known = ("outbound_detectors", "inbound_detectors", "outbound_on_match")
    fields = _mapping(node, "dlp", known)
    given: dict[str, Any] = {key: _detectors(fields[key], key) for key in known[:2] if key in fields}
    if "outbound_on_match" in fields:
        given["outbound_on_match"] = _choice(
            fields["outbound_on_match"], "outbound_on_match", ("supervise", "redact", "block")
        )
    return Dlp(**given)


def _detectors(node: Node, what: str) -> tuple[str, ...]:
    if node.plain and node.value == "false":
        return ()
    if not isinstance(node.value, list) or not node.value:
        raise _fail(node, f"{what} must be a list of {', '.join(DETECTORS)}, or false for none")
    return tuple(dict.fromkeys(_choice(item, what, DETECTORS) for item in node.value))


def _check_regex(node: Node, pattern: str) -> None:
    try:
        _regex(pattern)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        raise _fail(node, f"regex {quoted(pattern)} is not RE2 ({ascii(reason)[1:-1]})") from None


@cache
def _regex(pattern: str) -> Any:
    # RE2, not re: an agent writes these, and re takes exponential time over some of them.
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


def _walks(path: str) -> bool:
    """Whether a server may see another path than the one written: dot steps, encoded slashes, backslashes."""
    seen = unquote(unquote(path))  # some servers decode twice
    return (
        "\\" in seen
        or seen.count("/") != path.count("/")
        or any(step.partition(";")[0] in (".", "..") for step in seen.split("/"))
    )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
