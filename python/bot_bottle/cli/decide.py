"""How does an operator answer a proposal?

Every decision names the hash of the payload that was looked at, so that nothing else can run.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from bot_bottle import Inbox, InboxItem, Response
from bot_bottle.cli.options import hash_option, json_option, notes_option, pending_id, scope, yes_option
from bot_bottle.cli.screen import confirmed, interactive, print_json, say
from bot_bottle.errors import BotBottleError, InvalidInputError, NotFoundError, StaleReviewError


@click.command()
@pending_id
@notes_option
@click.option(
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
        _check_hash(item, reviewed)
        if item.state == "pending" and not (yes or reviewed or as_json) and interactive():
            from bot_bottle.cli.review import print_review

            print_review(item)
            say("")
            if not confirmed("Approve this?"):
                raise BotBottleError("nothing was decided: the answer was not yes")
        answer = inbox.decide(
            item.proposal.id,
            "approved",
            payload_sha256=item.proposal.payload_sha256,
            notes=notes,
            grant=grant,
            surface="cli",
        )
    _print_answer(item, answer, as_json)


@click.command()
@pending_id
@notes_option
@hash_option
@json_option
def reject(proposal_id: str, notes: str, reviewed: str | None, as_json: bool) -> None:
    """Refuse it; the notes tell the agent why."""
    with Inbox() as inbox:
        item = inbox.read(proposal_id)
        _check_hash(item, reviewed)
        answer = inbox.decide(
            item.proposal.id,
            "rejected",
            payload_sha256=item.proposal.payload_sha256,
            notes=notes,
            surface="cli",
        )
    _print_answer(item, answer, as_json)


@click.command()
@pending_id
@click.option("--file", "source", metavar="FILE", help="What shall run instead; - is standard input.")
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
        _check_hash(item, reviewed)

        def decide(final: bytes) -> Response:
            return inbox.decide(
                item.proposal.id,
                "modified",
                payload_sha256=item.proposal.payload_sha256,
                final_file=final,
                notes=notes,
                surface="cli",
            )

        if source is not None:
            answer = decide(_read(source))
        else:
            _refuse_early(inbox, item)
            with _draft(item) as draft:
                answer = decide(_edit(item, draft))
    _print_answer(item, answer, as_json)


def _check_hash(item: InboxItem, reviewed: str | None) -> None:
    """Refuses if ``reviewed``, the hash of what the caller has looked at, is not the payload's.

    Raises:
        StaleReviewError: it is another one's.
    """
    actual = item.proposal.payload_sha256
    if reviewed and not actual.startswith(reviewed):
        raise StaleReviewError(
            f"nothing was decided: the payload of {item.proposal.id} has the hash {actual}, not {reviewed}; "
            f"look again with 'bot-bottle show {item.proposal.id}'",
            proposal_id=item.proposal.id,
            expected=reviewed,
            actual=actual,
        )


def _read(source: str) -> bytes:
    """The content of the operator's file, or of standard input for ``-``.

    Raises:
        NotFoundError: there is no such file.
        OSError: it cannot be read.
    """
    try:
        return sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {source}") from error


def _refuse_early(inbox: Inbox, item: InboxItem) -> None:
    """Raises what would refuse any modification of ``item``, before somebody spends time on one.

    It is the store that knows, so it is asked, with a hash that no payload has: this cannot decide.
    """
    with contextlib.suppress(StaleReviewError):
        inbox.decide(
            item.proposal.id,
            "modified",
            payload_sha256="0" * 64,
            final_file=item.proposal.proposed_file,
            surface="cli",
        )


@contextlib.contextmanager
def _draft(item: InboxItem) -> Iterator[Path]:
    """A file with the proposed text, for an editor. It is gone afterwards, unless what it was for failed
    and there is an operator's work in it: then the error says where it is."""
    proposed = item.proposal.proposed_file.encode()
    # A directory of our own (0700), so that the file can have the name by which editors know its kind.
    name = os.path.basename(item.managed_file) if item.managed_file else "proposal.txt"
    draft = Path(tempfile.mkdtemp(prefix="bot-bottle-"), name)
    draft.write_bytes(proposed)
    try:
        yield draft
    except BaseException as error:
        if draft.exists() and not _without_result(draft.read_bytes(), proposed):
            if isinstance(error, BotBottleError):
                error.message += f"; your version is kept in {draft}"
            else:
                print(f"Your version is kept in {draft}", file=sys.stderr)
            raise
        _discard(draft)
        raise
    _discard(draft)


def _discard(draft: Path) -> None:
    # Editors leave backups and swap files beside it.
    shutil.rmtree(draft.parent, ignore_errors=True)


def _without_result(final: bytes, proposed: bytes) -> bool:
    # Editors end the last line of a file that did not.
    return not final.strip() or final in (proposed, proposed + b"\n")


def _edit(item: InboxItem, draft: Path) -> bytes:
    """Opens ``draft`` in the operator's editor; returns what they made of it.

    Raises:
        BotBottleError: unchanged, empty, or the editor failed.
        InvalidInputError: there is no editor to start.
    """
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ("vi" if interactive() else "")
    if not editor:
        raise InvalidInputError("there is no editor: set $VISUAL or $EDITOR, or give your version with --file")
    try:
        code = subprocess.run([*shlex.split(editor), str(draft)], check=False).returncode
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"the editor '{editor}' cannot be started ({error}): "
            "set $VISUAL or $EDITOR, or give your version with --file"
        ) from error
    if code != 0:
        raise BotBottleError(f"nothing was decided: the editor '{editor}' ended with exit code {code}")
    final = draft.read_bytes()
    if _without_result(final, item.proposal.proposed_file.encode()):
        raise BotBottleError(
            "nothing was decided: the file is empty or unchanged; "
            f"to let it run as it is: bot-bottle approve {item.proposal.id}"
        )
    return final


def _print_answer(item: InboxItem, answer: Response, as_json: bool) -> None:
    if as_json:
        print_json(answer.to_dict())
        return
    effect = f"; {item.managed_file} is in effect" if answer.applied_at else ""
    say(f"{answer.status} {item.proposal.id} ({item.proposal.tool} of {item.proposal.bottle_slug}){effect}")
    if not item.waiting:
        say("Nobody is waiting for it right now; the agent learns of it when it asks again.", "dim")
