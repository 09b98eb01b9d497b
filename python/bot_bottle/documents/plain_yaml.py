"""How is YAML read so that a human and a program cannot see different things in it?

Only mappings, lists and scalars, each key once, every value with its line. Anchors, tags, further documents
and deep nesting are refused: they hide content from a reviewer or cost more to expand than to send.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import yaml

_MAX_DEPTH: Final = 12
# libyaml where PyYAML was built with it: the pure Python scanner takes seconds for what it does in milliseconds.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# YAML ends a line, and with it a comment, at these; most editors do not.
_ODD_BREAK: Final = re.compile("\r(?!\n)|[\x85\u2028\u2029]")


class PlainYamlError(ValueError):
    """The text is not plain YAML; ``line`` counts from 1."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line


@dataclass(frozen=True)
class Node:
    """A value: text, list or mapping. ``plain`` marks text without quotes, where ``false`` is more than a word."""

    value: str | list[Node] | dict[str, Node]
    line: int
    plain: bool = False


def parse(text: str) -> Node | None:
    """The one document in ``text``, or ``None`` if there is none.

    Raises:
        PlainYamlError: it is not YAML, or not plain.
    """
    if odd := _ODD_BREAK.search(text):
        line = text.count("\n", 0, odd.start()) + 1
        raise PlainYamlError(line, f"the line break U+{ord(odd[0]):04X}, which not everybody sees; use a plain one")
    # Events, not yaml.load: that keeps the last of two equal keys, expands anchors and forgets the lines.
    events = iter(yaml.parse(text, Loader=_LOADER))
    root: Node | None = None
    try:
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise PlainYamlError(_line(event), "a second document; keep one, without another ---")
                root = _read(next(events), events, 0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" at column {mark.column + 1}" if mark else ""
        # Not the parser's own words: they change from one of its versions to the next.
        advice = "look at the indentation, tabs, quotes and brackets around it"
        raise PlainYamlError(mark.line + 1 if mark else 1, f"not YAML{where}; {advice}") from None
    except (yaml.YAMLError, UnicodeError):  # a character that YAML does not allow; PyYAML gives no line
        raise PlainYamlError(1, "not YAML: it has a character that YAML does not allow") from None
    return root


def quoted(text: str) -> str:
    """``text`` for an error message: short, in quotes, and in ASCII, since whoever wrote it may be hostile."""
    return ascii(text if len(text) <= 60 else text[:60] + "...")


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _read(event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Node:
    line = _line(event)
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
        raise PlainYamlError(line, "an anchor or alias; write the value out where it is used")
    if getattr(event, "tag", None) is not None:
        raise PlainYamlError(line, "a YAML tag (!); remove it")
    if depth > _MAX_DEPTH:
        raise PlainYamlError(line, f"nested deeper than {_MAX_DEPTH} levels")
    if isinstance(event, yaml.ScalarEvent):
        return Node(event.value, line, plain=event.implicit[0])
    if isinstance(event, yaml.SequenceStartEvent):
        return Node([_read(item, events, depth + 1) for item in _until(yaml.SequenceEndEvent, events)], line)
    entries: dict[str, Node] = {}
    for item in _until(yaml.MappingEndEvent, events):
        key = _read(item, events, depth + 1)
        if not isinstance(key.value, str):
            raise PlainYamlError(key.line, "a key must be a word")
        if key.value in entries:
            raise PlainYamlError(key.line, f"the key {quoted(key.value)} a second time; keep one")
        entries[key.value] = _read(next(events), events, depth + 1)
    return Node(entries, line)


def _until(end: type[yaml.Event], events: Iterator[yaml.Event]) -> Iterator[yaml.Event]:
    for event in events:
        if isinstance(event, end):
            return
        yield event
