"""How does an operator ask back from the command line?"""

from __future__ import annotations

import sys

from bot_bottle import Inbox, InboxItem, Message
from bot_bottle.cli.declare import argument, command
from bot_bottle.cli.interrupt import told, undone_or_told
from bot_bottle.cli.options import json_option, pending_id
from bot_bottle.cli.screen import answered, interactive, print_json, say
from bot_bottle.errors import InvalidInputError
from bot_bottle.operator import seat, words


@command()
@pending_id
@argument("text", metavar="[TEXT]", optional=True)
@json_option
def ask(proposal_id: str, text: str | None, as_json: bool) -> None:
    """Ask back, or ask for changes; the proposal stays pending.

    Whoever waits for it hears the question at once, and answers it or puts a revision in its place; 'bot-bottle show'
    has both. Without TEXT your editor opens; - reads it from standard input.

    \b
      bot-bottle ask 0199d2c4-1a2b "Only for GET, please: why POST?"
      bot-bottle ask 0199d2c4-1a2b    # write it in your editor
    """
    with undone_or_told("asked"), seat.inbox() as inbox:
        item = inbox.read(proposal_id)
        if item.state == "pending" and text is None:
            text = _written()
        elif text == "-":
            text = sys.stdin.read()
        # Without a text it cannot be asked about any more, which is what the store says.
        message = inbox.ask(item.proposal.id, "-" if text is None else text.strip(), surface="cli")
        if as_json:
            print_json(message.to_dict())
            told()
        else:
            say_asked(item)


def ask_back(inbox: Inbox, item: InboxItem) -> Message | None:
    """Asks for the question and puts it; ``None`` if nothing is typed."""
    text = answered("What do you want to know, or to have changed? The agent reads it:", as_typed=True)
    if not text:
        say("Nothing was asked.", "quiet")
        return None
    message = inbox.ask(item.proposal.id, text, surface="cli")
    say_asked(item)
    return message


def say_asked(item: InboxItem) -> None:
    """Says what a question has done."""
    say(words.asked(item))
    if not item.waiting:
        say("Nobody is waiting for it right now; the agent learns of it when it asks again.", "quiet")
    told()


def _written() -> str:
    """What the operator writes in the editor.

    Raises:
        BotBottleError: nothing, or the editor failed.
        InvalidInputError: there is no editor to start.
    """
    from bot_bottle.operator.draft import written

    try:
        return written("question.txt", editor="vi" if interactive() else "", undone="nothing was asked")
    except InvalidInputError as error:
        error.message += ", or give the question after the id"
        raise
