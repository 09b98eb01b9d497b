"""What may an operator's browser do? See what is pending and what was decided, and decide, as on the command line.

The routes are listed once, in :class:`Dashboard`. ``guard.py`` says what is refused before any of them, ``login.py``
who gets further than the login page. docs/dashboard.md describes both, and the API.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.resources import files
from typing import Any, Final, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import Message, Receive, Scope, Send

from bot_bottle import (
    AccessDeniedError,
    AuditStore,
    BottleStore,
    Change,
    Database,
    DatabaseBusyError,
    GrantStore,
    Inbox,
    InboxItem,
    InvalidInputError,
    NotFoundError,
    render_diff,
)
from bot_bottle.operator import decisions, words
from bot_bottle.operator.overview import overview
from bot_bottle.policy import bypass
from bot_bottle.web.access_log import AccessLog
from bot_bottle.web.broker.bodies import parse, query, texts
from bot_bottle.web.dashboard import deciding, guard, login, shown
from bot_bottle.web.dashboard.events import Events, event
from bot_bottle.web.dashboard.presence import Presence
from bot_bottle.web.dashboard.programs import Programs, Stores
from bot_bottle.web.dashboard.routing import Handler, at, json
from bot_bottle.web.dashboard.tables import Tables
from bot_bottle.web.limits import Limits
from bot_bottle.web.problems import Refusal, document, encode, problem, refusal_of

T = TypeVar("T")

SURFACE: Final = "web"
_MOST_STREAMS: Final = 256
_MOST_IN_VIEW: Final = 200
_WORDS: Final = {
    "nothing_here": "there is no such page",
    "other_methods": "this route is for other methods",
    "our_fault": "the dashboard failed at this request; standard error of 'serve' says why",
}
_TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webmanifest": "application/manifest+json",
}
# What a browser asks for by itself, which sends no page key.
_PLAIN: Final = frozenset(("/", "/phone", "/worker.js"))
_TOKEN: Final = re.compile(r"Bearer ([A-Za-z0-9_-]{43})", re.IGNORECASE)
_PAGE: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
# What a browser needs to show the login page; everything else is for those who are logged in.
_OPEN: Final = frozenset(
    ("/login", "/assets/login.js", "/assets/style.css", "/assets/icon.svg", "/assets/icon.png", "/api/v1/login")
)


class Dashboard:
    """The ASGI application, over the host's database."""

    def __init__(self, limits: Limits, log: AccessLog, names: guard.Names) -> None:
        self._limits = limits
        self._log = log
        self._names = names
        self._user = getpass.getuser()
        self._stopped = asyncio.Event()
        self._streams = 0
        self._inbox = Inbox()
        self._inbox.last_change()  # opens the database: now, with the reason if it cannot be used
        self._database = Database()
        self._threads = ThreadPoolExecutor(8, "dashboard")
        self._working: set[Future[Any]] = set()
        self._assets = {each.name: each.read_bytes() for each in files(__package__).joinpath("assets").iterdir()}
        self._presence = Presence()
        stores = Stores(self._inbox, BottleStore(), GrantStore(), AuditStore(), self._database)
        programs = Programs(stores, self._run, self._body, self._stopped, self._stream, self._presence)
        self._router = Router(
            [
                at("/", GET=self._page("index.html")),
                at("/login", GET=self._page("login.html")),
                at("/phone", GET=self._page("phone.html")),
                at("/worker.js", GET=self._page("worker.js")),
                at("/assets/{name}", GET=self._asset),
                at("/api/v1/login", POST=self._log_in),
                at("/api/v1/logout", POST=self._log_out),
                at("/api/v1/inbox", GET=self._list),
                at("/api/v1/events", GET=self._events),
                at("/api/v1/looking", POST=self._look),
                at("/api/v1/proposals/{id}", GET=self._show),
                at("/api/v1/proposals/{id}/draft", POST=self._draft),
                at("/api/v1/proposals/{id}/diff", POST=self._diff),
                at("/api/v1/proposals/{id}/decision", POST=self._decide),
                at("/api/v1/proposals/{id}/question", POST=self._ask),
                at("/api/v1/rows", GET=self._some),
                *Tables(stores, self._run, self._body).routes(),
                *programs.routes(),
            ],
            redirect_slashes=False,
        )

    def stop(self) -> None:
        """Ends the streams of open pages, which come back to whoever serves them next."""
        self._stopped.set()

    @property
    def idle(self) -> bool:
        """Whether no thread is working, so that the process can end."""
        return not self._working

    def close(self) -> None:
        """Gives up what has not begun; what has is finished, or undone by SQLite if the process ends first."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise TypeError(f"the dashboard speaks HTTP, not {scope['type']}")
        begun = time.monotonic()
        status = 0

        async def note_and_send(message: Message) -> None:
            nonlocal status
            status = status or message.get("status", 0)
            await send(message)

        scope["app"] = self  # so that the router raises its 404 and 405 instead of answering in plain text
        scope["state"] = dict(scope["state"])
        request = Request(scope, receive)
        error = None
        try:
            await self._admit(request)
            await self._router(scope, receive, note_and_send)
        except ClientDisconnect:
            pass
        except Exception as raised:
            refusal = refusal_of(raised, **_WORDS)
            error = type(refusal.error).__name__
            if not status:
                headers = raised.headers if isinstance(raised, HTTPException) else None
                await self._refused(request, refusal, headers)(scope, receive, note_and_send)
        finally:
            self._log.write(
                {
                    "event": "request",
                    "side": "operator",
                    "method": scope["method"] if scope["method"] in ("GET", "POST", "HEAD") else "other",
                    "route": getattr(scope.get("endpoint"), "path", None),
                    "status": status,
                    "error": error,
                    "ms": round((time.monotonic() - begun) * 1000, 3),
                }
            )

    async def _admit(self, request: Request) -> None:
        """Lets in who is logged in or has a token, and anybody to what the login page needs.

        Raises:
            Refusal: 401 without a login, and what ``guard.check`` raises.
        """
        path = request.url.path
        # A token is for programs, which the pages' own routes are not for.
        given = request.headers.getlist("authorization") if path.startswith("/v1/") else []
        cookie = request.cookies.get(login.cookie_name(), "")
        program = path.startswith("/v1/") and bool(given or not cookie)
        guard.check(request, self._names, landing=path == "/login", program=program)
        if path in _OPEN:
            return
        if given:
            token = _TOKEN.fullmatch(given[0]) if len(given) == 1 else None
            who = await self._run(login.check_token, token[1]) if token else None
        else:
            page_key = (
                None if path in _PLAIN or path.startswith("/assets/") else request.headers.get(login.PAGE_HEADER, "")
            )
            who = await self._run(login.check, cookie, page_key)
        if who is None:
            way = "bot-bottle operator token" if path.startswith("/v1/") else "bot-bottle dashboard"
            raise Refusal(401, AccessDeniedError(f"there is no login here; '{way}' makes one"))
        request.state.ends, request.state.decides_as = who
        request.state.name = who.name or self._user
        request.state.known()

    def _refused(self, request: Request, refusal: Refusal, headers: Mapping[str, str] | None = None) -> Response:
        if refusal.status == 401 and request.url.path == "/":
            return self._file("login.html", 401)
        # A message may quote what an agent wrote, a withdrawal's reason for example.
        told = shown.safe(document(refusal.error, refusal.status))
        response = problem(refusal.error, refusal.status, {**guard.HEADERS, **(headers or {})})
        response.body = encode(told)
        response.headers["content-length"] = str(len(response.body))
        if refusal.status == 401 and not request.url.path.startswith("/v1/"):
            del response.headers["www-authenticate"]  # no browser's own dialog helps here
        return response

    async def _run(self, work: Callable[..., T], *arguments: Any, **named: Any) -> T:
        # The thread's future, not the loop's: giving up on the one does not end the other.
        future = self._threads.submit(work, *arguments, **named)
        self._working.add(future)
        future.add_done_callback(self._working.discard)
        return await asyncio.wrap_future(future)

    async def _body(self, request: Request) -> Any:
        """The JSON value of the request's body.

        Raises:
            Refusal: 400, 408, 413 or 415: it is invalid, takes too long or is too long.
        """
        if request.headers.get("content-type") != "application/json":
            raise Refusal(415, InvalidInputError("the body must be application/json"))
        most = self._limits.body_bytes
        body = bytearray()

        async def receive() -> None:
            async for chunk in request.stream():
                body.extend(chunk)
                if len(body) > most:
                    raise Refusal(413, InvalidInputError(f"the body is longer than {most} bytes"))

        try:
            await asyncio.wait_for(receive(), self._limits.body_seconds)
        except asyncio.TimeoutError:
            raise Refusal(408, InvalidInputError("the body did not arrive in time")) from None
        return parse(bytes(body))

    # -- pages

    def _file(self, name: str, status: int = 200) -> Response:
        kind = _TYPES[os.path.splitext(name)[1]]
        return Response(self._assets[name], status, guard.WORKER if name == "phone.html" else guard.HEADERS, kind)

    def _page(self, name: str) -> Handler:
        async def page(request: Request) -> Response:
            return self._file(name)

        return page

    async def _asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._assets or name.endswith(".html") or os.path.splitext(name)[1] not in _TYPES:
            raise HTTPException(404)
        return self._file(name)

    # -- login

    async def _log_in(self, request: Request) -> Response:
        given = texts(await self._body(request), ("link",))
        session = await self._run(login.use_link, given["link"])
        if session is None:
            raise Refusal(
                401,
                AccessDeniedError("this link was used already, or is too old; 'bot-bottle dashboard' makes another"),
            )
        response = json({"page_key": session.page_key})
        response.set_cookie(
            login.cookie_name(),
            session.cookie,
            max_age=login.SESSION_SECONDS,
            httponly=True,
            samesite="strict",
            secure=guard.origin(request, self._names).startswith("https:"),
        )
        return response

    async def _log_out(self, request: Request) -> Response:
        await self._run(login.end, request.cookies.get(login.cookie_name(), ""))
        response = json({})
        response.delete_cookie(login.cookie_name(), httponly=True, samesite="strict")
        return response

    # -- what there is to see

    async def _list(self, request: Request) -> Response:
        query(request.query_params.multi_items(), ())

        def read() -> dict[str, Any]:
            # The number is read first: what arrives in between is reported again, but never left out.
            at = self._inbox.last_change()
            rows = [shown.row(item) for item in self._inbox.pending()]
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
        return {"bottles": shown.safe(overview(self._database)), "bypasses": shown.safe(bypass.notices())}

    async def _events(self, request: Request) -> Response:
        given = query(request.query_params.multi_items(), ("page",))
        since = request.headers.get("last-event-id", "0")
        if not (since.isascii() and since.isdecimal() and len(since) < 19):
            raise InvalidInputError("Last-Event-ID must be the number of a change")
        page = _page_id(given["page"]) if "page" in given else None
        looking = contextlib.nullcontext() if page is None else self._presence.page(page, request.state.name)

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            with self._stream(), looking as asides:
                arguments = (int(since), request.state.ends, self._stopped, dict(guard.HEADERS), asides)
                await Events(self._inbox, self._run, self._tell, *arguments)(scope, receive, send)

        return counted  # type: ignore[return-value]

    @contextlib.contextmanager
    def _stream(self) -> Iterator[None]:
        """Counts an answer that goes on.

        Raises:
            Refusal: there are too many.
        """
        if self._streams >= _MOST_STREAMS:
            busy = DatabaseBusyError(f"{_MOST_STREAMS} pages or programs follow already; close one and try again")
            raise Refusal(429, busy)
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    def _tell(self, changes: list[Change]) -> bytes:
        rows = self._rows(list(dict.fromkeys(each.proposal_id for each in changes)))
        return event("rows", changes[-1].seq, rows)

    async def _look(self, request: Request) -> Response:
        given = texts(await self._body(request), ("page",), ("proposal_id",))
        proposal_id = given.get("proposal_id")
        if proposal_id is not None:
            await self._run(self._inbox.read, proposal_id)
        self._presence.look(_page_id(given["page"]), request.state.name, proposal_id)
        return json({})

    def _rows(self, ids: list[str]) -> list[dict[str, Any]]:
        found = []
        for each in ids:
            try:
                found.append(shown.row(self._inbox.summary(each)))
            except NotFoundError:  # pruned in the meantime
                found.append(
                    {"id": each, "pending": False, "state": "gone", "ended": "it is no longer in the database"}
                )
        return found

    async def _show(self, request: Request) -> Response:
        return json(await self._run(lambda: shown.whole(self._inbox.review(request.path_params["id"]))))

    # -- what there is to decide

    def _item(self, request: Request) -> InboxItem:
        return self._inbox.read(request.path_params["id"])

    async def _draft(self, request: Request) -> Response:
        texts(await self._body(request), ())

        def read() -> dict[str, Any]:
            item = self._item(request)
            decisions.refuse_early(self._inbox, item, surface=SURFACE)
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
        item = self._inbox.read(proposal_id)
        answer = deciding.decide(
            self._inbox, item.proposal.id, given, surface=SURFACE, grant=given.get("scope"), name=name
        )
        told = [shown.said(each) for each in decisions.told(item, answer)]
        return {"row": shown.row(self._inbox.summary(proposal_id)), "told": told}

    async def _ask(self, request: Request) -> Response:
        given = texts(await self._body(request), ("text", "id"))
        by = request.state.decides_as

        def ask() -> dict[str, Any]:
            item = self._item(request)
            # The page makes the id, so that one whose answer was lost asks once.
            self._inbox.ask(item.proposal.id, given["text"], asked_by=by, surface=SURFACE, message_id=given["id"])
            told = [shown.said((words.asked(item), "plain"))]
            return {"row": shown.row(self._inbox.read(item.proposal.id)), "told": told}

        return json(await self._run(ask))


def _page_id(text: str) -> str:
    if not _PAGE.fullmatch(text):
        raise InvalidInputError("page must be 1 to 64 letters, digits or -")
    return text
