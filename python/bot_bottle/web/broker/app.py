"""What may sidecars do over HTTP? Ask, wait, withdraw and write audit entries, for the bottle of their token only.

The routes are listed once, in :class:`Broker`; ``openapi.py`` says what each takes and returns, docs/broker.md why.
Nothing here decides, lists other bottles or reaches a file: the token, and nothing else in a request, determines the
bottle whose queue is opened.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any, Final, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bot_bottle import (
    MAX_PENDING_PER_BOTTLE,
    AccessDeniedError,
    AuditStore,
    BottleStore,
    Grant,
    GrantStore,
    InvalidInputError,
    InvalidProposalError,
    Keys,
    NotFoundError,
    QueueStore,
    Wait,
    __version__,
    visible,
)
from bot_bottle.web.access_log import AccessLog
from bot_bottle.web.broker import bodies, openapi
from bot_bottle.web.broker.long_poll import Key, LongPoll, Pulse, Waits, envelope
from bot_bottle.web.limits import Admission, Limits
from bot_bottle.web.problems import Refusal, encode, problem, refusal_of

T = TypeVar("T")
Handler = Callable[[Request, str], Awaitable[Response]]

_TOKEN: Final = re.compile(r"Bearer ([A-Za-z0-9_-]{43})", re.IGNORECASE)
_ID: Final = re.compile(r"[0-9a-fA-F-]{32,36}")
_NO_STORE: Final = {"Cache-Control": "no-store"}
_WORDS: Final = {
    "nothing_here": "there is no such route; /v1/openapi.json lists them",
    "other_methods": "this route is for other methods; see /v1/openapi.json",
    "our_fault": "the broker failed at this request; its operator can see why",
}
# A client that went away before its answer; nginx's number, seen in the log only.
_GONE: Final = 499

# The outcome of an answer whose reader was too slow.
_CUT_OFF: Final = "cut off"


class Broker:
    """The ASGI application. Its stores are the host's database."""

    def __init__(self, limits: Limits, log: AccessLog) -> None:
        self._limits = limits
        self._log = log
        self._admission = Admission(limits)
        self._waits = Waits(self._begin_wait)
        self._pulse = Pulse(limits.sign_of_life_seconds)
        self._bottles = BottleStore()
        # Opens the database, and migrates it if need be: now, with the reason if it cannot be used.
        self._bottles.check_token("")
        self._audit = AuditStore()
        self._keyring = Keys().keyring_file
        self._grants = GrantStore(operator_keys=self._keyring)
        self._queues: dict[str, QueueStore] = {}
        # Apart, because a write may stand behind another writer for 30 s, and reads never do. The core runs one of
        # each at a time anyway; the threads are for what is converted around that.
        self._reads = ThreadPoolExecutor(4, "broker-read")
        self._writes = ThreadPoolExecutor(8, "broker-write")
        self._working: set[Future[Any]] = set()
        self._document = _json(openapi.document(limits))
        answer = self._answer
        self._router = Router(
            [
                _at("/v1/health", GET=answer(self._health, needs_token=False)),
                _at("/v1/openapi.json", GET=answer(self._openapi, needs_token=False)),
                _at("/v1/bottle", GET=answer(self._bottle)),
                _at("/v1/proposals", GET=answer(self._list), POST=answer(self._propose)),
                _at("/v1/proposals/{id}", GET=answer(self._show)),
                _at("/v1/proposals/{id}/response", GET=answer(self._wait, waits=True)),
                _at("/v1/proposals/{id}/answer", POST=answer(self._answer_question)),
                _at("/v1/proposals/{id}/withdraw", POST=answer(self._withdraw)),
                _at("/v1/proposals/{id}/archive", POST=answer(self._archive)),
                _at("/v1/audit", POST=answer(self._append)),
                _at("/v1/grants/find", POST=answer(self._find_grant)),
                _at("/v1/grants/use", POST=answer(self._use_grant)),
            ],
            redirect_slashes=False,
        )

    def stop(self) -> None:
        """Answers the current waits, and those that still arrive, with "pending"."""
        self._waits.stop()

    @property
    def idle(self) -> bool:
        """Whether no thread is working, so that the process can end."""
        return not self._working

    def close(self) -> None:
        """Gives up what has not begun; what has is finished, or undone by SQLite if the process ends first."""
        for pool in (self._reads, self._writes):
            pool.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise TypeError(f"the broker speaks HTTP, not {scope['type']}")
        begun = time.monotonic()  # uvloop's own counts whole milliseconds
        status, sent = 0, 0

        async def send_and_count(message: Message) -> None:
            nonlocal status, sent
            status = status or message.get("status", 0)
            sent += len(message.get("body", b""))
            await send(message)

        scope["app"] = self  # so that the router raises its 404 and 405 instead of answering in plain text
        scope["state"] = dict(scope["state"])  # what the listener gives: ``known()`` and ``drained()``
        try:
            try:
                await self._router(scope, receive, send_and_count)
            except Exception as raised:
                if isinstance(raised, ClientDisconnect):
                    status = _GONE
                    return
                refusal = refusal_of(raised, **_WORDS)
                scope["state"]["error"] = type(refusal.error).__name__
                if refusal.status >= 500:
                    scope["state"]["detail"] = str(refusal.error)
                if not status:
                    headers = raised.headers if isinstance(raised, HTTPException) else None
                    response = problem(refusal.error, refusal.status, headers)
                    await response(scope, receive, send_and_count)
        finally:
            self._note(scope, status, sent, time.monotonic() - begun)

    def _note(self, scope: Scope, status: int, sent: int, seconds: float) -> None:
        # Not the path or the query as they were sent: a client might put anything there.
        proposal_id = scope.get("path_params", {}).get("id", "")
        state = scope["state"]
        self._log.write(
            {
                "event": "request",
                "bottle": state.get("bottle"),
                "method": scope["method"] if scope["method"] in ("GET", "POST", "HEAD") else "other",
                "route": getattr(scope.get("endpoint"), "path", None),
                "proposal": proposal_id if _ID.fullmatch(proposal_id) else None,
                "status": status,
                "error": state.get("error"),
                "detail": state.get("detail"),
                "outcome": state.get("outcome"),
                "received": state.get("received", 0),
                "sent": sent,
                "ms": round(seconds * 1000, 3),
                "peer": "{}:{}".format(*scope["client"]) if scope.get("client") else "unix",
            }
        )

    def _answer(self, handler: Handler, *, needs_token: bool = True, waits: bool = False) -> ASGIApp:
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            request = Request(scope, receive)
            slug = await self._admit(request) if needs_token else ""
            # Handler and answer, so that a client which reads slowly counts too.
            with self._admission.wait(slug) if waits else self._admission.request(slug):
                response = await handler(request, slug)
                with self._admission.answer(slug, len(getattr(response, "body", b""))):
                    await response(scope, receive, send)
                    if scope["state"].get("outcome") != _CUT_OFF:  # that one closes the connection
                        await request.state.drained()

        return answer

    async def _admit(self, request: Request) -> str:
        """The bottle whose token the request carries, charged for it.

        Raises:
            Refusal: 401 without a good token, 429 where the bottle asks too fast.
        """
        given = request.headers.getlist("authorization")
        token = _TOKEN.fullmatch(given[0]) if len(given) == 1 else None
        # In a thread: usually it takes 0.1 ms, but a read of a file that somebody holds up would hold up everybody.
        slug = await self._read(self._bottles.check_token, token[1]) if token else None
        if slug is None:
            what = "this token is unknown or revoked, or its bottle has stopped" if token else "there is no token"
            raise Refusal(401, AccessDeniedError(f"{what}; send the bottle's as 'Authorization: Bearer …'"))
        request.state.bottle = slug
        request.state.known()
        self._admission.charge(slug)
        return slug

    async def _read(self, work: Callable[..., T], *arguments: Any) -> T:
        """Runs a read of the store in a thread."""
        return await self._run(self._reads, work, *arguments)

    async def _write(self, work: Callable[..., T], *arguments: Any) -> T:
        return await self._run(self._writes, work, *arguments)

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[..., T], *arguments: Any) -> T:
        # The thread's future, not the loop's: giving up on the one does not end the other.
        future = pool.submit(work, *arguments)
        self._working.add(future)
        future.add_done_callback(self._working.discard)
        return await asyncio.wrap_future(future)

    def _queue(self, slug: str) -> QueueStore:
        # Kept: closing one wakes the watcher of all waits.
        if slug not in self._queues:
            self._queues[slug] = QueueStore(slug, operator_keys=self._keyring)
        return self._queues[slug]

    async def _body(self, request: Request, slug: str) -> Any:
        """The JSON value of the request's body.

        Raises:
            Refusal: 400, 408 or 413: it is invalid, takes too long or is too long.
        """
        most = self._limits.body_bytes
        kind = InvalidProposalError if request.url.path == "/v1/proposals" else InvalidInputError
        too_long = Refusal(413, kind(f"the body is longer than the {most} bytes that a request may have"))
        if int(request.headers.get("content-length", "0")) > most:
            raise too_long
        body = bytearray()

        async def receive() -> None:
            async for chunk in request.stream():
                body.extend(chunk)
                if len(body) > most:
                    raise too_long

        try:
            await asyncio.wait_for(receive(), self._limits.body_seconds)
        except asyncio.TimeoutError:
            slow = InvalidInputError(f"the body did not arrive within {self._limits.body_seconds:g} s")
            raise Refusal(408, slow) from None
        request.state.received = len(body)
        self._admission.charge(slug, body=len(body))
        return bodies.parse(bytes(body))

    async def _health(self, request: Request, slug: str) -> Response:
        return _json({"status": "ok", "version": __version__})

    async def _openapi(self, request: Request, slug: str) -> Response:
        return self._document

    async def _bottle(self, request: Request, slug: str) -> Response:
        return _json({"slug": slug, "version": __version__, "time": bodies.timestamp(_now())})

    async def _propose(self, request: Request, slug: str) -> Response:
        proposal = bodies.proposal(await self._body(request, slug), slug, _now())
        try:
            written = await self._write(self._queue(slug).write_proposal, proposal)
        except InvalidProposalError as error:
            # Is there something wrong with it, or are there too many?
            bottle = await self._read(self._bottles.read_bottle, slug)
            full = bottle is not None and bottle.pending >= MAX_PENDING_PER_BOTTLE
            raise Refusal(429 if full else 422, error) from None
        return _json({"proposal": written.to_dict()})

    async def _list(self, request: Request, slug: str) -> Response:
        given = bodies.query(request.query_params.multi_items(), ("pending", "limit"))
        pending = given.get("pending", "false")
        if pending not in ("true", "false") or (pending == "true" and "limit" in given):
            raise InvalidInputError("pending must be true or false, and limit is for lists of any state")
        queue = self._queue(slug)
        if pending == "true":
            return _List(await self._read(queue.pending), self._limits.answer_seconds)
        limit = _number(given.get("limit", "100"), "limit", 1, bodies.MAX_ITEMS)
        if not limit.is_integer():
            raise InvalidInputError("limit must be a whole number")
        items = await self._read(lambda: queue.list_items(limit=int(limit)))
        return _List(items, self._limits.answer_seconds)

    async def _show(self, request: Request, slug: str) -> Response:
        proposal_id = request.path_params["id"]
        item = await self._read(self._queue(slug).inspect, proposal_id)
        if item is None:
            raise _no_proposal(proposal_id)
        return _json(_as_told(item))

    async def _wait(self, request: Request, slug: str) -> Response:
        given = bodies.query(request.query_params.multi_items(), ("wait", "questions_after"))
        after = given.get("questions_after")
        if after and not _ID.fullmatch(after):
            raise InvalidInputError("questions_after must be the id of a message, or empty")
        key = (slug, request.path_params["id"], after)
        seconds = min(_number(given.get("wait", "0"), "wait", 0, openapi.MAX_WAIT_SECONDS), self._limits.wait_seconds)
        if seconds == 0:
            return await self._look(request, key)
        return LongPoll(self._waits, self._pulse, key, seconds)

    async def _look(self, request: Request, key: Key) -> Response:
        found: list[Any] = []
        await self._begin_wait(key, found.append, 0.0)
        return _json(envelope(found[0], request.scope["state"], known=True))

    async def _begin_wait(self, key: Key, deliver: Callable[[Any], None], timeout: float | None = None) -> Wait:
        slug, proposal_id, after = key
        return await self._read(
            lambda: self._queue(slug).begin_wait(
                proposal_id, deliver, timeout, wake_on_question=after is not None, after_question=after
            )
        )

    async def _answer_question(self, request: Request, slug: str) -> Response:
        given = bodies.texts(await self._body(request, slug), ("id", "text"))
        answer = self._queue(slug).answer
        proposal_id = request.path_params["id"]
        written = await self._write(lambda: answer(proposal_id, given["text"], message_id=given["id"]))
        return _json(written.to_dict())

    async def _withdraw(self, request: Request, slug: str) -> Response:
        given = bodies.texts(await self._body(request, slug), (), ("reason",))
        arguments = [given["reason"]] if "reason" in given else []
        await self._write(self._queue(slug).withdraw_proposal, request.path_params["id"], *arguments)
        return Response(status_code=204)

    async def _archive(self, request: Request, slug: str) -> Response:
        await self._write(self._queue(slug).archive_proposal, request.path_params["id"])
        return Response(status_code=204)

    async def _append(self, request: Request, slug: str) -> Response:
        entries = bodies.entries(await self._body(request, slug), slug, _now())
        for proposal_id in {entry.proposal_id for entry in entries if entry.proposal_id is not None}:
            if await self._read(self._queue(slug).inspect, proposal_id) is None:
                raise _no_proposal(proposal_id)
        written = await self._write(self._audit.write_audit_entries, entries)
        return _json({"entries": [entry.to_dict() for entry in written]})

    async def _find_grant(self, request: Request, slug: str) -> Response:
        given = bodies.texts(await self._body(request, slug), ("tool", "fingerprint"))
        return _grant(await self._read(self._grants.find_grant, slug, given["tool"], given["fingerprint"]))

    async def _use_grant(self, request: Request, slug: str) -> Response:
        given = bodies.texts(await self._body(request, slug), ("tool", "fingerprint"))
        return _grant(await self._write(self._grants.use_grant, slug, given["tool"], given["fingerprint"]))


def _grant(grant: Grant | None) -> Response:
    if grant is None:
        raise NotFoundError("no live grant fits this tool and fingerprint; ask the operator")
    return _json(grant.to_dict())


class _Endpoint:
    """What is at one path, by method; it knows its path for the log."""

    def __init__(self, path: str, methods: dict[str, ASGIApp]) -> None:
        self.path = path
        self._methods = methods | {"HEAD": methods["GET"]} if "GET" in methods else methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._methods.get(scope["method"])
        if answer is None:
            raise HTTPException(405, headers={"Allow": ", ".join(self._methods)})
        await answer(scope, receive, send)


def _at(path: str, **methods: ASGIApp) -> Route:
    return Route(path, _Endpoint(path, methods))


class _List(Response):
    """``{"items": [...]}``, sent one by one: with long justifications a list has megabytes."""

    def __init__(self, values: list[Any], seconds: float) -> None:
        self._values = values
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.wait_for(self._send(send), self._seconds)
        except asyncio.TimeoutError:
            scope["state"]["outcome"] = _CUT_OFF  # the connection closes on an answer without its end

    async def _send(self, send: Send) -> None:
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        opening = b'{"items":['
        for value in self._values:
            await send({"type": "http.response.body", "body": opening + encode(_as_told(value)), "more_body": True})
            opening = b","
        await send({"type": "http.response.body", "body": b"]}" if self._values else opening + b"]}"})


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _as_told(value: Any) -> dict[str, Any]:
    """A proposal or an item, JSON-ready, without the place of its managed file on the host."""
    told: dict[str, Any] = value.to_dict()
    path = told.get("managed_file")
    if path:
        told["managed_file"] = os.path.basename(path)
        if told.get("apply_error"):
            told["apply_error"] = told["apply_error"].replace(path, told["managed_file"])
    return told


def _json(value: Any) -> Response:
    return Response(encode(value), 200, _NO_STORE, "application/json")


def _number(text: str, name: str, least: float, most: float) -> float:
    # A JSON number that is longer than any number needs to be.
    if len(text) > 40 or not re.fullmatch(r"\d+(\.\d+)?([eE][+-]?\d+)?", text, re.ASCII):
        raise InvalidInputError(f"{name} must be a number")
    if not least <= float(text) <= most:
        raise InvalidInputError(f"{name} must be a number from {least:g} to {most:g}")
    return float(text)


def _no_proposal(proposal_id: str) -> NotFoundError:
    return NotFoundError(f"no proposal {visible(proposal_id[:64], multiline=False)!r} here; list them to see which are")
