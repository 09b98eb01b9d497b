"""The queue of one bottle. Import path of :class:`QueueStore`."""

from bot_bottle._native import QueueStore

__all__ = ["QueueStore"]
