"""What do the pages beside the inbox show? What was decided, who asks, what is allowed, what rules say, how it goes.

Each is read when it is opened, and made fit to be shown here, as ``shown.py`` does for the inbox.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bot_bottle import Bottle, InvalidInputError, Keys, __version__
from bot_bottle.launch import engine
from bot_bottle.notify import delivery, push
from bot_bottle.operator import oversight, proof, searching, words
from bot_bottle.operator.alone import running
from bot_bottle.operator.overview import overview, recent, scanned
from bot_bottle.policy import replay, rules
from bot_bottle.web.broker.bodies import query, texts, timestamp
from bot_bottle.web.dashboard import shown
from bot_bottle.web.dashboard.inbox import SURFACE
from bot_bottle.web.dashboard.programs import Stores
from bot_bottle.web.dashboard.routing import Run, at, flag, json, whole

MOST_ROWS: Final = 500
# Asking the engine starts a program, and many pages may be open.
_ENGINE_SECONDS: Final = 5.0
_DAY_SECONDS: Final = 86400
_LATEST_SECONDS: Final = 2**37  # of a clock on a page: in the year 6325
_REPLAYED: Final = 1000
_DAYS: Final = 30
_MOST_LISTED: Final = 50
_LEAST_ALIKE: Final = 3


class Tables:
    """The routes of these pages."""

    def __init__(self, stores: Stores, run: Run, body: Callable[[Request], Awaitable[Any]]) -> None:
        self._stores, self._run, self._body = stores, run, body
        self._keys = Keys()
        self._begun = time.time()
        self._engine: tuple[float, dict[str, engine.Sidecars]] = (0.0, {})

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            at("/api/v1/history", GET=self._history),
            at("/api/v1/proposals/{id}/proof", GET=self._proof),
            at("/api/v1/bottles", GET=self._bottles),
            at("/api/v1/grants", GET=self._grants),
            at("/api/v1/grants/{id}/revoke", POST=self._revoke),
            at("/api/v1/policies", GET=self._policies),
            at("/api/v1/oversight", GET=self._oversight),
            at("/api/v1/status", GET=self._status),
            at("/api/v1/push", GET=self._push_key, POST=self._subscribe),
            at("/api/v1/push/end", POST=self._unsubscribe),
        ]

    async def _history(self, request: Request) -> Response:
        given = query(request.query_params.multi_items(), ("before", "bottle", "tool", "state", "text", "limit"))
        limit = whole(given, "limit", 1, MOST_ROWS, 100)
        wanted = searching.Wanted(*(given.get(name) or None for name in searching.Wanted._fields))
        before = given.get("before")

        def read() -> dict[str, Any]:
            inbox, database = self._stores.inbox, self._stores.database
            found = searching.search(inbox, database, wanted, limit=limit + 1, before=before)
            told: dict[str, Any] = {"rows": [shown.row(each) for each in found[:limit]], "more": len(found) > limit}
            if before is None:
                told["tools"] = shown.safe(searching.tools(database))
                told["bottles"] = shown.safe([each["slug"] for each in overview(database)])
                told["head"] = shown.safe(proof.head(database))
            return told

        return json(await self._run(read))

    async def _proof(self, request: Request) -> Response:
        query(request.query_params.multi_items(), ())
        # To be kept and not to be shown: it is signed as it is.
        return json(await self._run(proof.prove, self._stores.inbox, self._stores.database, request.path_params["id"]))

    async def _bottles(self, request: Request) -> Response:
        given = query(request.query_params.multi_items(), ("since",))
        seconds = whole(given, "since", 0, _LATEST_SECONDS, int(time.time()) - _DAY_SECONDS)
        since = timestamp(datetime.fromtimestamp(seconds, timezone.utc))

        def read() -> list[dict[str, Any]]:
            registered = self._stores.bottles.list_bottles()
            at_work = self._sidecars(registered)
            known = {each["slug"]: each for each in overview(self._stores.database)}
            # A bottle that stopped before has no traffic since.
            lately = [each.slug for each in registered if each.stopped_at is None or each.stopped_at >= since]
            found = scanned(self._stores.database, lately, since)
            nothing = {"allowed": 0, "masked": 0, "refused": 0, "more": 0}
            return [
                self._card(each, known.get(each.slug, {}), at_work.get(each.slug))
                | {"traffic": found.get(each.slug, nothing)}
                for each in registered
            ]

        return json({"bottles": await self._run(read)})

    def _card(self, bottle: Bottle, known: dict[str, Any], sidecars: engine.Sidecars | None) -> dict[str, Any]:
        seen, decisions = recent(self._stores.database, bottle.slug)
        card = known | bottle.to_dict() | {"damaged": bottle.damaged, "last_seen": seen}
        health = (sidecars or engine.Sidecars("unknown"))._asdict()
        ended = [{**shown.safe(each), "state": shown.said(words.state(str(each["status"])))} for each in decisions]
        return {**shown.safe(card), "sidecars": shown.safe(health), "decisions": ended}

    def _sidecars(self, registered: list[Bottle]) -> dict[str, engine.Sidecars]:
        asked, found = self._engine
        if time.monotonic() - asked > _ENGINE_SECONDS or not asked:
            # What is not as this host registered it leads to no name of a container either.
            found = engine.ask((each.slug, each.backend) for each in registered if not each.damaged)
            self._engine = (time.monotonic(), found)
        return found

    async def _grants(self, request: Request) -> Response:
        given = query(request.query_params.multi_items(), ("all",))
        found = await self._run(self._stores.grants.list_grants, live=not flag(given, "all", False))
        return json({"grants": [shown.grant(each) for each in found]})

    async def _revoke(self, request: Request) -> Response:
        texts(await self._body(request), ())
        revoked = await self._run(
            self._stores.grants.revoke_grant,
            request.path_params["id"],
            revoked_by=request.state.decides_as,
            surface=SURFACE,
        )
        return json({"grant": shown.grant(revoked)})

    async def _policies(self, request: Request) -> Response:
        query(request.query_params.multi_items(), ())

        def read() -> dict[str, Any]:
            told: dict[str, Any] = {"path": rules.path(), "running": running("policy"), "problem": None}
            try:
                found = rules.read()
            except InvalidInputError as error:
                return {**told, "problem": str(error), "decided": 0, "rules": [], "suggestions": []}
            decided = replay.past(self._stores.inbox, _REPLAYED)
            replayed = [self._rule(replay.replay(rule, decided)) for rule in found.rules]
            suggested = [
                {"rule": each.rule, "evidence": len(each.evidence)}
                for each in replay.suggest(found, decided, _LEAST_ALIKE)
            ]
            return {**told, "decided": len(decided), "rules": replayed, "suggestions": suggested}

        return json(shown.safe(await self._run(read), multiline=True))

    @staticmethod
    def _rule(found: replay.Replayed) -> dict[str, Any]:
        # As the command line and the terminal app describe it.
        cells = [each[0] if isinstance(each, tuple) else each for each in rules.described(found.rule)]
        otherwise = [shown.row(each.item) for each in found.otherwise[:_MOST_LISTED]]
        return {
            "name": found.rule.name,
            "described": cells,
            "matched": len(found.matched),
            "otherwise": len(found.otherwise),
            "listed": otherwise,
        }

    async def _oversight(self, request: Request) -> Response:
        given = query(request.query_params.multi_items(), ("days", "bottle"))
        days = whole(given, "days", 1, 3650, _DAYS)

        def read() -> dict[str, Any]:
            found = oversight.measure(
                self._stores.database, since=words.days_ago(days), bottle=given.get("bottle") or None
            )
            return {**found, "days": oversight.last_days(found.pop("by_day"), days)}

        return json(shown.safe(await self._run(read)))

    async def _status(self, request: Request) -> Response:
        given = query(request.query_params.multi_items(), ("check",))
        check = flag(given, "check", False)

        def read() -> dict[str, Any]:
            database = self._stores.database
            return {
                "version": __version__,
                "memory": memory_bytes(),
                "begun": self._begun,
                "database": database.status(),
                "stats": self._stores.inbox.stats(),
                "keys": [each.to_dict() | {"current": each.current} for each in self._keys.all()],
                "failed": [shown.row(each) for each in self._stores.inbox.failed()],
                "notify": {"running": running("notify"), "channels": delivery.status()},
                "findings": database.check() if check else None,
            }

        return json(shown.safe(await self._run(read)))

    async def _push_key(self, request: Request) -> Response:
        query(request.query_params.multi_items(), ())
        return json({"key": await self._run(push.public_key), "told": len(await self._run(push.subscriptions))})

    async def _subscribe(self, request: Request) -> Response:
        given = texts(await self._body(request), ("endpoint", "p256dh", "auth"))
        await self._run(push.subscribe, **given, name=request.state.name)
        return json({})

    async def _unsubscribe(self, request: Request) -> Response:
        given = texts(await self._body(request), ("endpoint",))
        await self._run(push.end, given["endpoint"])
        return json({})


def memory_bytes() -> int:
    """What this process holds in memory; where that cannot be said, the most that it ever held."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
