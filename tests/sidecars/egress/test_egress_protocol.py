"""Is what the proxy sends on one request of one meaning, whatever an agent puts into the one it sends?

The server is an ordinary one that carries out every request it finds in the bytes it gets: a second one, or a line that
the agent smuggled in, would go with the injected credential.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import ssl
from collections.abc import Iterator

import h2.config
import h2.connection
import h2.events
import pytest

from egress_proxy import API_TOKEN, Proxy, github_token
from raw_server import RawServer, exchange, tunnel, until_end

SMUGGLED = b"DELETE /admin HTTP/1.1\r\nHost: raw.example.test\r\nContent-Length: 0\r\n\r\n"
ROUTES = """\
routes:
  - host: raw.example.test
    auth: {scheme: Bearer, token_ref: API_TOKEN}
    matches: [{paths: [{type: prefix, value: /public}], methods: [GET, POST]}]
    dlp: {outbound_on_match: block}
  - host: plain.example.test
  - host: rules.example.test
    matches: [{headers: [{name: x-kind, value: report}]}]
  - host: over.example.test
    matches: [{methods: [POST]}]
    override_headers: true
"""
GET = b"GET /public/a HTTP/1.1\r\nHost: raw.example.test\r\n"
POST = b"POST /public/a HTTP/1.1\r\nHost: raw.example.test\r\n"
CLOSE = b"Connection: close\r\n"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RawServer]:
    found = RawServer(tmp_path_factory.mktemp("raw"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory, raw: RawServer) -> Iterator[Proxy]:
    found = Proxy(tmp_path_factory.mktemp("egress"), raw)  # type: ignore[arg-type]
    found.write_routes(ROUTES)
    yield found
    assert found.stop() == 0, found.log()
    assert "internal error" not in found.log(), found.log()


@pytest.fixture(autouse=True)
def fresh_raw(raw: RawServer) -> None:
    raw.clear()


def over_http2(
    proxy: Proxy,
    *more: tuple[bytes, bytes],
    method: bytes = b"GET",
    path: bytes = b"/public/a",
    scheme: bytes = b"https",
    authority: bytes = b"raw.example.test",
    body: bytes | None = None,
    trailers: list[tuple[bytes, bytes]] | None = None,
) -> int | None:
    """The status of the answer to a request whose parts no client has checked; ``None`` if it is cut off."""
    config = h2.config.H2Configuration(
        validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding=None
    )
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    pseudo = [(b":method", method), (b":scheme", scheme), (b":authority", authority), (b":path", path)]
    connection.send_headers(1, [*pseudo, *more], end_stream=body is None and trailers is None)
    if body is not None:
        connection.send_data(1, body, end_stream=trailers is None)
    if trailers is not None:
        connection.send_headers(1, trailers, end_stream=True)
    with tunnel(proxy, "raw.example.test", alpn="h2") as stream:
        stream.sendall(connection.data_to_send())
        status = None
        while piece := stream.recv(65536):
            for event in connection.receive_data(piece):
                if isinstance(event, h2.events.ResponseReceived):
                    status = int(dict(event.headers)[b":status"])
                elif isinstance(event, h2.events.StreamEnded):
                    return status
                elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                    return None
            stream.sendall(connection.data_to_send())
    return None


def whole_request(raw: RawServer) -> None:
    """The server carried out one request and no other, with the credential once."""
    (carried,) = raw.requests
    assert carried.start in (b"GET /public/a HTTP/1.1", b"POST /public/a HTTP/1.1")
    assert carried.header("authorization") == [f"Bearer {API_TOKEN}".encode()]
    assert carried.header("host") == [b"raw.example.test"]


ENDS = {"crlf": b"\r\n", "lf": b"\n", "cr": b"\r", "nul": b"\0", "crlfcrlf": b"\r\n\r\n"}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("place", ["value", "name", "path", "query", "method", "scheme", "authority", "trailer"])
def test_no_line_end_in_any_part_of_an_http2_request_reaches_a_server(
    gate: Proxy, raw: RawServer, place: str, end: bytes
) -> None:
    odd = b"x" + end + SMUGGLED
    if place == "value":
        status = over_http2(gate, (b"x-a", odd))
    elif place == "name":
        status = over_http2(gate, (odd, b"1"))
    elif place == "path":
        status = over_http2(gate, path=b"/public/" + odd)
    elif place == "query":
        status = over_http2(gate, path=b"/public/?" + odd)
    elif place == "method":
        status = over_http2(gate, method=odd)
    elif place == "scheme":
        status = over_http2(gate, scheme=odd)
    elif place == "authority":
        status = over_http2(gate, authority=b"raw.example.test" + end + SMUGGLED)
    else:
        status = over_http2(gate, method=b"POST", body=b"abc", trailers=[(b"x-t", odd)])
    assert status is None or status >= 400
    # What of a POST was on its way is a whole request or none; nothing ever follows it.
    assert all(each.start == b"POST /public/a HTTP/1.1" and place == "trailer" for each in raw.requests)
    raw.clear()
    assert over_http2(gate) == 200
    whole_request(raw)


@pytest.mark.parametrize(
    "parts",
    [
        {"path": b"/public/a HTTP/1.1"},
        {"path": b"public/a"},
        {"path": b""},
        {"path": b"*"},
        {"path": b"http://other.example.test/public/a"},
        {"scheme": b"http"},
        {"authority": b"user@raw.example.test"},
        {"authority": b"plain.example.test"},
        {"authority": b"raw.example.test:8443"},
        {"method": b"GET /public/b HTTP/1.1"},
        {"method": b"CONNECT"},
    ],
    ids=str,
)
def test_an_http2_request_line_of_two_meanings_is_refused(gate: Proxy, raw: RawServer, parts: dict[str, bytes]) -> None:
    status = over_http2(gate, **parts)  # type: ignore[arg-type]
    assert status is None or status in (400, 403)
    assert raw.requests == []


@pytest.mark.parametrize(
    "lines",
    [
        [(b"content-length", b"0")],
        [(b"content-length", b"3")],
        [(b"content-length", b"9999")],
        [(b"content-length", b"70"), (b"content-length", b"0")],
        [(b"content-length", b"+70")],
        [(b"transfer-encoding", b"chunked")],
        [(b"connection", b"close")],
        [(b"host", b"other.example.test")],
        [(b":authority", b"other.example.test")],
        [(b"X-Upper", b"1")],
        [(b"x a", b"1")],
        [(b"x-a: 1", b"1")],
        [(b"", b"1")],
    ],
    ids=str,
)
def test_an_http2_body_is_never_a_second_request(gate: Proxy, raw: RawServer, lines: list[tuple[bytes, bytes]]) -> None:
    assert over_http2(gate, *lines, method=b"POST", body=SMUGGLED) in (None, 400)
    assert all(each.body == SMUGGLED[: len(each.body)] and b"/public/a" in each.start for each in raw.requests)


@pytest.mark.parametrize("length", [[], [(b"content-length", str(len(SMUGGLED)).encode())]], ids=["unknown", "known"])
def test_an_http2_body_is_framed_for_an_http11_server(
    gate: Proxy, raw: RawServer, length: list[tuple[bytes, bytes]]
) -> None:
    assert over_http2(gate, *length, method=b"POST", body=SMUGGLED) == 200
    whole_request(raw)
    assert raw.requests[0].body == SMUGGLED


@pytest.mark.parametrize(
    "sent",
    [
        GET + b"X-A: 1\rX-B: 2\r\n\r\n",
        GET + b"X-A: 1\0\r\n\r\n",
        GET + b"X-A: 1\r\n folded: 2\r\n\r\n",
        GET + b"X-A : 1\r\n\r\n",
        GET + b" X-A: 1\r\n\r\n",
        GET + b"X A: 1\r\n\r\n",
        GET + b": 1\r\n\r\n",
        GET + b"nothing\r\n\r\n",
        GET + b"Host: other.example.test\r\n\r\n",
        GET.replace(b"/public/a", b"/public/a b") + b"\r\n",
        GET.replace(b"/public/a", b"/public/../admin") + b"\r\n",
        GET.replace(b"/public/a", b"/public/%2e%2e/admin") + b"\r\n",
        GET.replace(b"GET", b"G\0T") + b"\r\n",
        GET.replace(b"HTTP/1.1", b"HTTP/1.1 x") + b"\r\n",
        GET.replace(b"HTTP/1.1", b"HTTP/9.9") + b"\r\n",
        POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        POST + b"Content-Length: 3, 4\r\n\r\nabcd",
        POST + b"Content-Length: +3\r\n\r\nabc",
        POST + b"Content-Length: 0x3\r\n\r\nabc",
        POST + b"Content-Length: -1\r\n\r\nabc",
        POST + b"Transfer-Encoding: gzip\r\n\r\n" + gzip.compress(b"abc"),
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding : chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nAuthorization: Bearer own\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Unannounced: 1\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n0\r\nContent-Length: 9\r\n\r\n",
    ],
    ids=lambda sent: repr(sent[-60:]),
)
def test_an_http11_request_of_two_meanings_is_refused(gate: Proxy, raw: RawServer, sent: bytes) -> None:
    said = exchange(gate, "raw.example.test", sent.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
    assert said.split(b" ")[1][:1] == b"4", said
    assert raw.requests == []


@pytest.mark.parametrize(
    "sent",
    [
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"Content-Length: 0\r\n\r\n" + SMUGGLED,
        GET + b"\r\n" + SMUGGLED,
    ],
    ids=["length-first", "chunked-first", "pipelined-after-post", "pipelined-after-get"],
)
def test_what_follows_a_request_is_judged_by_itself(gate: Proxy, raw: RawServer, sent: bytes) -> None:
    with tunnel(gate, "raw.example.test") as stream:
        stream.sendall(sent)
        said = b""
        while b"request_denied" not in said and b"HTTP/1.1 400" not in said and (piece := stream.recv(65536)):
            said += piece
    assert all(each.start.split(b" ")[1] == b"/public/a" and each.body == b"" for each in raw.requests)


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GE T / HTTP/1.1\r\nHost: raw.example.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: raw.example.test\r\nBroken header: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: raw.example.test\r\nX: a\0b\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: raw.example.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: raw.example.test\r\nConnection: close\r\nX: " + b"a" * 600_000 + b"\r\n\r\n",
    ],
    ids=["no HTTP", "version", "method", "header name", "NUL", "long URL", "long head"],
)
@pytest.mark.parametrize("place", ["tunnel", "proxy"])
def test_a_request_that_is_no_http_is_refused_in_json_too(gate: Proxy, raw: RawServer, sent: bytes, place: str) -> None:
    if place == "tunnel":
        said = exchange(gate, "raw.example.test", sent)
    else:
        with socket.create_connection(("127.0.0.1", gate.port), 20) as stream:
            stream.sendall(sent)
            said = until_end(stream)
    head, _, body = said.partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1\.[01] 4\d\d ", head), said[:200]
    assert b"x-bot-bottle-egress: bad_request" in head and b"application/json" in head, head
    assert json.loads(body)["error"] == "bad_request"
    assert not raw.requests


def test_a_servers_own_bare_answer_is_not_taken_for_ours(gate: Proxy, raw: RawServer) -> None:
    raw.answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
    sent = b"GET /public/a HTTP/1.1\r\nHost: plain.example.test\r\n\r\n"
    said = exchange(gate, "plain.example.test", sent + b"nonsense\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 400 ") and b"x-bot-bottle-egress" not in said, said


@pytest.mark.parametrize("named", ["x-hop", "X-Hop , X-Other", "close, x-hop", "authorization, x-hop"])
def test_headers_that_connection_names_end_at_the_proxy(gate: Proxy, raw: RawServer, named: str) -> None:
    lines = f"Connection: {named}\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nX-Kept: 2\r\n"
    with tunnel(gate, "raw.example.test") as stream:
        stream.sendall(GET + lines.encode() + b"\r\n")
        assert stream.recv(65536).startswith(b"HTTP/1.1 200")
    whole_request(raw)  # the injected credential included, though the agent named its header
    (carried,) = raw.requests
    assert carried.header("x-kept") == [b"2"]
    assert not {"x-hop", "keep-alive", "proxy-connection"} & {name for name, _ in carried.lines}


def test_announced_trailers_pass_and_are_looked_at(gate: Proxy, raw: RawServer) -> None:
    head = POST + CLOSE + b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: "
    assert exchange(gate, "raw.example.test", head + b"7\r\n\r\n").startswith(b"HTTP/1.1 200")
    whole_request(raw)
    assert raw.requests[0].body == b"abc" and raw.requests[0].trailers == [("x-sum", b"7")]
    raw.clear()
    said = exchange(gate, "raw.example.test", head + github_token().encode() + b"\r\n\r\n")
    assert b"secret_blocked" in said and raw.requests == []


def test_a_header_rule_is_met_by_all_lines_or_not(gate: Proxy, raw: RawServer) -> None:
    head = b"GET / HTTP/1.1\r\nHost: rules.example.test\r\n" + CLOSE
    assert exchange(gate, "rules.example.test", head + b"X-Kind: report\r\n\r\n").startswith(b"HTTP/1.1 200")
    raw.clear()
    for lines in (
        b"",
        b"X-Kind: other\r\n",
        b"X-Kind: report\r\nX-Kind: other\r\n",
        b"X-Kind: other\r\nx-kind: report\r\n",
    ):
        assert b"request_denied" in exchange(gate, "rules.example.test", head + lines + b"\r\n")
    assert raw.requests == []


@pytest.mark.parametrize(
    "name",
    [
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Original-URI",
    ],
)
def test_headers_that_override_what_was_judged_are_refused_where_rules_judge_it(
    gate: Proxy, raw: RawServer, name: str
) -> None:
    line = f"{name}: DELETE\r\n".encode() + CLOSE + b"\r\n"
    assert b"request_denied" in exchange(gate, "raw.example.test", GET + line)
    assert raw.requests == []
    for host, method in (("plain.example.test", "GET"), ("over.example.test", "POST")):
        sent = f"{method} / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n".encode()
        assert exchange(gate, host, sent + line).startswith(b"HTTP/1.1 200"), host
    assert [each.header(name.lower()) for each in raw.requests] == [[b"DELETE"]] * 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
    ids=["early-hints", "several"],
)
def test_informational_answers_end_at_the_proxy(gate: Proxy, raw: RawServer, answer: bytes) -> None:
    raw.answer = answer
    said = exchange(gate, "raw.example.test", GET + CLOSE + b"\r\n")
    assert said.startswith(b"HTTP/1.1 200") and said.endswith(b"ok") and said.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nX-A: 1\0\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX A: 1\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"nothing like HTTP\r\n\r\n",
    ],
    ids=repr,
)
def test_an_answer_of_two_meanings_is_none(gate: Proxy, raw: RawServer, answer: bytes) -> None:
    raw.answer = answer
    said = exchange(gate, "raw.example.test", GET + CLOSE + b"\r\n")
    assert said.startswith(b"HTTP/1.1 502") and b'"error": "upstream_failed"' in said, said


def test_no_server_can_speak_as_the_proxy_or_lead_past_it(gate: Proxy, raw: RawServer) -> None:
    raw.answer = (
        b'HTTP/1.1 403 No\r\nX-Bot-Bottle-Egress: host_denied\r\nAlt-Svc: h3=":443"\r\nX-Hop: 1\r\n'
        b"Connection: x-hop, close\r\nX-Kept: 1\r\nContent-Length: 2\r\n\r\nno"
    )
    said = exchange(gate, "raw.example.test", GET + CLOSE + b"\r\n").lower()
    assert b"x-kept: 1" in said
    assert b"x-bot-bottle-egress" not in said and b"alt-svc" not in said and b"x-hop" not in said


def hello(host: str, protocols: list[str]) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    """A TLS client whose bytes the test carries, after its first ones."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(protocols)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=host)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return client, incoming, outgoing


@pytest.mark.parametrize("size, pieces", [(0, 1), (0, 100), (40, 700), (180, 1400)])
def test_a_client_hello_may_come_in_pieces_and_be_large(gate: Proxy, size: int, pieces: int) -> None:
    """Post-quantum key shares make it larger than a packet, and a name may stand after them."""
    _, _, outgoing = hello("raw.example.test", ["http/1.1", *(f"made-up-protocol-{at:>60}" for at in range(size))])
    sent = outgoing.read()
    assert size == 0 or len(sent) > 2500
    with socket.create_connection(("127.0.0.1", gate.port), 20) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.sendall(b"CONNECT raw.example.test:443 HTTP/1.1\r\nHost: raw.example.test:443\r\n\r\n")
        assert b" 200 " in stream.recv(4096)
        for at in range(0, len(sent), pieces):
            stream.sendall(sent[at : at + pieces])
        assert stream.recv(5)[:1] == b"\x16", "the proxy's own handshake"
