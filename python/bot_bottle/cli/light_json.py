"""How is a document written as JSON, as ``json.dumps`` writes it, without the import of ``json``?

That import (decoder, regular expressions, enumerations) takes longer than most commands.
"""

from __future__ import annotations

try:
    # The string encoder in C that `json` itself uses. It is private; if it is missing, the public one replaces it.
    from _json import encode_basestring_ascii as quoted
except ImportError:
    from json.encoder import encode_basestring_ascii as quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def dumps(value: Any, indent: str | None = None, margin: str = "\n") -> str:
    """ASCII only: what could deceive a terminal is ``\\uXXXX``. Takes what ``to_dict`` and SQL give."""
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        infinite = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}
        return infinite.get(repr(value)) or float.__repr__(value)
    inner = margin + (indent or "")
    if isinstance(value, dict):
        parts = [f"{quoted(name)}: {dumps(each, indent, inner)}" for name, each in value.items()]
        opening, closing = "{", "}"
    elif isinstance(value, (list, tuple)):
        parts = [dumps(each, indent, inner) for each in value]
        opening, closing = "[", "]"
    else:
        raise TypeError(f"{type(value).__name__} is no JSON")
    if not parts:
        return opening + closing
    if indent is None:
        return f"{opening}{', '.join(parts)}{closing}"
    return f"{opening}{inner}{f',{inner}'.join(parts)}{margin}{closing}"
