"""How does a request get to a route of the operator's side, and who gets in? The routes are in files of their own.

``guard.py`` says what is refused before any route, ``login.py`` who gets further than the login page. ``inbox.py`` and
``tables.py`` are for the pages, ``programs.py`` for programs. docs/dashboard.md describes all of it, and the API.
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
    Database,
    DatabaseBusyError,
    GrantStore,
    Inbox,
    InvalidInputError,
)
from bot_bottle.web.access_log import AccessLog
from bot_bottle.web.broker.bodies import parse, texts
from bot_bottle.web.dashboard import guard, login, shown
from bot_bottle.web.dashboard.inbox import InboxRoutes
from bot_bottle.web.dashboard.presence import Presence
from bot_bottle.web.dashboard.programs import Programs, Stores
from bot_bottle.web.dashboard.routing import Handler, at, json
from bot_bottle.web.dashboard.tables import Tables
from bot_bottle.web.limits import Limits
from bot_bottle.web.problems import Refusal, document, encode, problem, refusal_of

T = TypeVar("T")

_MOST_STREAMS: Final = 256
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
        inbox = Inbox()
        inbox.last_change()  # opens the database: now, with the reason if it cannot be used
        self._threads = ThreadPoolExecutor(8, "dashboard")
        self._working: set[Future[Any]] = set()
        self._assets = {each.name: each.read_bytes() for each in files(__package__).joinpath("assets").iterdir()}
        stores = Stores(inbox, BottleStore(), GrantStore(), AuditStore(), Database())
        shared = (stores, self._run, self._body, self._stopped, self._stream, Presence())
        self._router = Router(
            [
                at("/", GET=self._page("index.html")),
                at("/login", GET=self._page("login.html")),
                at("/phone", GET=self._page("phone.html")),
                at("/worker.js", GET=self._page("worker.js")),
                at("/assets/{name}", GET=self._asset),
                at("/api/v1/login", POST=self._log_in),
                at("/api/v1/logout", POST=self._log_out),
                *InboxRoutes(*shared).routes(),
                *Tables(stores, self._run, self._body).routes(),
                *Programs(*shared).routes(),
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
