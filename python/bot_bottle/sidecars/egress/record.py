"""What does the egress proxy put on record, and how does it keep an agent from flooding that record?

Two places: the audit log for what an operator must be able to look up, and standard error for what somebody wants to
see who wonders why a request failed. Both get host names and fingerprints at most, cleaned by the caller of secrets.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Final, Protocol

from bot_bottle import AuditEntry, BotBottleError, visible

COMPONENT: Final = "egress"
_SAME_AGAIN: Final = 60.0  # seconds for which the same line is not written a second time
_PER_MINUTE: Final = 120  # lines; an agent could go on for ever with one made-up token after the other

log = logging.getLogger("bot_bottle.egress")


class Audit(Protocol):
    """What is used of :class:`bot_bottle.AuditStore`."""

    def write_audit_entry(self, entry: AuditEntry) -> object: ...


class Record:
    """Both places, for one bottle."""

    def __init__(self, slug: str, audit: Audit) -> None:
        self._slug = slug
        self._audit = audit
        self._said: dict[str, float] = {}
        self._minute, self._count = 0.0, 0
        self._writer = ThreadPoolExecutor(1, "audit")  # one, so that entries keep their order

    def say(self, sentence: str) -> None:
        """To standard error."""
        if self._is_news(sentence):
            log.info("%s", visible(sentence, multiline=False))

    def audit(self, action: str, sentence: str, *, always: bool = False) -> None:
        """To the audit log, without waiting for it, and to standard error; ``always`` for what no agent can cause."""
        if always or self._is_news(action + sentence):
            log.warning("%s: %s", action, visible(sentence, multiline=False))
            self._writer.submit(self._write, action, sentence)

    def close(self) -> None:
        """Waits for what is being written."""
        self._writer.shutdown()

    def _write(self, action: str, sentence: str) -> None:
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        try:
            self._audit.write_audit_entry(
                AuditEntry(now, self._slug, COMPONENT, action, sentence, decided_by=COMPONENT, surface="policy")
            )
        except BotBottleError as error:
            log.error("not in the audit log (%s): %s", error, action)

    def _is_news(self, line: str) -> bool:
        now = time.monotonic()
        if now - self._minute > 60:
            if self._count > _PER_MINUTE:
                log.warning("%d more lines were left out in the last minute", self._count - _PER_MINUTE)
            self._minute, self._count = now, 0
            self._said = {said: at for said, at in self._said.items() if now - at < _SAME_AGAIN}
        if now - self._said.get(line, -_SAME_AGAIN) < _SAME_AGAIN:
            return False
        self._count += 1
        if self._count > _PER_MINUTE:
            return False
        self._said[line] = now
        return True
