"""What may an operator's program do? Everything that the command line does with the inbox, from elsewhere.

``openapi.py`` says what each route takes and returns, docs/dashboard.md why. Unlike the pages, a program gets texts as
they were written and has to display them safely, as ``bot-bottle --url`` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from typing import Any, Final, NamedTuple, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from bot_bottle import (
    AuditStore,
    Bottle,
    BottleStore,
    Change,
    Database,
    GrantStore,
    Inbox,
    InboxSummary,
    InvalidInputError,
    QueueStore,
    __version__,
)
from bot_bottle.launch import engine
from bot_bottle.operator import known, oversight, views
from bot_bottle.states import Surface
from bot_bottle.web.broker.bodies import query, texts, timestamp
from bot_bottle.web.dashboard import deciding, guard, openapi
from bot_bottle.web.dashboard.events import Events, event, until_change, until_gone
from bot_bottle.web.dashboard.presence import Presence
from bot_bottle.web.dashboard.routing import Run, at, flag, json, whole
from bot_bottle.web.problems import Refusal

MOST_ROWS: Final = 500
MOST_CHANGES: Final = 1000
MOST_ENTRIES: Final = 1000
# Shorter than the minute after which proxies and clients commonly give up on a silent peer.
MOST_WAIT_SECONDS: Final = 25.0
SURFACES: Final = ("api", "cli", "tui")

_MOST_KEYS: Final = 10_000
_LONGEST_KEY: Final = 255


class Stores(NamedTuple):
    """The host's database, as it is open already."""

    inbox: Inbox
    bottles: BottleStore
    grants: GrantStore
    audit: AuditStore
    database: Database


class Programs:
    """The routes under ``/v1/``."""

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
        # What was answered to a key, so that the same request gets the same answer, and another one is told apart.
        self._answered: OrderedDict[tuple[str, str], tuple[str, asyncio.Future[dict[str, Any]]]] = OrderedDict()
        self._document = json(openapi.document())

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            at("/v1/openapi.json", GET=self._openapi),
            at("/v1/me", GET=self._me),
            at("/v1/proposals", GET=self._list),
            at("/v1/proposals/{id}", GET=self._show),
            at("/v1/proposals/{id}/review", GET=self._review),
            at("/v1/proposals/{id}/decision", POST=self._decide),
            at("/v1/proposals/{id}/questions", POST=self._ask),
            at("/v1/proposals/{id}/archive", POST=self._archive),
            at("/v1/changes", GET=self._changes),
            at("/v1/events", GET=self._events),
            at("/v1/grants", GET=self._grants),
            at("/v1/grants/{id}/revoke", POST=self._revoke),
            at("/v1/bottles", GET=self._bottles),
            at("/v1/audit", GET=self._audit),
            at("/v1/stats", GET=self._stats),
            at("/v1/views", POST=self._views),
        ]

    async def _openapi(self, request: Request) -> Response:
        return self._document

    async def _me(self, request: Request) -> Response:
        now = timestamp(datetime.now(timezone.utc))
        return json({"name": request.state.name, "version": __version__, "time": now})

    # -- what there is to see

    async def _list(self, request: Request) -> Response:
        given = query(request.query_params.multi_items(), ("state", "bottle", "after", "before", "limit"))
        state, bottle = given.get("state", "any"), await self._bottle(given)
        limit = whole(given, "limit", 1, MOST_ROWS, 100)
        inbox = self._stores.inbox
        if state == "any" and "after" not in given:
            items = await self._run(inbox.history, bottle_slug=bottle, limit=limit + 1, before=given.get("before"))
        elif state in ("pending", "failed") and "before" not in given:
            items = await self._run(inbox.pending, bottle) if state == "pending" else await self._run(inbox.failed)
            items = _after(items, given.get("after", ""))
        else:
            raise InvalidInputError("state must be pending or failed, paged with after, or any, paged with before")
        page = items[:limit]
        following = page[-1].proposal.id if len(items) > limit else None
        return json({"proposals": [each.to_dict() for each in page], "next": following})

    async def _bottle(self, given: dict[str, str]) -> str | None:
        """The bottle that a list is of, if it is named.

        Raises:
            NotFoundError: no bottle has this name; an empty list would say that nothing is pending.
        """
        slug = given.get("bottle")
        if slug is not None:
            await self._run(known.bottle, slug)
        return slug

    async def _show(self, request: Request) -> Response:
        given = query(request.query_params.multi_items(), ("payload",))
        inbox = self._stores.inbox
        read = inbox.read if flag(given, "payload", True) else inbox.summary
        return json((await self._run(read, request.path_params["id"])).to_dict())

    async def _review(self, request: Request) -> Response:
        review = await self._run(self._stores.inbox.review, request.path_params["id"])
        name = request.state.name
        self._presence.glance(f"program of {name}", name, review.item.proposal.id)
        return json(review.to_dict())

    async def _changes(self, request: Request) -> Response:
        given = query(request.query_params.multi_items(), ("since", "limit", "wait"))
        limit = whole(given, "limit", 1, MOST_CHANGES, MOST_CHANGES)
        seconds = _seconds(given.get("wait", "0"))
        inbox = self._stores.inbox
        last = await self._run(inbox.last_change)
        since = whole(given, "since", 0, 2**63 - 1, last)
        changes = await self._run(inbox.changes, since, limit=limit)
        if seconds and not changes and since <= last:
            changes = await self._awaited(request, since, limit, seconds)
        # Behind `since`: the file was set back to an earlier state.
        return json({"changes": [each.to_dict() for each in changes], "last": await self._run(inbox.last_change)})

    async def _awaited(self, request: Request, since: int, limit: int, seconds: float) -> list[Change]:
        gone = asyncio.ensure_future(until_gone(request.receive))
        stopped = asyncio.ensure_future(self._stopped.wait())
        try:
            with self._streams():
                await until_change(self._stores.inbox, self._run, since, seconds, gone, stopped)
        finally:
            gone.cancel()
            stopped.cancel()
        found: list[Change] = await self._run(self._stores.inbox.changes, since, limit=limit)
        return found

    async def _events(self, request: Request) -> Response:
        given = query(request.query_params.multi_items(), ("since",))
        if "last-event-id" in request.headers:
            given = {"since": request.headers["last-event-id"]}
        last = await self._run(self._stores.inbox.last_change)
        since = whole(given, "since", 0, 2**63 - 1, last)

        def tell(changes: list[Change]) -> bytes:
            return b"".join(event("change", each.seq, each.to_dict()) for each in changes)

        arguments = (since, request.state.ends, self._stopped, dict(guard.HEADERS))
        events = Events(self._stores.inbox, self._run, tell, *arguments)

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            with self._streams():
                await events(scope, receive, send)

        return counted  # type: ignore[return-value]

    async def _grants(self, request: Request) -> Response:
        given = query(request.query_params.multi_items(), ("bottle", "live"))
        live = flag(given, "live", True)
        found = await self._run(self._stores.grants.list_grants, await self._bottle(given), live=live)
        return json({"grants": [each.to_dict() for each in found]})

    async def _bottles(self, request: Request) -> Response:
        given = query(request.query_params.multi_items(), ("running",))
        running = flag(given, "running", False)

        def read() -> list[dict[str, Any]]:
            found: list[Bottle] = self._stores.bottles.list_bottles(running=running)
            # A damaged registration must not lead to the name of a container.
            sidecars = engine.ask((each.slug, each.backend) for each in found if not each.damaged)
            unknown = engine.Sidecars("unknown")
            return [{**each.to_dict(), "sidecars": sidecars.get(each.slug, unknown)._asdict()} for each in found]

        return json({"bottles": await self._run(read)})

    async def _audit(self, request: Request) -> Response:
        given = query(request.query_params.multi_items(), ("component", "bottle", "since", "limit"))
        limit = whole(given, "limit", 1, MOST_ENTRIES, 100)
        found = await self._run(
            self._stores.audit.read_audit_entries,
            given.get("component"),
            await self._bottle(given),
            since=given.get("since"),
            limit=limit,
        )
        return json({"entries": [each.to_dict() for each in found]})

    async def _stats(self, request: Request) -> Response:
        given = query(request.query_params.multi_items(), ("since", "bottle"))
        bottle = await self._bottle(given)

        def read() -> dict[str, Any]:
            measured = oversight.measure(self._stores.database, since=given.get("since", ""), bottle=bottle)
            return {**self._stores.inbox.stats(), "oversight": measured}

        return json(await self._run(read))

    # -- what there is to do

    async def _decide(self, request: Request) -> Response:
        body = await self._body(request)
        given = texts(body, ("status", "review_sha256"), ("notes", "final_file", "grant", "surface"))
        given["surface"] = _surface(given)
        if len(given["review_sha256"]) != 64:
            raise InvalidInputError("review_sha256 must be the whole hash of what was reviewed")
        keys = request.headers.getlist("idempotency-key")
        proposal_id, name = request.path_params["id"], request.state.decides_as
        if not keys:
            return json(await self._run(self._decided, proposal_id, given, name))
        if len(keys) > 1 or not 0 < len(keys[0]) <= _LONGEST_KEY:
            raise InvalidInputError(f"Idempotency-Key must be one text of 1 to {_LONGEST_KEY} characters")
        return json(await self._once(request.state.name, keys[0], proposal_id, given, name))

    async def _once(
        self, who: str, key: str, proposal_id: str, given: dict[str, str], name: str | None
    ) -> dict[str, Any]:
        """Decides, or gives the answer that this key got already (draft-ietf-httpapi-idempotency-key-header)."""
        asked = hashlib.sha256(repr((proposal_id, sorted(given.items()))).encode()).hexdigest()
        before = self._answered.get((who, key))
        if before is None:
            deciding = asyncio.ensure_future(self._run(self._decided, proposal_id, given, name))
            self._answered[who, key] = (asked, deciding)
            while len(self._answered) > _MOST_KEYS:
                self._answered.popitem(last=False)
            try:
                return cast("dict[str, Any]", await asyncio.shield(deciding))
            except Exception:
                # Nothing was decided, or the store knows what was: it may be asked again.
                self._answered.pop((who, key), None)
                raise
        if before[0] != asked:
            raise Refusal(422, InvalidInputError("this Idempotency-Key was used for another decision; take a new one"))
        return await asyncio.shield(before[1])

    def _decided(self, proposal_id: str, given: dict[str, str], name: str | None) -> dict[str, Any]:
        inbox = self._stores.inbox
        answer = deciding.decide(
            inbox,
            inbox.summary(proposal_id).proposal.id,
            given,
            surface=cast("Surface", given["surface"]),
            grant=given.get("grant"),
            name=name,
        )
        return answer.to_dict()

    async def _ask(self, request: Request) -> Response:
        given = texts(await self._body(request), ("text",), ("surface", "id"))
        surface, by = _surface(given), request.state.decides_as

        def ask() -> dict[str, Any]:
            inbox = self._stores.inbox
            proposal_id = inbox.summary(request.path_params["id"]).proposal.id
            asked = inbox.ask(proposal_id, given["text"], asked_by=by, surface=surface, message_id=given.get("id"))
            return asked.to_dict()

        return json(await self._run(ask))

    async def _archive(self, request: Request) -> Response:
        texts(await self._body(request), ())

        def put_away() -> dict[str, Any]:
            item = self._stores.inbox.summary(request.path_params["id"])
            if item.state == "pending":
                raise InvalidInputError(f"proposal {item.proposal.id} is pending: decide it first")
            with QueueStore(item.queue_key) as queue:
                queue.archive_proposal(item.proposal.id)
            return self._stores.inbox.summary(item.proposal.id).to_dict()

        return json(await self._run(put_away))

    async def _revoke(self, request: Request) -> Response:
        texts(await self._body(request), ())
        by = request.state.decides_as
        grant = await self._run(
            self._stores.grants.revoke_grant, request.path_params["id"], revoked_by=by, surface="api"
        )
        return json(grant.to_dict())

    async def _views(self, request: Request) -> Response:
        given = texts(await self._body(request), ("proposal_id", "review_sha256", "surface", "shown_at"), ("whole_at",))
        surface = _surface(given)
        item = await self._run(self._stores.inbox.summary, given["proposal_id"])
        view = views.View(
            item.proposal.id,
            given["review_sha256"],
            surface,
            given["shown_at"],
            given.get("whole_at"),
        )
        error = await self._run(views.note, [view])
        if error is not None:
            raise error
        return json({})


def _after(items: list[InboxSummary], last: str) -> list[InboxSummary]:
    """What comes after the one whose id is ``last``; if that is no longer there, all of it once more."""
    at = next((at for at, each in enumerate(items) if each.proposal.id == last), -1)
    return items[at + 1 :]


def _surface(given: dict[str, str]) -> Surface:
    """Through what a program says that it acts; ``api`` unless it says so."""
    surface = given.get("surface", "api")
    if surface not in SURFACES:
        raise InvalidInputError(f"surface must be one of {', '.join(SURFACES)}")
    return cast("Surface", surface)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < time.time():  # not a number is not less either
        raise InvalidInputError("wait must be a number of seconds")
    return min(seconds, MOST_WAIT_SECONDS)
