"""How does data reach the operator's screen?

Every piece of text that an agent may have written passes ``visible`` here, whichever command
prints it, and Rich is told to take text as text: no markup, no emoji codes, no highlighting.
Rich is imported by what draws, because it takes longer to import than a decision takes: neither ``--json``
nor a sentence that goes into a pipe needs it.
"""

from __future__ import annotations

import io
import os
import sys

from bot_bottle import bot_bottle_root, visible
from bot_bottle.cli import PROGRAM
from bot_bottle.errors import BotBottleError, InvalidInputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, Final, NoReturn

    from rich.console import Console, RenderableType
    from rich.text import Text

    from bot_bottle.operator.words import Said, Tone

    # A cell of a table: text, or text and its tone.
    Cell = str | Said

# By these Rich is told to colour what is not a terminal.
_COLOUR_WANTED = frozenset({"FORCE_COLOR", "TTY_COMPATIBLE"})

_NARROWEST = 20
_WIDEST_COLUMN = 120
# Characters that are drawn at once: some pages of text, and too few to be waited for.
_BLOCK = 8192
_NARROWEST_CELL = 10

_STYLES: Final[Mapping[Tone, str]] = {
    "plain": "",
    "strong": "bold",
    "quiet": "dim",
    "waits": "yellow",
    "good": "green",
    "changed": "cyan",
    "bad": "red",
    "soon": "bold yellow",
    "alarm": "bold red",
}


def print_json(value: Any) -> None:
    """One JSON document, ASCII only: what could deceive a terminal is ``\\uXXXX``, and nothing is lost."""
    from bot_bottle.cli.light_json import dumps

    sys.stdout.write(dumps(value, indent="  ") + "\n")


def print_json_line(value: Any) -> None:
    """One JSON document on one line, handed over at once."""
    from bot_bottle.cli.light_json import dumps

    sys.stdout.write(dumps(value) + "\n")
    sys.stdout.flush()


def interactive() -> bool:
    """Is there a person to ask: are both standard input and output a terminal?"""
    # A standard stream that was closed when the program started is None.
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def answered(question: str, *, as_typed: bool = False, at_end: str = "") -> str:
    """Asks on the terminal; the answer in lower case, or ``as_typed``; ``at_end`` at the end of input.

    Whatever was typed before the question could be read is discarded, because it answers something else.
    """
    import termios

    sys.stdout.write(visible(question))
    sys.stdout.flush()
    termios.tcflush(sys.stdin, termios.TCIFLUSH)
    # The blank comes last, so that an answer from a program that waits for the whole prompt is not discarded.
    sys.stdout.write(" ")
    sys.stdout.flush()
    try:
        answer = input().strip()
        return answer if as_typed else answer.lower()
    except EOFError:
        sys.stdout.write("\n")
        return at_end


def confirm(question: str, *, yes: bool, undecided: str) -> None:
    """Asks before something that cannot be undone, unless ``yes``.

    Raises:
        BotBottleError: the answer was not yes; the message begins with ``undecided``.
        InvalidInputError: nobody can be asked.
    """
    if yes:
        return
    if not interactive():
        raise InvalidInputError(f"{undecided}: without a terminal this needs --yes")
    if answered(f"{question} [y/N]") not in ("y", "yes"):
        raise BotBottleError(f"{undecided}: the answer was not yes")


def console() -> Console:
    """The console for standard output: colours on a terminal that wants them, unbroken lines elsewhere."""
    global _console
    if _console is None:
        _console = _new_console()
    return _console


_console: Console | None = None


def _new_console() -> Console:
    from rich.console import Console

    class Screen(Console):
        def on_broken_pipe(self) -> NoReturn:
            raise BrokenPipeError

    # Without a height too Rich would take every "dumb" terminal for 80 columns wide.
    return Screen(markup=False, emoji=False, highlight=False, width=_width(), height=25)


def _width() -> int:
    """In cells. A pipe or a file has no width: a row stays a line, however long."""
    import shutil

    return max(_NARROWEST, shutil.get_terminal_size().columns) if sys.stdout.isatty() else 1_000_000


class _Page(io.StringIO):
    """What is drawn for the terminal. Once it is more than a screen it goes to the pager as it is drawn, so that the
    first page of a long text is there at once."""

    encoding = "utf-8"

    def __init__(self, height: int, pager: Sequence[str]) -> None:
        super().__init__()
        self._height, self._pager, self._terminal = height, pager, sys.stdout
        self.encoding = sys.stdout.encoding
        self.lines = 0
        self.shower: subprocess.Popen[bytes] | None = None

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.lines += text.count("\n")
        if self.shower is not None:
            self._hand_over(text)
            return len(text)
        written = super().write(text)
        if self._pager and self.lines + 2 > self._height:
            self._begin()
        return written

    def _begin(self) -> None:
        import subprocess

        self._terminal.write(
            f"More than a screen: {self._pager[0]} shows it first, and its q comes back to the question.\n"
        )
        self._terminal.flush()
        environment = {**os.environ, "LESSSECURE": "1", "LESSHISTFILE": "-"}
        self.shower = subprocess.Popen(self._pager, stdin=subprocess.PIPE, env=environment)
        self._hand_over(self.getvalue())

    def _hand_over(self, text: str) -> None:
        # Raises BrokenPipeError once the pager is left: what it never asked for need not be drawn.
        if self.shower is not None and self.shower.stdin is not None:
            self.shower.stdin.write(text.encode(errors="replace"))
            self.shower.stdin.flush()


def print_in_pages(draw: Callable[[], None]) -> None:
    """Prints what ``draw`` prints. What is longer than the screen goes through a pager first, which is said, as is that
    it was left before it had all of the text.

    The pager is ``$PAGER``, or else less, which may start no programs (``LESSSECURE``).
    """
    import contextlib
    import shlex
    import shutil

    try:
        pager = shlex.split(os.environ.get("PAGER", "")) or ["less", "-R"]
    except ValueError as error:
        raise InvalidInputError(f"PAGER is no command ({error}): {os.environ['PAGER']!r}") from None
    page = _Page(shutil.get_terminal_size().lines, pager if shutil.which(pager[0]) else [])
    left = False
    try:
        with contextlib.redirect_stdout(page):
            draw()
    except BrokenPipeError:
        left = True
    finally:
        if page.shower is not None and page.shower.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                page.shower.stdin.close()
            page.shower.wait()
    if page.shower is None:
        sys.stdout.write(page.getvalue())
        sys.stdout.flush()
    elif left:
        say(f"{pager[0]} was left before it had all of the text: there is more than was shown.", "soon")
    else:
        say(f"({page.lines:,} lines were handed to {pager[0]}.)", "quiet")


def say(text: str, tone: Tone = "plain") -> None:
    """Prints a sentence of this program's; text that it quotes is made visible."""
    if sys.stdout.isatty() or _COLOUR_WANTED.intersection(os.environ):
        from rich.text import Text

        _print_block(Text(visible(text), style=_STYLES[tone], overflow="fold"))
    else:
        sys.stdout.write(f"{visible(text)}\n")
        sys.stdout.flush()


def say_bypasses() -> None:
    """Says of each bottle whose requests are approved unasked that it is so."""
    if not os.path.exists(os.path.join(bot_bottle_root(), "bypass.json")):  # hardly ever, and the import takes long
        return
    from bot_bottle.policy import bypass

    for notice in bypass.notices():
        say(notice, "alarm")


def say_unapplied(tone: Tone) -> None:
    """Says of a rule or a bypass that nothing applies it, if so."""
    from bot_bottle.operator.alone import running

    if not running("policy"):
        say("It counts while 'bot-bottle policy run' is at work, which it is not.", tone)


def warn(text: str) -> None:
    """Says on standard error what goes wrong while the command goes on."""
    print(f"{PROGRAM}: {visible(text, multiline=False)}", file=sys.stderr, flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, text_last: bool = False) -> None:
    """A line per row under a line of names. Nothing is cut.

    With ``text_last`` the last column is free text: on a terminal it stands below its row and has
    the whole width. Where that is not enough, wide cells fold, all but the first, which is an id to
    copy; where that is not enough either, each row is a paragraph.
    """
    from rich.cells import cell_len
    from rich.console import Group
    from rich.padding import Padding

    rows = list(rows)
    if not (sys.stdout.isatty() or _COLOUR_WANTED.intersection(os.environ)):
        _print_lines([list(columns), *rows])
        return
    table = [_texts((name, "strong") for name in columns), *map(_texts, rows)]
    below: list[Text] = []
    if text_last and sys.stdout.isatty():
        below = [row.pop() for row in table]
    widths = [max(cell_len(row[column].plain) for row in table) for column in range(len(table[0]))]
    excess = sum(widths) + 2 * len(widths) - 2 - console().width
    while excess > 0 and max(widths[1:], default=0) > _NARROWEST_CELL:
        widths[widths.index(max(widths[1:]), 1)] -= 1
        excess -= 1
    if excess > 0:
        for row in rows:
            print_fields(zip(columns, row, strict=True))
            console().print()
        return
    if not below:
        _print_block(_grid(table, widths))
        return
    # A table per row, as a row of one table cannot span its columns; the widths keep them aligned.
    blocks = [_grid(table[:1], widths)]
    for cells, text in zip(table[1:], below[1:], strict=True):
        blocks.append(_grid([cells], widths))
        if text:
            blocks.append(Padding(text, (0, 0, 0, 4)))
    _print_block(Group(*blocks))


def _print_lines(rows: Sequence[Sequence[Cell]]) -> None:
    """A line for each row, without a terminal: Rich takes minutes for a cell of a megabyte."""
    from rich.cells import cell_len

    texts = [[visible(cell[0] if isinstance(cell, tuple) else cell, multiline=False) for cell in row] for row in rows]
    # A cell that is wider than this moves what follows it, and not all the rows beside it.
    lengths = [[cell_len(text) if len(text) <= _WIDEST_COLUMN else _WIDEST_COLUMN for text in row] for row in texts]
    widths = [min(_WIDEST_COLUMN, max(column)) for column in zip(*lengths, strict=True)]
    for row, each in zip(texts, lengths, strict=True):
        line = "  ".join(text + " " * (width - length) for text, length, width in zip(row, each, widths, strict=True))
        sys.stdout.write(line.rstrip(" ") + "\n")
    sys.stdout.flush()


def _grid(rows: Iterable[Sequence[Text]], widths: Iterable[int]) -> RenderableType:
    from rich.table import Table

    table = Table.grid(padding=(0, 2), pad_edge=False)
    for width in widths:
        table.add_column(width=width)
    for row in rows:
        table.add_row(*row)
    return table


def _texts(cells: Iterable[Cell]) -> list[Text]:
    from rich.text import Text

    texts = []
    for cell in cells:
        content, tone = cell if isinstance(cell, tuple) else (cell, "plain")
        # The style is the text's own, not that of the blanks which fill its column.
        texts.append(Text(overflow="fold").append(visible(content, multiline=False), _STYLES[tone]))
    return texts


def print_fields(fields: Iterable[tuple[str, Cell]]) -> None:
    """Names and values, one pair a line, the values aligned."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2), pad_edge=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, cell in fields:
        grid.add_row(*_texts([(name, "quiet"), cell]))
    _print_block(grid)


def _print_block(block: RenderableType) -> None:
    """Prints a table or a sentence, without the blanks that Rich fills its last column with and breaks lines after."""
    with console().capture() as capture:
        console().print(block)
    lines = capture.get().removesuffix("\n").split("\n")
    console().file.write("".join(f"{_without_blanks_at_end(line)}\n" for line in lines))
    console().file.flush()


def _without_blanks_at_end(line: str) -> str:
    line, style_ends = line.rstrip(" "), "\x1b[0m"
    return line.removesuffix(style_ends).rstrip(" ") + style_ends if line.endswith(style_ends) else line


def print_quoted(text: str, *, diff: bool = False) -> None:
    """All of ``text``, each line behind a bar, so that it cannot pass for this program's own line.

    A line that continues the one above, because the terminal is narrow, has a broken bar. With
    ``diff`` a unified diff is coloured, by position: a removed line that reads ``-- a`` is no header.
    """
    # By hand: Rich takes minutes for the megabyte of newlines that an agent may send.
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    first, further = ("│ ", "┊ ") if unicode else ("| ", ": ")
    coloured = _coloured()
    dim, plain = (_SGR["dim"], "\x1b[0m") if coloured else ("", "")
    width = _width() - 2 if sys.stdout.isatty() else None
    in_hunk = False
    for block in _blocks(text.removesuffix("\n")):
        out: list[str] = []
        for line in visible(block).split("\n"):
            in_hunk = in_hunk or line.startswith("@@")
            style = _SGR[_diff_style(line, in_hunk)] if diff and coloured else ""
            end = f"{plain}\n" if style else "\n"
            if width is None or (len(line) <= width and line.isascii() and "\t" not in line):
                out.append(f"{dim}{first}{plain}{style}{line}{end}")
                continue
            bar = first
            for piece in _folded(line, width):
                out.append(f"{dim}{bar}{plain}{style}{piece}{end}")
                bar = further
        sys.stdout.write("".join(out))
        sys.stdout.flush()


def _blocks(text: str) -> Iterator[str]:
    """``text`` in whole lines, some pages at a time: the first is on the screen before the last was looked at."""
    start = 0
    while (end := text.find("\n", start + _BLOCK)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]


# Select Graphic Rendition, ECMA-48 section 8.3.117.
_SGR: Final[Mapping[str, str]] = {
    "": "",
    "bold": "\x1b[1m",
    "dim": "\x1b[2m",
    "red": "\x1b[31m",
    "green": "\x1b[32m",
    "cyan": "\x1b[36m",
}


def _coloured() -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    if _COLOUR_WANTED.intersection(os.environ):
        return True
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def _diff_style(line: str, in_hunk: bool) -> str:
    if not in_hunk:
        return "bold"
    return {"+": "green", "-": "red", "@": "cyan", "\\": "dim"}.get(line[:1], "")


def _folded(line: str, width: int) -> Iterator[str]:
    """``line`` in pieces of at most ``width`` cells, after a space where one is near; no character is lost."""
    from rich.cells import cell_len, chop_cells

    line = line.expandtabs()
    start = 0
    while True:
        # A character has one cell or two, or none: what fits is within the next ``width`` of them.
        piece = line[start : start + width]
        if not piece.isascii() and cell_len(piece) > width:
            piece = chop_cells(piece, width)[0]
        if start + len(piece) == len(line):
            break
        space = piece.rfind(" ") + 1
        if space > width // 2:
            piece = piece[:space]
        yield piece
        start += len(piece)
    yield line[start:]
