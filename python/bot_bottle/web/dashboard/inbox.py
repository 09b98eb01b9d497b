"""What does the inbox's page read and send? What is pending, all of one proposal, and a decision or a question.

``shown.py`` makes what is read fit to be shown, ``events.py`` tells of what changes meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from bot_bottle import Change, InboxItem, InvalidInputError, NotFoundError, render_diff
from bot_bottle.operator import decisions, words
from bot_bottle.operator.overview import overview
from bot_bottle.policy import bypass
from bot_bottle.web.broker.bodies import query, texts
from bot_bottle.web.dashboard import deciding, guard, shown
from bot_bottle.web.dashboard.events import Events, event
from bot_bottle.web.dashboard.presence import Presence
from bot_bottle.web.dashboard.programs import Stores
from bot_bottle.web.dashboard.routing import Run, at, json

SURFACE: Final = "web"
_MOST_IN_VIEW: Final = 200
_PAGE: Final = re.compile(r"[A-Za-z0-9-]{1,64}")


class InboxRoutes:
    """The routes of the inbox's page."""

    def __init__(
        self,
        stores: Stores,
        run: Run,
        body: Callable[[Request], Awaitable[Any]],
        stopped: asyncio.Event,
        streams: Callable[[], contextlib.AbstractContextManager[None]],
        presence: Presence,
    ) -> None:
        self._stores, self._run, self._body = stores, run, body
        self._stopped, self._streams, self._presence = stopped, streams, presence

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            at("/api/v1/inbox", GET=self._list),
            at("/api/v1/events", GET=self._events),
            at("/api/v1/looking", POST=self._look),
            at("/api/v1/proposals/{id}", GET=self._show),
            at("/api/v1/proposals/{id}/draft", POST=self._draft),
            at("/api/v1/proposals/{id}/diff", POST=self._diff),
            at("/api/v1/proposals/{id}/decision", POST=self._decide),
            at("/api/v1/proposals/{id}/question", POST=self._ask),
            at("/api/v1/rows", GET=self._some),
        ]

    # -- what there is to see

    async def _list(self, request: Request) -> Response:
        query(request.query_params.multi_items(), ())

        def read() -> dict[str, Any]:
            # The number is read first: what arrives in between is reported again, but never left out.
            at = self._stores.inbox.last_change()
            rows = [shown.row(item) for item in self._stores.inbox.pending()]
            return {"at": at, "rows": rows, **self._around()}

        return json(await self._run(read))

    async def _some(self, request: Request) -> Response:
        """The rows that a page has in view, whose leases end without a change, and the bottles."""
        given = query(request.query_params.multi_items(), ("ids",))
        ids = [each for each in given.get("ids", "").split(",") if each]
        if len(ids) > _MOST_IN_VIEW:
            raise InvalidInputError(f"ids may be at most {_MOST_IN_VIEW}")

        def read() -> dict[str, Any]:
            return {"rows": self._rows(ids), **self._around()}

        return json(await self._run(read))

    def _around(self) -> dict[str, Any]:
        """What a list of proposals says beside them: of their bottles, and whose requests are approved unasked."""
        return {"bottles": shown.safe(overview(self._stores.database)), "bypasses": shown.safe(bypass.notices())}

    async def _events(self, request: Request) -> Response:
        given = query(request.query_params.multi_items(), ("page",))
        since = request.headers.get("last-event-id", "0")
        if not (since.isascii() and since.isdecimal() and len(since) < 19):
            raise InvalidInputError("Last-Event-ID must be the number of a change")
        page = _page_id(given["page"]) if "page" in given else None
        looking = contextlib.nullcontext() if page is None else self._presence.page(page, request.state.name)

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            with self._streams(), looking as asides:
                arguments = (int(since), request.state.ends, self._stopped, dict(guard.HEADERS), asides)
                await Events(self._stores.inbox, self._run, self._tell, *arguments)(scope, receive, send)

        return counted  # type: ignore[return-value]

    def _tell(self, changes: list[Change]) -> bytes:
        rows = self._rows(list(dict.fromkeys(each.proposal_id for each in changes)))
        return event("rows", changes[-1].seq, rows)

    async def _look(self, request: Request) -> Response:
        given = texts(await self._body(request), ("page",), ("proposal_id",))
        proposal_id = given.get("proposal_id")
        if proposal_id is not None:
            await self._run(self._stores.inbox.read, proposal_id)
        self._presence.look(_page_id(given["page"]), request.state.name, proposal_id)
        return json({})

    def _rows(self, ids: list[str]) -> list[dict[str, Any]]:
        found = []
        for each in ids:
            try:
                found.append(shown.row(self._stores.inbox.summary(each)))
            except NotFoundError:  # pruned in the meantime
                found.append(
                    {"id": each, "pending": False, "state": "gone", "ended": "it is no longer in the database"}
                )
        return found

    async def _show(self, request: Request) -> Response:
        return json(await self._run(lambda: shown.whole(self._stores.inbox.review(request.path_params["id"]))))

    # -- what there is to decide

    def _item(self, request: Request) -> InboxItem:
        return self._stores.inbox.read(request.path_params["id"])

    async def _draft(self, request: Request) -> Response:
        texts(await self._body(request), ())

        def read() -> dict[str, Any]:
            item = self._item(request)
            decisions.refuse_early(self._stores.inbox, item, surface=SURFACE)
            # As it was written: this is for an editor, and what is sent back is shown as a diff first.
            return {"text": item.proposal.proposed_file}

        return json(await self._run(read))

    async def _diff(self, request: Request) -> Response:
        given = texts(await self._body(request), ("final_file",))

        def read() -> dict[str, Any]:
            item = self._item(request)
            label = os.path.basename(item.managed_file or "proposal")
            difference = render_diff(item.proposal.proposed_file, given["final_file"], label=label)
            return shown.safe({"diff": difference}, multiline=True)  # type: ignore[no-any-return]

        return json(await self._run(read))

    async def _decide(self, request: Request) -> Response:
        given = texts(await self._body(request), ("status", "review_sha256"), ("notes", "scope", "final_file"))
        if len(given["review_sha256"]) != 64:
            raise InvalidInputError("review_sha256 must be the whole hash of what was reviewed")
        return json(await self._run(self._decided, request.path_params["id"], given, request.state.decides_as))

    def _decided(self, proposal_id: str, given: dict[str, str], name: str | None) -> dict[str, Any]:
        item = self._stores.inbox.read(proposal_id)
        answer = deciding.decide(
            self._stores.inbox, item.proposal.id, given, surface=SURFACE, grant=given.get("scope"), name=name
        )
        told = [shown.said(each) for each in decisions.told(item, answer)]
        return {"row": shown.row(self._stores.inbox.summary(proposal_id)), "told": told}

    async def _ask(self, request: Request) -> Response:
        given = texts(await self._body(request), ("text", "id"))
        by = request.state.decides_as

        def ask() -> dict[str, Any]:
            item = self._item(request)
            # The page makes the id, so that one whose answer was lost asks once.
            self._stores.inbox.ask(
                item.proposal.id, given["text"], asked_by=by, surface=SURFACE, message_id=given["id"]
            )
            told = [shown.said((words.asked(item), "plain"))]
            return {"row": shown.row(self._stores.inbox.read(item.proposal.id)), "told": told}

        return json(await self._run(ask))


def _page_id(text: str) -> str:
    if not _PAGE.fullmatch(text):
        raise InvalidInputError("page must be 1 to 64 letters, digits or -")
    return text
