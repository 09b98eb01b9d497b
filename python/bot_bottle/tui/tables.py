"""What was decided, what runs, what may agents do again, and what do rules answer? The pages beside the inbox."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widgets import DataTable

from bot_bottle.errors import InvalidInputError
from bot_bottle.operator import oversight, seat, words
from bot_bottle.operator.alone import running
from bot_bottle.operator.review import Section
from bot_bottle.policy import rules
from bot_bottle.tui.drawing import STYLES, ascii_only, clean

if TYPE_CHECKING:
    from bot_bottle.operator.words import Said


# As many of the newest as a page shows; the command line has all.
_MOST = 500
_DAYS = 14

Cells = Sequence["str | Said"]


class Page(DataTable[Text]):
    """A table that is read anew when it is opened, and when something changes while it is open."""

    COLUMNS: ClassVar[tuple[str, ...]] = ()

    def __init__(self, id: str, db_path: str | None) -> None:
        super().__init__(id=id, cursor_type="row")
        self.db_path = db_path
        self.filter = ""
        self.above = ""
        """What is to be said above the table, as of the last ``load``."""

    def on_mount(self) -> None:
        """Names the columns."""
        for name in self.COLUMNS:
            self.add_column(name, key=name)

    def load(self) -> list[tuple[str, Cells]]:
        """Key and cells of each row; runs in a thread."""
        raise NotImplementedError

    def fill(self, rows: list[tuple[str, Cells]]) -> None:
        """Shows the rows that match the filter; the cursor stays on its row."""
        key = self.coordinate_to_cell_key(self.cursor_coordinate).row_key.value if self.row_count else None
        self.clear()
        for each, cells in rows:
            texts = [_text(cell) for cell in cells]
            if self.filter.casefold() in " ".join(text.plain for text in texts).casefold():
                self.add_row(*texts, key=each)
        if key is not None and key in self.rows:
            self.move_cursor(row=self.get_row_index(key))

    def about(self, key: str) -> Section:
        """A row as names and values."""
        cells = ((name, text.plain) for name, text in zip(self.COLUMNS, self.get_row(key), strict=True))
        return Section(fields=tuple((name, (text, "plain")) for name, text in cells))

    def selected(self) -> str | None:
        """The key of the row under the cursor."""
        return self.coordinate_to_cell_key(self.cursor_coordinate).row_key.value if self.row_count else None


def _text(cell: str | Said) -> Text:
    content, tone = cell if isinstance(cell, tuple) else (cell, "plain")
    return Text(clean(content), STYLES[tone])


class History(Page):
    """The audit log, newest first."""

    COLUMNS = ("When", "Bottle", "What", "Action", "By", "Took", "Notes")

    def load(self) -> list[tuple[str, Cells]]:
        """The newest entries, with how long each decision took, and the last days' figures."""
        self.above = self._figures()
        with seat.audit(self.db_path) as store:
            entries = store.read_audit_entries(limit=_MOST)
        with seat.inbox(self.db_path) as inbox:
            took = {
                item.proposal.id: words.span(
                    words.seconds_since(item.proposal.arrival_timestamp) - words.seconds_since(item.response.decided_at)
                )
                for item in inbox.history(limit=_MOST)
                if item.response and item.response.decided_at
            }
        return [
            (
                str(entry.seq),
                (
                    words.clock(entry.timestamp),
                    entry.bottle_slug,
                    entry.component,
                    words.state(entry.operator_action),
                    words.author(entry),
                    took.get(entry.proposal_id or "", ""),
                    words.first_line(entry.operator_notes),
                ),
            )
            for entry in reversed(entries)
        ]

    def _figures(self) -> str:
        found = seat.measured(since=words.days_ago(_DAYS), db_path=self.db_path)
        bars = oversight.sparkline(oversight.last_days(found["by_day"], _DAYS), ascii_only=ascii_only())
        return f"Last {_DAYS} days: {oversight.summary(found['total'])}  |{bars}|"


class Bottles(Page):
    """The bottles that the database knows."""

    COLUMNS = ("Bottle", "Backend", "State", "Since", "Pending")

    def load(self) -> list[tuple[str, Cells]]:
        """Running ones first."""
        store = seat.bottles(self.db_path)
        try:
            bottles = store.list_bottles()
        finally:
            store.close()
        return [
            (
                each.slug,
                (
                    (each.slug, "strong"),
                    each.backend,
                    ("stopped", "quiet") if each.stopped_at else ("running", "good"),
                    words.ago(each.stopped_at or each.started_at),
                    (str(each.pending), "waits" if each.pending else "quiet"),
                ),
            )
            for each in sorted(bottles, key=lambda each: (each.stopped_at is not None, each.slug))
        ]


class Grants(Page):
    """What is in force, what ends first on top."""

    COLUMNS = ("Bottle", "Tool", "In force", "Given", "Last used", "About")
    BINDINGS: ClassVar[list[BindingType]] = [Binding("d,delete", "app.revoke", "Revoke")]

    def load(self) -> list[tuple[str, Cells]]:
        """Live grants."""
        store = seat.grants(self.db_path)
        try:
            grants = store.list_grants()
        finally:
            store.close()
        return [
            (
                each.id,
                (
                    (each.bottle_slug, "strong"),
                    each.tool,
                    _reach(each.expires_at, words.reach(each)),
                    f"{words.ago(each.created_at)} by {each.created_by}",
                    words.ago(each.last_used_at) if each.last_used_at else "never",
                    each.fingerprint,
                ),
            )
            for each in sorted(grants, key=lambda each: (each.expires_at or "~", each.bottle_slug, each.id))
        ]


class Policies(Page):
    """The rules, as the file has them now."""

    COLUMNS = ("Rule", "Verdict", "Matches", "Ends")

    def load(self) -> list[tuple[str, Cells]]:
        """In the order of the file."""
        if (host := seat.elsewhere()) is not None:
            self.above = f"The rules of {host.url} are seen on that host: 'bot-bottle policy check'."
            return []
        try:
            found = rules.read()
        except InvalidInputError as error:
            self.above = f"No rule counts: {error}"
            return []
        state = "they are applied" if running("policy") else "not applied: 'bot-bottle policy run' is not at work"
        self.above = f"{len(found.rules)} rules in {rules.path()}; {state}."
        return [(rule.name, ((rule.name, "strong"), *rules.described(rule))) for rule in found.rules]


def _reach(expires_at: str | None, said: Said) -> Said:
    """In another tone if it ends within ten minutes."""
    ends_soon = expires_at is not None and -words.seconds_since(expires_at) < 600
    return (said[0], "soon") if ends_soon else said
