"""How do the pages, the keys and the database come together into one screen?"""

from __future__ import annotations

import asyncio
import time
from queue import SimpleQueue
from typing import ClassVar

from textual import events, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.scrollbar import ScrollBar, ScrollBarRender
from textual.widgets import ContentSwitcher, Footer, Input, Label

from bot_bottle import Review
from bot_bottle.errors import BotBottleError, NotFoundError
from bot_bottle.operator import live, seat, views, words
from bot_bottle.operator.review import Section, sections
from bot_bottle.policy import bypass
from bot_bottle.tui.deciding import SURFACE, Deciding
from bot_bottle.tui.dialogs import READING_TIME, Dialog, Help
from bot_bottle.tui.drawing import Document, WholeCells, ascii_only, clean, document, lexer_for
from bot_bottle.tui.inbox_list import InboxList
from bot_bottle.tui.review_view import ReviewView
from bot_bottle.tui.tables import Bottles, Cells, Grants, History, Page, Policies

_PAGES = ("inbox", "history", "bottles", "grants", "policies")
_RETRY = 1.0
# The list is drawn anew at most so often: each time costs the thread that hears keys some milliseconds.
_BETWEEN_MERGES = 0.1
# The fields that a review begins with, from those that identify a proposal.
_FIRST = ("Requester", "File", "Fingerprint")


class Seat(Deciding):
    """``bot-bottle supervise``."""

    CSS_PATH = "app.tcss"
    TITLE = "bot-bottle"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]  # noqa: RUF012  Textual declares it so
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "approve", "Approve"),
        Binding("A", "approve_with_scope", "Scope", show=False),
        Binding("r", "reject", "Reject"),
        Binding("R", "reject_and_remember", "Remember", show=False),
        Binding("m", "modify", "Modify"),
        Binding("w", "ask_back", "Ask back"),
        Binding("x", "mark", "Mark"),
        Binding("b", "approve_marked", "Approve marked", show=False),
        Binding("g", "approve_group", "Approve group", show=False),
        Binding("space,pagedown", "read_on(1)", "Read on", key_display="space"),
        Binding("pageup", "read_on(-1)", "Back", show=False),
        Binding("home", "read_on(-1000000)", "Top", show=False),
        Binding("end", "read_on(1000000)", "End", show=False),
        Binding("slash", "ask('search')", "Search", show=False),
        Binding("f", "ask('filter')", "Filter"),
        *(Binding(str(at), f"page_open('{name}')", name.title(), show=False) for at, name in enumerate(_PAGES, 1)),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
    ]
    # Keys that decide are handled before bindings, with the moment at which they were pressed.
    DECIDING: ClassVar[dict[str, str]] = {
        "a": "approve",
        "A": "approve_with_scope",
        "upper_a": "approve_with_scope",
        "r": "reject",
        "R": "reject_and_remember",
        "upper_r": "reject_and_remember",
        "m": "modify",
        "w": "ask_back",
        "x": "mark",
        "b": "approve_marked",
        "g": "approve_group",
    }

    def __init__(self, db_path: str | None = None, bottle_slug: str | None = None) -> None:
        super().__init__(db_path)
        self._bottle_slug = bottle_slug
        self._over = True  # until it is drawn, and from its end on
        self._asking = ""
        self._bypasses: list[bypass.Bypass] = []
        self._views: SimpleQueue[views.View | None] = SimpleQueue()
        self._pages = ContentSwitcher(initial="inbox")
        self._places = Label("", id="pages", markup=False)
        self._asked = Input(id="asked", compact=True)
        self._above = Label("", id="above", markup=False)
        self._grants = Grants("grants", db_path)
        self._tables: dict[str, Page] = {
            "history": History("history", db_path),
            "bottles": Bottles("bottles", db_path),
            "grants": self._grants,
            "policies": Policies("policies", db_path),
        }

    # -- what is on the screen

    def compose(self) -> ComposeResult:
        """A line of pages, the pages, a line that tells, the keys."""
        yield self._places
        yield self._above
        with self._pages:
            with Container(id="inbox"):
                yield self.listed
                yield self.view
            yield from self._tables.values()
        yield self.told
        yield self._asked
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        """Begins to follow the inbox."""
        self._over = False
        self.animation_level = "none"
        self.theme = "textual-ansi" if "textual-ansi" in self.available_themes else self.theme
        self.set_class(ascii_only(), "-ascii")
        ScrollBar.renderer = WholeCells if ascii_only() else ScrollBarRender
        self.listed.focus()
        self.show_pages()
        self.run_worker(self._follow, thread=True, group="feed", exit_on_error=False)
        self.run_worker(self._write_views, thread=True, group="views", exit_on_error=False)
        self.set_interval(1.0, self._tick)

    @property
    def page(self) -> str:
        """Which page is open."""
        return self._pages.current or "inbox"

    def show_pages(self) -> None:
        """Redraws the line on top: the pages, and how much waits, is marked and was read."""
        pending = sum(1 for row in self.listed.rows.values() if row.pending)
        names = [f"{'>' if name == self.page else ' '}{at} {name.title()}" for at, name in enumerate(_PAGES, 1)]
        marked = f"  {len(self.listed.marked)} marked" if self.listed.marked else ""
        kept = f"  filter: {self.listed.filter}" if self.listed.filter else ""
        bypassed = "  BYPASS " + ", ".join(f"{each.bottle} {words.span(each.seconds_left)}" for each in self._bypasses)
        first, last, height = self.view.rows
        place = f"  lines {first}-{last} of {height}" if self.page == "inbox" and height else ""
        self._places.update(
            clean(f"{' '.join(names)}   {pending} pending{bypassed if self._bypasses else ''}{marked}{kept}{place}")
        )

    def _tick(self) -> None:
        self._bypasses = bypass.active()
        self._places.set_class(bool(self._bypasses), "-alarm")
        if len(self.screen_stack) == 1:
            self.listed.refresh()
            self.show_pages()

    # -- following the database; in a thread

    def _follow(self) -> None:
        while not self._over:
            try:
                with seat.inbox(self.db_path) as inbox:
                    self._inbox = inbox
                    following = live.follow(
                        inbox,
                        bottle_slug=self._bottle_slug,
                        on_screen=lambda: self.call_from_thread(self._on_screen),
                        stopped=lambda: self._over,
                    )
                    for rows in following:
                        if self._over:
                            return
                        self.call_from_thread(self._merge, rows)
                        time.sleep(_BETWEEN_MERGES)
            except BotBottleError as error:
                self._inbox = None
                if self._over:
                    return
                self.call_from_thread(self.tell, f"{error}; trying again", "alarm")
                time.sleep(_RETRY)
            except RuntimeError:  # the app ended between two calls
                if not self._over:
                    raise

    def on_unmount(self) -> None:
        """Lets the threads end."""
        self._over = True
        self._views.put(None)

    def _note_view(self, review: Review, *, whole: bool = False) -> None:
        at = words.now()
        view = views.View(review.item.proposal.id, review.review_sha256, SURFACE, at, at if whole else None)
        self._views.put(view)

    def _write_views(self) -> None:
        """Runs in a thread, and writes everything that has arrived at once, because another writer may be slow."""
        while True:
            found = [self._views.get()]
            while not self._views.empty():
                found.append(self._views.get())
            noted = [view for view in found if view is not None]
            if noted:
                seat.note(noted, self.db_path)  # without it only the count of what was seen is short
            if None in found:
                return

    def _on_screen(self) -> list[str]:
        return [] if self._over else self.listed.on_screen()

    def _merge(self, rows: list[live.Row]) -> None:
        if self._over:
            return
        self.listed.merge(rows)
        self.show_pages()
        if any(row.id == self.listed.selected for row in rows):
            self._open(self.listed.selected)
        if self.page in self._tables:
            self._load(self._tables[self.page])

    # -- the selected proposal

    def on_inbox_list_selected(self, event: InboxList.Selected) -> None:
        """Shows it."""
        self._open(event.proposal_id)

    def on_review_view_read_to_end(self, event: ReviewView.ReadToEnd) -> None:
        """Remembers that it was read, and what."""
        review = self.view.review
        if review is not None and review.item.proposal.id == event.proposal_id:
            self._read[event.proposal_id] = review.review_sha256
            self._note_view(review, whole=True)

    def _open(self, proposal_id: str | None) -> None:
        if proposal_id is None:
            self.view.show(None, document([Section(remarks=(("Nothing is selected.", "quiet"),))]))
            return
        self._review(proposal_id)

    @work(thread=True, exclusive=True, group="review", exit_on_error=False)
    def _review(self, proposal_id: str) -> None:
        try:
            inbox = self._inbox
            if inbox is None:
                return
            review = inbox.review(proposal_id)
            shown = _drawn(review)
            shown.wrap(self.view.size.width)  # here, and not where keys are heard
        except NotFoundError:
            gone = Section(remarks=((f"{proposal_id} is no longer in the database.", "alarm"),))
            self.call_from_thread(self._show, proposal_id, None, document([gone]))
        except BotBottleError as error:
            self.call_from_thread(self.tell, str(error), "alarm")
        else:
            self.call_from_thread(self._show, proposal_id, review, shown)

    def _show(self, proposal_id: str, review: Review | None, shown: Document) -> None:
        if self._over or proposal_id != self.listed.selected:
            return  # another one was selected in the meantime
        self.view.show(review, shown)
        if review is not None and review.item.state == "pending":
            self._note_view(review)
        self.listed.seen.add(proposal_id)
        self.listed.refresh()
        self.call_after_refresh(self.show_pages)

    # -- keys

    def on_key(self, event: events.Key) -> None:
        """Runs a key that decides, if the proposal was on the screen when it was pressed."""
        if self._over:
            return
        action = self.DECIDING.get(event.key)
        if action is None or self.page != "inbox" or len(self.screen_stack) > 1 or isinstance(self.focused, Input):
            return
        event.stop()
        event.prevent_default()
        painted = self.view.painted_at
        if painted is None or event.time < painted + READING_TIME:
            self.tell(
                f"'{event.character or event.key}' was pressed before this proposal was on the screen: "
                "nothing was decided",
                "soon",
            )
            return
        getattr(self, f"action_{action}")()

    def action_read_on(self, pages: int) -> None:
        """Moves in the text."""
        self.view.read_on(pages)
        self.call_after_refresh(self.show_pages)

    def action_page_open(self, name: str) -> None:
        """Opens a page."""
        self._pages.current = name
        self._above.display = False
        if name == "inbox":
            self.listed.focus()
        else:
            page = self._tables[name]
            page.focus()
            self._load(page)
        self.show_pages()

    @work(thread=True, exclusive=True, group="page", exit_on_error=False)
    def _load(self, page: Page) -> None:
        try:
            rows = page.load()
        except BotBottleError as error:
            self.call_from_thread(self.tell, str(error), "alarm")
        else:
            self.call_from_thread(self._fill, page, rows)

    def _fill(self, page: Page, rows: list[tuple[str, Cells]]) -> None:
        page.fill(rows)
        if page is self._tables.get(self.page):
            self._above.update(clean(page.above))
            self._above.display = bool(page.above)

    def action_help(self) -> None:
        """All keys."""
        self.push_screen(Help())

    def action_ask(self, what: str) -> None:
        """Opens the line in which one searches or filters."""
        self._asking = what
        asked = self._asked
        asked.placeholder = f"{what}: Enter, or Esc to leave"
        asked.value = self.listed.filter if what == "filter" and self.page == "inbox" else ""
        asked.display = True
        asked.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Searches on with each Enter; a filter is done with one."""
        if self._asking == "search":
            if event.value and not self.view.find(event.value):
                self.tell(f"'{event.value}' is not in this text")
            self.call_after_refresh(self.show_pages)
        else:
            self._leave_asking()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filters as one types."""
        if self._asking != "filter" or event.input.id != "asked":
            return
        if self.page == "inbox":
            self.listed.filter = event.value
            self.listed.reorder()
        else:
            page = self._tables[self.page]
            page.filter = event.value
            self._load(page)
        self.show_pages()

    def key_escape(self) -> None:
        """Leaves the line."""
        if self._asking:
            self._leave_asking()

    def _leave_asking(self) -> None:
        self._asking = ""
        self._asked.display = False
        (self.listed if self.page == "inbox" else self._tables[self.page]).focus()

    @work(exit_on_error=False)
    async def action_revoke(self) -> None:
        """Ends the grant under the cursor after a question."""
        page = self._grants
        grant_id = page.selected()
        if grant_id is None:
            return
        if (
            await self.push_screen_wait(
                Dialog("Revoke this grant? The next such request asks again.", page.about(grant_id))
            )
            is None
        ):
            return
        try:
            grant = await asyncio.to_thread(lambda: seat.grants(self.db_path).revoke_grant(grant_id, surface=SURFACE))
        except BotBottleError as error:
            self.tell(str(error), "alarm")
        else:
            self.tell(f"revoked {grant.id} ({grant.tool} of {grant.bottle_slug})", "good")
            self._load(page)

    async def action_quit(self) -> None:
        """Ends the app."""
        self._over = True
        self.exit()


def _drawn(review: Review) -> Document:
    """A small terminal shows some twelve lines: first who asks, why and for what, and last what identifies it."""
    proposal = review.item.proposal
    identity, *rest = sections(review)
    rest.sort(key=lambda section: bool(section.heading))  # what is odd has none, and goes before what it is about
    first = tuple(field for field in identity.fields if field[0] in _FIRST)
    about = f"{proposal.tool} of {proposal.bottle_slug}"
    further = identity._replace(heading="Identity")
    return document([Section(about, first), *rest], lexer_for(proposal.tool), further=[further])


def run(db_path: str | None = None, bottle_slug: str | None = None) -> None:
    """Runs the app until it is closed. Whatever was typed before it was drawn is discarded."""
    import sys
    import termios

    termios.tcflush(sys.stdin, termios.TCIFLUSH)
    app = Seat(db_path, bottle_slug)
    app.run()
    app._over = True
