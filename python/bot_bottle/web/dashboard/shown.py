"""How does what the store knows become JSON that a page can show as it is?

Every text passes the one sanitiser here, so that no page can forget to. What an agent wrote is marked as quoted.
"""

from __future__ import annotations

from typing import Any

from bot_bottle import Grant, InboxItem, InboxSummary, Review, visible
from bot_bottle.operator import live, scopes, words
from bot_bottle.operator.decisions import question
from bot_bottle.operator.review import Section, sections

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bot_bottle.operator.words import Said


# Sections whose text is the agent's; the others are ours or the operator's.
_QUOTED = frozenset(("Justification", "Payload", "Change", "New file", "Withdrawn"))


def safe(value: Any, *, multiline: bool = False) -> Any:
    """``value`` with every text in it, keys included, made visible."""
    if isinstance(value, str):
        return visible(value, multiline=multiline)
    if isinstance(value, dict):
        return {safe(name): safe(each, multiline=multiline) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [safe(each, multiline=multiline) for each in value]
    return value


def row(item: InboxItem | InboxSummary) -> dict[str, Any]:
    """What a list says of a proposal."""
    made = live.row(item)
    return {**safe(made._asdict()), "pending": made.pending, "waiter": said(made.waiter)}


def said(text: Said) -> dict[str, str]:
    """A text with its tone."""
    return {"text": visible(text[0], multiline=False), "tone": text[1]}


def whole(review: Review) -> dict[str, Any]:
    """All of a proposal, as it is to be looked at before a decision, and what can be decided."""
    item = review.item
    return {
        "row": row(item),
        "sections": [_section(each) for each in sections(review)],
        "payload_sha256": item.proposal.payload_sha256,
        "review_sha256": review.review_sha256,
        "question": visible(question(review, None), multiline=False),
        "scopes": [vars(each) for each in scopes.offered(item.proposal)],
        "needs_reason": scopes.needs_reason(item.proposal.tool),
    }


def _section(section: Section) -> dict[str, Any]:
    return {
        "heading": section.heading,
        "fields": [{"name": name, **said(text)} for name, text in section.fields],
        "text": None if section.text is None else visible(section.text),
        "diff": section.diff,
        "quoted": section.agents or section.heading in _QUOTED,
        "remarks": [said(each) for each in section.remarks],
    }


def grant(each: Grant) -> dict[str, Any]:
    """What a list says of a grant."""
    reach: Said = ("damaged: it allows nothing where it is checked", "alarm")
    return {**safe(each.to_dict()), "live": each.live, "reach": said(reach if each.damaged else words.reach(each))}
