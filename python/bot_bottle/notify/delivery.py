"""How are messages sent so that no channel delays another, and where are failures visible?"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from bot_bottle import bot_bottle_root
from bot_bottle.notify.channels import DeliveryError, deliver
from bot_bottle.notify.message import Message
from bot_bottle.notify.settings import Channel
from bot_bottle.operator import words

# After a failure, the message is tried again after these numbers of seconds, and then dropped. The next one is tried.
_PAUSES = (2.0, 10.0, 30.0)
_MOST_QUEUED = 16


def status() -> dict[str, dict[str, Any]]:
    """Per channel what became of its last messages."""
    try:
        with open(_file("notify.json"), "rb") as file:
            return dict(json.load(file))
    except (OSError, ValueError):
        return {}


def _file(name: str) -> str:
    return os.path.join(bot_bottle_root(), name)


class Outbox:
    """A queue and a thread for each channel. A queue that is full loses its oldest message, which is counted."""

    def __init__(self, channels: tuple[Channel, ...], failed: Callable[[str], object]) -> None:
        self._failed = failed
        self._stop = threading.Event()
        self._lock = threading.Lock()
        known = status()
        self._status = {each.name: known.get(each.name, {}) for each in channels}
        self._queues = {each.name: deque[Message](maxlen=_MOST_QUEUED) for each in channels}
        self._bells = {each.name: threading.Event() for each in channels}
        for each in channels:
            threading.Thread(target=self._work, args=(each,), name=f"notify {each.name}", daemon=True).start()

    def send(self, message: Message, channels: Iterable[Channel]) -> None:
        """Hands it to these channels, and returns."""
        for name in (each.name for each in channels):
            queue = self._queues[name]
            if len(queue) == _MOST_QUEUED:
                self._note(name, dropped=int(self._status[name].get("dropped", 0)) + 1)
            queue.append(message)
            self._bells[name].set()

    def close(self) -> None:
        """Ends; what is queued is not sent any more."""
        self._stop.set()
        for bell in self._bells.values():
            bell.set()

    def _work(self, channel: Channel) -> None:
        queue, bell = self._queues[channel.name], self._bells[channel.name]
        while not self._stop.is_set():
            bell.wait()
            bell.clear()
            while queue and not self._stop.is_set():
                self._try(channel, queue.popleft())

    def _try(self, channel: Channel, message: Message) -> None:
        for pause in (*_PAUSES, None):
            try:
                deliver(channel, message)
            except DeliveryError as error:
                failures = int(self._status[channel.name].get("failures", 0)) + 1
                self._note(channel.name, failures=failures, failed_at=words.now(), error=str(error))
                self._failed(f"{channel.name}: {error}")
                if pause is None or self._stop.wait(pause):
                    return
            else:
                self._note(channel.name, failures=0, delivered_at=words.now())
                return

    def _note(self, name: str, **news: Any) -> None:
        with self._lock:
            self._status[name] = {**self._status[name], **news}
            try:
                descriptor, temporary = tempfile.mkstemp(dir=bot_bottle_root())
                with open(descriptor, "w") as file:
                    json.dump(self._status, file)
                os.replace(temporary, _file("notify.json"))
            except OSError as error:
                self._failed(f"{_file('notify.json')} cannot be written: {error.strerror}")
