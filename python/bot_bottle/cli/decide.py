"""How does an operator answer a proposal from the command line?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from bot_bottle import Inbox, InboxItem, Response
from bot_bottle.cli.declare import command, option
from bot_bottle.cli.options import hash_option, json_option, notes_option, pending_id, scope, yes_option
from bot_bottle.cli.screen import confirmed, interactive, print_json, say
from bot_bottle.errors import BotBottleError, InvalidInputError, NotFoundError
from bot_bottle.operator import decisions

if TYPE_CHECKING:
    from pathlib import Path


@command()
@pending_id
@notes_option
@option(
    "--grant",
    type=scope,
    metavar="SCOPE",
    help="Also allow the same again: once, uses:N, for:2h, until:TIME or bottle (until it stops).",
)
@hash_option
@yes_option
@json_option
def approve(proposal_id: str, notes: str, grant: str | None, reviewed: str | None, yes: bool, as_json: bool) -> None:
    """Let it happen as proposed.

    On a terminal it shows the proposal and asks first, unless --hash says what you have looked at,
    or --yes. What is approved is the payload that was shown: its hash goes with the decision.
    """
    with Inbox() as inbox:
        item = inbox.read(proposal_id)
        decisions.check_hash(item, reviewed)
        if item.state == "pending" and not (yes or reviewed or as_json) and interactive():
            from bot_bottle.cli.review import print_review

            print_review(item)
            say("")
            if not confirmed("Approve this?"):
                raise BotBottleError("nothing was decided: the answer was not yes")
        answer = decisions.decide(inbox, item, "approved", surface="cli", notes=notes, grant=grant)
    _print_answer(item, answer, as_json)


@command()
@pending_id
@notes_option
@hash_option
@json_option
def reject(proposal_id: str, notes: str, reviewed: str | None, as_json: bool) -> None:
    """Refuse it; the notes tell the agent why."""
    with Inbox() as inbox:
        item = inbox.read(proposal_id)
        decisions.check_hash(item, reviewed)
        answer = decisions.decide(inbox, item, "rejected", surface="cli", notes=notes)
    _print_answer(item, answer, as_json)


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
    """
    with Inbox() as inbox:
        item = inbox.read(proposal_id)
        decisions.check_hash(item, reviewed)

        def decide(final: bytes) -> Response:
            return decisions.decide(inbox, item, "modified", surface="cli", notes=notes, final_file=final)

        if source is not None:
            answer = decide(_read(source))
        else:
            decisions.refuse_early(inbox, item, surface="cli")
            with decisions.drafted(item, _kept) as draft:
                answer = decide(_edited(item, draft))
    _print_answer(item, answer, as_json)


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


def _edited(item: InboxItem, draft: Path) -> bytes:
    try:
        return decisions.edited(item, draft, editor="vi" if interactive() else "")
    except InvalidInputError as error:
        error.message += ", or give your version with --file"
        raise


def _kept(where: str) -> None:
    print(f"{where[0].upper()}{where[1:]}", file=sys.stderr)


def _print_answer(item: InboxItem, answer: Response, as_json: bool) -> None:
    if as_json:
        print_json(answer.to_dict())
        return
    for text, tone in decisions.told(item, answer):
        say(text, tone)
