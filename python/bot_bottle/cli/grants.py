"""What may agents do again without asking?"""

from __future__ import annotations

from bot_bottle import GrantStore
from bot_bottle.cli.declare import argument, group, option
from bot_bottle.cli.options import bottle_option, json_option
from bot_bottle.cli.screen import print_json, print_table, say
from bot_bottle.errors import BotBottleError
from bot_bottle.operator import words


@group()
def grants() -> None:
    """List and revoke what was allowed for more than one time."""


@grants.command("list")
@bottle_option
@option("--all", "everything", is_flag=True, help="Also those used up, lapsed or revoked.")
@json_option
def list_(bottle: str | None, everything: bool, as_json: bool) -> None:
    """List grants, newest first."""
    found = GrantStore().list_grants(bottle, live=not everything)
    if as_json:
        print_json([grant.to_dict() for grant in found])
        return
    if not found:
        say("There are no grants." if everything else "No grant is in force; --all lists former ones.")
        return
    ids = words.short_ids(grant.id for grant in found)
    print_table(
        ["ID", "Bottle", "Tool", "In force", "Given", "Last used", "Fingerprint"],
        [
            (
                (ids[grant.id], "strong"),
                grant.bottle_slug,
                grant.tool,
                ("damaged", "alarm") if grant.damaged else words.reach(grant),
                f"{words.ago(grant.created_at)} by {grant.created_by}",
                words.ago(grant.last_used_at) if grant.last_used_at else "never",
                grant.fingerprint,
            )
            for grant in found
        ],
        text_last=True,
    )
    for grant in found:
        if grant.damaged:
            say(f"{ids[grant.id]} allows nothing where it is checked: {grant.damaged}", "alarm")


def _live_ids(incomplete: str) -> list[tuple[str, str]]:
    try:
        found = GrantStore().list_grants()
    except BotBottleError:  # a shell that completes has nowhere to show an error
        return []
    return [(grant.id, f"{grant.bottle_slug} {grant.tool}") for grant in found if grant.id.startswith(incomplete)]


@grants.command()
@argument("grant_id", metavar="ID", complete=_live_ids)
@json_option
def revoke(grant_id: str, as_json: bool) -> None:
    """End a grant now; the next such request asks again."""
    grant = GrantStore().revoke_grant(grant_id)
    if as_json:
        print_json(grant.to_dict())
    else:
        say(f"revoked {grant.id} ({grant.tool} of {grant.bottle_slug})")
