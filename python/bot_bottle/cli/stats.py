"""How much is pending and was decided, how fast, and after seeing how much of it?"""

from __future__ import annotations

import sys

from bot_bottle.cli.declare import command, option
from bot_bottle.cli.options import bottle_option, json_option, moment
from bot_bottle.cli.screen import print_fields, print_json, print_table, say
from bot_bottle.operator import oversight, seat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bot_bottle.cli.screen import Cell


_COLUMNS = [
    "Decided",
    "Rejected",
    "Modified",
    "By policy",
    "Reversed",
    "Median",
    "p95",
    "Within 1 s",
    "Not to its end",
    "Not shown",
]
_EXPIRED = ["Expired", "Unseen"]


@command()
@bottle_option
@option(
    "--since",
    type=moment,
    metavar="TIME",
    help="Only what was decided or expired from this time on, or so long ago (30d).",
)
@json_option
def stats(bottle: str | None, since: str | None, as_json: bool) -> None:
    """Count proposals, and say how people decide: how fast, having seen what, and what was taken back.

    For each bottle, tool and operator: decided, rejected, modified, decided by policy, reversed (the grant revoked
    within the hour), median and 95th percentile from arrival to a person's decision, and how many decisions came
    within a second of being shown, before the end was on the screen, or without being shown at all. docs/oversight.md
    says what these answer.

    \b
      bot-bottle stats --since 30d
      bot-bottle stats --bottle dev --json
    """
    with seat.inbox() as inbox:
        counts = inbox.stats()
    found = seat.measured(since=since or "", bottle=bottle)
    if as_json:
        print_json(counts | {"oversight": found})
        return
    fields: list[tuple[str, Cell]] = [
        ("Pending", str(counts["pending"])),
        ("Waiting now", str(counts["waiting"])),
        ("Oldest", oversight.took(counts["oldest_pending_seconds"])),
        ("Audit entries", str(counts["audit_entries"])),
    ]
    days = oversight.last_days(found["by_day"])
    # A standard stream's encoding says what it can draw; a file of Python's own may have none.
    bars = oversight.sparkline(days, ascii_only=not (sys.stdout.encoding or "").lower().startswith("utf"))
    if any(days):
        fields.append(("Last 14 days", f"{bars}  {sum(days)} decided, at most {max(days)} a day"))
    print_fields(fields)
    for group in oversight.GROUPS:
        _table(group, found[f"by_{group}"], found["total"])
    if not found["views_recorded"]:
        say("What was on a screen is not recorded yet: that begins with the first proposal shown.", "quiet")


def _table(group: str, groups: dict[str, Any], total: dict[str, Any]) -> None:
    if not groups:
        return
    by_whom = group == "operator"  # nobody lets a proposal expire
    say("")
    rows = [*groups.items(), *([("all", total)] if len(groups) > 1 else [])]
    print_table(
        [group.title(), *_COLUMNS, *([] if by_whom else _EXPIRED)],
        [((name, "strong"), *_cells(figures, expired=not by_whom)) for name, figures in rows],
    )


def _cells(figures: dict[str, Any], *, expired: bool) -> list[Cell]:
    seen, seconds = figures["seen"], figures["seconds"]
    people = figures["decided"] - figures["by_policy"]
    cells: list[Cell] = [str(figures[each]) for each in ("decided", "rejected", "modified", "by_policy", "reversed")]
    cells += [oversight.took(seconds["median"]), oversight.took(seconds["p95"])]
    cells += [oversight.share(seen[each], people) for each in ("within_a_second", "not_to_the_end", "not_shown")]
    return cells + ([str(figures["expired"]), str(figures["expired_unseen"])] if expired else [])
