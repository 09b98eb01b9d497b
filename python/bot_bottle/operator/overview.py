"""What goes on in each bottle right now? One row a bottle, over all that the one file knows of it."""

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


def overview(database: Database) -> list[dict[str, Any]]:
    """Each bottle that was ever started or that something waits in, who waits longest first; stopped ones last.

    It is what the file says, unverified: who may write there could add a row. What is decided is read with its
    signatures.
    """
    return database.query(OVERVIEW_SQL)
