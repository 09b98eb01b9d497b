"""Where in a request's head can text be, and how is it read, masked and replaced there?

The head is everything but the body: URL, headers and trailers. This is the only file that knows how mitmproxy keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mitmproxy import http

from bot_bottle.sidecars.egress.policy import DEFAULT_PORTS, Head
from bot_bottle.sidecars.egress.secrets.detectors import Detectors, Finding, masked

# For the proxy, not for the server (RFC 9110, 7.6.1 and 11.7); the agent's own credential is replaced or dropped.
_NOT_PASSED_ON = ("authorization", "proxy-authorization", "proxy-connection")


HOST_NAME = "host name"


@dataclass
class Place:
    """A piece of text of a head; ``put`` replaces it there, and is ``None`` where nothing can be changed."""

    where: str
    text: bytes
    put: Callable[[bytes], None] | None

    def mask(self, finding: Finding) -> bool:
        """Overwrites a secret with as many ``*``, if it can."""
        if self.put is None:
            return False
        self.text = masked(self.text, [finding])
        self.put(self.text)
        return True


def head_of(flow: http.HTTPFlow) -> Head:
    """What the request says of itself."""
    request = flow.request
    authorities = [*request.headers.get_all("host"), *([request.authority] if request.authority else [])]
    return Head(
        request.scheme,
        request.host,
        request.port,
        request.method,
        request.path.partition("?")[0],
        tuple(request.headers.items(multi=True)),
        authorities,
        flow.client_conn.sni if request.scheme == "https" else None,
    )


def rewrite(request: http.Request, host: str) -> None:
    """Takes out what is not for the server and writes ``host`` (canonical) wherever the request names one."""
    for name in _NOT_PASSED_ON:
        request.headers.pop(name, None)
    bracketed = f"[{host}]" if ":" in host else host
    authority = bracketed if DEFAULT_PORTS.get(request.scheme) == request.port else f"{bracketed}:{request.port}"
    request.data.host = host
    if request.is_http2:
        request.headers.pop("host", None)
        request.authority = authority
    else:
        request.headers["Host"] = authority
        request.authority = ""


def is_stream(request: http.Request) -> bool:
    """Whether the client will wait for answers before it ends the request's body, as gRPC's streams do."""
    kind: str = request.headers.get("content-type", "")
    return kind.lower().startswith(("application/grpc", "application/connect+"))


def codings(message: http.Message) -> list[str]:
    """How the body is encoded, in the order it was applied."""
    names = [*_list(message, "content-encoding"), *_list(message, "transfer-encoding")]
    return [name for name in names if name not in ("identity", "chunked")]


def _list(message: http.Message, name: str) -> Iterator[str]:
    for value in message.headers.get_all(name):
        yield from (each.strip().lower() for each in value.split(",") if each.strip())


def request_places(request: http.Request) -> list[Place]:
    """Every piece of a request's head that goes to the server."""
    path, mark, query = request.data.path.partition(b"?")

    def put_path(text: bytes) -> None:
        request.data.path = text + b"?" + request.data.path.partition(b"?")[2] if mark else text

    def put_query(text: bytes) -> None:
        request.data.path = request.data.path.partition(b"?")[0] + b"?" + text

    return [
        Place(HOST_NAME, request.host.encode("utf-8", "replace"), None),
        Place("method", request.data.method, None),
        Place("URL path", path, put_path),
        *([Place("URL query", query, put_query)] if mark else []),
        *header_places(request.headers, "header"),
        *(header_places(request.trailers, "trailer") if request.trailers else []),
    ]


def header_places(headers: http.Headers, what: str) -> list[Place]:
    """Names and values of all header lines."""
    places = []
    for index, (name, value) in enumerate(headers.fields):

        def put(text: bytes, index: int = index) -> None:
            fields = list(headers.fields)
            fields[index] = (fields[index][0], text)
            headers.fields = tuple(fields)

        places.append(Place(f"name of a {what}", name, None))
        places.append(Place(f"{what} {name.decode('ascii', 'replace')}", value, put))
    return places


def scan(places: Sequence[Place], detectors: Detectors) -> list[tuple[Place, Finding]]:
    """The secrets in a head. Most heads have none, and are searched as one text."""
    if not detectors.scan(b"\n".join(place.text for place in places)):
        return []
    return [(place, finding) for place in places for finding in detectors.scan(place.text)]
