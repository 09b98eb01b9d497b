"""How does a server of a test's own take connections?"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable


def accept(listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    """Returns at once; ``serve`` gets each connection, on a thread of its own, until the listener is closed."""

    def take() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=take, daemon=True).start()
