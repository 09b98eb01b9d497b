"""What does a server behind the egress proxy carry out, byte for byte, and what reaches an agent of an answer's bytes?

An HTTP/1.1 server over TLS that frames requests as RFC 9112 says and keeps each of them, and answers with the bytes a
test gives it, however wrong. :func:`tunnel` is an agent's connection through the proxy.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import trustme

from accepting import accept
from egress_proxy import Proxy

HOSTS = tuple(f"{name}.example.test" for name in ("raw", "plain", "rules", "over", "header", "basic", "query", "own"))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Carried:
    """A request as this server understood it."""

    start: bytes
    lines: list[tuple[str, bytes]]
    body: bytes
    trailers: list[tuple[str, bytes]]

    def header(self, name: str) -> list[bytes]:
        return [value for key, value in self.lines if key == name]


class RawServer:
    """Answers with ``answer``, bytes or what makes them of a request; ``after`` takes the connection over then."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        self.ca_file = directory / "raw-ca.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*HOSTS).configure_cert(self._context)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.requests: list[Carried] = []
        self.answer: bytes = OK
        self.after: Callable[[socket.socket], None] | None = None
        accept(self._listener, self._serve)

    def clear(self) -> None:
        self.requests.clear()
        self.answer, self.after = OK, None

    def close(self) -> None:
        self._listener.close()

    def connect_to(self) -> str:
        port = self._listener.getsockname()[1]
        return ",".join(f"{host}:443=127.0.0.1:{port}" for host in HOSTS)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with self._context.wrap_socket(connection, server_side=True) as stream, stream.makefile("rb") as file:
                while start := file.readline():
                    lines = self._fields(file)
                    body, trailers = b"", []
                    lengths = [value for name, value in lines if name == "content-length"]
                    if any(name == "transfer-encoding" for name, _ in lines):
                        while size := int(file.readline(), 16):
                            body += file.read(size)
                            file.readline()
                        trailers = self._fields(file)
                    elif lengths:
                        body = file.read(int(lengths[0]))
                    self.requests.append(Carried(start.rstrip(b"\r\n"), lines, body, trailers))
                    stream.sendall(self.answer)
                    if self.after:
                        return self.after(stream)
                    if b"Connection: close" in self.answer:
                        return None
        except (OSError, ValueError):
            pass
        return None

    def _fields(self, file: BinaryIO) -> list[tuple[str, bytes]]:
        found = []
        while (line := file.readline()) not in (b"\r\n", b""):
            name, _, value = line.rstrip(b"\r\n").partition(b":")
            found.append((name.decode("latin1").lower(), value.strip()))
        return found


def tunnel(proxy: Proxy, host: str, alpn: str = "http/1.1") -> ssl.SSLSocket:
    """An agent's TLS connection to a host, through the proxy."""
    plain = socket.create_connection(("127.0.0.1", proxy.port), 20)
    plain.sendall(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
    reply = b""
    while b"\r\n\r\n" not in reply:
        reply += plain.recv(1)
    assert b" 200 " in reply.splitlines()[0], reply
    context = ssl.create_default_context(cafile=proxy.ca_file)
    context.set_alpn_protocols([alpn])
    return context.wrap_socket(plain, server_hostname=host)


def until_end(stream: socket.socket) -> bytes:
    """All that comes before the other side closes."""
    found = b""
    try:
        while piece := stream.recv(65536):
            found += piece
    except (ConnectionError, ssl.SSLError):
        pass
    return found


def exchange(proxy: Proxy, host: str, sent: bytes) -> bytes:
    """What comes back for these bytes; they ask for the connection's end, or are bad enough to be it."""
    with tunnel(proxy, host) as stream:
        stream.sendall(sent)
        return until_end(stream)
