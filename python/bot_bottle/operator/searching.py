"""Which proposals of any state belong to a bottle or a tool, ended in a certain way, or contain a text?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from bot_bottle.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from bot_bottle import Database, Inbox, InboxSummary

STATES: Final = ("pending", "approved", "modified", "rejected", "expired", "withdrawn")
_TIMEOUT: Final = 20.0

# A row whose id cannot be one is nothing that can be shown or decided; left out here, it ends no page. The texts come
# last, so that they are read only in rows that match everything else.
_FOUND_SQL = """\
WITH moment AS (SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now') AS now)
SELECT p.id FROM proposals p, moment
LEFT JOIN responses r ON r.proposal_seq = p.seq
WHERE length(p.id) = 36 AND p.id NOT GLOB '*[^0-9a-f-]*'
  AND (:before IS NULL OR p.seq < (SELECT seq FROM proposals WHERE id = :before))
  AND (:bottle IS NULL OR p.bottle_slug = :bottle)
  AND (:tool IS NULL OR p.tool = :tool)
  AND (:state IS NULL OR :state = CASE WHEN p.state = 'pending' AND p.expires_at <= now THEN 'expired' ELSE p.state END)
  AND (:text IS NULL OR instr(lower(p.justification), lower(:text)) OR instr(lower(ifnull(r.notes, '')), lower(:text))
       OR instr(lower(ifnull(r.decided_by, '')), lower(:text)) OR instr(p.id, lower(:text))
       OR instr(lower(p.proposed_file), lower(:text)))
ORDER BY p.seq DESC LIMIT :limit"""


class Wanted(NamedTuple):
    """What is looked for; ``None`` is any. ``text`` is looked for in all that was written, in whatever case."""

    bottle: str | None = None
    tool: str | None = None
    state: str | None = None
    text: str | None = None


def search(
    inbox: Inbox, database: Database, wanted: Wanted, *, limit: int, before: str | None = None
) -> list[InboxSummary]:
    """The newest ``limit`` that fit, newest first; ``before`` (an id) pages on.

    Raises:
        InvalidInputError: there is no such state.
    """
    if wanted.state not in (None, *STATES):
        raise InvalidInputError(f"state must be one of {', '.join(STATES)}")
    given = {**wanted._asdict(), "limit": limit, "before": before}
    found = []
    for row in database.query(_FOUND_SQL, given, timeout=_TIMEOUT):
        try:
            found.append(inbox.summary(str(row["id"])))
        except NotFoundError:  # pruned in the meantime
            continue
    return found


def tools(database: Database) -> list[str]:
    """The tools that anything was ever asked for."""
    return [str(row["tool"]) for row in database.query("SELECT DISTINCT tool FROM tallies ORDER BY tool LIMIT 200")]
