"""How does an operator answer a proposal from the command line?"""

from __future__ import annotations

import sys

from bot_bottle import Inbox, InboxItem, Response, Review
from bot_bottle.cli.asking import ask, ask_why_yes, can_be_remembered, modified, note_shown, remembered, say_what_holds
from bot_bottle.cli.declare import command, option
from bot_bottle.cli.interrupt import told, undone_or_told
from bot_bottle.cli.options import duration, hash_option, json_option, notes_option, pending_id, yes_option
from bot_bottle.cli.screen import answered, interactive, print_in_pages, print_json, say
from bot_bottle.errors import BotBottleError, InvalidInputError, NotFoundError
from bot_bottle.operator import decisions, seat
from bot_bottle.operator.scopes import begins, scope

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


@command()
@pending_id
@notes_option
@option(
    "--grant",
    type=scope,
    metavar="SCOPE",
    help="Also allow the same again: once, uses:N, for:2h, until:TIME or bottle (until it stops); "
    "after kind: all of its kind, which show names.",
)
@option(
    "--prefix",
    metavar="WORDS",
    help="Also allow commands that begin with these words ('git status') and hold no shell operators, "
    "for 1 h or for what --grant says.",
)
@option("--group", is_flag=True, help="Approve all that wait and are of its kind: each is shown, and asked about once.")
@hash_option
@yes_option
@json_option
def approve(
    proposal_id: str,
    notes: str,
    grant: str | None,
    prefix: str | None,
    group: bool,
    reviewed: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Let it happen as proposed.

    It shows the proposal and asks first, which needs a terminal, unless --hash says what you have
    looked at, or --yes. What is approved is what was shown: its hash goes with the decision.

    \b
      bot-bottle approve 0199d2c4-1a2b
      bot-bottle approve 0199d2c4-1a2b --yes --grant for:2h
      bot-bottle approve 0199d2c4-1a2b --hash 9f86d081884c7d65
    """
    if prefix is not None:
        grant = begins(prefix, grant or "for:3600")
    with undone_or_told():
        with seat.inbox() as inbox:
            review = inbox.review(proposal_id)
            decisions.check_hash(review, reviewed)
            if group and review.item.state == "pending":
                _approve_group(inbox, review, notes, grant, reviewed, yes, as_json)
                return
            if review.item.state == "pending" and not (yes or reviewed or as_json):
                _ask(inbox, review, notes, grant)
                return
            answer = decisions.decide(inbox, review, "approved", surface="cli", notes=notes, grant=grant)
        _print_answer(review.item, answer, as_json)


def _approve_group(
    inbox: Inbox, review: Review, notes: str, grant: str | None, reviewed: str | None, yes: bool, as_json: bool
) -> None:
    """Shows all of a group, asks once, and decides on each by itself.

    Raises:
        BotBottleError: the answer was no, or one could not be decided (the others are).
        InvalidInputError: it belongs to no group, or there is no terminal to ask on.
    """
    from bot_bottle.operator import words

    if reviewed or grant:
        raise InvalidInputError(
            "--group decides on each by itself: leave --hash and --grant away; a --grant kind:… covers what waits too"
        )
    reviews = decisions.grouped(inbox, review)
    if yes or as_json:
        _approve_each(inbox, reviews, notes, as_json)
        return
    if not interactive():
        raise InvalidInputError(
            "nothing was decided: without a terminal at both ends nobody can be asked; "
            "look with 'bot-bottle pending', then approve with --group --yes"
        )
    at = words.now()
    try:
        _approve_each(inbox, reviews, _ask_about_all(reviews, notes), as_json)
    finally:
        note_shown(reviews, at)


def _ask_about_all(reviews: Sequence[Review], notes: str) -> str:
    """Shows them and asks; the reason to record.

    Raises:
        BotBottleError: the answer was no.
    """
    from bot_bottle.cli.review import print_review
    from bot_bottle.operator.scopes import needs_reason

    def show() -> None:
        for number, each in enumerate(reviews, 1):
            say(f"{number} of {len(reviews)}", "strong")
            print_review(each)
            say("")

    print_in_pages(show)
    if needs_reason(reviews[0].item.proposal.tool) and not notes:
        notes = ask_why_yes()
    if answered(f"Approve these {len(reviews)}, each of them once? [y]es [n]o:", at_end="n") not in ("y", "yes"):
        raise BotBottleError("nothing was decided: the answer was not yes")
    return notes


def _approve_each(inbox: Inbox, reviews: Sequence[Review], notes: str, as_json: bool) -> None:
    """Approves one after another, and tells of each before the next: Ctrl-C ends it there.

    Raises:
        BotBottleError: one could not be decided (the others are).
    """
    answers: list[Response] = []
    failed: list[BotBottleError] = []
    try:
        for each, answer in decisions.approve_each(inbox, reviews, surface="cli", notes=notes):
            if isinstance(answer, BotBottleError):
                failed.append(answer)
            elif as_json:
                answers.append(answer)
                told()  # the list below has it, in any case
            else:
                say_what_holds(each.item, answer)
    finally:
        if as_json:
            print_json([answer.to_dict() for answer in answers])
    if failed:
        raise failed[0]


def _ask(inbox: Inbox, review: Review, notes: str, grant: str | None) -> None:
    """Shows it, asks, and does what is answered.

    Raises:
        BotBottleError: the answer was no, or there was no answer.
        InvalidInputError: there is no terminal to ask on.
    """
    from bot_bottle.cli.review import print_review
    from bot_bottle.operator.scopes import needs_reason

    proposal = review.item.proposal
    if not interactive():
        raise InvalidInputError(
            "nothing was decided: without a terminal at both ends nobody can be asked; "
            f"look with 'bot-bottle show {proposal.id}', then approve with --hash HEX, or with --yes"
        )

    def show() -> None:
        print_in_pages(lambda: print_review(review))

    show()
    if needs_reason(proposal.tool) and not notes:
        notes = ask_why_yes()
    if isinstance(ask(inbox, review, show, notes=notes, grant=grant), str):
        raise BotBottleError("nothing was decided: the answer was not yes")


@command()
@pending_id
@notes_option
@option(
    "--remember",
    type=duration,
    metavar="TIME",
    help="Also have the same content from this bottle rejected for so long (1h): a rule of 'bot-bottle policy'.",
)
@hash_option
@json_option
def reject(proposal_id: str, notes: str, remember: float | None, reviewed: str | None, as_json: bool) -> None:
    """Refuse it; the notes tell the agent why.

    \b
      bot-bottle reject 0199d2c4-1a2b --notes "use the mirror at pypi.example"
      bot-bottle reject 0199d2c4-1a2b --remember 1h    # and the same again
    """
    if remember is not None:
        can_be_remembered("--remember")
    with undone_or_told():
        with seat.inbox() as inbox:
            review = inbox.review(proposal_id)
            decisions.check_hash(review, reviewed)
            answer = decisions.decide(inbox, review, "rejected", surface="cli", notes=notes)
        _print_answer(review.item, answer, as_json)
    if remember is not None:
        remembered(review, remember, notes, told=not as_json)


@command()
@pending_id
@option("--file", "source", metavar="FILE", help="What shall run instead; - is standard input.")
@notes_option
@hash_option
@json_option
def modify(proposal_id: str, source: str | None, notes: str, reviewed: str | None, as_json: bool) -> None:
    """Let your own version happen instead.

    Without --file the proposed file opens in $VISUAL or $EDITOR. Left unchanged or empty, nothing is
    decided.

    \b
      bot-bottle modify 0199d2c4-1a2b    # in your editor
      bot-bottle modify 0199d2c4-1a2b --file routes.yaml --notes "no wildcard"
    """
    with undone_or_told():
        with seat.inbox() as inbox:
            review = inbox.review(proposal_id)
            decisions.check_hash(review, reviewed)
            if source is not None:
                final = _read(source)
                answer = decisions.decide(inbox, review, "modified", surface="cli", notes=notes, final_file=final)
            else:
                answer = modified(inbox, review, notes)
        _print_answer(review.item, answer, as_json)


def _read(source: str) -> bytes:
    """The content of the operator's file, or of standard input for ``-``.

    Raises:
        NotFoundError: there is no such file.
        OSError: it cannot be read.
    """
    try:
        if source == "-":
            return sys.stdin.buffer.read()
        with open(source, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {source}") from error


def _print_answer(item: InboxItem, answer: Response, as_json: bool) -> None:
    if as_json:
        print_json(answer.to_dict())
        told()
        return
    say_what_holds(item, answer)
