"""Where does the host read what bottles asked for? In JSON lines on standard output.

Each says who asked for what, how it ended and how long it took; no payload, no token, nothing as the client wrote it. A
reader that stops reading (a paused terminal, a full pipe) does not stop the broker: lines are written by a thread, and
those it could not take are counted in the next one.
"""

from __future__ import annotations

import json
import queue
import threading
from datetime import datetime, timezone
from typing import Any, Final, TextIO

_WAITING_LINES: Final = 10_000


class AccessLog:
    """Writes records as lines to ``stream``; what is ``None`` in one is left out."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(_WAITING_LINES)
        self._lost = 0
        # A daemon, so that a stream nobody reads does not keep the process from ending.
        self._writer = threading.Thread(target=self._write, name="broker-log", daemon=True)
        self._writer.start()

    def write(self, record: dict[str, Any]) -> None:
        """Adds the time and puts the line in the queue; never blocks."""
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        said = {"at": now, **record, "lost_before": self._lost or None}
        line = json.dumps({name: value for name, value in said.items() if value is not None})
        try:
            self._lines.put_nowait(line)
            self._lost = 0
        except queue.Full:
            self._lost += 1

    def close(self, seconds: float) -> None:
        """Writes what is queued, for so long at the most."""
        try:
            self._lines.put(None, timeout=seconds)
        except queue.Full:
            return
        self._writer.join(seconds)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                # At once, not at the next full buffer: who looks wants to see what happens now.
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                return  # the reader is gone; the queue fills up, and lines are lost
