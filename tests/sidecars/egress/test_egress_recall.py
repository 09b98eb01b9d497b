"""Is a secret of every known format stopped at every place of a request, as the proxy reads it?

The scanner's own tests have each format under each encoding, cut at each byte; these are the places, over both
versions of HTTP and in WebSockets, where the proxy has to hand a text to the scanner at all.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import h2.config
import h2.connection
import h2.events
import pytest
import websockets
from websockets.asyncio.client import connect

from bot_bottle import scan
from checkout import CHECKOUT
from egress_proxy import Proxy, Server, fresh, proxy, server
from raw_server import tunnel

__all__ = ["fresh", "proxy", "server"]

HOST = "block.example.test"


def examples() -> dict[str, str]:
    """The made-up secret that stands beside each format, by the format's name."""
    found = {}
    for entry in (CHECKOUT / "rust" / "scan" / "src" / "formats.rs").read_text().split("    Format {\n")[1:]:
        name = re.search(r'id: "(.*)"', entry)
        pieces = re.search(r"example: &\[(.*)\]", entry)
        assert name and pieces, entry
        found[name[1]] = "".join(re.findall(r'"([^"]*)"', pieces[1]))
    return found


FORMATS = examples()
ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "base64": base64.b64encode,
    "hex": lambda data: data.hex().encode(),
    "percent": lambda data: b"".join(b"%%%02X" % byte for byte in data),
    "JSON": lambda data: b"".join(b"\\u%04x" % byte for byte in data),
    "gzip in base64": lambda data: base64.b64encode(gzip.compress(data)),
}
PLACES = ("path", "query", "header", "body", "trailer")


def test_there_is_an_example_of_every_format() -> None:
    assert len(FORMATS) >= 55
    for name, secret in FORMATS.items():
        assert name in {each.detector for each in scan(secret.encode())}, name


def parts(place: str, secret: bytes) -> tuple[bytes, list[tuple[bytes, bytes]], bytes, list[tuple[bytes, bytes]]]:
    """Path, headers, body and trailers of a request that has it there."""
    text = quote(secret, safe="").encode()
    return (
        b"/a/" + text if place == "path" else b"/a?key=" + text if place == "query" else b"/a",
        [(b"x-note", secret)] if place == "header" else [],
        b'{"note": "' + secret + b'"}' if place == "body" else b"{}",
        [(b"x-sum", secret)] if place == "trailer" else [],
    )


def http1(gate: Proxy, place: str, secrets: list[bytes]) -> list[bytes]:
    """The refusal of each, by one connection after the other's answer."""
    said = []
    for secret in secrets:
        path, lines, body, trailers = parts(place, secret)
        head = [b"POST " + path + b" HTTP/1.1", b"Host: " + HOST.encode(), b"Connection: close"]
        head += [b"Transfer-Encoding: chunked", b"Trailer: x-sum", *(b": ".join(line) for line in lines)]
        end = b"0\r\n" + b"".join(name + b": " + value + b"\r\n" for name, value in trailers) + b"\r\n"
        with tunnel(gate, HOST) as stream:
            stream.sendall(b"\r\n".join([*head, b"", b"%x" % len(body), body, end]))
            found = b""
            while piece := stream.recv(65536):
                found += piece
        said.append(found)
    return said


def http2(gate: Proxy, place: str, secrets: list[bytes]) -> list[bytes]:
    """The same as streams of one connection."""
    settings = h2.config.H2Configuration(client_side=True, header_encoding=None)
    speaker = h2.connection.H2Connection(settings)
    speaker.initiate_connection()
    said: dict[int, bytes] = {}
    with tunnel(gate, HOST, "h2") as stream:
        for number, secret in enumerate(secrets):
            path, lines, body, trailers = parts(place, secret)
            at = 2 * number + 1
            pseudo = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", HOST.encode()), (b":path", path)]
            speaker.send_headers(at, [*pseudo, (b"trailer", b"x-sum"), *lines])
            speaker.send_data(at, body, end_stream=not trailers)
            if trailers:
                speaker.send_headers(at, trailers, end_stream=True)
            stream.sendall(speaker.data_to_send())
            done = False
            while not done:
                for event in speaker.receive_data(stream.recv(65536)):
                    if isinstance(event, h2.events.ResponseReceived):
                        said[at] = b" ".join(b": ".join(line) for line in event.headers)
                    done |= isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)) and event.stream_id == at
            stream.sendall(speaker.data_to_send())
    return [said.get(2 * number + 1, b"") for number in range(len(secrets))]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("version", [http1, http2])
def test_every_format_is_stopped_at_every_place(
    proxy: Proxy, server: Server, version: Any, place: str, encoding: str
) -> None:
    # Over HTTP/1.1 each takes a connection: a third of them there, all of them over HTTP/2.
    some = list(FORMATS.items())[:: 3 if version is http1 else 1]
    said = version(proxy, place, [ENCODINGS[encoding](secret.encode()) for _, secret in some])
    missed = [name for (name, _), each in zip(some, said, strict=True) if b"secret_blocked" not in each]
    assert not missed
    assert not server.exchanges


@pytest.mark.parametrize("kind", ["text", "binary"])
def test_every_format_is_stopped_in_websocket_messages(proxy: Proxy, server: Server, kind: str) -> None:
    async def missed() -> list[str]:
        trusted = ssl.create_default_context(cafile=proxy.ca_file)
        found = []
        for name, secret in FORMATS.items():
            text = f'{{"note": "{secret}"}}'
            async with connect(f"wss://{HOST}/ws", proxy=proxy.url, ssl=trusted) as socket:
                await socket.send(text if kind == "text" else text.encode())
                try:
                    await asyncio.wait_for(socket.recv(), 60)
                    found.append(name)
                except websockets.ConnectionClosed as closed:
                    if "secret_blocked" not in str(closed):
                        found.append(name)
        return found

    assert asyncio.run(missed()) == []
    assert not [each for each in server.messages if not str(each).startswith("closed")]


@pytest.mark.parametrize("chunked", [False, True])
def test_every_format_is_stopped_in_a_body_too_large_to_hold(
    proxy: Proxy, server: Server, tmp_path: Path, chunked: bool
) -> None:
    body = tmp_path / "large.bin"
    missed = []
    for name, secret in list(FORMATS.items())[:: 2 if chunked else 1]:
        body.write_bytes(b"some words\n" * 110_000 + secret.encode() + b"\n" + b"more words\n" * 1000)
        options = ("-H", "Transfer-Encoding: chunked") if chunked else ()
        answer = proxy.curl(f"https://{HOST}/", "--http1.1", *options, "-H", "Expect:", "-T", str(body))
        if b"secret_blocked" not in answer.body:
            missed.append(name)
    assert not missed
    assert not any(each.complete for each in server.exchanges)
