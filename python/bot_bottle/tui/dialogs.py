"""What is asked before something is decided?

A dialog names what it is about. It hears no key that was pressed before it was on the screen.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
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


class Answer(NamedTuple):
    """What the operator said: their words, and how far an approval reaches."""

    notes: str = ""
    grant: str | None = None


class Dialog(ModalScreen[Answer | None]):
    """A question, choices by Up and Down, perhaps a line of text; Enter (or y, without a text) says yes, Escape no."""

    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Cancel")]

    def __init__(
        self,
        question: str,
        about: Iterable[str],
        *,
        scopes: Sequence[Scope] = (),
        chosen: int = 0,
        asks: str = "",
        needed: bool = False,
        recent: Sequence[str] = (),
        detail: Sequence[Section] = (),
    ) -> None:
        """``asks``: what the text is, ``""`` for none; ``needed``: not without it; ``recent``: texts to choose from."""
        super().__init__()
        self._question, self._about = question, list(about)
        self._scopes, self._chosen = scopes, chosen
        self._asks, self._needed, self._recent, self._detail = asks, needed, recent, detail
        self._chosen_text = -1
        self._painted_at: float | None = None

    def compose(self) -> ComposeResult:
        """The lines from top to bottom."""
        with Vertical(id="dialog", classes="-detailed" if self._detail else ""):
            yield Label(clean(self._question), markup=False, id="question")
            for line in self._about:
                yield Label(clean(line), markup=False, classes="about")
            if self._detail:
                yield ReviewView()
            if len(self._scopes) > 1:
                yield Label("", markup=False, id="scopes")
            for text in self._recent:
                yield Label(f"  {clean(text)}", markup=False, classes="recent")
            if self._asks:
                yield Input(placeholder=self._asks, id="notes")
            yield Label("", markup=False, id="hint")

    def on_mount(self) -> None:
        """Shows what is chosen; keys count from when all of it is drawn."""
        self._show_scopes()
        if self._detail:
            self.query_one(ReviewView).show(None, document(self._detail, ""))
        choose = "Up Down choose   " if len(self._scopes) > 1 or self._recent else ""
        self.query_one("#hint", Label).update(f"{choose}{'Enter' if self._asks else 'Enter or y'} yes   Esc no")
        if self._asks:
            self.query_one("#notes", Input).focus()
        self.call_after_refresh(self._painted)

    def _painted(self) -> None:
        self._painted_at = time.monotonic()

    def _too_early(self, event: events.Key) -> bool:
        return self._painted_at is None or event.time < self._painted_at + READING_TIME

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
            self.query_one("#notes", Input).value = self._recent[self._chosen_text]

    def _show_scopes(self) -> None:
        if len(self._scopes) > 1:
            lines = [f"{'>' if at == self._chosen else ' '} {each.words}" for at, each in enumerate(self._scopes)]
            self.query_one("#scopes", Label).update("\n".join(lines))

    def _confirm(self) -> None:
        if self._painted_at is None or time.monotonic() < self._painted_at + READING_TIME:
            return
        notes = self.query_one("#notes", Input).value.strip() if self._asks else ""
        if self._needed and not notes:
            self.query_one("#hint", Label).update(f"It needs {self._asks}.   Esc no")
            self.query_one("#notes", Input).focus()
            return
        self.dismiss(Answer(notes, self._scopes[self._chosen].grant if self._scopes else None))


class Help(ModalScreen[None]):
    """All keys on one page."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,enter", "dismiss(None)", "Close")]

    TEXT = """\
1 2 3 4     Inbox, History, Bottles, Grants
Up Down     another proposal (j k too)     n  the next one not looked at yet
Space PgDn  read on        PgUp Home End   move in the text
Tab         from the list to the text and back
/           search in the text             f  filter the list

a           approve        A  approve with a scope
m           modify in $EDITOR; the diff of your edit is shown before it is sent
r           reject; the agent reads the reason
x           mark one that was read to its end
b           approve all marked ones, after one question that lists them
c           take what is decided out of the list

q           quit           Ctrl+P  all commands

*  not looked at   x  marked   !  something in it could deceive a reader
Text behind a bar is an agent's. What could deceive is spelled out: <U+202E>."""

    def compose(self) -> ComposeResult:
        """The page."""
        with Vertical(id="dialog"):
            yield Label(self.TEXT, markup=False)
