"""Where does the host read what bottles asked for? In JSON lines on standard output.

Each line says who asked for what, how it ended and how long it took. It contains no payload, no token and nothing that
a client wrote. A reader that stops reading (a paused terminal, a full pipe) does not stop the broker: a thread writes
the lines, and the next line counts those that were lost.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from datetime import datetime, timezone
from typing import Any, Final, TextIO

_WAITING_LINES: Final = 10_000
_GATHER_SECONDS: Final = 0.05


class AccessLog:
    """Writes records as lines to ``stream``; what is ``None`` in one is left out."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: deque[str] = deque()
        self._lost = 0
        self._news = threading.Event()
        self._ended = threading.Event()
        # A daemon, so that a stream nobody reads does not keep the process from ending.
        self._writer = threading.Thread(target=self._write, name="broker-log", daemon=True)
        self._writer.start()

    def write(self, record: dict[str, Any]) -> None:
        """Adds the time and leaves the line to the thread; never blocks."""
        if len(self._lines) >= _WAITING_LINES:
            self._lost += 1
            return
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        said = {"at": now, **record, "lost_before": self._lost or None}
        self._lost = 0
        self._lines.append(json.dumps({name: value for name, value in said.items() if value is not None}) + "\n")
        self._news.set()

    def close(self, seconds: float) -> bool:
        """Writes what is left, for so long at the most; whether all of it was taken."""
        self._ended.set()
        self._news.set()
        self._writer.join(seconds)
        return not self._writer.is_alive()

    def _write(self) -> None:
        while not self._ended.is_set() or self._lines:
            self._news.wait()
            self._news.clear()
            # Lines of the next moment go together: a thread that wakes for each would cost more than the requests.
            self._ended.wait(_GATHER_SECONDS)
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            try:
                self._stream.write("".join(lines))
                self._stream.flush()
            except (OSError, ValueError):
                return  # the reader is gone, so further lines are lost
