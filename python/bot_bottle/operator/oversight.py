"""How well do people oversee the agents: how much do they decide, how fast, and after seeing how much of it?

Counted over the one file: decisions that were pruned from the queue still count, by their entries in the audit log, but
how long they took is then no longer known. docs/oversight.md says what the numbers answer.
"""

from __future__ import annotations

from bot_bottle.operator import views, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, Final

    from bot_bottle import Database

_HASTY_SECONDS = 1.0
_TIMEOUT = 30.0
_BARS = "▁▂▃▄▅▆▇█"
_BARS_ASCII = "_.-=+*#@"

# A row of `seen` for each review that was shown; no rows if nothing was ever recorded.
_SEEN_SQL = """seen AS (
  SELECT proposal_id, review_sha256, min(shown_at) AS shown_at, min(whole_at) AS whole_at
  FROM operator_views GROUP BY 1, 2)"""
_NONE_SEEN_SQL = "seen AS (SELECT '' AS proposal_id, '' AS review_sha256, '' AS shown_at, NULL AS whole_at WHERE 0)"

_DECIDED_SQL = """\
WITH {seen}
SELECT p.bottle_slug AS bottle, p.tool, r.decided_by AS operator, r.surface, r.status, r.decided_at AS at,
       unixepoch(r.decided_at, 'subsec') - unixepoch(p.arrival_timestamp, 'subsec') AS seconds,
       unixepoch(r.decided_at, 'subsec') - unixepoch(seen.shown_at, 'subsec') AS shown_for,
       seen.whole_at <= r.decided_at AS whole,
       EXISTS (SELECT 1 FROM grants g WHERE g.proposal_id = p.id
               AND unixepoch(g.revoked_at) - unixepoch(g.created_at) < 3600) AS reversed
FROM responses r
JOIN proposals p ON p.seq = r.proposal_seq
LEFT JOIN seen ON seen.proposal_id = p.id AND seen.review_sha256 = r.review_sha256 AND seen.shown_at <= r.decided_at
WHERE r.decided_at >= :since AND (:bottle IS NULL OR p.bottle_slug = :bottle)
UNION ALL
SELECT a.bottle_slug, a.component, a.decided_by, a.surface, a.operator_action, a.timestamp, NULL, NULL, NULL,
       EXISTS (SELECT 1 FROM grants g WHERE g.proposal_id = a.proposal_id
               AND unixepoch(g.revoked_at) - unixepoch(g.created_at) < 3600)
FROM audit_entries a
WHERE a.proposal_id IS NOT NULL AND a.operator_action IN ('approved', 'modified', 'rejected')
  AND NOT EXISTS (SELECT 1 FROM proposals p WHERE p.id = a.proposal_id)
  AND a.timestamp >= :since AND (:bottle IS NULL OR a.bottle_slug = :bottle)"""

_EXPIRED_SQL = """\
WITH {seen}
SELECT p.bottle_slug AS bottle, p.tool, NOT EXISTS (SELECT 1 FROM seen WHERE seen.proposal_id = p.id) AS unseen
FROM proposals p
WHERE (p.state = 'expired' OR (p.state = 'pending' AND p.expires_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now')))
  AND p.expires_at >= :since AND (:bottle IS NULL OR p.bottle_slug = :bottle)"""

GROUPS: Final = ("bottle", "tool", "operator")


def measure(database: Database, *, since: str = "", bottle: str | None = None) -> dict[str, Any]:
    """The whole as a mapping for JSON: ``total``, ``by_bottle``, ``by_tool``, ``by_operator`` and ``by_day``.

    In each: ``decided`` (of these ``approved``, ``modified``, ``rejected``, and ``by_policy``), ``reversed`` (the grant
    revoked within the hour), ``seconds`` (``median`` and ``p95`` from arrival to a person's decision), ``expired`` and
    ``expired_unseen``, and ``seen``: of ``decided`` by people how many were ``shown``, decided ``within_a_second`` of
    that, ``not_to_the_end``, or ``not_shown``. ``views_recorded``: false means that ``seen`` can say nothing yet.
    """
    known = views.recorded(database)
    seen = _SEEN_SQL if known else _NONE_SEEN_SQL
    given = {"since": since, "bottle": bottle}
    decided = database.query(_DECIDED_SQL.format(seen=seen), given, timeout=_TIMEOUT)
    expired = database.query(_EXPIRED_SQL.format(seen=seen), given, timeout=_TIMEOUT)
    found: dict[str, Any] = {"views_recorded": known, "total": _figures(decided, expired)}
    for group in GROUPS:
        parts: dict[str, tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]] = {}
        for kind, rows in enumerate((decided, expired)):
            for row in rows:
                if group in row:
                    parts.setdefault(str(row[group]), ([], []))[kind].append(row)
        found[f"by_{group}"] = {name: _figures(*parts[name]) for name in sorted(parts)}
    found["by_day"] = _days(str(row["at"]) for row in decided)
    return found


def _figures(decided: Sequence[Mapping[str, Any]], expired: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    people = [row for row in decided if row["surface"] != "policy"]
    shown = [row for row in people if row["shown_for"] is not None]
    took = sorted(row["seconds"] for row in people if row["seconds"] is not None)
    statuses = {
        status: sum(row["status"] == status for row in decided) for status in ("approved", "modified", "rejected")
    }
    return {
        "decided": len(decided),
        **statuses,
        "by_policy": len(decided) - len(people),
        "reversed": sum(row["reversed"] for row in decided),
        "seconds": {"median": _quantile(took, 0.5), "p95": _quantile(took, 0.95)},
        "expired": len(expired),
        "expired_unseen": sum(row["unseen"] for row in expired),
        "seen": {
            "shown": len(shown),
            "within_a_second": sum(row["shown_for"] < _HASTY_SECONDS for row in shown),
            "not_to_the_end": sum(not row["whole"] for row in shown),
            "not_shown": len(people) - len(shown),
        },
    }


def _quantile(values: Sequence[float], of: float) -> float | None:
    """The smallest value that this share of them does not exceed."""
    return values[max(0, -int(-of * len(values) // 1) - 1)] if values else None


def _days(moments: Iterable[str]) -> dict[str, int]:
    days: dict[str, int] = {}
    for moment in sorted(moments):
        days[moment[:10]] = days.get(moment[:10], 0) + 1
    return days


def last_days(by_day: Mapping[str, int], days: int = 14) -> list[int]:
    """How many on each of the last days in UTC, today last."""
    from datetime import datetime, timedelta, timezone

    today = datetime.now(timezone.utc).date()
    return [by_day.get(str(today - timedelta(days=ago)), 0) for ago in range(days - 1, -1, -1)]


def sparkline(values: Sequence[int], *, ascii_only: bool = False) -> str:
    """A bar for each value, the highest for the largest; a blank for none."""
    bars = _BARS_ASCII if ascii_only else _BARS
    most = max(values, default=0)
    return "".join(bars[(value * len(bars) - 1) // most] if value else " " for value in values)


def share(part: int, of: int) -> str:
    """``3 (25%)``; ``-`` of none."""
    return f"{part} ({100 * part / of:.0f}%)" if of else "-"


def summary(figures: Mapping[str, Any]) -> str:
    """One group's figures in a line."""
    seen, seconds = figures["seen"], figures["seconds"]
    people = figures["decided"] - figures["by_policy"]
    parts = [
        f"{figures['decided']} decided ({figures['rejected']} rejected, {figures['modified']} modified)",
        f"{figures['expired']} expired ({figures['expired_unseen']} unseen)",
        f"median {took(seconds['median'])}, p95 {took(seconds['p95'])}",
        f"within 1 s {share(seen['within_a_second'], people)}",
        f"not read to the end {share(seen['not_to_the_end'], people)}",
        f"{figures['reversed']} reversed",
    ]
    return ", ".join(parts)


def took(seconds: float | None) -> str:
    """A time to decision; ``-`` where none is known."""
    return "-" if seconds is None else words.span(seconds)
