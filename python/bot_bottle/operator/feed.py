"""What is pending, and how does it change? The inbox's events, and a list that follows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from bot_bottle.errors import NotFoundError

if TYPE_CHECKING:
    from bot_bottle import Change, Inbox, InboxSummary


def events(
    inbox: Inbox, since: int | None = None, *, bottle_slug: str | None = None, timeout: float | None = None
) -> Iterator[Change]:
    """The changes after ``since``, of one bottle if it is named; waits for them as :meth:`Inbox.watch` does."""
    for change in inbox.watch(since, timeout=timeout):
        if bottle_slug in (None, change.bottle_slug):
            yield change


class Update(NamedTuple):
    """How a list on a screen has to follow a change of the inbox."""

    items: list[InboxSummary]
    """All that is pending now, oldest first."""
    arrived: list[str]
    """The ids that were not in the list before."""
    ended: list[InboxSummary]
    """What was in the list and no longer is, as it stands now: ``words.ended`` says who decided, what and when."""


class PendingList:
    """The pending proposals, by id. A face keeps its focus on an id and asks for an update at each event."""

    def __init__(self, inbox: Inbox, bottle_slug: str | None = None) -> None:
        self._inbox = inbox
        self._bottle_slug = bottle_slug
        self._known: set[str] = set()

    def open(self) -> tuple[int, Update]:
        """The list, and the number of the event after which ``events`` goes on without a gap."""
        # The number is read first: what arrives in between is in the list and is reported again, but never left out.
        at = self._inbox.last_change()
        return at, self.update()

    def update(self) -> Update:
        """Reads what is pending now and compares it with what was."""
        items = self._inbox.pending(self._bottle_slug)
        ids = [item.proposal.id for item in items]
        arrived = [each for each in ids if each not in self._known]
        ended = [item for each in sorted(self._known.difference(ids)) if (item := self._read(each))]
        self._known = set(ids)
        return Update(items, arrived, ended)

    def _read(self, proposal_id: str) -> InboxSummary | None:
        try:
            return self._inbox.summary(proposal_id)
        except NotFoundError:  # pruned in the meantime
            return None
