"""What is happening in each bottle right now? One row for each bottle, from everything in the one file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bot_bottle import Database

# docs/dashboard.md shows it as an example for `bot-bottle db query`.
OVERVIEW_SQL = """\
WITH
  moment AS (SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now') AS now),
  known AS (SELECT slug FROM bottles UNION SELECT bottle_slug FROM proposals WHERE state = 'pending'),
  asked AS (
    SELECT bottle_slug, count(*) AS pending, min(arrival_timestamp) AS oldest,
           count(*) FILTER (WHERE waiting_until > now) AS waiting
    FROM proposals, moment
    WHERE state = 'pending' AND (expires_at IS NULL OR expires_at > now)
    GROUP BY bottle_slug),
  allowed AS (
    SELECT bottle_slug, count(*) AS grants
    FROM grants, moment
    WHERE revoked_at IS NULL AND ifnull(uses_left, 1) > 0 AND (expires_at IS NULL OR expires_at > now)
    GROUP BY bottle_slug)
SELECT known.slug, backend, transport, started_at, stopped_at, oldest,
       ifnull(pending, 0) AS pending, ifnull(waiting, 0) AS waiting, ifnull(grants, 0) AS grants
FROM known
LEFT JOIN bottles ON bottles.slug = known.slug
LEFT JOIN asked ON asked.bottle_slug = known.slug
LEFT JOIN allowed ON allowed.bottle_slug = known.slug
ORDER BY stopped_at IS NOT NULL, oldest IS NULL, oldest, known.slug"""


# The newest of a bottle are at the end of its index.
_SEEN_SQL = """\
SELECT max(arrival_timestamp) AS asked, max(waiting_until) AS waited
FROM (SELECT arrival_timestamp, waiting_until FROM proposals WHERE bottle_slug = :slug ORDER BY seq DESC LIMIT 100)"""
_DECIDED_SQL = """\
SELECT p.id, p.tool, r.status, r.decided_by, r.decided_at
FROM (SELECT seq, id, tool FROM proposals WHERE bottle_slug = :slug ORDER BY seq DESC LIMIT 200) p
JOIN responses r ON r.proposal_seq = p.seq ORDER BY r.decided_at DESC LIMIT 3"""


def recent(database: Database, slug: str) -> tuple[str | None, list[dict[str, Any]]]:
    """When a bottle was last seen (a waiter's lease may end later than now), and what was decided for it lately."""
    (seen,) = database.query(_SEEN_SQL, {"slug": slug})
    heard = [str(each) for each in seen.values() if each is not None]
    return max(heard, default=None), list(database.query(_DECIDED_SQL, {"slug": slug}))


def overview(database: Database) -> list[dict[str, Any]]:
    """Each bottle that was ever started or has something pending, the longest wait first and stopped bottles last.

    It is what the file says, and unverified: whoever can write to the file could add a row. A decision reads the
    proposal again and checks its signatures.
    """
    return database.query(OVERVIEW_SQL)
