"""How is a decision refused early, and bound to what was reviewed?

Every decision names the hash of the review that the operator saw, so that nothing else can run or be written elsewhere.
"""

from __future__ import annotations

from bot_bottle.errors import BotBottleError, InvalidInputError, StaleReviewError
from bot_bottle.operator import words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bot_bottle import AuditStore, Inbox, InboxItem, InboxSummary, Proposal, ProposalSummary, Response, Review
    from bot_bottle.operator.words import Said
    from bot_bottle.states import Status, Surface

# Only the newest entries are searched for reasons: few enough to be read in a moment, however large their diffs are.
_LOOKED_BACK = 50
_LONGEST_REASON = 200
_MOST_REASONS = 5


def check_hash(review: Review, reviewed: str | None) -> None:
    """Refuses if ``reviewed``, the (beginning of the) hash of what was looked at, is not the review's.

    Raises:
        StaleReviewError: the hash is another review's.
    """
    actual = review.review_sha256
    if reviewed and not actual.startswith(reviewed):
        known = review.item.proposal.id
        raise StaleReviewError(
            f"nothing was decided: the review of {known} has the hash {actual}, not {reviewed}; "
            f"look again with 'bot-bottle show {known}'",
            proposal_id=known,
            expected=reviewed,
            actual=actual,
        )


def question(review: Review, grant: str | None) -> str:
    """What an approval would do: for which bottle and tool, what it changes and where, and how far it reaches."""
    from bot_bottle.operator.review import change_size

    item = review.item
    proposal = item.proposal
    about = f"{proposal.tool} of {proposal.bottle_slug}"
    if item.managed_file:
        return f"Approve {about}: {item.managed_file} ({change_size(review)}){words.grant(grant)}?"
    return f"Approve {about} (changes nothing on this host){words.grant(grant)}?"


def decide(
    inbox: Inbox,
    review: Review,
    status: Status,
    *,
    surface: Surface,
    notes: str = "",
    final_file: bytes | None = None,
    decided_by: str | None = None,
    grant: str | None = None,
) -> Response:
    """Decides on what ``review`` shows; raises as :meth:`Inbox.decide` does."""
    return inbox.decide(
        review.item.proposal.id,
        status,
        review_sha256=review.review_sha256,
        notes=notes,
        final_file=final_file,
        decided_by=decided_by,
        grant=grant,
        surface=surface,
    )


def group(proposal: Proposal | ProposalSummary) -> str:
    """What those that can be answered together have in common: bottle, tool and kind. Empty without a kind."""
    return f"{proposal.bottle_slug} {proposal.tool} {proposal.kind}" if proposal.kind else ""


def groups(items: Iterable[InboxSummary]) -> list[tuple[ProposalSummary, int]]:
    """The first of each group that has several, and how many."""
    found: dict[str, list[ProposalSummary]] = {}
    for item in items:
        if wanted := group(item.proposal):
            found.setdefault(wanted, []).append(item.proposal)
    return [(alike[0], len(alike)) for alike in found.values() if len(alike) > 1]


def grouped(inbox: Inbox, review: Review) -> list[Review]:
    """``review`` and all others of its group that wait for a decision, oldest first.

    Raises:
        InvalidInputError: it names no kind, so nothing says what the others would be.
    """
    proposal = review.item.proposal
    wanted = group(proposal)
    if not wanted:
        raise InvalidInputError(
            f"{proposal.id} is in no group: {proposal.tool} names no kind here; decide it by itself"
        )
    ids = [item.proposal.id for item in inbox.pending(proposal.bottle_slug) if group(item.proposal) == wanted]
    return [review if each == proposal.id else inbox.review(each) for each in ids]


def approve_each(
    inbox: Inbox, reviews: Iterable[Review], *, surface: Surface, notes: str
) -> Iterator[tuple[Review, Response | BotBottleError]]:
    """Approves each as it was reviewed, when it is asked for: the answer, or why there is none."""
    for review in reviews:
        try:
            answer: Response | BotBottleError = decide(inbox, review, "approved", surface=surface, notes=notes)
        except BotBottleError as error:
            answer = error
        yield review, answer


def refuse_early(inbox: Inbox, item: InboxItem, *, surface: Surface) -> None:
    """Raises what would refuse any modification of ``item``, before somebody spends time on one.

    Only the store knows. It is asked with a hash that no review has, so this cannot decide anything.
    """
    try:
        inbox.decide(
            item.proposal.id,
            "modified",
            review_sha256="0" * 64,
            final_file=item.proposal.proposed_file,
            surface=surface,
        )
    except StaleReviewError:
        return


def recent_reasons(store: AuditStore, action: str) -> list[str]:
    """The latest reasons that operators gave for ``action``, newest first: those that fit in a line, each once."""
    notes = (
        entry.operator_notes.strip()
        for entry in reversed(store.read_audit_entries(limit=_LOOKED_BACK))
        if entry.operator_action == action and entry.proposal_id
    )
    lines = dict.fromkeys(each for each in notes if 0 < len(each) <= _LONGEST_REASON and each.isprintable())
    return list(lines)[:_MOST_REASONS]


def told(item: InboxItem, answer: Response) -> list[Said]:
    """What to tell an operator who has just decided: what is now in effect, and whether anybody waited for it."""
    effect = f"; {item.managed_file} is in effect" if answer.applied_at else ""
    lines: list[Said] = [
        (f"{answer.status} {item.proposal.id} ({item.proposal.tool} of {item.proposal.bottle_slug}){effect}", "plain")
    ]
    if not item.waiting:
        lines.append(("Nobody is waiting for it right now; the agent learns of it when it asks again.", "quiet"))
    return lines
