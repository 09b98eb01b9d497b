"""What may agents do again without asking?"""

from __future__ import annotations

from bot_bottle import Grant
from bot_bottle.cli.declare import argument, group, option
from bot_bottle.cli.options import bottle_option, json_option
from bot_bottle.cli.screen import print_fields, print_json, print_table, say
from bot_bottle.errors import BotBottleError, InvalidInputError, NotFoundError
from bot_bottle.operator import seat, words


@group()
def grants() -> None:
    """List, show and revoke what was allowed for more than one time.

    \b
      bot-bottle grants list --bottle dev
      bot-bottle grants show 0199d2c4-c4f2    # when it was used
      bot-bottle grants revoke 0199d2c4-c4f2
    """


@grants.command("list")
@bottle_option
@option("--all", "everything", is_flag=True, help="Also those used up, lapsed or revoked.")
@json_option
def list_(bottle: str | None, everything: bool, as_json: bool) -> None:
    """List grants, newest first.

    \b
      bot-bottle grants list --bottle dev
      bot-bottle grants list --all    # used up and revoked ones, too
    """
    found = seat.grants().list_grants(bottle, live=not everything)
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


@grants.command()
@argument("grant_id", metavar="ID", complete=lambda incomplete: _live_ids(incomplete))
@json_option
def show(grant_id: str, as_json: bool) -> None:
    """Show one grant, what it came from, and each use of it.

    \b
      bot-bottle grants show 0199d2c4-c4f2    # as grants list prints the id
    """
    grant = _find(grant_id)
    with seat.audit() as store:
        entries = store.read_audit_entries(grant.tool, grant.bottle_slug, since=grant.created_at)
    uses = [
        entry
        for entry in entries
        if entry.operator_action == "grant-used" and entry.operator_notes.startswith(f"grant {grant.id} ")
    ]
    if as_json:
        print_json(grant.to_dict() | {"used": [{"seq": entry.seq, "at": entry.timestamp} for entry in uses]})
        return
    print_fields(
        [
            ("Grant", (grant.id, "strong")),
            ("Bottle", grant.bottle_slug),
            ("Tool", grant.tool),
            ("Fingerprint", grant.fingerprint),
            ("In force", ("damaged", "alarm") if grant.damaged else words.reach(grant)),
            ("Given", f"{words.clock(grant.created_at)} by {grant.created_by}"),
            ("Proposal", grant.proposal_id or "-"),
            ("Used", f"{len(uses)} times" if len(uses) != 1 else "once"),
        ]
    )
    if grant.damaged:
        say(f"It allows nothing where it is checked: {grant.damaged}", "alarm")
    if uses:
        print_table(
            ["Use", "When", "Audit entry"],
            [(str(at), words.clock(entry.timestamp), str(entry.seq)) for at, entry in enumerate(uses, 1)],
        )
        say(
            "Each was a request of this fingerprint; the proposal has the first. The log keeps no more of the others.",
            "quiet",
        )


def _find(prefix: str) -> Grant:
    found = [grant for grant in seat.grants().list_grants(live=False) if grant.id.startswith(prefix)]
    if not found or len(prefix) < 4:
        raise NotFoundError(f"there is no grant {prefix}; 'bot-bottle grants list --all' has all")
    if len(found) > 1:
        raise InvalidInputError(f"several grants begin with {prefix}")
    return found[0]


def _live_ids(incomplete: str) -> list[tuple[str, str]]:
    try:
        found = seat.grants().list_grants()
    except BotBottleError:  # a shell that completes has nowhere to show an error
        return []
    return [(grant.id, f"{grant.bottle_slug} {grant.tool}") for grant in found if grant.id.startswith(incomplete)]


@grants.command(writes=True)
@argument("grant_id", metavar="ID", complete=_live_ids)
@json_option
def revoke(grant_id: str, as_json: bool) -> None:
    """End a grant now; the next such request asks again.

    \b
      bot-bottle grants revoke 0199d2c4-c4f2
    """
    grant = seat.grants().revoke_grant(grant_id)
    if as_json:
        print_json(grant.to_dict())
    else:
        say(f"revoked {grant.id} ({grant.tool} of {grant.bottle_slug})")
