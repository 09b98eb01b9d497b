"""How does text, much of it an agent's, become cells on the screen?

Every string that is drawn passes ``clean``. Lines are wrapped by arithmetic and drawn one at a time, so that a payload
of a megabyte costs as much on the screen as one of a kilobyte.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Final, NamedTuple

from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, Keyword, Name, Number, String
from rich.cells import cell_len, chop_cells
from rich.segment import Segment
from rich.style import Style
from textual.scrollbar import ScrollBarRender

from bot_bottle import visible
from bot_bottle.operator.review import Section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bot_bottle.operator.words import Said, Tone


STYLES: Final[Mapping[Tone, Style]] = {
    "plain": Style(),
    "strong": Style(bold=True),
    "quiet": Style(dim=True),
    "waits": Style(color="yellow"),
    "good": Style(color="green"),
    "changed": Style(color="cyan"),
    "bad": Style(color="red"),
    "soon": Style(color="yellow", bold=True),
    "alarm": Style(color="red", bold=True),
}
_SYNTAX: Final = (
    (Comment, Style(dim=True, italic=True)),
    (Keyword, Style(color="magenta")),
    (Name.Tag, Style(color="blue", bold=True)),
    (Name.Attribute, Style(color="blue", bold=True)),
    (String, Style(color="cyan")),
    (Number, Style(color="cyan")),
)
# Lexers are regular expressions, which an agent can make slow: a longer line is drawn plain.
_LONGEST_COLOURED = 400

# Quoted lines: "+", "-", "@", "\\" and " " are those of a diff, "=" is text that is no diff, "h" a diff's header.
_DIFF: Final = {
    "+": Style(color="green"),
    "-": Style(color="red"),
    "@": Style(color="cyan"),
    "h": Style(bold=True),
    "\\": Style(dim=True),
}
_CHANGED = Style(bold=True, underline=True)


def ascii_only() -> bool:
    """Is this a terminal that cannot be trusted with anything but ASCII? Python itself sets ``LC_CTYPE`` to
    ``C.UTF-8`` where the locale is C (PEP 538), which says nothing about the terminal."""
    coerced = os.environ.get("LC_CTYPE") == "C.UTF-8" and os.environ.get("LANG", "C") in ("", "C", "POSIX")
    name = os.environ.get("LC_ALL") or ("C" if coerced else os.environ.get("LC_CTYPE") or os.environ.get("LANG") or "C")
    return "utf8" not in name.lower().replace("-", "")


class WholeCells(ScrollBarRender):
    """A scroll bar whose ends are no fractions of a cell, for which there are no ASCII characters."""

    VERTICAL_BARS = HORIZONTAL_BARS = [" "] * 8


def clean(text: str, *, multiline: bool = False) -> str:
    """``text`` as it may be drawn: nothing in it moves the cursor, hides or pretends."""
    shown = visible(text, multiline=multiline)
    return shown.encode("ascii", "backslashreplace").decode() if ascii_only() else shown


class Line(NamedTuple):
    """A line of a document: a kind of quoted line, or ``""`` with a style of ours."""

    text: str
    kind: str = ""
    tone: Tone = "plain"
    partner: str | None = None
    """The line that this one of a diff replaces or is replaced by."""


class Document:
    """Lines, wrapped to a width."""

    def __init__(self, lines: Sequence[Line], lexer: str = "", *, further: int = 0) -> None:
        """``further``: so many lines at the end are there to be looked up, and need not have been read."""
        self.lines: Final = lines
        self._needed: Final = len(lines) - further
        self.lexer: Final = lexer
        self.bar, self.broken_bar = ("| ", ": ") if ascii_only() else ("│ ", "┊ ")
        self.width = 0
        self.height = 0
        self._ends = array("L")

    def wrap(self, width: int) -> None:
        """Computes where each line stands if there are ``width`` cells."""
        if width == self.width:
            return
        self.width = width
        room = max(1, width - 2)
        self._ends = array("L", accumulate(_rows(line.text, room if line.kind else width) for line in self.lines))
        self.height = self._ends[-1] if self.lines else 0

    @property
    def needed_height(self) -> int:
        """The rows that have to be read before one decides."""
        return int(self._ends[self._needed - 1]) if self._needed else 0

    def draw(self, y: int) -> list[Segment]:
        """The cells of row ``y``."""
        if y >= self.height:
            return []
        at = bisect_right(self._ends, y)
        piece = y - (self._ends[at - 1] if at else 0)
        line = self.lines[at]
        if not line.kind:
            return [Segment(_pieces(line.text, self.width)[piece], STYLES[line.tone])]
        width = max(1, self.width - 2)
        text = _pieces(line.text, width)[piece]
        bar = Segment(self.broken_bar if piece else self.bar, STYLES["quiet"])
        if piece or len(line.text) > _LONGEST_COLOURED:
            return [bar, Segment(text, _DIFF.get(line.kind, Style()))]
        return [bar, *_coloured(text, line, self.lexer)]

    def find(self, text: str, after: int) -> int | None:
        """The next row after ``after`` whose line holds ``text``; from the top again after the last."""
        wanted = text.casefold()
        first = bisect_right(self._ends, after) + 1
        order = [*range(min(first, len(self.lines)), len(self.lines)), *range(min(first, len(self.lines)))]
        for at in order:
            if wanted in self.lines[at].text.casefold():
                return int(self._ends[at - 1]) if at else 0
        return None


def _rows(text: str, width: int) -> int:
    if text.isascii():
        return -(-len(text) // width) or 1
    return len(_pieces(text, width))


@lru_cache(maxsize=512)
def _pieces(text: str, width: int) -> Sequence[str]:
    if text.isascii():
        return [text[at : at + width] for at in range(0, len(text), width)] or [""]
    return chop_cells(text, width) or [""]


def _coloured(text: str, line: Line, lexer: str) -> list[Segment]:
    base = _DIFF.get(line.kind, Style())
    if line.kind in "@h\\":
        return [Segment(text, base)]
    sign, content = (text[:1], text[1:]) if line.kind in "+- " else ("", text)
    parts = _tokens(content, lexer) if lexer and line.kind in " =" else ((content, Style()),)
    if line.partner is not None:
        start, end = _differing(line.text, line.partner)
        parts = (
            (text[1:start], Style()),
            (text[start:end], _CHANGED),
            (text[end:], Style()),
        )
    return [Segment(sign, base), *(Segment(part, base + style) for part, style in parts if part)]


@lru_cache(maxsize=2048)
def _tokens(text: str, lexer: str) -> Sequence[tuple[str, Style]]:
    found = []
    for kind, part in get_lexer_by_name(lexer, ensurenl=False, stripnl=False).get_tokens(text):
        style = next((style for token, style in _SYNTAX if kind in token), Style())
        found.append((part.rstrip("\n"), style))
    return found


def _differing(line: str, other: str) -> tuple[int, int]:
    """Between which places ``line`` differs from ``other``; the first character, the sign, does not count."""
    most = min(len(line), len(other))
    start = 1
    while start < most and line[start] == other[start]:
        start += 1
    end = 0
    while end < most - start and line[-1 - end] == other[-1 - end]:
        end += 1
    return start, len(line) - end


def document(sections: Iterable[Section], lexer: str = "", *, further: Iterable[Section] = ()) -> Document:
    """A review as it is drawn: our lines bare, an agent's behind a bar. ``further``: below, to be looked up."""
    lines = _lines(sections)
    last = [line for section in further for line in (Line(""), *_lines([section]))]
    return Document([*lines, *last], lexer, further=len(last))


def _lines(sections: Iterable[Section]) -> list[Line]:
    lines: list[Line] = []
    for number, section in enumerate(sections):
        if number:
            lines.append(Line(""))
        if section.heading:
            lines.append(Line(section.heading, tone="strong"))
        width = max((len(name) for name, _ in section.fields), default=0)
        lines += [Line(f"{name:<{width}}  {clean(text)}", tone=tone) for name, (text, tone) in section.fields]
        if section.text is not None:
            lines += quoted(section.text, diff=section.diff)
        lines += [_said(remark) for remark in section.remarks]
    return lines


def _said(said: Said) -> Line:
    text, tone = said
    return Line(clean(text), tone=tone)


def quoted(text: str, *, diff: bool) -> list[Line]:
    """The lines of ``text`` behind a bar. A diff's kinds go by position: a removed line ``-- a`` is no header."""
    texts = clean(text, multiline=True).expandtabs().removesuffix("\n").split("\n")
    if not diff:
        return [Line(each, "=") for each in texts]
    lines: list[Line] = []
    in_hunk = False
    for each in texts:
        in_hunk = in_hunk or each.startswith("@@")
        lines.append(Line(each, (each[:1] if each[:1] in "+-@\\" and each else " ") if in_hunk else "h"))
    return _paired(lines)


def _paired(lines: list[Line]) -> list[Line]:
    """Marks what replaces what: as many removed lines as added ones, directly below each other."""
    at = 0
    while at < len(lines):
        if lines[at].kind != "-":
            at += 1
            continue
        removed = at
        while at < len(lines) and lines[at].kind == "-":
            at += 1
        added = at
        while at < len(lines) and lines[at].kind == "+":
            at += 1
        if added - removed == at - added:
            for one, two in zip(range(removed, added), range(added, at), strict=True):
                before, after = lines[one], lines[two]
                lines[one] = before._replace(partner=after.text)
                lines[two] = after._replace(partner=before.text)
    return lines


def lexer_for(tool: str) -> str:
    """In which language the files of a tool are written."""
    return {"egress-allow": "yaml", "egress-block": "yaml", "capability-block": "docker"}.get(tool, "json")


def fitted(text: str, width: int) -> str:
    """``text``, cleaned, in exactly ``width`` cells; what does not fit ends in ``…`` (lists only, never a review)."""
    text = clean(text)
    if cell_len(text) > width:
        mark = "~" if ascii_only() else "…"
        text = (chop_cells(text, max(1, width - 1))[0] if width > 1 else "") + mark
    return text + " " * max(0, width - cell_len(text))
