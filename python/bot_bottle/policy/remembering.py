"""How is a rejection remembered, so that the same is not asked again for a while? As a rule with an end."""

from __future__ import annotations

import fcntl
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle import bot_bottle_root
from bot_bottle.documents import toml
from bot_bottle.launch import managed
from bot_bottle.policy import rules

if TYPE_CHECKING:
    from bot_bottle import Proposal

_REASON = "the operator has just rejected the same"
_MOST_REASON = 500


def remember(proposal: Proposal, seconds: float, reason: str = "") -> datetime:
    """Adds a rule that rejects the same content from the same bottle; returns until when.

    Raises:
        InvalidInputError: the file with the rules cannot be understood as it is.
        OSError: it cannot be written.
    """
    until = (datetime.now(timezone.utc) + timedelta(seconds=seconds)).replace(microsecond=0)
    fields = {
        "name": f"rejected {proposal.id}",
        "verdict": "reject",
        "bottle": proposal.bottle_slug,
        "tool": proposal.tool,
        "sha256": proposal.payload_sha256,
        "reason": reason.strip()[:_MOST_REASON] or _REASON,
    }
    text = "".join(f"{name} = {toml.quoted(value)}\n" for name, value in fields.items())
    os.makedirs(bot_bottle_root(), mode=0o700, exist_ok=True)
    # A file of its own: the one with the rules is replaced, and a lock on it would go with the old one.
    with open(os.path.join(bot_bottle_root(), "policy.toml.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = rules.read().text
        gap = "\n" if known else ""
        added = f"{known.rstrip()}\n{gap}[[rule]]\n{text}until = {until.isoformat().replace('+00:00', 'Z')}\n".lstrip()
        rules.parse(added)
        managed.write(Path(rules.path()), added.encode())
    return until
