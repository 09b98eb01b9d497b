"""How do the pages, the keys and the database come together into one screen?"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, ClassVar

from textual import events, work
from textual.app import App, ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.widgets import ContentSwitcher, Footer, Input, Label

from bot_bottle import GrantStore, Inbox, InboxItem, render_diff
from bot_bottle.errors import BotBottleError, NotFoundError
from bot_bottle.operator import decisions, live, scopes, words
from bot_bottle.operator.review import Section, review
from bot_bottle.tui.dialogs import READING_TIME, Answer, Dialog, Help
from bot_bottle.tui.drawing import ascii_only, clean, document, lexer_for
from bot_bottle.tui.inbox_list import InboxList
from bot_bottle.tui.review_view import ReviewView
from bot_bottle.tui.tables import Bottles, Grants, History, Page

SURFACE = "tui"
_PAGES = ("inbox", "history", "bottles", "grants")
_RETRY = 1.0
_REREAD = 2.0


class Seat(App[None]):
    """``bot-bottle supervise``."""

    CSS_PATH = "app.tcss"
    TITLE = "bot-bottle"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]  # noqa: RUF012  Textual declares it so
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "approve", "Approve"),
        Binding("A", "approve_with_scope", "Scope", show=False),
        Binding("r", "reject", "Reject"),
        Binding("m", "modify", "Modify"),
        Binding("x", "mark", "Mark"),
        Binding("b", "approve_marked", "Approve marked", show=False),
        Binding("space,pagedown", "page(1)", "Read on", key_display="space"),
        Binding("pageup", "page(-1)", "Back", show=False),
        Binding("home", "to_edge(0)", "Top", show=False),
        Binding("end", "to_edge(1)", "End", show=False),
        Binding("slash", "ask('search')", "Search", show=False),
        Binding("f", "ask('filter')", "Filter"),
        *(Binding(str(at), f"page_open('{name}')", name.title(), show=False) for at, name in enumerate(_PAGES, 1)),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
    ]
    # What decides is handled before bindings are, with the moment at which the key was pressed.
    DECIDING: ClassVar[dict[str, str]] = {
        "a": "approve",
        "A": "approve_with_scope",
        "upper_a": "approve_with_scope",
        "r": "reject",
        "m": "modify",
        "x": "mark",
        "b": "approve_marked",
    }

    def __init__(self, db_path: str | None = None, bottle_slug: str | None = None) -> None:
        super().__init__()
        self.db_path = db_path
        self._bottle_slug = bottle_slug
        self._inbox: Inbox | None = None
        self._read: dict[str, str] = {}  # id → hash of the payload that was read to its end
        self._reasons: deque[str] = deque(maxlen=5)
        self._over = True  # until it is drawn, and from its end on
        self._deciding_now = False
        self._asking = ""

    # -- what is on the screen

    def compose(self) -> ComposeResult:
        """A line of pages, the pages, a line that tells, the keys."""
        yield Label("", id="pages", markup=False)
        with ContentSwitcher(initial="inbox"):
            with Container(id="inbox"):
                yield InboxList()
                yield ReviewView()
            yield History("history", self.db_path)
            yield Bottles("bottles", self.db_path)
            yield Grants("grants", self.db_path)
        yield Label("", id="told", markup=False)
        yield Input(id="asked", compact=True)
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        """Begins to follow the inbox."""
        self._over = False
        self.animation_level = "none"
        self.theme = "textual-ansi" if "textual-ansi" in self.available_themes else self.theme
        self.set_class(ascii_only(), "-ascii")
        self.listed.focus()
        self._show_pages()
        self.run_worker(self._follow, thread=True, group="feed", exit_on_error=False)
        self.set_interval(1.0, self._tick)

    @property
    def listed(self) -> InboxList:
        """The inbox's left side."""
        return self.query_one(InboxList)

    @property
    def view(self) -> ReviewView:
        """The inbox's right side."""
        return self.query_one("#inbox #review", ReviewView)

    @property
    def page(self) -> str:
        """Which page is open."""
        return self.query_one(ContentSwitcher).current or "inbox"

    def tell(self, text: str, tone: str = "plain") -> None:
        """Leaves a sentence in view until the next one."""
        told = self.query_one("#told", Label)
        told.update(clean(text))
        told.set_classes(f"-{tone}" if text else "")

    def _show_pages(self) -> None:
        pending = sum(1 for row in self.listed.rows.values() if row.pending)
        names = [f"{'>' if name == self.page else ' '}{at} {name.title()}" for at, name in enumerate(_PAGES, 1)]
        marked = f"  {len(self.listed.marked)} marked" if self.listed.marked else ""
        kept = f"  filter: {self.listed.filter}" if self.listed.filter else ""
        first, last, height = self.view.rows
        place = f"  lines {first}-{last} of {height}" if self.page == "inbox" and height else ""
        self.query_one("#pages", Label).update(clean(f"{' '.join(names)}   {pending} pending{marked}{kept}{place}"))

    def _tick(self) -> None:
        if len(self.screen_stack) == 1:
            self.listed.refresh()
            self._show_pages()

    # -- following the database; in a thread

    def _follow(self) -> None:
        while not self._over:
            try:
                with Inbox(self.db_path) as inbox:
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
        """Lets the thread end."""
        self._over = True

    def _on_screen(self) -> list[str]:
        return [] if self._over else self.listed.on_screen()

    def _merge(self, rows: list[live.Row]) -> None:
        if self._over:
            return
        self.listed.merge(rows)
        self._show_pages()
        if any(row.id == self.listed.selected for row in rows):
            self._open(self.listed.selected)
        for name in ("history", "bottles", "grants"):
            if self.page == name:
                self._load(self.query_one(f"#{name}", Page))

    # -- the selected proposal

    def on_inbox_list_selected(self, event: InboxList.Selected) -> None:
        """Shows it."""
        self._open(event.proposal_id)

    def on_review_view_read_to_end(self, event: ReviewView.ReadToEnd) -> None:
        """Remembers that it was read, and what."""
        item = self.view.item
        if item is not None and item.proposal.id == event.proposal_id:
            self._read[event.proposal_id] = item.proposal.payload_sha256

    def _open(self, proposal_id: str | None) -> None:
        if proposal_id is None:
            self.view.show(None, document([Section(remarks=(("Nothing is selected.", "quiet"),))], ""))
            return
        self._review(proposal_id)

    @work(thread=True, exclusive=True, group="review", exit_on_error=False)
    def _review(self, proposal_id: str) -> None:
        try:
            inbox = self._inbox
            if inbox is None:
                return
            item = inbox.read(proposal_id)
            shown = document(review(item), lexer_for(item.proposal.tool))
        except NotFoundError:
            gone = Section(remarks=((f"{proposal_id} is no longer in the database.", "alarm"),))
            self.call_from_thread(self._show, proposal_id, None, document([gone], ""))
        except BotBottleError as error:
            self.call_from_thread(self.tell, str(error), "alarm")
        else:
            self.call_from_thread(self._show, proposal_id, item, shown)

    def _show(self, proposal_id: str, item: InboxItem | None, shown: Any) -> None:
        if self._over or proposal_id != self.listed.selected:
            return  # the selection went on meanwhile
        self.view.show(item, shown)
        self.listed.seen.add(proposal_id)
        self.listed.refresh()
        self.call_after_refresh(self._show_pages)

    # -- keys

    def on_key(self, event: events.Key) -> None:
        """Runs what decides, if the key was pressed with the proposal before one's eyes."""
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

    def action_page(self, by: int) -> None:
        """Reads on, or back."""
        rows = max(1, self.view.size.height - 1)
        self.view.scroll_to(y=self.view.scroll_offset.y + by * rows, animate=False, force=True)
        self.call_after_refresh(self._show_pages)

    def action_to_edge(self, end: int) -> None:
        """To the first line, or the last."""
        self.view.scroll_to(y=self.view.max_scroll_y if end else 0, animate=False, force=True)
        self.call_after_refresh(self._show_pages)

    def action_page_open(self, name: str) -> None:
        """Opens a page."""
        self.query_one(ContentSwitcher).current = name
        if name == "inbox":
            self.listed.focus()
        else:
            page = self.query_one(f"#{name}", Page)
            page.focus()
            self._load(page)
        self._show_pages()

    @work(thread=True, exclusive=True, group="page", exit_on_error=False)
    def _load(self, page: Page) -> None:
        try:
            rows = page.load()
        except BotBottleError as error:
            self.call_from_thread(self.tell, str(error), "alarm")
        else:
            self.call_from_thread(page.fill, rows)

    def action_help(self) -> None:
        """All keys."""
        self.push_screen(Help())

    def action_ask(self, what: str) -> None:
        """Opens the line in which one searches or filters."""
        self._asking = what
        asked = self.query_one("#asked", Input)
        asked.placeholder = f"{what}: Enter, or Esc to leave"
        asked.value = self.listed.filter if what == "filter" and self.page == "inbox" else ""
        asked.display = True
        asked.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Searches on with each Enter; a filter is done with one."""
        if self._asking == "search":
            if event.value and not self.view.find(event.value):
                self.tell(f"'{event.value}' is not in this text")
            self.call_after_refresh(self._show_pages)
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
            page = self.query_one(f"#{self.page}", Page)
            page.filter = event.value
            self._load(page)
        self._show_pages()

    def key_escape(self) -> None:
        """Leaves the line."""
        if self._asking:
            self._leave_asking()

    def _leave_asking(self) -> None:
        self._asking = ""
        self.query_one("#asked", Input).display = False
        (self.listed if self.page == "inbox" else self.query_one(f"#{self.page}")).focus()

    # -- deciding

    def _shown(self) -> InboxItem | None:
        """The proposal that is selected **and** on the screen, if it can be decided."""
        item, row = self.view.item, self.listed.rows.get(self.listed.selected or "")
        if item is None or row is None or item.proposal.id != row.id:
            self.tell("Nothing is selected.")
        elif not row.pending:
            self.tell(row.ended or "It has expired.", "soon")
        else:
            return item
        return None

    def action_approve(self) -> None:
        """Asks, then approves."""
        self._deciding(self._approve(0))

    def action_approve_with_scope(self) -> None:
        """The same with the next wider scope chosen already."""
        self._deciding(self._approve(1))

    def action_reject(self) -> None:
        """Asks for the reason, then rejects."""
        self._deciding(self._reject())

    def action_modify(self) -> None:
        """Opens the editor, shows the diff, then sends it."""
        self._deciding(self._modify())

    def action_approve_marked(self) -> None:
        """Approves all that is marked after one question."""
        self._deciding(self._approve_marked())

    def _deciding(self, asked: Coroutine[Any, Any, None]) -> None:
        if self._deciding_now:
            asked.close()  # one question at a time
            return
        self._deciding_now = True
        self.run_worker(self._guarded(asked), group="decide")

    async def _guarded(self, asked: Coroutine[Any, Any, None]) -> None:
        try:
            await asked
        except BotBottleError as error:
            self.tell(str(error), "alarm")
        finally:
            self._deciding_now = False

    def action_mark(self) -> None:
        """Marks or unmarks; only what was read to its end."""
        item = self._shown()
        if item is None:
            return
        if self._unread(item):
            self.tell("Read it to its end (space, End) before you mark it.", "soon")
            return
        self.listed.marked ^= {item.proposal.id}
        self.listed.refresh()
        self._show_pages()

    def _unread(self, item: InboxItem) -> bool:
        return self._read.get(item.proposal.id) != item.proposal.payload_sha256 or not self.view.read_to_end

    async def _ask(self, dialog: Dialog) -> Answer | None:
        return await self.push_screen_wait(dialog)

    async def _approve(self, scope: int) -> None:
        item = self._shown()
        if item is None:
            return
        if self._unread(item):
            first, last, height = self.view.rows
            unread = f"You have seen lines {first}-{last} of {height}. Approve without reading to the end?"
            if await self._ask(Dialog(unread, _about(item))) is None:
                return
        offered = scopes.offered(item.proposal)
        needed = scopes.needs_reason(item.proposal.tool)
        answer = await self._ask(
            Dialog(
                "Approve this?",
                _about(item),
                scopes=offered,
                chosen=min(scope, len(offered) - 1),
                asks="a reason, which is recorded" if needed else "",
                needed=needed,
                recent=list(self._reasons) if needed and len(offered) == 1 else (),
            )
        )
        if answer is not None:
            await self._decide(item, "approved", notes=answer.notes, grant=answer.grant)

    async def _reject(self) -> None:
        item = self._shown()
        if item is None:
            return
        dialog = Dialog("Reject this?", _about(item), asks="the reason; the agent reads it", recent=list(self._reasons))
        answer = await self._ask(dialog)
        if answer is None:
            return
        if answer.notes and answer.notes not in self._reasons:
            self._reasons.appendleft(answer.notes)
        await self._decide(item, "rejected", notes=answer.notes)

    async def _modify(self) -> None:
        item, inbox = self._shown(), self._inbox
        if item is None or inbox is None:
            return
        decisions.refuse_early(inbox, item, surface=SURFACE)
        with decisions.drafted(item, lambda where: self.tell(where, "alarm")) as draft:
            try:
                with self.suspend():
                    final = decisions.edited(item, draft, editor="vi")
            except SuspendNotSupported:
                raise BotBottleError("nothing was decided: there is no terminal for an editor here") from None
            finally:
                self.refresh(layout=True)
            text = final.decode(errors="replace")
            change = render_diff(item.proposal.proposed_file, text, label=draft.name)
            answer = await self._ask(
                Dialog(
                    "Send your version instead?",
                    _about(item),
                    asks="a note; the agent reads it",
                    detail=[Section("What you changed", text=change, diff=True)],
                )
            )
            if answer is None:
                raise BotBottleError("nothing was decided")
            await self._decide(item, "modified", notes=answer.notes, final_file=final)

    async def _approve_marked(self) -> None:
        marked = [row for each, row in sorted(self.listed.rows.items()) if each in self.listed.marked and row.pending]
        if not marked:
            self.tell("Nothing is marked: x marks a proposal that was read to its end.")
            return
        needed = any(scopes.needs_reason(row.tool) for row in marked)
        lines = "\n".join(f"{row.bottle_slug}  {row.tool}  {row.id}  {row.why}" for row in marked)
        answer = await self._ask(
            Dialog(
                f"Approve these {len(marked)}?",
                (),
                asks="a reason, which is recorded" if needed else "",
                needed=needed,
                detail=[Section(text=lines)],
            )
        )
        inbox = self._inbox
        if answer is None or inbox is None:
            return
        failed = []
        for row in marked:
            try:
                item = inbox.read(row.id)
                # What was read is what is approved: another payload under this id is refused.
                decisions.check_hash(item, self._read[row.id])
                await self._run(partial(decisions.decide, inbox, item, "approved", surface=SURFACE, notes=answer.notes))
            except BotBottleError as error:
                failed.append(str(error))
        done = len(marked) - len(failed)
        self.tell("; ".join([f"approved {done} of {len(marked)}", *failed]), "alarm" if failed else "good")

    async def _decide(self, item: InboxItem, status: str, **more: Any) -> None:
        inbox = self._inbox
        if inbox is None:
            raise BotBottleError("nothing was decided: the database cannot be reached")
        answer = await self._run(lambda: decisions.decide(inbox, item, status, surface=SURFACE, **more))
        self.tell("  ".join(text for text, _ in decisions.told(item, answer)), "good")

    async def _run(self, call: Callable[[], Any]) -> Any:
        """In a thread: another writer may be slow, and the screen stays alive. The decision is taken all the same."""
        return await asyncio.to_thread(call)

    @work(exit_on_error=False)
    async def action_revoke(self) -> None:
        """Ends the grant under the cursor after a question."""
        page = self.query_one(Grants)
        grant_id = page.selected()
        if grant_id is None:
            return
        if await self._ask(Dialog("Revoke this grant? The next such request asks again.", (grant_id,))) is None:
            return
        try:
            grant = await self._run(lambda: GrantStore(self.db_path).revoke_grant(grant_id, surface=SURFACE))
        except BotBottleError as error:
            self.tell(str(error), "alarm")
        else:
            self.tell(f"revoked {grant.id} ({grant.tool} of {grant.bottle_slug})", "good")
            self._load(page)

    async def action_quit(self) -> None:
        """Ends the app."""
        self._over = True
        self.exit()


def _about(item: InboxItem) -> list[str]:
    """What a question is about: bottle, tool, target, and who waits."""
    proposal = item.proposal
    target = item.managed_file or proposal.fingerprint or "-"
    return [
        f"bottle {proposal.bottle_slug}   tool {proposal.tool}   {words.waiter(item)[0]}",
        f"target {target}",
        f"SHA-256 {proposal.payload_sha256}",
    ]


def run(db_path: str | None = None, bottle_slug: str | None = None) -> None:
    """Runs the app until it is closed. What was typed before it was drawn is thrown away."""
    import sys
    import termios

    termios.tcflush(sys.stdin, termios.TCIFLUSH)
    app = Seat(db_path, bottle_slug)
    app.run()
    app._over = True
