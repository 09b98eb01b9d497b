"""How does an operator go through what is pending line by line, without a full-screen program?"""

from __future__ import annotations

from collections import Counter

from bot_bottle import Inbox, InboxSummary, Message, Response, Review
from bot_bottle.cli.asking import QUIT, ask
from bot_bottle.cli.declare import command
from bot_bottle.cli.interrupt import told, undone_or_told
from bot_bottle.cli.options import bottle_option
from bot_bottle.cli.review import print_review
from bot_bottle.cli.screen import answered, interactive, print_in_pages, say, say_bypasses
from bot_bottle.errors import BotBottleError, InvalidInputError, NotFoundError
from bot_bottle.operator import seat, words


@command()
@bottle_option
def review(bottle: str | None) -> None:
    """Go through what waits, oldest first, and answer each.

    Each proposal is shown as 'bot-bottle show' does, then the question: approve, with a grant, reject, modify, ask
    back, skip or quit. What arrives meanwhile comes at the end. It needs a terminal, and no more than that.

    \b
      bot-bottle review                 # all bottles
      bot-bottle review --bottle dev    # one of them
    """
    if not interactive():
        raise InvalidInputError("review needs a terminal; 'bot-bottle pending' prints what waits")
    with undone_or_told(), seat.inbox() as inbox:
        _walk(inbox, bottle, pages=True)


def in_plain_lines(bottle: str | None) -> None:
    """``bot-bottle supervise --plain``: a numbered list and prompts, without anything that a screen reader misses."""
    with undone_or_told(), seat.inbox() as inbox:
        known: set[str] = set()
        while True:
            items = inbox.pending(bottle)
            ids = [item.proposal.id for item in items]
            new = len(set(ids) - known)
            since = f", {new} of them new" if known and new else ""
            known.update(ids)
            say_bypasses()
            say(f"{len(items)} waiting{since}." if items else "Nothing is waiting.", "strong")
            for number, item in enumerate(items, 1):
                say(f"{number}. {_summary(item)}")
            answer = answered("A number opens it, a goes through all, Enter lists again, q quits:", at_end=QUIT)
            if answer in (QUIT, "quit"):
                return
            if answer in ("a", "all"):
                _walk(inbox, bottle, pages=False)
            elif answer.isdecimal() and 0 < int(answer) <= len(ids):
                _answer(inbox, ids[int(answer) - 1], pages=False, others="[b]ack")


def _summary(item: InboxSummary) -> str:
    proposal = item.proposal
    lapse = f", expires {words.expiry(item)[0]}" if proposal.expires_at else ""
    state = words.damaged(item) or words.standing(item)
    about = f"{proposal.tool} of {proposal.bottle_slug}, {words.age(proposal.arrival_timestamp)} old, {state[0]}{lapse}"
    return f"{about}: {words.first_line(proposal.justification) or 'no reason given'}"


def _walk(inbox: Inbox, bottle: str | None, *, pages: bool) -> None:
    say_bypasses()
    seen: set[str] = set()
    done: Counter[str] = Counter()
    while todo := [item.proposal.id for item in inbox.pending(bottle) if item.proposal.id not in seen]:
        for number, proposal_id in enumerate(todo, 1):
            seen.add(proposal_id)
            say(f"-- {number} of {len(todo)} --", "strong")
            outcome = _answer(inbox, proposal_id, pages=pages, others="[s]kip [q]uit")
            if outcome == QUIT:
                _tell_done(done, "Left")
                return
            done[outcome] += 1
    _tell_done(done, "Nothing more waits" if seen else "Nothing is waiting")


def _tell_done(done: Counter[str], how: str) -> None:
    counts = ", ".join(f"{count} {what}" for what, count in done.items())
    say(f"{how}{f': {counts}' if counts else ''}.", "strong")


def _answer(inbox: Inbox, proposal_id: str, *, pages: bool, others: str) -> str:
    """Shows one and asks until it is decided, skipped or over; returns what became of it, or ``QUIT``."""
    shown = None
    while True:
        try:
            found = inbox.review(proposal_id)
        except NotFoundError as error:
            say(str(error), "alarm")
            return "gone"
        item = found.item
        if item.state != "pending":
            say(words.ended(item), "soon")
            return "decided elsewhere" if item.response else item.state

        def show(found: Review = found) -> None:
            if pages:
                print_in_pages(lambda: print_review(found))
            else:
                print_review(found)

        if shown != (found.review_sha256, found.current_sha256):
            shown = (found.review_sha256, found.current_sha256)
            show()
        if item.damaged:
            say("It cannot be decided, and is left as it is.", "alarm")
            return "damaged"
        try:
            answer = ask(inbox, found, show, others=others)
        except BotBottleError as error:
            say(str(error), "alarm")
            told()
            continue
        if isinstance(answer, Response):
            return answer.status
        if isinstance(answer, Message):
            return "asked"
        if answer in ("s", "skip", "b", "back"):
            return "skipped"
        if answer in (QUIT, "quit"):
            return QUIT
        say(f"'{answer}' is not one of the letters in brackets; nothing was decided.", "soon")
