"""With which words does a command begin, so that an approval of these words may cover it?

A command that a shell could take for more than one command, or for other words than those it shows, has none: whoever
approved ``git status`` did not approve ``git status; make``. What may stand in a quoted text is refused as well, as
shells differ in what they do there.
"""

from __future__ import annotations

import re
import shlex
from typing import Final

_OPERATORS: Final = frozenset(";&|<>()$`\\")
# No shell expands them, wherever they stand.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./@+,:-][A-Za-z0-9_./@+,:=-]*")
_MOST_WORDS: Final = 8
_LONGEST: Final = 300


def words(command: str) -> tuple[str, ...]:
    """The plain words at the command's beginning, at most 8; empty if it is not one simple command."""
    if not command.isprintable() or not _OPERATORS.isdisjoint(command):
        return ()
    try:
        split = shlex.split(command)
    except ValueError:  # a quotation that does not end
        return ()
    plain: list[str] = []
    for word in split[:_MOST_WORDS]:
        if not _PLAIN.fullmatch(word) or len(" ".join((*plain, word))) > _LONGEST:
            break
        plain.append(word)
    # The first would set a variable for what follows.
    return () if plain and "=" in plain[0] else tuple(plain)
