"""What does a network do to a sidecar's connections to the broker? A relay between the two that a test can break."""

from __future__ import annotations

import contextlib
import socket
import threading


class Relay:
    """Passes bytes between its own port and the broker's, until it is told to cut or to lose something."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lose = b""
        self._lock = threading.Lock()
        self.lost = 0
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def lose_answer(self, request: bytes) -> None:
        """The next request with these bytes in it reaches the broker; its answer is lost with the connection."""
        with self._lock:
            self._lose = request

    def cut(self) -> None:
        """Ends every connection at once."""
        with self._lock:
            ended, self._open = self._open, set()
        for end in ended:
            _end(end)

    def close(self) -> None:
        _end(self._listening)
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                try:
                    broker = socket.create_connection(("127.0.0.1", self._to))
                except OSError:  # it is not there; neither is this then
                    client.close()
                    continue
                with self._lock:  # what is counted is what `cut` ends
                    self._open |= {client, broker}
                    self.connections += 1
                losing = threading.Event()
                for source, target, asks in ((client, broker, True), (broker, client, False)):
                    threading.Thread(target=self._pass, args=(source, target, asks, losing), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, asks: bool, losing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if asks:
                    with self._lock:
                        if self._lose and self._lose in data:
                            self._lose = b""
                            losing.set()
                elif losing.is_set():
                    self.lost += 1
                    break
                target.sendall(data)
        for end in (source, target):
            _end(end)
        with self._lock:
            self._open -= {source, target}


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
