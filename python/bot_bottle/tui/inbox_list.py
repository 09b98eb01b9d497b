"""Which proposals are listed, in what order, and which one is selected?

The selection is an id. Rows that come, go or move never change it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from bot_bottle.operator import words
from bot_bottle.operator.live import Row
from bot_bottle.tui.drawing import STYLES, ascii_only, fitted

# Decided ones stay in view until they are cleared; of more than these the oldest go.
_MOST_ENDED = 200


class InboxList(ScrollView, can_focus=True):
    """The rows under their bottles' headings, oldest first."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("n", "next_unseen", "Next"),
        Binding("c", "clear", "Clear decided", show=False),
        # Of a list that scrolls these would be its own; they read the text beside it.
        Binding("pagedown", "app.read_on(1)", show=False),
        Binding("pageup", "app.read_on(-1)", show=False),
        Binding("home", "app.read_on(-1000000)", show=False),
        Binding("end", "app.read_on(1000000)", show=False),
    ]

    class Selected(Message):
        """Another proposal is selected, or none (``None``)."""

        def __init__(self, proposal_id: str | None) -> None:
            self.proposal_id = proposal_id
            super().__init__()

    def __init__(self) -> None:
        super().__init__(id="list")
        self.rows: dict[str, Row] = {}
        self.selected: str | None = None
        self.seen: set[str] = set()
        self.marked: set[str] = set()
        self.filter = ""
        self._lines: list[str | Row] = []  # a heading is its bottle's slug
        self._at: dict[str, int] = {}

    def merge(self, rows: Iterable[Row]) -> None:
        """Takes in what came or changed."""
        for row in rows:
            if row.pending or row.id in self.rows:
                self.rows[row.id] = row
            if row.ended:
                self.marked.discard(row.id)
        ended = [each for each in self.rows.values() if each.ended and each.id != self.selected]
        for row in ended[: max(0, len(ended) - _MOST_ENDED)]:
            del self.rows[row.id]
        self.reorder()

    def reorder(self) -> None:
        """Orders the lines anew; the selected one stays where it is on the screen."""
        before = self._at.get(self.selected or "")
        by_bottle: dict[str, list[Row]] = {}
        for row in sorted(self.rows.values()):
            if not self.filter or row.matches(self.filter):
                by_bottle.setdefault(row.bottle_slug, []).append(row)
        self._lines = []
        for slug, rows in sorted(by_bottle.items(), key=lambda pair: pair[1][0].id):
            self._lines += [slug, *rows]
        self._at = {line.id: at for at, line in enumerate(self._lines) if isinstance(line, Row)}
        self.virtual_size = Size(0, len(self._lines))
        after = self._at.get(self.selected or "")
        if before is not None and after is not None and before != after:
            self.scroll_to(y=self.scroll_offset.y + after - before, animate=False, force=True)
        if self.selected is None and self._at:
            self.select(next(iter(self._at)))
        self.refresh()

    def select(self, proposal_id: str | None) -> None:
        """Selects by id and brings it into view."""
        if proposal_id != self.selected:
            self.selected = proposal_id
            self.post_message(self.Selected(proposal_id))
        at = self._at.get(proposal_id or "")
        if at is not None and self.size.height:
            top = self.scroll_offset.y
            # The heading above the first row of a bottle is worth seeing too.
            first = at - 1 if isinstance(self._lines[at - 1], str) else at
            if first < top:
                self.scroll_to(y=first, animate=False, force=True)
            elif at >= top + self.size.height:
                self.scroll_to(y=at - self.size.height + 1, animate=False, force=True)
        self.refresh()

    def action_move(self, by: int) -> None:
        """Selects the row above or below."""
        ids = list(self._at)
        if not ids:
            return
        at = ids.index(self.selected) + by if self.selected in self._at else 0
        self.select(ids[max(0, min(at, len(ids) - 1))])

    def action_next_unseen(self) -> None:
        """Selects the next pending proposal that was not looked at, from the top again after the last."""
        ids = list(self._at)
        at = ids.index(self.selected) + 1 if self.selected in self._at else 0
        for each in ids[at:] + ids[:at]:
            if self.rows[each].pending and each not in self.seen and each != self.selected:
                self.select(each)
                return
        self.app.bell()

    def action_clear(self) -> None:
        """Takes what is decided or over out of the list."""
        at = self._at.get(self.selected or "", 0)
        self.rows = {each: row for each, row in self.rows.items() if row.pending}
        if self.selected not in self.rows:
            self._at = {}
            self.selected = None
            following = [line.id for line in self._lines[at:] if isinstance(line, Row) and line.id in self.rows]
            if following:
                self.select(following[0])
            elif not self.rows:
                self.post_message(self.Selected(None))
        self.reorder()

    def on_screen(self) -> list[str]:
        """The ids of the rows that can be seen now."""
        top = self.scroll_offset.y
        shown = self._lines[top : top + self.size.height]
        return [line.id for line in shown if isinstance(line, Row)] + ([self.selected] if self.selected else [])

    def on_click(self, event: events.Click) -> None:
        """Selects the row under the mouse."""
        at = self.scroll_offset.y + event.y
        if 0 <= at < len(self._lines) and isinstance(line := self._lines[at], Row):
            self.select(line.id)

    def on_resize(self) -> None:
        """The selected row stays in view."""
        self.select(self.selected)

    def render_line(self, y: int) -> Strip:
        """One row: mark, tool, age, and what becomes of it."""
        at = self.scroll_offset.y + y
        width = self.size.width
        if at >= len(self._lines):
            return Strip.blank(width, self.rich_style)
        line = self._lines[at]
        if isinstance(line, str):
            count = sum(1 for row in self.rows.values() if row.bottle_slug == line and row.pending)
            text = fitted(f"{line} ({count})", width)
            return Strip([Segment(text, self.rich_style + STYLES["strong"])], width)
        return Strip(self._row(line, width), width)

    def _row(self, row: Row, width: int) -> list[Segment]:
        base = self.rich_style
        if row.id == self.selected:
            base += Style(reverse=True)
        mark = "x" if row.id in self.marked else " " if row.id in self.seen or not row.pending else "*"
        cursor = (">" if ascii_only() else "▶") if row.id == self.selected else " "
        if row.pending:
            state, tone = words.lapse(row.expires_at) if row.expires_at else row.waiter
            if row.expires_at:
                state = f"expires {state}"
                if told := words.conversation(row):
                    state, tone = f"{told[0]}, {state}", told[1]
        else:
            state, tone = words.state(row.state if row.state != "pending" else "expired")
        age = words.age(row.arrived)
        odd = "!" if row.odd else " "
        tool = max(8, min(20, width - 28))
        left = f"{cursor}{mark}{odd}{fitted(row.tool, tool)} {age:>6} "
        size = f" {row.size:>9,} B" if width >= 60 else ""
        return [
            Segment(left, base if row.pending else base + STYLES["quiet"]),
            Segment(fitted(state, max(0, width - len(left) - len(size))), base + STYLES[tone]),
            Segment(size, base + STYLES["quiet"]),
        ]
