"""What does an operator have to see before deciding on a proposal?

All of it: nothing here is cut. A tool with a managed file is shown as the change to that file as it
is now, any other as its whole payload.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from bot_bottle import InboxItem, render_diff
from bot_bottle.cli.screen import (
    STATE_STYLES,
    Cell,
    clock,
    expiry,
    print_fields,
    print_quoted,
    say,
    seconds_since,
    span,
    waiter,
)


@dataclass(frozen=True)
class CurrentFile:
    """A managed file as it is now: ``text`` is ``None`` if it is absent, or if ``problem`` says why it
    cannot be shown."""

    text: str | None
    sha256: str | None
    problem: str | None = None


def read_current(path: str) -> CurrentFile:
    """Reads the managed file; never follows a symlink or waits on a pipe, as the decision will not either."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        return CurrentFile(None, None)
    except OSError as error:
        return CurrentFile(None, None, error.strerror or str(error))
    digest = hashlib.sha256(content).hexdigest()
    try:
        return CurrentFile(content.decode(), digest)
    except UnicodeDecodeError as error:
        return CurrentFile(None, digest, f"it is not UTF-8 text (byte {error.start})")


def changed_since(item: InboxItem, current: CurrentFile) -> bool:
    """Has the managed file changed since the proposal was written? Unknown counts as no."""
    return item.base_sha256 is not None and current.problem is None and (current.sha256 or "") != item.base_sha256


def print_review(item: InboxItem) -> None:
    """Prints the whole proposal, and its answer if it has one."""
    proposal = item.proposal
    size = len(proposal.proposed_file.encode())
    age = span(seconds_since(proposal.arrival_timestamp))
    fields: list[tuple[str, Cell]] = [
        ("Proposal", (proposal.id, "bold")),
        ("Bottle", proposal.bottle_slug),
        ("Tool", proposal.tool),
        ("State", (item.state, STATE_STYLES.get(item.state, ""))),
        ("Arrived", f"{clock(proposal.arrival_timestamp)} ({age} ago)"),
    ]
    if item.state == "pending":
        fields += [("Requester", waiter(item)), ("Expires", expiry(item))]
    elif proposal.expires_at:
        fields.append(("Expires", clock(proposal.expires_at)))
    if item.requests > 1:
        fields.append(("Requests", f"{item.requests} identical ones share this row and its answer"))
    if proposal.fingerprint:
        fields.append(("Fingerprint", proposal.fingerprint))
    if item.managed_file:
        fields.append(("File", item.managed_file))
    fields += [("Payload", f"{size:,} bytes"), ("SHA-256", proposal.payload_sha256)]
    print_fields(fields)

    _heading("Justification")
    if proposal.justification:
        print_quoted(proposal.justification)
    else:
        say("none given", "dim")
    if item.state == "pending" and item.managed_file:
        _print_change(item, item.managed_file)
    else:
        _heading("Payload")
        print_quoted(proposal.proposed_file)
    _print_outcome(item)


def _print_change(item: InboxItem, path: str) -> None:
    """The diff from the managed file as it is now to the payload, with a warning where they do not fit."""
    current = read_current(path)
    proposed = item.proposal.proposed_file
    if current.problem:
        _heading("Payload")
        print_quoted(proposed)
        say(f"WARNING: {path} cannot be compared: {current.problem}.", "bold red")
        return
    _heading("Change" if current.text is not None else "New file")
    difference = render_diff(current.text or "", proposed, label=os.path.basename(path))
    if difference:
        print_quoted(difference, diff=True)
    else:
        say("none: the file has this content already", "dim")
    if changed_since(item, current):
        say(
            f"WARNING: {path} has changed since this was proposed, so approving it will be refused. "
            "Reject it with a note, so that the agent proposes again.",
            "bold red",
        )


def _print_outcome(item: InboxItem) -> None:
    answer = item.response
    if answer:
        _heading("Answer")
        when = f"{clock(answer.decided_at)}" if answer.decided_at else "-"
        fields: list[tuple[str, Cell]] = [
            ("Status", (answer.status, STATE_STYLES.get(answer.status, ""))),
            ("Decided", f"{when} by {answer.decided_by or '-'} ({answer.surface or '-'})"),
        ]
        if item.apply_state == "applied" and answer.applied_at:
            fields.append(("In effect", clock(answer.applied_at)))
        elif item.apply_state:
            fields.append(("In effect", (f"NO: {item.apply_error or 'not written yet'}", "bold red")))
        print_fields(fields)
        if answer.notes:
            _heading("Notes")
            print_quoted(answer.notes)
        if answer.diff:
            _heading("What the operator changed")
            print_quoted(answer.diff, diff=True)
    elif item.withdrawn_at:
        _heading("Withdrawn")
        print_fields([("When", clock(item.withdrawn_at)), ("Reason", item.withdrawn_reason or "-")])
    if item.archived_at:
        say(f"\narchived {clock(item.archived_at)}", "dim")


def _heading(text: str) -> None:
    say(f"\n{text}", "bold")
