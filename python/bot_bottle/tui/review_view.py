"""What is shown of the selected proposal, how far was it read, and since when is it on the screen?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from bot_bottle.tui.drawing import Document

if TYPE_CHECKING:
    from bot_bottle import InboxItem, Review


class ReviewView(ScrollView, can_focus=True):
    """A document, drawn line by line."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_up", "Up", show=False),
        Binding("down,j", "scroll_down", "Down", show=False),
    ]

    class ReadToEnd(Message):
        """The last line has been on the screen."""

        def __init__(self, proposal_id: str | None) -> None:
            self.proposal_id = proposal_id
            super().__init__()

    def __init__(self) -> None:
        super().__init__(id="review")
        self.review: Review | None = None
        self.painted_at: float | None = None
        """When what is on the screen now was drawn first; ``None``: not yet."""
        self.read_to_end = False
        self._document = Document([])

    @property
    def item(self) -> InboxItem | None:
        """The proposal that is shown."""
        return self.review.item if self.review else None

    def show(self, review: Review | None, document: Document) -> None:
        """Puts ``document`` on the screen. The same lines again leave alone where one is and what one has read."""
        # An id tells nothing of what an approval would do now: another target is another question.
        same = review is not None and self.review is not None and review.review_sha256 == self.review.review_sha256
        unchanged = same and document.parts == self._document.parts
        self.review = review
        if unchanged:
            return
        # A few words may differ while one reads: an age, the waiter. What is to be decided on is the quoted text.
        kept = same and document.quoted == self._document.quoted
        self._document = document
        if not kept:
            self.painted_at = None
            self.read_to_end = False
            self.scroll_to(y=0, animate=False, force=True)
        self._fit()
        self.call_after_refresh(self._painted)

    @property
    def rows(self) -> tuple[int, int, int]:
        """The first and the last row on the screen, from 1, and how many there are."""
        top = self.scroll_offset.y
        return top + 1, min(top + self.size.height, self._document.height), self._document.height

    def find(self, text: str) -> bool:
        """Scrolls to the next line that holds ``text``; is there one?"""
        found = self._document.find(text, self.scroll_offset.y)
        if found is not None:
            self.scroll_to(y=found, animate=False, force=True)
        return found is not None

    def read_on(self, pages: int) -> None:
        """Scrolls by so many pages, with a line of overlap; too many lead to an edge."""
        y = self.scroll_offset.y + pages * max(1, self.size.height - 1)
        self.scroll_to(y=max(0, min(y, self.max_scroll_y)), animate=False, force=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """All rows, where its height is left to it."""
        self._document.wrap(width)
        return self._document.height

    def render_line(self, y: int) -> Strip:
        """One row of the document."""
        base = self.rich_style
        segments = [
            Segment(each.text, base + (each.style or base)) for each in self._document.draw(self.scroll_offset.y + y)
        ]
        return Strip(segments).adjust_cell_length(self.size.width, base)

    def on_resize(self, event: events.Resize) -> None:
        """Wraps to the new width, and stays at the same place in the text."""
        self._fit()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Notes how far one has read."""
        super().watch_scroll_y(old_value, new_value)
        self._note()

    def _fit(self) -> None:
        if self.size.width:
            self._document.wrap(self.size.width)
            self.virtual_size = Size(0, self._document.height)
        self.refresh(layout=True)
        self._note()

    def _painted(self) -> None:
        if self.painted_at is None:
            self.painted_at = time.monotonic()
        self._note()

    def _note(self) -> None:
        if self.read_to_end or self.painted_at is None:
            return
        _, last, height = self.rows
        if height and last >= self._document.needed_height:
            self.read_to_end = True
            self.post_message(self.ReadToEnd(self.item.proposal.id if self.item else None))
