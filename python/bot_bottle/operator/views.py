"""Which reviews did an operator see, since when, and were they shown to their end?

The terminal app and the command line record this; ``oversight`` counts it. The table is beside the store's own tables,
made as any program makes one in the file (``Database.migrate``). It is an operator's record of themselves and no proof,
because a sidecar that can write the file could change it. A decision never waits for it.
"""

from __future__ import annotations

from bot_bottle import Database
from bot_bottle.errors import BotBottleError, InvalidInputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from bot_bottle.states import Surface

_MODULE = "operator_views"

# Why: a decision says nothing of whether the person read what they decided on. Invariants: a row for each review and
# surface; shown_at is the first time, and whole_at, once set, stays. Going down loses these rows and nothing else.
_STEPS = [
    (
        """CREATE TABLE operator_views (
  proposal_id   TEXT NOT NULL,
  review_sha256 TEXT NOT NULL,
  surface       TEXT NOT NULL,
  shown_at      TEXT NOT NULL,
  whole_at      TEXT,          -- when its end was on the screen; NULL: it was not
  PRIMARY KEY (proposal_id, review_sha256, surface)
) STRICT, WITHOUT ROWID""",
        "DROP TABLE operator_views",
    )
]

_NOTE_SQL = """\
INSERT INTO operator_views (proposal_id, review_sha256, surface, shown_at, whole_at)
VALUES (:proposal_id, :review_sha256, :surface, :shown_at, :whole_at)
ON CONFLICT DO UPDATE SET whole_at = coalesce(whole_at, excluded.whole_at)"""


class View:
    """That a review was shown; ``whole_at`` is when its end was on the screen."""

    def __init__(
        self, proposal_id: str, review_sha256: str, surface: Surface, shown_at: str, whole_at: str | None = None
    ) -> None:
        self.proposal_id = proposal_id
        self.review_sha256 = review_sha256
        self.surface = surface
        self.shown_at = shown_at
        self.whole_at = whole_at


def note(views: Iterable[View], db_path: str | None = None) -> BotBottleError | None:
    """Records them in one transaction. Returns an error instead of raising it, because no decision depends on it."""
    rows = [vars(view) for view in views]
    database = Database(db_path)
    try:
        try:
            _write(database, rows)
        except InvalidInputError:  # the first time, the table does not exist yet
            database.migrate(_MODULE, _STEPS)
            _write(database, rows)
    except BotBottleError as error:
        return error
    finally:
        database.close()
    return None


def _write(database: Database, rows: list[dict[str, str | None]]) -> None:
    with database.transaction() as transaction:
        for row in rows:
            transaction.execute(_NOTE_SQL, row)


def recorded(database: Database) -> bool:
    """Was any view ever recorded here?"""
    return bool(database.query("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'operator_views'"))
