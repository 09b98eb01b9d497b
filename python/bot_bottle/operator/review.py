"""What does an operator have to see before deciding on a proposal?

All of it: nothing here is cut. A tool with a managed file is shown as the change to that file as it
is now, any other as its whole payload.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from bot_bottle import Hunk, Message, Review
from bot_bottle.operator import new_hosts, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bot_bottle import InboxItem
    from bot_bottle.operator.words import Said


_SIGNS: Final[Mapping[str, str]] = {"same": " ", "removed": "-", "added": "+"}


class Section(NamedTuple):
    """A part of a review, to be shown in this order: its fields, its text, and what is to be said of it."""

    heading: str = ""
    fields: tuple[tuple[str, Said], ...] = ()
    text: str | None = None
    """Whole, as an agent or the operator wrote it."""
    diff: bool = False
    """``text`` is a unified diff."""
    agents: bool = False
    """``text`` is an agent's, whatever the heading."""
    remarks: tuple[Said, ...] = ()


def sections(review: Review) -> list[Section]:
    """The whole of a proposal, and its answer if it has one."""
    item = review.item
    justification = item.proposal.justification
    if justification:
        why = Section("Justification", text=justification)
    else:
        why = Section("Justification", remarks=(("none given", "quiet"),))
    if item.state == "pending" and item.managed_file:
        what = _change(review, item.managed_file)
    else:
        what = Section("Payload", text=item.proposal.proposed_file)
    hosts = new_hosts.remarks(review)
    opened = [Section("New hosts", remarks=hosts)] if hosts else []
    said = (*_thread(item.thread), *_odd(review), *_outcome(review))
    return [_identity(review), why, *_revised(review), *opened, what, *said]


def _thread(thread: Iterable[Message]) -> list[Section]:
    """What was said about it; a question that nobody signed is not shown as the operator's."""
    sections = []
    for message in thread:
        if message.damaged:
            remark: Said = (f"A message about it is not to be believed: {message.damaged}.", "alarm")
            sections.append(Section(remarks=(remark,)))
        else:
            answer = message.sender == "requester"
            sections.append(Section(words.said_by(message), text=message.text, agents=answer))
    return sections


def _revised(review: Review) -> list[Section]:
    """What became of the revision before it, where there is one and it is still kept."""
    revised = review.revised
    if revised is None:
        return []
    changed = unified(revised.hunks, review.item.proposal.tool)
    told = _thread(revised.thread)
    if told:
        told[0] = told[0]._replace(heading=f"About the revision before: {told[0].heading}")
    return [*told, Section("Changed since the revision before", text=changed, diff=True, agents=True)]


def _odd(review: Review) -> list[Section]:
    remarks: list[Said] = [(f"WARNING: {odd.message}", "alarm") for odd in review.odd]
    if any(odd.kind == "stale" for odd in review.odd):
        remarks.append(("Reject it with a note, so that the agent proposes again.", "alarm"))
    return [Section(remarks=tuple(remarks))] if remarks else []


def _identity(review: Review) -> Section:
    item = review.item
    proposal = item.proposal
    size = proposal.payload_bytes
    arrived = f"{words.clock(proposal.arrival_timestamp)} ({words.ago(proposal.arrival_timestamp)})"
    fields: list[tuple[str, Said]] = [
        ("Proposal", (proposal.id, "strong")),
        ("Bottle", (proposal.bottle_slug, "plain")),
        ("Tool", (proposal.tool, "plain")),
        ("State", words.state(item.state)),
        *_revision(item),
        ("Arrived", (arrived, "plain")),
    ]
    if item.state == "pending":
        fields += [("Requester", words.waiter(item)), ("Expires", words.expiry(item))]
    elif proposal.expires_at:
        fields.append(("Expires", (words.clock(proposal.expires_at), "plain")))
    if item.requests > 1:
        fields.append(("Requests", (f"{item.requests} identical ones share this row and its answer", "plain")))
    if proposal.fingerprint:
        fields.append(
            (
                "Fingerprint",
                (proposal.fingerprint.partition(" | ")[0] if proposal.kind else proposal.fingerprint, "plain"),
            )
        )
    if proposal.kind:
        fields.append(("Kind", (proposal.kind, "plain")))
    if item.managed_file or item.state == "pending":
        fields.append(("File", words.file(item)))
    fields += [("Payload", (f"{size:,} bytes", "plain")), ("SHA-256", (proposal.payload_sha256, "plain"))]
    if item.state == "pending":
        fields.append(("Review", (review.review_sha256, "plain")))
    return Section(fields=tuple(fields))


def _revision(item: InboxItem) -> list[tuple[str, Said]]:
    if item.revision < 2 or not item.proposal.revises:
        return []
    return [("Revision", (f"{item.revision}, in the place of {item.proposal.revises}", "strong"))]


def _change(review: Review, path: str) -> Section:
    """The change from the managed file as it is now to the payload, or the payload where they cannot be compared."""
    if review.hunks is None:
        return Section("Payload", text=review.item.proposal.proposed_file)
    if not review.hunks:
        return Section("Change", remarks=(("none: the file has this content already", "quiet"),))
    heading = "New file" if review.current_sha256 == "" else "Change"
    return Section(heading, text=unified(review.hunks, os.path.basename(path)), diff=True)


def unified(hunks: Iterable[Hunk], label: str) -> str:
    """``hunks`` as a unified diff."""
    lines = [f"--- a/{label}\n+++ b/{label}\n"]
    for hunk in hunks:
        before, after = _range(hunk.before_line, hunk.before_lines), _range(hunk.after_line, hunk.after_lines)
        lines.append(f"@@ -{before} +{after} @@\n")
        for part in hunk.parts:
            sign = _SIGNS[part.kind]
            # Not line by line: a part may be a megabyte of empty lines.
            marked = part.text.removesuffix("\n").replace("\n", f"\n{sign}")
            lines.append(f"{sign}{marked}\n")
            if not part.text.endswith("\n"):
                lines.append("\\ No newline at end of file\n")
    return "".join(lines)


def _range(first: int, lines: int) -> str:
    return str(first) if lines == 1 else f"{first},{lines}"


def _outcome(review: Review) -> list[Section]:
    sections = []
    item = review.item
    answer = item.response
    if answer:
        fields = [("Status", words.state(answer.status)), ("Decided", (words.decided(answer), "plain"))]
        effect = words.effect(item)
        if effect:
            fields.append(("In effect", effect))
        sections.append(Section("Answer", tuple(fields)))
        if answer.notes:
            sections.append(Section("Notes", text=answer.notes))
        if review.hunks:
            changed = unified(review.hunks, item.proposal.tool)
            sections.append(Section("What the operator changed", text=changed, diff=True))
    elif item.withdrawn_at:
        reason: Said = (item.withdrawn_reason or "-", "plain")
        sections.append(Section("Withdrawn", (("When", (words.clock(item.withdrawn_at), "plain")), ("Reason", reason))))
    if item.archived_at:
        sections.append(Section(remarks=((f"archived {words.clock(item.archived_at)}", "quiet"),)))
    return sections


def change_size(review: Review) -> str:
    """How much the managed file would change: ``+2 -1``, in lines; or why that cannot be said."""
    if review.hunks is None:
        return "cannot be compared"
    if review.current_sha256 == "":
        return f"new, {_lines(review.item.proposal.proposed_file)} lines"
    lines = {
        kind: sum(_lines(part.text) for hunk in review.hunks for part in hunk.parts if part.kind == kind)
        for kind in _SIGNS
    }
    return f"+{lines['added']} -{lines['removed']}"


def _lines(text: str) -> int:
    return text.count("\n") + (not text.endswith("\n"))
