"""What may agents do again without asking?"""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from bot_bottle import Grant, GrantStore
from bot_bottle.cli.options import bottle_option, json_option
from bot_bottle.cli.screen import print_json, print_table, say, seconds_since, short_ids, span
from bot_bottle.errors import BotBottleError


@click.group()
def grants() -> None:
    """List and revoke what was allowed for more than one time."""


@grants.command("list")
@bottle_option
@click.option("--all", "everything", is_flag=True, help="Also those used up, lapsed or revoked.")
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
    ids = short_ids(grant.id for grant in found)
    print_table(
        ["ID", "Bottle", "Tool", "In force", "Given", "Last used", "Fingerprint"],
        [
            (
                (ids[grant.id], "bold"),
                grant.bottle_slug,
                grant.tool,
                (_reach(grant), "green" if grant.live else "dim"),
                f"{_ago(grant.created_at)} by {grant.created_by}",
                _ago(grant.last_used_at) if grant.last_used_at else "never",
                grant.fingerprint,
            )
            for grant in found
        ],
        text_last=True,
    )


def _ago(timestamp: str) -> str:
    return f"{span(seconds_since(timestamp))} ago"


def _reach(grant: Grant) -> str:
    if grant.revoked_at:
        return f"revoked {_ago(grant.revoked_at)}"
    if grant.uses_left is not None:
        return f"{grant.uses_left} more uses" if grant.uses_left != 1 else "1 more use"
    if grant.expires_at:
        left = -seconds_since(grant.expires_at)
        return f"for {span(left)}" if left > 0 else f"lapsed {span(-left)} ago"
    return "until the bottle stops" if grant.live else "the bottle has stopped"


def _live_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    try:
        found = GrantStore().list_grants()
    except BotBottleError:  # a shell that completes has nowhere to show an error
        return []
    return [
        CompletionItem(grant.id, help=f"{grant.bottle_slug} {grant.tool}")
        for grant in found
        if grant.id.startswith(incomplete)
    ]


@grants.command()
@click.argument("grant_id", metavar="ID", shell_complete=_live_ids)
@json_option
def revoke(grant_id: str, as_json: bool) -> None:
    """End a grant now; the next such request asks again."""
    grant = GrantStore().revoke_grant(grant_id)
    if as_json:
        print_json(grant.to_dict())
    else:
        say(f"revoked {grant.id} ({grant.tool} of {grant.bottle_slug})")
