"""What is an operator asked about one proposal, and what does the answer do?"""

from __future__ import annotations

import sys

from bot_bottle import Inbox, InboxItem, Message, Response, Review
from bot_bottle.cli.interrupt import told
from bot_bottle.cli.screen import answered, interactive, say, say_unapplied
from bot_bottle.errors import BotBottleError, InvalidInputError
from bot_bottle.operator import decisions, seat
from bot_bottle.operator.scopes import PREFIX, begins, needs_reason, offered, words_asked
from bot_bottle.operator.scopes import seconds as duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

# What ends a question without an answer when the terminal is at its end.
QUIT = "q"


def ask(
    inbox: Inbox,
    review: Review,
    show: Callable[[], None],
    *,
    others: str = "",
    notes: str = "",
    grant: str | None = None,
) -> Response | Message | str:
    """Asks until it is decided or asked back about, which is said, or until something else is typed, which is returned.

    ``others`` names what the caller makes of such answers: ``[s]kip [q]uit``. The proposal was just shown; ``show``
    shows it again.
    """
    from bot_bottle.operator import words

    item, at = review.item, words.now()
    try:
        answer = _asked(inbox, review, show, others=others, notes=notes, grant=grant)
        if isinstance(answer, Response):
            say_what_holds(item, answer)
        return answer
    finally:
        note_shown([review], at)


def note_shown(reviews: Iterable[Review], at: str) -> None:
    """Notes that they were printed whole. Last, and not for somebody who wants to leave: another writer may be slow."""
    from bot_bottle.operator.views import View

    if not isinstance(sys.exc_info()[1], KeyboardInterrupt):
        seat.note([View(each.item.proposal.id, each.review_sha256, "cli", at, at) for each in reviews])


def _asked(
    inbox: Inbox, review: Review, show: Callable[[], None], *, others: str, notes: str, grant: str | None
) -> Response | Message | str:
    item = review.item
    wider = len(offered(item.proposal)) > 1 and bool(others)
    choices = f"[y]es {'[g]rant ' if wider else ''}{others or '[n]o'} [r]eject [m]odify [a]sk back [v]iew again:"
    while True:
        say("")
        answer = answered(f"{decisions.question(review, grant)} {choices}", at_end=QUIT)
        if answer in ("y", "yes"):
            if needs_reason(item.proposal.tool) and not notes:
                notes = ask_why_yes()
            return decisions.decide(inbox, review, "approved", surface="cli", notes=notes, grant=grant)
        if answer.split(" ")[0] in ("r", "reject"):
            seconds = duration(answer.partition(" ")[2])
            if " " in answer and not seconds:
                say(f"'{answer}' is not r and a time, such as r 1h; nothing was decided.", "soon")
                continue
            return _rejected(inbox, review, notes, seconds)
        if answer in ("m", "modify"):
            return modified(inbox, review, notes)
        if answer in ("a", "ask"):
            from bot_bottle.cli.question import ask_back

            if message := ask_back(inbox, item):
                return message
        elif answer in ("v", "view"):
            show()
        elif wider and answer in ("g", "grant"):
            grant = _ask_how_far(item)
        else:
            return answer


def ask_why_yes() -> str:
    """The reason for an approval that needs one."""
    return answered("Why may this pass? The reason is recorded, and the agent reads it:", as_typed=True)


def _rejected(inbox: Inbox, review: Review, notes: str, seconds: float | None) -> Response:
    """Rejects it, and the same content for so long."""
    if seconds:
        can_be_remembered("a time after r")
    notes = notes or _ask_why_not()
    response = decisions.decide(inbox, review, "rejected", surface="cli", notes=notes)
    if seconds:
        try:
            remembered(review, seconds, notes)
        except (BotBottleError, OSError) as error:  # it was rejected all the same
            say(f"It is not remembered: {error}", "alarm")
    return response


def can_be_remembered(how: str) -> None:
    """Raises:
    InvalidInputError: the rules cannot be added to, or are another host's; to be known before a decision.
    """
    from bot_bottle.policy import rules

    if seat.elsewhere() is not None:
        raise InvalidInputError(f"{how} writes this host's policy.toml: reject without it, or on the host itself")
    rules.read()


def remembered(review: Review, seconds: float, notes: str, *, told: bool = True) -> None:
    """Adds a rule that rejects the same content from this bottle for so long, and says so."""
    from bot_bottle.policy.remembering import remember

    until = remember(review.item.proposal, seconds, notes)
    if told:
        say(f"The same is rejected until {until:%Y-%m-%d %H:%M:%SZ}, by a rule in policy.toml.")
        say_unapplied("soon")


def _ask_why_not() -> str:
    """The reason for a rejection: typed, or the number of one that was given lately."""
    with seat.audit() as store:
        recent = decisions.recent_reasons(store, "rejected")
    for number, reason in enumerate(recent, 1):
        say(f"  {number}  {reason}", "quiet")
    or_one = " (or the number of one above)" if recent else ""
    reason = answered(f"Why not? The agent reads it{or_one}:", as_typed=True)
    return recent[int(reason) - 1] if reason.isdecimal() and 0 < int(reason) <= len(recent) else reason


def _ask_how_far(item: InboxItem) -> str | None:
    scopes = offered(item.proposal)
    for number, scope in enumerate(scopes, 1):
        say(f"  {number}  {scope.words}")
    chosen = answered("How far shall an approval reach? Its number:")
    if not chosen.isdecimal() or not 0 < int(chosen) <= len(scopes):
        return None
    if scopes[int(chosen) - 1] is PREFIX:
        return begins(answered(f"{words_asked(item.proposal)}:", as_typed=True))
    return scopes[int(chosen) - 1].grant


def modified(inbox: Inbox, review: Review, notes: str) -> Response:
    """Opens the editor and sends what the operator made of the proposed file.

    Raises:
        BotBottleError: it was left unchanged or empty, or cannot be decided any more.
    """
    from bot_bottle.operator.draft import drafted

    item = review.item
    decisions.refuse_early(inbox, item, surface="cli")
    with drafted(item, _kept) as draft:
        final = _edited(item, draft)
        return decisions.decide(inbox, review, "modified", surface="cli", notes=notes, final_file=final)


def _edited(item: InboxItem, draft: Path) -> bytes:
    from bot_bottle.operator.draft import edited

    try:
        return edited(item, draft, editor="vi" if interactive() else "")
    except InvalidInputError as error:
        error.message += ", or give your version with --file"
        raise


def _kept(where: str) -> None:
    print(f"{where[0].upper()}{where[1:]}", file=sys.stderr)


def say_what_holds(item: InboxItem, answer: Response) -> None:
    """Says what a decision has done."""
    for text, tone in decisions.told(item, answer):
        say(text, tone)
    told()
