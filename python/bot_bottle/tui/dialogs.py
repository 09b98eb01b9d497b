"""What is asked before something is decided?

A dialog names what it is about. It hears no key that was pressed before it was on the screen.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label

from bot_bottle.operator.review import Section
from bot_bottle.operator.scopes import Scope
from bot_bottle.tui.drawing import clean, document
from bot_bottle.tui.review_view import ReviewView

# A key that follows so soon was not pressed by somebody who had read what it answers.
READING_TIME = 0.25
# Rows that a dialog's frame takes, and the least that are left to what it is about.
_FRAME = 2
_LEAST_ROWS = 2
# Keys that read, as pages to go on by. Those that also move in a line of text do so where there is one.
_READING = {
    "pagedown": 1,
    "pageup": -1,
    "ctrl+end": 1_000_000,
    "ctrl+home": -1_000_000,
    "space": 1,
    "end": 1_000_000,
    "home": -1_000_000,
}
_READING_BESIDE_TEXT = ("pagedown", "pageup", "ctrl+end", "ctrl+home")


class Answer(NamedTuple):
    """What the operator said: their words, and how far an approval reaches."""

    notes: str = ""
    grant: str | None = None


class Dialog(ModalScreen[Answer | None]):
    """A question, what it is about, choices by Up and Down, perhaps a line of text.

    Enter (or y, where there is no text) says yes, Escape no.
    """

    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Cancel")]

    def __init__(
        self,
        question: str,
        *about: Section,
        scopes: Sequence[Scope] = (),
        chosen: int = 0,
        asks: str = "",
        needed: bool = False,
        recent: Sequence[str] = (),
    ) -> None:
        """``about`` has to be seen to its end.

        ``asks``: what the text is, ``""`` for none; ``needed``: not without it; ``recent``: texts to choose from.
        """
        super().__init__()
        self._question, self._about = question, about
        self._scopes, self._chosen = scopes, chosen
        self._asks, self._needed, self._recent = asks, needed, recent
        self._chosen_text = -1
        self._view = ReviewView() if about else None
        self._scope = Label("", markup=False, id="scopes")
        self._notes = Input(placeholder=asks, id="notes", compact=True)
        self._hint = Label("", markup=False, id="hint")
        self.painted_at: float | None = None
        """When all of it was drawn first; ``None``: not yet."""

    def compose(self) -> ComposeResult:
        """The lines from top to bottom."""
        with Vertical(id="dialog"):
            yield Label(clean(self._question), markup=False, id="question")
            if self._view:
                self._view.can_focus = False  # its keys are the dialog's
                yield self._view
            if len(self._scopes) > 1:
                yield self._scope
            for text in self._recent:
                yield Label(f"  {clean(text)}", markup=False, classes="recent")
            if self._asks:
                yield self._notes
            yield self._hint

    def on_mount(self) -> None:
        """Shows what is chosen; keys count from when all of it is drawn."""
        self._show_scopes()
        if self._view:
            self.watch(self._view, "scroll_y", self._show_hint, init=False)
        if self._asks:
            self._notes.focus()

    def on_resize(self) -> None:
        """What it is about gets the room that the rest leaves it."""
        self.call_after_refresh(self._share_room)

    def _share_room(self) -> None:
        view = self._view
        if view:
            # The room first: what is drawn in more than there is would count as read.
            rest = sum(each.outer_size.height for each in self.query("#dialog > *") if each is not view)
            view.styles.max_height = max(_LEAST_ROWS, self.size.height - _FRAME - rest)
            if self.painted_at is None:
                view.show(None, document(self._about))
        self._show_hint()
        self.call_after_refresh(self._painted)

    def on_review_view_read_to_end(self, event: ReviewView.ReadToEnd) -> None:
        """Now it may be answered."""
        event.stop()
        self._show_hint()

    @property
    def _unread(self) -> ReviewView | None:
        return self._view if self._view and not self._view.read_to_end else None

    def _show_hint(self) -> None:
        view = self._unread
        choose = "Up Down choose   " if len(self._scopes) > 1 or self._recent else ""
        yes = "Enter" if self._asks else "Enter or y"
        if view is None:
            hint = f"{choose}{yes} yes   Esc no"
        else:
            first, last, height = view.rows
            hint = f"lines {first}-{last} of {height}: PgDn reads on, and then {yes} is yes   Esc no"
        self._hint.update(hint)

    def _painted(self) -> None:
        if self.painted_at is None:
            self.painted_at = time.monotonic()
            self._show_hint()

    def _too_early(self, event: events.Key) -> bool:
        return self.painted_at is None or event.time < self.painted_at + READING_TIME

    def on_key(self, event: events.Key) -> None:
        """Chooses, confirms, or says why not."""
        if event.key in ("escape", "tab", "shift+tab"):
            return
        if self._too_early(event):
            event.stop()
            event.prevent_default()
            return
        if event.key in ("up", "down") and (len(self._scopes) > 1 or self._recent):
            event.stop()
            self._choose(1 if event.key == "down" else -1)
        elif event.key in _READING and (not self._asks or event.key in _READING_BESIDE_TEXT):
            event.stop()
            if self._view:
                self._view.read_on(_READING[event.key])
        elif self._asks:
            return
        elif event.key in ("y", "enter"):
            event.stop()
            self._confirm()
        elif event.key == "n":
            event.stop()
            self.dismiss(None)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter in the text is a yes."""
        event.stop()
        self._confirm()

    def _choose(self, by: int) -> None:
        if len(self._scopes) > 1:
            self._chosen = (self._chosen + by) % len(self._scopes)
            self._show_scopes()
        else:
            self._chosen_text = (self._chosen_text + by) % len(self._recent)
            self._notes.value = self._recent[self._chosen_text]

    def _show_scopes(self) -> None:
        if len(self._scopes) > 1:
            lines = [f"{'>' if at == self._chosen else ' '} {each.words}" for at, each in enumerate(self._scopes)]
            self._scope.update("\n".join(lines))

    def _confirm(self) -> None:
        if self.painted_at is None or time.monotonic() < self.painted_at + READING_TIME:
            return
        if self._unread is not None:
            self._show_hint()
            self.app.bell()
            return
        notes = self._notes.value.strip() if self._asks else ""
        if self._needed and not notes:
            self._hint.update(f"It needs {self._asks}.   Esc no")
            self._notes.focus()
            return
        self.dismiss(Answer(notes, self._scopes[self._chosen].grant if self._scopes else None))


class Help(ModalScreen[None]):
    """All keys on one page."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,enter", "dismiss(None)", "Close")]

    TEXT = """\
1 to 5      Inbox, History, Bottles, Grants, Policies
Up Down     another proposal (j k too)     n  the next one not looked at yet
Space PgDn  read on        PgUp Home End   move in the text; in a question too
Tab         from the list to the text and back
/           search in the text             f  filter the list

a           approve        A  approve with a scope
m           modify in $EDITOR; the diff of your edit is shown before it is sent
r           reject; the agent reads the reason
R           the same, and the same content again for 1 hour
w           write back: ask, or ask for changes; the proposal stays pending
x           mark one that was read to its end
b           approve all marked ones, after one question that lists them
g           approve all of this one's kind, after one question that shows each
c           take what is decided out of the list

q           quit           Ctrl+P  all commands

*  not looked at   x  marked   !  something in it could deceive a reader
Text behind a bar is an agent's. What could deceive is spelled out: <U+202E>."""

    def compose(self) -> ComposeResult:
        """The page."""
        with Vertical(id="dialog"):
            yield Label(self.TEXT, markup=False)
