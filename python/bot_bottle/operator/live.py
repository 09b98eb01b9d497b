"""What does a list say about each proposal, and what changes in it from moment to moment?

A screen that stays open follows the inbox with this module. It gets rows, which contain no payload, and only those
that changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from bot_bottle import visible
from bot_bottle.errors import NotFoundError
from bot_bottle.operator import decisions, words

if TYPE_CHECKING:
    from bot_bottle import Inbox, InboxItem, InboxSummary
    from bot_bottle.operator.words import Said

# How often a screen that has nothing to do is asked whether it was closed, and how often leases are looked at again.
_TICK = 0.25
_LEASES_EVERY = 5.0
_MOST_CHANGES = 1000


class Row(NamedTuple):
    """One proposal in a list. ``ended`` says who did what and when, once it is no longer pending."""

    id: str
    bottle_slug: str
    tool: str
    arrived: str
    expires_at: str | None
    waiting: bool
    waiting_until: str | None
    requests: int
    size: int
    odd: bool
    state: str
    why: str
    ended: str = ""
    group: str = ""
    """The same for those that can be answered together: of one bottle, one tool and one kind. Empty without a kind."""
    last_word: str | None = None
    """Who wrote the newest message about it: ``operator`` asked, ``requester`` answered."""

    @property
    def pending(self) -> bool:
        """Can it be decided? One whose time ran out a moment ago cannot, whether or not anybody has noticed."""
        return self.state == "pending" and not (self.expires_at and words.seconds_since(self.expires_at) >= 0)

    @property
    def waiter(self) -> Said:
        """Does anybody still wait for the answer, and was it asked about?"""
        return words.standing(self)

    def matches(self, text: str) -> bool:
        """Does one of its words hold ``text``, in whatever case?"""
        wanted = text.casefold()
        return any(wanted in each.casefold() for each in (self.bottle_slug, self.tool, self.id, self.state, self.why))


def row(item: InboxItem | InboxSummary) -> Row:
    """What a list says of ``item``.

    It is odd if its justification could deceive a reader, as ``visible`` spells out. No list reads the payload;
    the review says whether that is odd.
    """
    proposal = item.proposal
    return Row(
        proposal.id,
        proposal.bottle_slug,
        proposal.tool,
        proposal.arrival_timestamp,
        proposal.expires_at,
        item.waiting,
        item.waiting_until,
        item.requests,
        proposal.payload_bytes,
        visible(proposal.justification) != proposal.justification,
        item.state,
        words.first_line(proposal.justification),
        "" if item.state == "pending" else words.ended(item),
        decisions.group(proposal),
        item.last_word,
    )


def follow(
    inbox: Inbox,
    *,
    bottle_slug: str | None = None,
    on_screen: Callable[[], Iterable[str]] = tuple,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[list[Row]]:
    """First every pending proposal, then, as it happens, each that came or changed, in batches; ends once ``stopped``.

    Every few seconds the rows ``on_screen`` are read again, because a requester that goes away changes nothing in the
    file but the end of its lease. A file that was set back to an earlier state is read from the start.
    """
    # The number is read first: what arrives in between is reported again, but never left out.
    at = inbox.last_change()
    known = {item.proposal.id: row(item) for item in inbox.pending(bottle_slug)}
    yield list(known.values())
    looked = time.monotonic()
    while not stopped():
        changes = inbox.changes(at, limit=_MOST_CHANGES)
        wanted = [each.proposal_id for each in changes if bottle_slug in (None, each.bottle_slug)]
        if changes:
            at = changes[-1].seq
        elif inbox.last_change() < at:
            at = inbox.last_change()
            wanted = [*known, *(item.proposal.id for item in inbox.pending(bottle_slug))]
        elif time.monotonic() - looked >= _LEASES_EVERY:
            looked = time.monotonic()
            wanted = [each for each in on_screen() if each in known]
        found = [_read(inbox, each, known.get(each)) for each in dict.fromkeys(wanted)]
        news = [each for each in found if each is not None and known.get(each.id) != each]
        known.update((each.id, each) for each in news)
        for each in news:
            if each.ended:
                del known[each.id]
        if news:
            yield news
        elif not changes:
            for _ in inbox.watch(at, timeout=_TICK):
                break


def _read(inbox: Inbox, proposal_id: str, known: Row | None) -> Row | None:
    try:
        item = inbox.summary(proposal_id)
    except NotFoundError:  # pruned, or the file was set back to before it came
        return known and known._replace(state="gone", ended="it is no longer in the database")
    return row(item)
