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
from itertools import accumulate, chain, repeat
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
# In a longer run of removed or added lines, nobody looks for the line that another one replaces.
_LONGEST_PAIRED = 500

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
    """A line of a document: a kind of quoted line, or ``""`` with one of the app's styles."""

    text: str
    kind: str = ""
    tone: Tone = "plain"
    partner: str | None = None
    """The line that this one of a diff replaces or is replaced by."""


class Quoted:
    """An agent's text behind a bar. Its lines are made as they are drawn: there may be a million of them."""

    def __init__(self, text: str, *, diff: bool) -> None:
        """A diff's kinds go by position: a removed line ``-- a`` is no header."""
        self.texts: Final = clean(text, multiline=True).expandtabs().removesuffix("\n").split("\n")
        self._hunks = (
            -1
            if not diff
            else next((at for at, each in enumerate(self.texts) if each.startswith("@@")), len(self.texts))
        )

    def __len__(self) -> int:
        return len(self.texts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quoted) and (self._hunks, self.texts) == (other._hunks, other.texts)

    __hash__ = None  # type: ignore[assignment]

    def __getitem__(self, at: int) -> Line:
        kind, text = self._kind(at), self.texts[at]
        return Line(text, kind, partner=self._partner(at) if kind in ("-", "+") else None)

    def _kind(self, at: int) -> str:
        if self._hunks < 0:
            return "="
        if at < self._hunks:
            return "h"
        sign = self.texts[at][:1]
        return sign if sign and sign in "+-@\\" else " "

    def _partner(self, at: int) -> str | None:
        """The line that this one replaces or is replaced by: in as many removed lines as added ones, directly below
        each other."""
        first = self._run(at, -1, self._kind(at))
        if self._kind(at) == "+":
            removed_end, removed = first, self._run(first - 1, -1, "-")
        else:
            removed, removed_end = first, self._run(at, 1, "-") + 1
        added_end = self._run(removed_end, 1, "+") + 1
        size = removed_end - removed
        if size != added_end - removed_end or not 0 < size <= _LONGEST_PAIRED:
            return None
        return self.texts[at + size if self._kind(at) == "-" else at - size]

    def _run(self, at: int, step: int, kind: str) -> int:
        """The last place of the lines of this kind, from ``at`` on; not much further than can be paired."""
        end = max(self._hunks - 1, -1) if step < 0 else len(self.texts)
        last = at if 0 <= at < len(self.texts) and self._kind(at) == kind else at - step
        for _ in range(_LONGEST_PAIRED + 1):
            if last + step == end or self._kind(last + step) != kind:
                break
            last += step
        return last


class Document:
    """Lines, wrapped to a width: runs of the app's own lines and of quoted ones."""

    def __init__(self, parts: Sequence[Sequence[Line] | Quoted], lexer: str = "", *, further: int = 0) -> None:
        """``further``: so many lines at the end are there to be looked up, and need not have been read."""
        self.parts: Final = [part for part in parts if len(part)]
        self._starts = list(accumulate((len(part) for part in self.parts), initial=0))
        self._needed: Final = self._starts[-1] - further
        self.lexer: Final = lexer
        self.bar, self.broken_bar = ("| ", ": ") if ascii_only() else ("│ ", "┊ ")
        self.width = 0
        self.height = 0
        self._ends: Sequence[int] = array("L")

    @property
    def quoted(self) -> list[Quoted]:
        """What is an agent's or the operator's."""
        return [part for part in self.parts if isinstance(part, Quoted)]

    def _line(self, at: int) -> Line:
        part = bisect_right(self._starts, at) - 1
        return self.parts[part][at - self._starts[part]]

    def wrap(self, width: int) -> None:
        """Computes where each line stands if there are ``width`` cells."""
        if width == self.width:
            return
        self.width = width
        self._ends = array("L", accumulate(chain.from_iterable(_heights(part, width) for part in self.parts)))
        self.height = self._ends[-1] if self._ends else 0

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
        line = self._line(at)
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
        count = self._starts[-1]
        first = min(bisect_right(self._ends, after) + 1, count)
        # Texts alone: which line another one replaces is looked for where it is drawn, and takes long.
        texts = list(chain.from_iterable(map(_texts, self.parts)))
        for at in chain(range(first, count), range(first)):
            if wanted in texts[at].casefold():
                return int(self._ends[at - 1]) if at else 0
        return None


def _texts(part: Sequence[Line] | Quoted) -> Sequence[str]:
    return part.texts if isinstance(part, Quoted) else [line.text for line in part]


def _heights(part: Sequence[Line] | Quoted, width: int) -> Iterable[int]:
    if not isinstance(part, Quoted):
        return (_rows(text, width) for text in _texts(part))
    room = max(1, width - 2)
    # What fits is told from its length alone, for a million lines at once.
    longest = max(map(len, part.texts))
    if longest <= room and all(map(str.isascii, part.texts)):
        return repeat(1, len(part))
    return (1 if len(text) <= room and text.isascii() else _rows(text, room) for text in part.texts)


def _rows(text: str, width: int) -> int:
    if text.isascii():
        return -(-len(text) // width) or 1
    return len(_pieces(text, width))


def _pieces(text: str, width: int) -> Sequence[str]:
    # A long line is drawn a row at a time. Only the last few are kept: each may be some megabytes.
    return _cut(text, width) if len(text) <= _LONGEST_COLOURED else _cut_long(text, width)


def _cut(text: str, width: int) -> Sequence[str]:
    if text.isascii():
        return [text[at : at + width] for at in range(0, len(text), width)] or [""]
    pieces, start = [], 0
    while start < len(text):
        # A character has one cell or two, or none: what fits is within the next ``width`` of them.
        piece = text[start : start + width]
        if not piece.isascii() and cell_len(piece) > width:
            piece = chop_cells(piece, width)[0] or piece[:1]
        pieces.append(piece)
        start += len(piece)
    return pieces or [""]


_cut_long = lru_cache(maxsize=4)(_cut)


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
    last = [part for section in further for part in ([Line("")], *_parts([section]))]
    return Document([*_parts(sections), *last], lexer, further=sum(map(len, last)))


def _parts(sections: Iterable[Section]) -> list[Sequence[Line] | Quoted]:
    parts: list[Sequence[Line] | Quoted] = []
    for number, section in enumerate(sections):
        lines = [Line("")] if number else []
        if section.heading:
            lines.append(Line(section.heading, tone="strong"))
        width = max((len(name) for name, _ in section.fields), default=0)
        lines += [Line(f"{name:<{width}}  {clean(text)}", tone=tone) for name, (text, tone) in section.fields]
        parts.append(lines)
        if section.text is not None:
            parts.append(Quoted(section.text, diff=section.diff))
        parts.append([_said(remark) for remark in section.remarks])
    return parts


def _said(said: Said) -> Line:
    text, tone = said
    return Line(clean(text), tone=tone)


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
