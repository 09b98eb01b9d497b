"""Human-in-the-loop approvals for sandboxed agents: proposals, blocking waits and an audit log in one SQLite file.

A sidecar queues a :class:`Proposal` in its bottle's :class:`QueueStore` and waits; an operator decides through the
:class:`Inbox`; every decision is in the :class:`AuditStore`. See ``README.md`` for a first run.
"""

from __future__ import annotations

from bot_bottle._native import (
    DB_PATH_IN_CONTAINER,
    MAX_JUSTIFICATION_BYTES,
    MAX_NOTES_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_PENDING_PER_BOTTLE,
    STATUS_APPROVED,
    STATUS_MODIFIED,
    STATUS_REJECTED,
    TOOL_CAPABILITY_BLOCK,
    TOOL_EGRESS_ALLOW,
    TOOL_EGRESS_BLOCK,
    TOOL_EGRESS_TOKEN_ALLOW,
    TOOL_GITLEAKS_ALLOW,
    AuditEntry,
    AuditReport,
    AuditStore,
    Bottle,
    BottleStore,
    Broker,
    Change,
    Database,
    Grant,
    GrantStore,
    Hunk,
    Inbox,
    InboxItem,
    InboxSummary,
    Keys,
    Odd,
    Part,
    Proposal,
    ProposalSummary,
    QueueStore,
    Response,
    ResponseSummary,
    Review,
    SecretFinding,
    Transaction,
    TrustedKey,
    Wait,
    Watch,
    __version__,
    bot_bottle_root,
    host_db_path,
    new_id,
    render_diff,
    scan,
    sha256_hex,
    visible,
)
from bot_bottle.errors import (
    AccessDeniedError,
    AlreadyDecidedError,
    AuditIntegrityError,
    BotBottleError,
    ClosedError,
    DatabaseBusyError,
    DatabaseCorruptError,
    DatabaseUnavailableError,
    InvalidInputError,
    InvalidProposalError,
    KeyUnusableError,
    ManagedFileError,
    MigrationError,
    NotFoundError,
    ProposalExpiredError,
    ProposalWithdrawnError,
    SchemaTooNewError,
    StaleReviewError,
    UnsafeMountError,
    WaitTimeoutError,
    WriteLostError,
)

# `typing` and `collections` would be half of this import, and take longer than a decision. Type checkers take any
# TYPE_CHECKING for true; what only they need is imported under one here and wherever the command line passes.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bot_bottle.aio import AsyncInbox, AsyncQueueStore
    from bot_bottle.supervise import Plan, Supervise

__all__ = [
    "DB_PATH_IN_CONTAINER",
    "MAX_JUSTIFICATION_BYTES",
    "MAX_NOTES_BYTES",
    "MAX_PAYLOAD_BYTES",
    "MAX_PENDING_PER_BOTTLE",
    "STATUS_APPROVED",
    "STATUS_MODIFIED",
    "STATUS_REJECTED",
    "TOOL_CAPABILITY_BLOCK",
    "TOOL_EGRESS_ALLOW",
    "TOOL_EGRESS_BLOCK",
    "TOOL_EGRESS_TOKEN_ALLOW",
    "TOOL_GITLEAKS_ALLOW",
    "AccessDeniedError",
    "AlreadyDecidedError",
    "AsyncInbox",
    "AsyncQueueStore",
    "AuditEntry",
    "AuditIntegrityError",
    "AuditReport",
    "AuditStore",
    "BotBottleError",
    "Bottle",
    "BottleStore",
    "Broker",
    "Change",
    "ClosedError",
    "Database",
    "DatabaseBusyError",
    "DatabaseCorruptError",
    "DatabaseUnavailableError",
    "Grant",
    "GrantStore",
    "Hunk",
    "Inbox",
    "InboxItem",
    "InboxSummary",
    "InvalidInputError",
    "InvalidProposalError",
    "KeyUnusableError",
    "Keys",
    "ManagedFileError",
    "MigrationError",
    "NotFoundError",
    "Odd",
    "Part",
    "Plan",
    "Proposal",
    "ProposalExpiredError",
    "ProposalSummary",
    "ProposalWithdrawnError",
    "QueueStore",
    "Response",
    "ResponseSummary",
    "Review",
    "SchemaTooNewError",
    "SecretFinding",
    "StaleReviewError",
    "Supervise",
    "Transaction",
    "TrustedKey",
    "UnsafeMountError",
    "Wait",
    "WaitTimeoutError",
    "Watch",
    "WriteLostError",
    "__version__",
    "bot_bottle_root",
    "host_db_path",
    "new_id",
    "render_diff",
    "scan",
    "sha256_hex",
    "visible",
]

# asyncio costs more to import than the rest together: only who uses it pays.
_LAZY = {
    "AsyncInbox": "bot_bottle.aio",
    "AsyncQueueStore": "bot_bottle.aio",
    "Plan": "bot_bottle.supervise",
    "Supervise": "bot_bottle.supervise",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
