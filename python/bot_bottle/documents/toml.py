"""How is TOML read, and a text written in it?"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any


def loads(text: str) -> dict[str, Any]:
    """The table that ``text`` is.

    Raises:
        ValueError: it is not TOML, and why.
    """
    # Python 3.10 has no tomllib; bot-bottle brings tomli there, which is the same.
    library: Any = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        table: dict[str, Any] = library.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return table


def quoted(text: str) -> str:
    """``text`` as a basic string, which escapes as JSON does, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
