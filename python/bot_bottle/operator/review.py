"""What does an operator have to see before deciding on a proposal?

All of it: nothing here is cut. A tool with a managed file is shown as the change to that file as it
is now, any other as its whole payload.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from bot_bottle import MAX_PAYLOAD_BYTES, InboxItem, render_diff, sha256_hex
from bot_bottle.operator import words
from bot_bottle.operator.words import Said

# As much of a managed file as a decision reads.
_MOST_BYTES = 4 * MAX_PAYLOAD_BYTES


class Section(NamedTuple):
    """A part of a review, to be shown in this order: its fields, its text, and what is to be said of it."""

    heading: str = ""
    fields: tuple[tuple[str, Said], ...] = ()
    text: str | None = None
    """Whole, as an agent or the operator wrote it."""
    diff: bool = False
    """``text`` is a unified diff."""
    remarks: tuple[Said, ...] = ()


class CurrentFile(NamedTuple):
    """A managed file as it is now: ``text`` is ``None`` if it is absent, or if ``problem`` says why it
    cannot be shown."""

    text: str | None
    sha256: str | None
    problem: str | None = None


def review(item: InboxItem) -> list[Section]:
    """The whole of a proposal, and its answer if it has one."""
    justification = item.proposal.justification
    if justification:
        why = Section("Justification", text=justification)
    else:
        why = Section("Justification", remarks=(("none given", "quiet"),))
    if item.state == "pending" and item.managed_file:
        what = _change(item, item.managed_file)
    else:
        what = Section("Payload", text=item.proposal.proposed_file)
    return [_identity(item), why, what, *_outcome(item)]


def _identity(item: InboxItem) -> Section:
    proposal = item.proposal
    size = len(proposal.proposed_file.encode())
    arrived = f"{words.clock(proposal.arrival_timestamp)} ({words.ago(proposal.arrival_timestamp)})"
    fields: list[tuple[str, Said]] = [
        ("Proposal", (proposal.id, "strong")),
        ("Bottle", (proposal.bottle_slug, "plain")),
        ("Tool", (proposal.tool, "plain")),
        ("State", words.state(item.state)),
        ("Arrived", (arrived, "plain")),
    ]
    if item.state == "pending":
        fields += [("Requester", words.waiter(item)), ("Expires", words.expiry(item))]
    elif proposal.expires_at:
        fields.append(("Expires", (words.clock(proposal.expires_at), "plain")))
    if item.requests > 1:
        fields.append(("Requests", (f"{item.requests} identical ones share this row and its answer", "plain")))
    if proposal.fingerprint:
        fields.append(("Fingerprint", (proposal.fingerprint, "plain")))
    if item.managed_file or item.state == "pending":
        fields.append(("File", words.file(item)))
    if item.damaged:
        fields.append(("Damaged", (f"{item.damaged}; it cannot be decided", "alarm")))
    fields += [("Payload", (f"{size:,} bytes", "plain")), ("SHA-256", (proposal.payload_sha256, "plain"))]
    return Section(fields=tuple(fields))


def _change(item: InboxItem, path: str) -> Section:
    """The diff from the managed file as it is now to the payload, with a warning where they do not fit."""
    current = read_current(path)
    proposed = item.proposal.proposed_file
    if current.problem:
        warning: Said = (f"WARNING: {path} cannot be compared: {current.problem}.", "alarm")
        return Section("Payload", text=proposed, remarks=(warning,))
    remarks: list[Said] = []
    difference = render_diff(current.text or "", proposed, label=os.path.basename(path))
    if not difference:
        remarks.append(("none: the file has this content already", "quiet"))
    if changed_since(item, current):
        remarks.append(
            (
                f"WARNING: {path} has changed since this was proposed, so approving it will be refused. "
                "Reject it with a note, so that the agent proposes again.",
                "alarm",
            )
        )
    heading = "Change" if current.text is not None else "New file"
    return Section(heading, text=difference or None, diff=True, remarks=tuple(remarks))


def _outcome(item: InboxItem) -> list[Section]:
    sections = []
    answer = item.response
    if answer:
        fields = [("Status", words.state(answer.status)), ("Decided", (words.decided(answer), "plain"))]
        effect = words.effect(item)
        if effect:
            fields.append(("In effect", effect))
        sections.append(Section("Answer", tuple(fields)))
        if answer.notes:
            sections.append(Section("Notes", text=answer.notes))
        if answer.diff:
            sections.append(Section("What the operator changed", text=answer.diff, diff=True))
    elif item.withdrawn_at:
        reason: Said = (item.withdrawn_reason or "-", "plain")
        sections.append(Section("Withdrawn", (("When", (words.clock(item.withdrawn_at), "plain")), ("Reason", reason))))
    if item.archived_at:
        sections.append(Section(remarks=((f"archived {words.clock(item.archived_at)}", "quiet"),)))
    return sections


def read_current(path: str) -> CurrentFile:
    """Reads the managed file; never follows a symlink or waits on a pipe, as the decision will not either."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return CurrentFile(None, None, "it is not a regular file")
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return CurrentFile(None, None)
    except OSError as error:
        return CurrentFile(None, None, error.strerror or str(error))
    if len(content) > _MOST_BYTES:
        return CurrentFile(None, None, f"it is longer than {_MOST_BYTES:,} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        return CurrentFile(None, sha256_hex(content), f"it is not UTF-8 text (byte {error.start})")
    return CurrentFile(text, sha256_hex(content))


def change_size(item: InboxItem) -> str:
    """How much the managed file would change: ``+2 -1``, in lines; or why that cannot be said."""
    current = read_current(item.managed_file or "")
    if current.problem:
        return "cannot be compared"
    if current.text is None:
        return f"new, {len(item.proposal.proposed_file.splitlines())} lines"
    added = removed = 0
    in_hunk = False
    for line in render_diff(current.text, item.proposal.proposed_file).splitlines():
        in_hunk = in_hunk or line.startswith("@@")
        added += in_hunk and line.startswith("+")
        removed += in_hunk and line.startswith("-")
    return f"+{added} -{removed}"


def changed_since(item: InboxItem, current: CurrentFile) -> bool:
    """Has the managed file changed since the proposal was written? Unknown counts as no."""
    return item.base_sha256 is not None and current.problem is None and (current.sha256 or "") != item.base_sha256
