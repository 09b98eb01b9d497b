"""What is happening in each bottle right now? One row for each bottle, from everything in the one file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

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


# What the egress proxy logs of a bottle: what it refused by itself, and requests with a secret that people or grants
# let through. An approval that comes with a grant is used at once, which is an entry of its own: it counts once. From
# the log come numbers alone, because whoever can write it can store there what is not valid text; and of each bottle
# the newest so many entries, so that a bottle with many cannot make the page wait. The log is in the order of time,
# but for clocks that were set back and for forged times, of which it takes a hundred to hide a day's first entry.
SCANNED_SQL = """\
WITH
  part (component) AS (VALUES ('egress'), ('egress-token-allow')),
  midnight AS MATERIALIZED (
    SELECT min(seq) AS seq
    FROM (SELECT seq FROM audit_entries WHERE timestamp >= :since ORDER BY timestamp LIMIT 100)),
  start AS MATERIALIZED (
    SELECT bottle.value AS slug, component,
           ifnull((SELECT a.seq FROM audit_entries a
                   WHERE a.bottle_slug = bottle.value AND a.component = part.component AND a.seq >= midnight.seq
                   ORDER BY a.seq DESC LIMIT 1 OFFSET :most - 1), midnight.seq) AS first
    FROM json_each(:slugs) AS bottle, part, midnight),
  today AS (
    SELECT slug, operator_action AS action
    FROM start CROSS JOIN audit_entries entry INDEXED BY audit_entries_by_bottle_and_component
      ON entry.bottle_slug = slug AND entry.component = start.component AND seq >= first
    WHERE timestamp BETWEEN :since AND strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
SELECT slug,
       count(*) FILTER (WHERE action IN ('grant-used', 'approved'))
         - count(*) FILTER (WHERE action = 'grant-given') AS allowed,
       count(*) FILTER (WHERE action IN ('secret-redacted', 'answer-masked')) AS masked,
       count(*) FILTER (WHERE action IN ('secret-blocked', 'scan-refused', 'request-cut', 'answer-cut', 'rejected'))
         AS refused,
       count(*) >= :most OR count(*) FILTER (WHERE action = 'entries-left-out') > 0 AS more
FROM today GROUP BY slug"""
_MOST_SCANNED: Final = 100


def scanned(database: Database, slugs: Iterable[str], since: str) -> dict[str, dict[str, Any]]:
    """What the egress proxy found in the traffic of these bottles since then, if it found anything.

    ``allowed``, ``masked`` and ``refused`` count requests and answers; ``more``: at least so many, for the proxy logs
    only so much a minute, and no more than the newest of a bottle are counted.
    """
    given: dict[str, int | str] = {"slugs": json.dumps(list(slugs)), "since": since, "most": _MOST_SCANNED}
    return {str(row.pop("slug")): row for row in database.query(SCANNED_SQL, given)}


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
