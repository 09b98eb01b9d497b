"""Which questions does a key that decides ask, and what is sent when they are answered?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from textual.app import App, SuspendNotSupported
from textual.widgets import Label

from bot_bottle import Inbox, InboxItem, Review, render_diff
from bot_bottle.errors import BotBottleError
from bot_bottle.operator import decisions, scopes, seat, words
from bot_bottle.operator.alone import running
from bot_bottle.operator.draft import drafted, edited
from bot_bottle.operator.live import Row
from bot_bottle.operator.review import Section
from bot_bottle.policy import rules
from bot_bottle.policy.remembering import remember
from bot_bottle.states import Status
from bot_bottle.tui.dialogs import Dialog
from bot_bottle.tui.drawing import clean
from bot_bottle.tui.inbox_list import InboxList
from bot_bottle.tui.review_view import ReviewView

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bot_bottle.operator.words import Said


SURFACE: Final = "tui"
_REMEMBERED = 3600.0


class Deciding(App[None]):
    """The part of the app that decides on the selected proposal and on the marked ones."""

    def __init__(self, db_path: str | None) -> None:
        super().__init__()
        self.db_path = db_path
        self._inbox: Inbox | None = None
        self._read: dict[str, str] = {}  # id → hash of the review that was read to its end
        self._deciding_now = False
        # Kept at hand and never looked up: what ends with the app finds them still, on the screen or not.
        self.listed = InboxList()
        self.view = ReviewView()
        self.told = Label("", id="told", markup=False)

    def show_pages(self) -> None:
        """Redraws what counts the marked ones."""
        raise NotImplementedError

    def tell(self, text: str, tone: str = "plain") -> None:
        """Leaves a sentence in view until the next one."""
        self.told.update(clean(text))
        self.told.set_classes(f"-{tone}" if text else "")

    def _shown(self) -> Review | None:
        """The proposal that is selected **and** on the screen, if it can be decided."""
        review, row = self.view.review, self.listed.rows.get(self.listed.selected or "")
        if review is None or row is None or review.item.proposal.id != row.id:
            self.tell("Nothing is selected.")
        elif not row.pending:
            self.tell(row.ended or "It has expired.", "soon")
        else:
            return review
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

    def action_reject_and_remember(self) -> None:
        """Asks for the reason, then rejects this and, for an hour, the same again."""
        self._deciding(self._reject(_REMEMBERED))

    def action_modify(self) -> None:
        """Opens the editor, shows the diff, then sends it."""
        self._deciding(self._modify())

    def action_ask_back(self) -> None:
        """Asks what to ask, and puts it to whoever waits."""
        self._deciding(self._ask_back())

    def action_approve_marked(self) -> None:
        """Approves all that is marked after one question."""
        self._deciding(self._approve_marked())

    def action_approve_group(self) -> None:
        """Approves all of the selected one's group after one question that shows each."""
        self._deciding(self._approve_group())

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
        review = self._shown()
        if review is None:
            return
        if self._unread(review):
            self.tell("Read it to its end (space, End) before you mark it.", "soon")
            return
        self.listed.marked ^= {review.item.proposal.id}
        self.listed.refresh()
        self.show_pages()

    def _unread(self, review: Review) -> bool:
        return self._read.get(review.item.proposal.id) != review.review_sha256 or not self.view.read_to_end

    async def _approve(self, scope: int) -> None:
        review = self._shown()
        if review is None:
            return
        item = review.item
        if self._unread(review):
            first, last, height = self.view.rows
            unread = f"You have seen lines {first}-{last} of {height}. Approve without reading to the end?"
            if await self.push_screen_wait(Dialog(unread, _about(item))) is None:
                return
        offered = scopes.offered(item.proposal)
        needed = scopes.needs_reason(item.proposal.tool)
        answer = await self.push_screen_wait(
            Dialog(
                "Approve this?",
                _about(item),
                scopes=offered,
                chosen=min(scope, len(offered) - 1),
                asks="a reason, which is recorded" if needed else "",
                needed=needed,
                recent=await self._reasons("approved") if needed and len(offered) == 1 else (),
            )
        )
        if answer is None:
            return
        grant = answer.grant
        if grant == scopes.PREFIX.grant:
            asked = scopes.words_asked(item.proposal)
            typed = await self.push_screen_wait(Dialog(asked, asks="such as git status", needed=True))
            if typed is None:
                return
            grant = scopes.begins(typed.notes)
        await self._decide(review, "approved", notes=answer.notes, grant=grant)

    async def _reject(self, remembered: float = 0.0) -> None:
        review = self._shown()
        if review is None:
            return
        if remembered:
            if seat.elsewhere() is not None:
                raise BotBottleError("R writes the host's policy.toml: reject with r here, or R on the host itself")
            await self._run(rules.read)  # rules that cannot be added to are told before the decision
        recent = await self._reasons("rejected")
        again = f", and the same again for {words.span(remembered)}" if remembered else ""
        question = f"Reject this{again}?"
        dialog = Dialog(question, _about(review.item), asks="the reason; the agent reads it", recent=recent)
        answer = await self.push_screen_wait(dialog)
        if answer is not None:
            await self._decide(review, "rejected", notes=answer.notes)
            if remembered:
                await self._remember(review, remembered, answer.notes)

    async def _ask_back(self) -> None:
        review, inbox = self._shown(), self._inbox
        if review is None or inbox is None:
            return
        item = review.item
        question = "Ask back, or ask for changes? It stays pending."
        answer = await self.push_screen_wait(
            Dialog(question, _about(item), asks="your question; the agent reads it", needed=True)
        )
        if answer is not None:
            await self._run(lambda: inbox.ask(item.proposal.id, answer.notes, surface=SURFACE))
            self.tell(words.asked(item), "good")

    async def _remember(self, review: Review, seconds: float, notes: str) -> None:
        proposal = review.item.proposal
        try:
            until = await self._run(lambda: remember(proposal, seconds, notes))
        except (BotBottleError, OSError) as error:
            self.tell(f"rejected {proposal.id}, but it is not remembered: {error}", "alarm")
            return
        at_work = await self._run(lambda: running("policy"))
        counts = "" if at_work else "; it counts while 'bot-bottle policy run' is at work, which it is not"
        self.tell(
            f"rejected {proposal.id}, and the same until {until:%H:%M:%SZ}{counts}", "good" if at_work else "soon"
        )

    async def _modify(self) -> None:
        review, inbox = self._shown(), self._inbox
        if review is None or inbox is None:
            return
        item = review.item
        decisions.refuse_early(inbox, item, surface=SURFACE)
        with drafted(item, lambda where: self.tell(where, "alarm")) as draft:
            try:
                with self.suspend():
                    final = edited(item, draft, editor="vi")
            except SuspendNotSupported:
                raise BotBottleError("nothing was decided: there is no terminal for an editor here") from None
            finally:
                self.refresh(layout=True)
            text = final.decode(errors="replace")
            change = render_diff(item.proposal.proposed_file, text, label=draft.name)
            answer = await self.push_screen_wait(
                Dialog(
                    "Send your version instead?",
                    _about(item),
                    Section("What you changed", text=change, diff=True),
                    asks="a note; the agent reads it",
                )
            )
            if answer is None:
                raise BotBottleError("nothing was decided")
            await self._decide(review, "modified", notes=answer.notes, final_file=final)

    async def _approve_marked(self) -> None:
        marked = [row for each, row in sorted(self.listed.rows.items()) if each in self.listed.marked and row.pending]
        if not marked:
            self.tell("Nothing is marked: x marks a proposal that was read to its end.")
            return
        needed = any(scopes.needs_reason(row.tool) for row in marked)
        answer = await self.push_screen_wait(
            Dialog(
                f"Approve these {len(marked)}?",
                *(Section(fields=_listed(row)) for row in marked),
                asks="a reason, which is recorded" if needed else "",
                needed=needed,
            )
        )
        inbox = self._inbox
        if answer is None or inbox is None:
            return
        failed = []
        for row in marked:
            try:
                # What was read is what is approved: another payload or target under this id is refused.
                review = await self._run(partial(inbox.review, row.id))
                decisions.check_hash(review, self._read[row.id])
                approve = partial(decisions.decide, inbox, review, "approved", surface=SURFACE, notes=answer.notes)
                await self._run(approve)
            except BotBottleError as error:
                failed.append(str(error))
        done = len(marked) - len(failed)
        self.tell("; ".join([f"approved {done} of {len(marked)}", *failed]), "alarm" if failed else "good")

    async def _approve_group(self) -> None:
        review, inbox = self._shown(), self._inbox
        if review is None or inbox is None:
            return
        reviews = await self._run(partial(decisions.grouped, inbox, review))
        answer = await self.push_screen_wait(
            Dialog(
                f"Approve these {len(reviews)}, each of them once?",
                *(Section(each.item.proposal.id, text=each.item.proposal.proposed_file) for each in reviews),
                asks="a reason, which is recorded",
                needed=scopes.needs_reason(review.item.proposal.tool),
            )
        )
        if answer is None:
            return
        approve = partial(decisions.approve_each, inbox, reviews, surface=SURFACE, notes=answer.notes)
        answers = await self._run(lambda: [answer for _, answer in approve()])
        failed = [str(answer) for answer in answers if isinstance(answer, BotBottleError)]
        told = [f"approved {len(answers) - len(failed)} of {len(reviews)}", *failed]
        self.tell("; ".join(told), "alarm" if failed else "good")

    async def _reasons(self, action: str) -> list[str]:
        """What was given as a reason for such an answer lately. Without them one can still answer."""

        def read() -> list[str]:
            with seat.audit(self.db_path) as store:
                return decisions.recent_reasons(store, action)

        try:
            return await asyncio.to_thread(read)
        except BotBottleError:
            return []

    async def _decide(self, review: Review, status: Status, **more: Any) -> None:
        inbox = self._inbox
        if inbox is None:
            raise BotBottleError("nothing was decided: the database cannot be reached")
        answer = await self._run(lambda: decisions.decide(inbox, review, status, surface=SURFACE, **more))
        self.tell("  ".join(text for text, _ in decisions.told(review.item, answer)), "good")

    async def _run(self, call: Callable[[], Any]) -> Any:
        """In a thread: another writer may be slow, and the screen stays alive. The decision is taken all the same."""
        return await asyncio.to_thread(call)


def _about(item: InboxItem) -> Section:
    """What a question is about: bottle, tool, target, and who waits."""
    proposal = item.proposal
    fields: tuple[tuple[str, Said], ...] = (
        ("Bottle", (proposal.bottle_slug, "strong")),
        ("Tool", (proposal.tool, "strong")),
        ("Target", (item.managed_file or proposal.fingerprint or "-", "plain")),
        ("Requester", words.waiter(item)),
        ("SHA-256", (proposal.payload_sha256, "plain")),
    )
    return Section(fields=fields)


def _listed(row: Row) -> tuple[tuple[str, Said], ...]:
    return (
        (row.tool, (f"of {row.bottle_slug}", "strong")),
        ("  Proposal", (row.id, "plain")),
        ("  Reason given", (row.why or "none", "plain")),
    )
