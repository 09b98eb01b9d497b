"""How does code that imports ``bot_bottle.supervise`` keep working? This module has the names that such code imports.

The nine functions take the queue key first, as they always did, and work on the host's database
(:func:`host_db_path`). A sidecar sees the database elsewhere and uses ``QueueStore(queue_key, db_path=…)``.
"""

from __future__ import annotations

from functools import lru_cache

from bot_bottle._native import (
    DB_PATH_IN_CONTAINER,
    STATUS_APPROVED,
    STATUS_MODIFIED,
    STATUS_REJECTED,
    TOOL_CAPABILITY_BLOCK,
    TOOL_EGRESS_ALLOW,
    TOOL_EGRESS_BLOCK,
    TOOL_EGRESS_TOKEN_ALLOW,
    TOOL_GITLEAKS_ALLOW,
    AuditEntry,
    AuditStore,
    Proposal,
    QueueStore,
    Response,
    bot_bottle_root,
    host_db_path,
    render_diff,
    sha256_hex,
)
from bot_bottle.launch.launch import Supervise
from bot_bottle.launch.plan import Plan

__all__ = [
    "DB_PATH_IN_CONTAINER",
    "STATUS_APPROVED",
    "STATUS_MODIFIED",
    "STATUS_REJECTED",
    "TOOL_CAPABILITY_BLOCK",
    "TOOL_EGRESS_ALLOW",
    "TOOL_EGRESS_BLOCK",
    "TOOL_EGRESS_TOKEN_ALLOW",
    "TOOL_GITLEAKS_ALLOW",
    "AuditEntry",
    "Plan",
    "Proposal",
    "Response",
    "Supervise",
    "archive_proposal",
    "bot_bottle_root",
    "host_db_path",
    "list_pending_proposals",
    "read_audit_entries",
    "read_proposal",
    "read_response",
    "render_diff",
    "sha256_hex",
    "wait_for_response",
    "write_audit_entry",
    "write_proposal",
    "write_response",
]


@lru_cache(maxsize=64)
def _store_at(queue_key: str, db_path: str) -> QueueStore:
    return QueueStore(queue_key, db_path)


def _queue(queue_key: str) -> QueueStore:
    # By path: BOT_BOTTLE_ROOT may move it between two calls.
    return _store_at(queue_key, host_db_path())


def write_proposal(queue_key: str, proposal: Proposal) -> Proposal:
    """:meth:`QueueStore.write_proposal` on the host's database."""
    return _queue(queue_key).write_proposal(proposal)


def read_proposal(queue_key: str, proposal_id: str) -> Proposal | None:
    """:meth:`QueueStore.read_proposal` on the host's database."""
    return _queue(queue_key).read_proposal(proposal_id)


def list_pending_proposals(queue_key: str) -> list[Proposal]:
    """:meth:`QueueStore.list_pending_proposals` on the host's database."""
    return _queue(queue_key).list_pending_proposals()


def write_response(queue_key: str, response: Response) -> Response:
    """:meth:`QueueStore.write_response` on the host's database."""
    return _queue(queue_key).write_response(response)


def read_response(queue_key: str, proposal_id: str) -> Response | None:
    """:meth:`QueueStore.read_response` on the host's database."""
    return _queue(queue_key).read_response(proposal_id)


def wait_for_response(queue_key: str, proposal_id: str, *, timeout: float | None = None) -> Response:
    """:meth:`QueueStore.wait_for_response` on the host's database."""
    return _queue(queue_key).wait_for_response(proposal_id, timeout)


def archive_proposal(queue_key: str, proposal_id: str) -> None:
    """:meth:`QueueStore.archive_proposal` on the host's database."""
    _queue(queue_key).archive_proposal(proposal_id)


def write_audit_entry(entry: AuditEntry) -> AuditEntry:
    """:meth:`AuditStore.write_audit_entry` on the host's database."""
    return AuditStore().write_audit_entry(entry)


def read_audit_entries(component: str | None = None, slug: str | None = None) -> list[AuditEntry]:
    """:meth:`AuditStore.read_audit_entries` on the host's database."""
    return AuditStore().read_audit_entries(component, slug)
