"""How is TOML read, and a text written in it?"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any, Final

# More than any of bot-bottle's files needs, and far below Python's own limit of recursion.
_MAX_DEPTH: Final = 32
# TOML promises no more, and Python refuses to print what is much longer.
_MAX_INTEGER: Final = 2**63


def loads(text: str) -> dict[str, Any]:
    """The table in ``text``.

    Raises:
        ValueError: it is not TOML (the message says why), or it cannot be read and printed safely.
    """
    # Python 3.10 has no tomllib; bot-bottle brings tomli there, which is the same.
    library: Any = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        table: dict[str, Any] = library.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    # Not by recursion: a dotted key nests without any.
    found: list[tuple[Any, int]] = [(table, 0)]
    while found:
        value, depth = found.pop()
        if depth > _MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        if isinstance(value, (dict, list)):
            found += [(each, depth + 1) for each in (value.values() if isinstance(value, dict) else value)]
        elif isinstance(value, int) and not -_MAX_INTEGER <= value < _MAX_INTEGER:
            raise ValueError("it has an integer that takes more than 64 bits")
    return table


def quoted(text: str) -> str:
    """``text`` as a basic string, which escapes as JSON does, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
