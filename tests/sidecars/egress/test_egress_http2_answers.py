"""Does the injected credential never come back from a server that speaks HTTP/2, in whatever frame it puts it?"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import h2.connection
import hpack
import pytest
import trustme
from hyperframe.frame import (
    AltSvcFrame,
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
)

from accepting import accept
from egress_proxy import API_TOKEN, Proxy

TOKEN = API_TOKEN.encode()
INSIDE = b"before " + TOKEN + b" after"
HOST = "h2.example.test"
OK = ((":status", "200"),)


def block(*lines: tuple[str, str | bytes]) -> bytes:
    """Header lines as they come, checked by nobody."""
    packed: bytes = hpack.Encoder().encode(lines, huffman=False)
    return packed


def head(*lines: tuple[str, str | bytes], end: bool = False) -> Frame:
    return HeadersFrame(1, block(*lines), flags=["END_HEADERS", *(["END_STREAM"] if end else [])])


def data(content: bytes, end: bool = True, padding: int = 0) -> DataFrame:
    found = DataFrame(1, content, flags=["END_STREAM"] if end else [])
    if padding:
        found.flags.add("PADDED")
        found.pad_length = padding
    return found


def padded(content: bytes) -> bytes:
    """A DATA frame whose padding, which should be zeros, says something."""
    return data(b"ok", padding=len(content)).serialize()[: -len(content)] + content


FIRST, THEN = head(*OK), data(b"ok")
ANSWERS: dict[str, list[Frame | bytes]] = {
    "header value": [head(*OK, ("x-echo", TOKEN)), THEN],
    "header value, inside": [head(*OK, ("x-echo", b"Bearer " + INSIDE)), THEN],
    "header name": [head(*OK, ("x-" + API_TOKEN.lower(), "1"), ("X-" + API_TOKEN, "1")), THEN],
    "second line of a header": [head(*OK, ("x-echo", "1"), ("x-echo", TOKEN)), THEN],
    "crumbs of a cookie": [head(*OK, ("set-cookie", b"a=" + TOKEN), ("cookie", TOKEN)), THEN],
    "status": [head((":status", TOKEN)), THEN],
    "second status": [head(*OK, (":status", TOKEN)), THEN],
    "pseudo header of its own": [head(*OK, (":token", TOKEN)), THEN],
    "early hints": [head((":status", "103"), ("link", TOKEN)), FIRST, THEN],
    "continue": [head((":status", "100"), ("x-echo", TOKEN)), FIRST, THEN],
    "switching protocols": [head((":status", "101"), ("x-echo", TOKEN)), FIRST, THEN],
    "trailer": [FIRST, data(b"ok", end=False), head(("x-sum", TOKEN), end=True)],
    "trailer that gRPC reads": [FIRST, data(b"ok", end=False), head(("grpc-message", TOKEN), end=True)],
    "trailer name": [FIRST, data(b"ok", end=False), head(("x-" + API_TOKEN, "1"), end=True)],
    "status in a trailer": [FIRST, data(b"ok", end=False), head((":status", TOKEN), end=True)],
    "continuation": [
        HeadersFrame(1, block(*OK, ("x-echo", TOKEN))[:9]),
        ContinuationFrame(1, block(*OK, ("x-echo", TOKEN))[9:], flags=["END_HEADERS"]),
        THEN,
    ],
    "body": [FIRST, data(INSIDE)],
    "body byte by byte": [FIRST, *(data(bytes([each]), end=False) for each in INSIDE), data(b"")],
    "body of an error": [head((":status", "500")), data(INSIDE)],
    "padding": [FIRST, padded(TOKEN)],
    "body after the end": [FIRST, THEN, data(INSIDE)],
    "body without a head": [data(INSIDE)],
    "more than its length": [head(*OK, ("content-length", "2")), data(INSIDE)],
    "goodbye before an answer": [GoAwayFrame(0, 0, 2, TOKEN)],
    "goodbye without error before an answer": [GoAwayFrame(0, 0, 0, TOKEN)],
    "goodbye in an answer": [FIRST, data(b"o", end=False), GoAwayFrame(0, 0, 11, TOKEN)],
    "goodbye with an answer": [FIRST, THEN, GoAwayFrame(0, 1, 0, TOKEN)],
    "reset": [FIRST, RstStreamFrame(1, 2)],
    "ping": [PingFrame(0, TOKEN[:8]), FIRST, THEN],
    "settings": [SettingsFrame(0, {0xF000 + at: int.from_bytes(TOKEN[at : at + 4]) for at in range(8)}), FIRST, THEN],
    "promise": [PushPromiseFrame(1, 2, block((":path", b"/" + TOKEN)), flags=["END_HEADERS"]), FIRST, THEN],
    "another service": [AltSvcFrame(0, HOST.encode(), b'h2="' + TOKEN + b':443"'), FIRST, THEN],
    "frame nobody knows": [ExtensionFrame(0xBB, 1, 0, TOKEN), FIRST, THEN],
    "frame nobody knows, of the connection": [ExtensionFrame(0xBB, 0, 0, TOKEN), FIRST, THEN],
    "frame larger than any": [FIRST, ExtensionFrame(0xBB, 0, 0, TOKEN * 2000).serialize()],
    "no frames": [TOKEN * 4],
}


class Http2Server:
    """Takes one request a connection and answers with the frames a test gives it, however wrong."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        self.ca_file = directory / "h2-ca.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.set_alpn_protocols(["h2"])
        authority.issue_cert(HOST).configure_cert(self._context)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.answer: list[Frame | bytes] = []
        self.credentials: list[bytes] = []
        accept(self._listener, self._serve)

    def close(self) -> None:
        self._listener.close()

    def connect_to(self) -> str:
        return f"{HOST}:443=127.0.0.1:{self._listener.getsockname()[1]}"

    def _serve(self, connection: socket.socket) -> None:
        reader = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        reader.initiate_connection()
        try:
            with self._context.wrap_socket(connection, server_side=True) as stream:
                stream.sendall(reader.data_to_send())
                while piece := stream.recv(65536):
                    events = reader.receive_data(piece)
                    stream.sendall(reader.data_to_send())
                    for event in events:
                        if isinstance(event, h2.events.RequestReceived):
                            self.credentials.append(dict(event.headers).get(b"authorization", b""))
                            frames = [each if isinstance(each, bytes) else each.serialize() for each in self.answer]
                            stream.sendall(b"".join(frames))
                            stream.settimeout(0.5)
        except (OSError, h2.exceptions.ProtocolError):
            pass


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Http2Server]:
    found = Http2Server(tmp_path_factory.mktemp("h2"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory, origin: Http2Server) -> Iterator[Proxy]:
    found = Proxy(tmp_path_factory.mktemp("egress"), origin)  # type: ignore[arg-type]
    found.write_routes(f"routes:\n- host: {HOST}\n  auth: {{scheme: Bearer, token_ref: API_TOKEN}}\n")
    yield found
    assert found.stop() == 0, found.log()
    assert "internal error" not in found.log(), found.log()


@pytest.mark.parametrize("place", ANSWERS)
def test_no_http2_frame_brings_the_injected_credential_back(gate: Proxy, origin: Http2Server, place: str) -> None:
    origin.answer = ANSWERS[place]
    origin.credentials.clear()
    answer = gate.curl(f"https://{HOST}/", "--http2", "--raw", "-v", "--max-time", "20")
    assert b"Bearer " + TOKEN in origin.credentials, "or there is nothing to hide"
    for seen in (answer.head.encode("latin1"), answer.body, answer.error.encode(), gate.log().encode()):
        assert TOKEN.lower() not in seen.lower(), seen[:2000]
