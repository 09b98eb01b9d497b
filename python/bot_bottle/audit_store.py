"""The append-only audit log. Import path of :class:`AuditStore`."""

from bot_bottle._native import AuditStore

__all__ = ["AuditStore"]
