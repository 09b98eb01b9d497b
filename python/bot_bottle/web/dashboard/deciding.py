"""How is a decision made so that it can be sent again if its answer was lost?"""

from __future__ import annotations

from typing import cast

from bot_bottle import Inbox, Response
from bot_bottle.errors import AlreadyDecidedError
from bot_bottle.states import Status, Surface


def decide(
    inbox: Inbox, proposal_id: str, given: dict[str, str], *, surface: Surface, grant: str | None, name: str | None
) -> Response:
    """Decides as ``given`` says, in the name of ``name``. If exactly that was decided already, the answer is that one.

    Raises:
        BotBottleError: as :meth:`Inbox.decide` does.
    """
    final = given.get("final_file")
    try:
        return inbox.decide(
            proposal_id,
            cast("Status", given["status"]),  # the store refuses an invalid one
            review_sha256=given["review_sha256"],
            surface=surface,
            notes=given.get("notes", ""),
            final_file=None if final is None else final.encode(),
            decided_by=name,
            grant=grant,
        )
    except AlreadyDecidedError:
        # The one that asks again may be another process than the one that was answered.
        found = inbox.read(proposal_id).response
        if found is None or not _same(found, given, surface, grant, name):
            raise
        return found


def _same(answer: Response, given: dict[str, str], surface: Surface, grant: str | None, name: str | None) -> bool:
    """Is ``answer`` what ``given`` asks for, from this surface and in this name?"""
    wanted = (given["status"], given.get("notes", ""), given.get("final_file"), given["review_sha256"])
    found = (answer.status, answer.notes, answer.final_file, answer.review_sha256)
    signed = (answer.signed or {}).get("scope")
    # "for" became the moment at which it ends.
    reaches = grant == signed or bool(grant and signed and grant.startswith("for:") and signed.startswith("until:"))
    return answer.surface == surface and found == wanted and reaches and name in (None, answer.decided_by)
