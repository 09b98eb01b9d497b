"""Does the agent's own credential never go out, and the injected one never come back, wherever a server puts it?"""

from __future__ import annotations

import base64
import bz2
import gzip
import hashlib
import socket
import struct
import zlib
from collections.abc import Callable, Iterator

import brotli
import pytest
import zstandard

from egress_proxy import API_TOKEN, Proxy
from raw_server import RawServer, exchange, tunnel, until_end

TOKEN = API_TOKEN.encode()
ROUTES = """\
routes:
  - host: raw.example.test
    auth: {scheme: Bearer, token_ref: API_TOKEN}
  - host: plain.example.test
  - host: header.example.test
    auth: {header: x-api-key, token_ref: API_TOKEN}
  - host: basic.example.test
    auth: {basic: robot, token_ref: API_TOKEN}
  - host: query.example.test
    auth: {query: key, token_ref: API_TOKEN}
  - host: own.example.test
    auth: passthrough
"""
CREDENTIALS = [
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "private-token",
    "job-token",
    "deploy-token",
    "x-auth-token",
    "x-access-token",
    "x-vault-token",
    "x-amz-security-token",
    "dd-api-key",
]
BASIC = b"Basic " + base64.b64encode(b"robot:" + TOKEN)


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


def get(proxy: Proxy, host: str, target: str = "/", lines: str = "") -> bytes:
    return exchange(proxy, host, f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{lines}\r\n".encode())


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
@pytest.mark.parametrize("name", CREDENTIALS)
def test_the_agents_own_credential_goes_out_on_no_route(gate: Proxy, raw: RawServer, name: str, version: str) -> None:
    wanted = {
        "raw.example.test": ("authorization", [b"Bearer " + TOKEN]),
        "header.example.test": ("x-api-key", [TOKEN]),
        "basic.example.test": ("authorization", [BASIC]),
        "query.example.test": ("authorization", []),
        "plain.example.test": ("authorization", []),
    }
    for host, (injected, values) in wanted.items():
        raw.clear()
        answer = gate.curl(f"https://{host}/", version, "-H", f"{name}: the agents own", "-H", f"{name.upper()}: again")
        assert answer.status == 200, answer
        (carried,) = raw.requests
        assert carried.header(injected) == values
        assert name == injected or carried.header(name) == []
        assert not any(value in (b"the agents own", b"again") for _, value in carried.lines)


@pytest.mark.parametrize("name", [name for name in CREDENTIALS if name != "proxy-authorization"])
def test_a_route_may_let_the_agents_own_pass(gate: Proxy, raw: RawServer, name: str) -> None:
    assert gate.curl("https://own.example.test/", "-H", f"{name}: the agents own").status == 200
    assert raw.requests[0].header(name) == [b"the agents own"]


@pytest.mark.parametrize(
    "query", ["?key=own&b=2", "?b=2&%6bey=own", "?k%65y=own&b=2&key=own", "?key&b=2", "?b=2&key=own&key="]
)
def test_a_query_parameter_takes_the_place_of_the_agents(gate: Proxy, raw: RawServer, query: str) -> None:
    assert get(gate, "query.example.test", "/a" + query).startswith(b"HTTP/1.1 200")
    assert raw.requests[0].start == b"GET /a?b=2&key=" + TOKEN + b" HTTP/1.1"


def head(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([start, *lines, b"", b""])


def sized(body: bytes, *lines: bytes) -> bytes:
    return head(b"Content-Length: %d" % len(body), *lines) + body


def chunks(*pieces: bytes, trailers: bytes = b"", extension: bytes = b"") -> bytes:
    body = b"".join(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces)
    return head(b"Transfer-Encoding: chunked", b"Trailer: X-Sum") + body + b"0\r\n" + trailers + b"\r\n"


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


ALONE, INSIDE = TOKEN, b"before " + TOKEN + b" after"
HALF = len(TOKEN) // 2
# What a server can do to a text that it wants to come through.
DRESSES: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "base64": base64.b64encode,
    "base64url": base64.urlsafe_b64encode,
    "hex": lambda data: data.hex().encode(),
    "percent": lambda data: b"".join(b"%%%02x" % byte for byte in data),
    "json": lambda data: b"".join(b"\\u%04x" % byte for byte in data),
    "html": lambda data: b"".join(b"&#%d;" % byte for byte in data),
    "utf-16": lambda data: data.decode().encode("utf-16"),
    "gzip file": gzip.compress,
    "zlib file": zlib.compress,
    "zstd file": zstandard.compress,
    "base64 of gzip": lambda data: base64.b64encode(gzip.compress(data)),
}
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "deflate, raw": raw_deflate,
    "br": brotli.compress,
    "zstd": zstandard.compress,
    "compress": bytes,
    "bzip2": bz2.compress,
    "gzip, gzip": lambda data: gzip.compress(gzip.compress(data)),
}
ANSWERS: dict[str, bytes] = {
    "reason phrase": head(b"Content-Length: 2", start=b"HTTP/1.1 200 " + TOKEN) + b"ok",
    "reason phrase of an error": head(b"Content-Length: 2", start=b"HTTP/1.1 401 Bad token " + TOKEN) + b"no",
    "header value": sized(b"ok", b"X-Echo: " + TOKEN),
    "header value, inside": sized(b"ok", b"X-Echo: Bearer " + INSIDE),
    "header name": sized(b"ok", b"X-" + TOKEN + b": 1"),
    "second line of a header": sized(b"ok", b"X-Echo: 1", b"X-Echo: " + TOKEN),
    "cookie": sized(b"ok", b"Set-Cookie: a=" + TOKEN + b"; Path=/"),
    "location": sized(b"", b"Location: https://other.example.test/?t=" + TOKEN),
    "authenticate": sized(b"", b'WWW-Authenticate: Bearer realm="' + TOKEN + b'"'),
    "body": sized(INSIDE),
    "body, alone": sized(ALONE),
    "body until the end": head(b"Connection: close") + INSIDE,
    "body of an error": head(b"Content-Length: %d" % len(INSIDE), start=b"HTTP/1.1 500 No") + INSIDE,
    "chunk": chunks(INSIDE),
    "chunks of one byte": chunks(*(bytes([byte]) for byte in INSIDE)),
    "over two chunks": chunks(INSIDE[: HALF + 7], INSIDE[HALF + 7 :]),
    "chunk extension": chunks(b"ok", extension=b";a=" + TOKEN),
    "trailer": chunks(b"ok", trailers=b"X-Sum: " + TOKEN + b"\r\n"),
    "trailer that was not announced": chunks(b"ok", trailers=b"X-Other: " + TOKEN + b"\r\n"),
    "trailer name": chunks(b"ok", trailers=b"X-" + TOKEN + b": 1\r\n"),
    "early hints": head(b"Link: " + TOKEN, start=b"HTTP/1.1 103 Early Hints") + sized(b"ok"),
    "continue": head(b"X-Echo: " + TOKEN, start=b"HTTP/1.1 100 " + TOKEN) + sized(b"ok"),
    "range": head(b"Content-Range: bytes 0-9/20", b"Content-Length: %d" % len(INSIDE), start=b"HTTP/1.1 206 P")
    + INSIDE,
    "multipart range": sized(b"--b\r\nContent-Range: bytes 0-9/20\r\n\r\n" + INSIDE + b"\r\n--b--\r\n"),
    "after a mebibyte": sized(b"." * (1 << 20) + INSIDE + b"." * 4096),
    **{f"body, {name}": sized(dress(INSIDE)) for name, dress in DRESSES.items()},
    **{f"header, {name}": sized(b"ok", b"X-Echo: " + DRESSES[name](TOKEN)) for name in list(DRESSES)[:7]},
    **{
        f"content coding {name}": sized(code(INSIDE), b"Content-Encoding: " + name.partition(", raw")[0].encode())
        for name, code in CODINGS.items()
    },
    "not what its coding says": sized(INSIDE, b"Content-Encoding: gzip"),
    "after the coded body": sized(gzip.compress(b"ok") + INSIDE, b"Content-Encoding: gzip"),
    "coded twice, said once": sized(gzip.compress(gzip.compress(INSIDE)), b"Content-Encoding: gzip"),
}
HIDDEN = [TOKEN, *(dress(TOKEN) for name, dress in DRESSES.items() if "gzip" not in name and "file" not in name)]


def readings(said: bytes) -> Iterator[bytes]:
    """What an agent can read in an answer: its bytes, and what its body decompresses to."""
    yield said
    body = said.partition(b"\r\n\r\n")[2]
    yield body
    for read in (
        gzip.decompress,
        zlib.decompress,
        brotli.decompress,
        zstandard.ZstdDecompressor().decompress,
        bz2.decompress,
    ):
        try:
            yield read(body)  # type: ignore[operator]
        except Exception:
            continue
    try:
        yield zlib.decompress(body, wbits=-15)
        yield gzip.decompress(gzip.decompress(body))
    except (OSError, EOFError, zlib.error):
        pass


@pytest.mark.parametrize("place", ANSWERS)
@pytest.mark.parametrize("version", ["http/1.1", "h2"])
def test_the_injected_credential_never_comes_back(gate: Proxy, raw: RawServer, place: str, version: str) -> None:
    raw.answer = ANSWERS[place]
    if version == "h2":
        answer = gate.curl("https://raw.example.test/", "--http2", "--raw")
        said = answer.head.encode("latin1") + answer.body
    else:
        said = get(gate, "raw.example.test")
    assert raw.requests[0].header("authorization") == [b"Bearer " + TOKEN], "or there is nothing to hide"
    for reading in readings(said):
        assert not any(hidden in reading for hidden in HIDDEN), said[:400]


@pytest.mark.parametrize("host", ["header.example.test", "basic.example.test", "query.example.test"])
def test_every_kind_of_injected_credential_is_masked(gate: Proxy, raw: RawServer, host: str) -> None:
    raw.answer = sized(b"key=" + TOKEN + b" " + BASIC, b"X-Echo: " + BASIC)
    said = get(gate, host)
    assert said.startswith(b"HTTP/1.1 200") and TOKEN not in said
    assert host != "basic.example.test" or BASIC[6:] not in said


TEXT, BINARY, CLOSED, PING, PONG = 1, 2, 8, 9, 10


def frame(kind: int, content: bytes, final: bool = True) -> bytes:
    size = bytes([len(content)]) if len(content) < 126 else b"\x7e" + struct.pack(">H", len(content))
    return bytes([kind | (0x80 if final else 0)]) + size + content


FRAMES = {
    "text": frame(TEXT, INSIDE),
    "binary": frame(BINARY, INSIDE),
    "text over two frames": frame(TEXT, INSIDE[: HALF + 7], final=False) + frame(0, INSIDE[HALF + 7 :]),
    "binary over two frames": frame(BINARY, INSIDE[: HALF + 7], final=False) + frame(0, INSIDE[HALF + 7 :]),
    "text of base64": frame(TEXT, base64.b64encode(INSIDE)),
    "binary gzip file": frame(BINARY, gzip.compress(INSIDE)),
    "ping": frame(PING, TOKEN),
    "pong": frame(PONG, TOKEN),
    "ping in a message": frame(TEXT, b"a", final=False) + frame(PING, TOKEN) + frame(0, b"b"),
    "close": frame(CLOSED, struct.pack(">H", 1000) + TOKEN),
    "unknown control frame": frame(11, TOKEN),
    "unknown data frame": frame(3, TOKEN),
    "not a frame": TOKEN * 4,
}


def websocket(gate: Proxy, raw: RawServer, frames: bytes, *lines: bytes) -> bytes:
    """All that an agent gets of a WebSocket whose server says this and goes."""
    key = base64.b64encode(b"0123456789abcdef")
    accept = base64.b64encode(
        hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
    )
    hello = (b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + accept, *lines)
    raw.answer = head(*hello, start=b"HTTP/1.1 101 Switching Protocols")

    def speak(stream: socket.socket) -> None:
        stream.sendall(frames + frame(CLOSED, struct.pack(">H", 1000)))
        until_end(stream)

    raw.after = speak
    with tunnel(gate, "raw.example.test") as stream:
        stream.sendall(
            b"GET /ws HTTP/1.1\r\nHost: raw.example.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
        )
        stream.settimeout(20)
        said = b""
        # To the close frame, or to the end of a connection that was cut.
        while not said.endswith((b"\x88\x02\x03\xe8", b"\x88\x00")) and (piece := stream.recv(65536)):
            said += piece
    return said


@pytest.mark.parametrize("kind", FRAMES)
def test_no_frame_brings_the_injected_credential_back(gate: Proxy, raw: RawServer, kind: str) -> None:
    said = websocket(gate, raw, FRAMES[kind])
    assert said.startswith(b"HTTP/1.1 101") and raw.requests[0].header("authorization") == [b"Bearer " + TOKEN]
    for hidden in (TOKEN, base64.b64encode(INSIDE), gzip.compress(INSIDE)[10:]):
        assert hidden not in said


@pytest.mark.parametrize(
    "line", [b"X-Echo: " + TOKEN, b"Sec-WebSocket-Protocol: " + TOKEN, b"Sec-WebSocket-Extensions: " + TOKEN], ids=repr
)
def test_no_handshake_brings_the_injected_credential_back(gate: Proxy, raw: RawServer, line: bytes) -> None:
    assert TOKEN not in websocket(gate, raw, b"", line)
