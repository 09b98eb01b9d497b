"""How does a terminal show what an operator must see before deciding on a proposal?"""

from __future__ import annotations

from bot_bottle import Review
from bot_bottle.cli.screen import print_fields, print_quoted, say
from bot_bottle.operator.review import sections


def print_review(review: Review) -> None:
    """Prints the whole proposal, and its answer if it has one."""
    for number, section in enumerate(sections(review)):
        if number:
            say("")
        if section.heading:
            say(section.heading, "strong")
        if section.fields:
            print_fields(section.fields)
        if section.text is not None:
            print_quoted(section.text, diff=section.diff)
        for text, tone in section.remarks:
            say(text, tone)
