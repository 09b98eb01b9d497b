"""What is pending, what was decided, and what does one proposal say?"""

from __future__ import annotations

from bot_bottle import QueueStore
from bot_bottle.cli.declare import Whole, command, option
from bot_bottle.cli.options import any_id, bottle_option, json_option
from bot_bottle.cli.screen import print_json, print_table, say, say_bypasses
from bot_bottle.errors import InvalidInputError
from bot_bottle.operator import decisions, seat, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bot_bottle.cli.screen import Cell


@command()
@bottle_option
@json_option
def pending(bottle: str | None, as_json: bool) -> None:
    """List what waits for your decision, oldest first.

    \b
      bot-bottle pending
      bot-bottle pending --bottle dev --json    # for a script
    """
    with seat.inbox() as inbox:
        items = inbox.pending(bottle)
        failed = inbox.failed()
    if as_json:
        print_json([item.to_dict() for item in items])
        return
    say_bypasses()
    if not items:
        say(f"No proposal of bottle {bottle} is pending." if bottle else "No proposal is pending.")
    else:
        ids = words.short_ids(item.proposal.id for item in items)
        print_table(
            ["ID", "Bottle", "Tool", "Age", "Requester", "Expires", "Justification"],
            [
                (
                    (ids[item.proposal.id], "strong"),
                    item.proposal.bottle_slug,
                    item.proposal.tool,
                    words.age(item.proposal.arrival_timestamp),
                    words.damaged(item) or words.standing(item),
                    words.expiry(item),
                    words.first_line(item.proposal.justification),
                )
                for item in items
            ],
            text_last=True,
        )
        if any(words.cut(item.proposal.justification) for item in items):
            say("[+N characters] is left out here: bot-bottle show ID has all of it.", "quiet")
    for first, count in decisions.groups(items):
        say(
            f"{count} of {first.bottle_slug} are of one kind, {first.kind}: "
            f"bot-bottle approve {first.id} --group asks about them together.",
            "quiet",
        )
    for item in items:
        if item.damaged:
            say(f"{item.proposal.id} cannot be decided: {item.damaged}", "alarm")
    for item in failed:
        if bottle in (None, item.proposal.bottle_slug):
            say(
                f"{item.proposal.id} is {item.state}, but {item.managed_file or 'its file'} is not in effect: "
                f"{item.apply_error or 'not written yet'}.",
                "alarm",
            )
            say(f"Once you have seen to it: bot-bottle archive {item.proposal.id}", "quiet")


@command()
@any_id
@json_option
def show(proposal_id: str, as_json: bool) -> None:
    """Print all of a proposal: who asks, why, what would change.

    \b
      bot-bottle show 0199d2c4-1a2b           # as pending prints the id
      bot-bottle show 0199d2c4-1a2b --json    # with review_sha256, for --hash
    """
    with seat.inbox() as inbox:
        review = inbox.review(proposal_id)
    if as_json:
        print_json(review.to_dict())
        return
    from bot_bottle.cli.review import print_review
    from bot_bottle.operator import views

    print_review(review)
    at = words.now()
    seat.note([views.View(review.item.proposal.id, review.review_sha256, "cli", at, at)])


@command(writes=True)
@any_id
@json_option
def archive(proposal_id: str, as_json: bool) -> None:
    """Put away what is decided or over; history keeps it.

    \b
      bot-bottle archive 0199d2c4-7e01    # pending shows it no longer
    """
    with seat.inbox() as inbox:
        item = inbox.summary(proposal_id)
    known = item.proposal.id
    if item.state == "pending":
        raise InvalidInputError(f"proposal {known} is pending: decide it, or leave it to its requester to withdraw")
    if (host := seat.elsewhere()) is not None:
        host.archive(known)
    else:
        with QueueStore(item.queue_key) as queue:
            queue.archive_proposal(known)
    if as_json:
        print_json({"proposal_id": known, "status": "archived", "notes": "", "final_file": None})
    else:
        say(f"archived {known}")


@command()
@bottle_option
@option("--limit", type=Whole(1), default=50, help="At most so many.")
@option("--before", metavar="ID", help="Only what arrived before this proposal.")
@json_option
def history(bottle: str | None, limit: int, before: str | None, as_json: bool) -> None:
    """List proposals in any state, newest first.

    \b
      bot-bottle history --bottle dev --limit 20
      bot-bottle history --before 0199d2c4-7e01    # the page after that one
    """
    with seat.inbox() as inbox:
        before = inbox.summary(before).proposal.id if before else None
        items = inbox.history(bottle_slug=bottle, limit=limit + 1, before=before)
    more, items = len(items) > limit, items[:limit]
    if as_json:
        print_json([item.to_dict() for item in items])
        return
    if not items:
        say("There are no proposals.")
        return
    ids = words.short_ids(item.proposal.id for item in items)
    rows: list[tuple[Cell, ...]] = []
    for item in items:
        answer = item.response
        notes = answer.notes if answer else item.withdrawn_reason or ""
        rows.append(
            (
                ids[item.proposal.id],
                item.proposal.bottle_slug,
                item.proposal.tool,
                words.age(item.proposal.arrival_timestamp),
                words.damaged(item) or words.state(item.state),
                (answer.decided_by or "") if answer else "",
                words.first_line(notes),
            )
        )
    print_table(["ID", "Bottle", "Tool", "Age", "State", "By", "Notes"], rows, text_last=True)
    if more:
        say(f"There are older ones: bot-bottle history --before {items[-1].proposal.id}", "quiet")
