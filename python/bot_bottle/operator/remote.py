"""How does an operator's seat reach another host? Over the API for programs of its dashboard (docs/dashboard.md).

What comes back are the store's own values and errors, made again from their JSON.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import stat
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote, urlencode, urlsplit

from bot_bottle import errors, new_id
from bot_bottle._native import _rebuild
from bot_bottle.errors import BotBottleError, DatabaseUnavailableError, InvalidInputError

if TYPE_CHECKING:
    from bot_bottle import (
        AuditEntry,
        AuditStore,
        Bottle,
        BottleStore,
        Change,
        Grant,
        GrantStore,
        Inbox,
        InboxItem,
        InboxSummary,
        Message,
        Response,
        Review,
    )
    from bot_bottle.operator.views import View

_SECONDS: Final = 60.0
_LONGEST_WAIT: Final = 25.0
_RETRY_SECONDS: Final = 1.0
_PAGE: Final = 500
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
# What was asked for and may be asked again after a connection that broke.
_TRIES: Final = 3


class Host:
    """Another host's operator API.

    Args:
        url: of its dashboard, without a path.
        token_file: what ``bot-bottle operator token`` wrote; for nobody else to read.
        cert_file: the certificate that it shows, where no authority vouches for it.

    Raises:
        InvalidInputError: the address or a file cannot be used.
    """

    def __init__(self, url: str, token_file: str, cert_file: str | None = None) -> None:
        at = urlsplit(url)
        if at.scheme not in ("http", "https") or not at.hostname or at.path.strip("/") or at.query or at.username:
            raise InvalidInputError(f"--url needs an address such as https://box.example:9102, not {url!r}")
        if at.scheme == "http" and at.hostname not in _LOOPBACK:
            raise InvalidInputError(
                "--url needs https: or a tunnel's loopback address: the token would cross the network to "
                f"{at.hostname} in the clear"
            )
        try:
            self._port = at.port or (443 if at.scheme == "https" else 80)
        except ValueError:
            raise InvalidInputError(f"--url has an invalid port: {url!r}") from None
        self.url = url.rstrip("/")
        self._host = at.hostname
        self._tls = _context(cert_file) if at.scheme == "https" else None
        self._token = _token(token_file)
        self._local = threading.local()

    def inbox(self) -> Inbox:
        """What waits and was decided there."""
        return cast("Inbox", _Inbox(self))

    def grants(self) -> GrantStore:
        """What agents may do again there."""
        return cast("GrantStore", _Grants(self))

    def audit(self) -> AuditStore:
        """What was logged there."""
        return cast("AuditStore", _Audit(self))

    def bottles(self) -> BottleStore:
        """The bottles of that host."""
        return cast("BottleStore", _Bottles(self))

    def sidecars(self, running: bool) -> dict[str, dict[str, Any]]:
        """What that host's engine says of each bottle's sidecars."""
        found = self.get("bottles", running=str(running).lower())["bottles"]
        return {each["slug"]: each["sidecars"] for each in found}

    def stats(self, since: str | None, bottle: str | None) -> dict[str, Any]:
        """What ``bot-bottle stats --json`` has there."""
        return cast("dict[str, Any]", self.get("stats", since=since or None, bottle=bottle))

    def archive(self, proposal_id: str) -> None:
        """Puts away there what is decided or over."""
        self.post(f"proposals/{quote(proposal_id, safe='')}/archive", {})

    def note(self, views: Iterable[View]) -> BotBottleError | None:
        """Notes there that reviews were shown."""
        try:
            for view in views:
                self.post("views", vars(view))
        except BotBottleError as error:
            return error
        return None

    def get(self, path: str, **asked: str | float | None) -> Any:
        """The answer to a GET; parameters that are ``None`` are left out."""
        given = {name: value for name, value in asked.items() if value is not None}
        return self._ask("GET", f"/v1/{path}?{urlencode(given)}" if given else f"/v1/{path}", None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The answer to a POST, which does once what it does even if it had to be sent again."""
        return self._ask("POST", f"/v1/{path}", {name: each for name, each in body.items() if each is not None})

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        if body is not None:
            headers |= {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        sent = None if body is None else json.dumps(body).encode()
        for left in range(_TRIES - 1, -1, -1):
            connection = self._connection()
            try:
                connection.request(method, path, sent, headers)
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._local.connection = None
                if not left or isinstance(error, (ConnectionRefusedError, ssl.SSLError, socket.gaierror)):
                    raise self._unreachable(error) from None
            except BaseException:
                connection.close()  # an answer that was not read to its end is the next request's otherwise
                self._local.connection = None
                raise
            else:
                return _told(answer, content, self.url)
        raise AssertionError  # the last try returns or raises

    def _unreachable(self, error: Exception) -> DatabaseUnavailableError:
        reason = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or str(error)
        hint = "; --cert-file names a certificate of its own" if isinstance(error, ssl.SSLCertVerificationError) else ""
        what = reason or type(error).__name__
        return DatabaseUnavailableError(f"{self.url} cannot be reached: {what}{hint}", path=self.url)

    def _connection(self) -> http.client.HTTPConnection:
        """This thread's; kept between requests."""
        known: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if known is None:
            known = (
                http.client.HTTPConnection(self._host, self._port, timeout=_SECONDS)
                if self._tls is None
                else http.client.HTTPSConnection(self._host, self._port, timeout=_SECONDS, context=self._tls)
            )
            self._local.connection = known
        return known


def _told(answer: http.client.HTTPResponse, content: bytes, url: str) -> Any:
    """The value, or the error that the problem names."""
    try:
        told = json.loads(content)
    except ValueError:
        told = None
    if answer.status == 200 and told is not None:
        return told
    if isinstance(told, dict) and isinstance(told.get("title"), str) and isinstance(told.get("detail"), str):
        kind = getattr(errors, told["title"], None)
        data = told.get("data")
        if not (isinstance(kind, type) and issubclass(kind, BotBottleError)):
            kind = BotBottleError
        raise kind(told["detail"], **(data if isinstance(data, dict) else {}))
    raise DatabaseUnavailableError(f"{url} is no dashboard of bot-bottle: it answered {answer.status}", path=url)


def _context(cert_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=cert_file)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInputError(f"--cert-file {cert_file} cannot be used: {error.strerror or error}") from None


def _token(path: str) -> str:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode) or mode & 0o077:
                raise InvalidInputError(f"--token-file {path} must be a file that only you can read: chmod 600 {path}")
            return file.read(4096).strip()
    except (OSError, ValueError) as error:
        if isinstance(error, BotBottleError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInputError(f"--token-file {path} cannot be read: {reason}") from None


def _value(kind: str, fields: Any) -> Any:
    """The store's value that JSON says.

    Raises:
        DatabaseUnavailableError: the answer is invalid, for example because the host has another release.
    """
    try:
        return _rebuild(kind, json.dumps(fields))
    except ValueError as error:
        raise DatabaseUnavailableError(
            f"what the host says of a {kind} cannot be read; is it of another release? ({error})", path=""
        ) from None


class _Store:
    """What all have: they end without anything to do."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def close(self) -> None:
        """Ends its use."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _Inbox(_Store):
    """As ``Inbox``."""

    def pending(self, bottle_slug: str | None = None) -> list[InboxSummary]:
        return self._listed("pending", bottle_slug)

    def failed(self) -> list[InboxSummary]:
        return self._listed("failed", None)

    def _listed(self, state: str, bottle: str | None) -> list[InboxSummary]:
        found: dict[str, InboxSummary] = {}
        after = None
        while True:
            told = self._host.get("proposals", state=state, bottle=bottle, after=after, limit=_PAGE)
            found |= {each["id"]: _value("InboxSummary", each) for each in told["proposals"]}
            after = told["next"]
            if after is None:
                return list(found.values())

    def read(self, proposal_id: str) -> InboxItem:
        return cast("InboxItem", _value("InboxItem", self._host.get(f"proposals/{quote(proposal_id, safe='')}")))

    def summary(self, proposal_id: str) -> InboxSummary:
        told = self._host.get(f"proposals/{quote(proposal_id, safe='')}", payload="false")
        return cast("InboxSummary", _value("InboxSummary", told))

    def review(self, proposal_id: str) -> Review:
        return cast("Review", _value("Review", self._host.get(f"proposals/{quote(proposal_id, safe='')}/review")))

    def history(
        self, *, bottle_slug: str | None = None, limit: int = 100, before: str | None = None
    ) -> list[InboxSummary]:
        found: list[InboxSummary] = []
        while len(found) < limit:
            most = min(_PAGE, limit - len(found))
            told = self._host.get("proposals", state="any", bottle=bottle_slug, before=before, limit=most)
            found += [_value("InboxSummary", each) for each in told["proposals"]]
            before = told["next"]
            if before is None:
                break
        return found

    def decide(
        self,
        proposal_id: str,
        status: str,
        *,
        review_sha256: str | None = None,
        notes: str = "",
        final_file: str | bytes | None = None,
        decided_by: str | None = None,
        surface: str = "api",
        grant: str | None = None,
    ) -> Response:
        # The host knows in whose name: the token says it.
        try:
            final = final_file.decode() if isinstance(final_file, bytes) else final_file
        except UnicodeDecodeError as error:
            raise errors.InvalidProposalError(f"your version is not UTF-8 at byte {error.start}") from None
        body = {
            "status": status,
            "review_sha256": review_sha256,
            "notes": notes,
            "final_file": final,
            "grant": grant,
            "surface": surface,
        }
        told = self._host.post(f"proposals/{quote(proposal_id, safe='')}/decision", body)
        return cast("Response", _value("Response", told))

    def ask(
        self,
        proposal_id: str,
        text: str,
        *,
        asked_by: str | None = None,
        surface: str = "api",
        message_id: str | None = None,
    ) -> Message:
        # The host knows in whose name: the token says it.
        body = {"text": text, "surface": surface, "id": message_id or new_id()}
        return cast(
            "Message", _value("Message", self._host.post(f"proposals/{quote(proposal_id, safe='')}/questions", body))
        )

    def last_change(self) -> int:
        return int(self._host.get("changes")["last"])

    def changes(self, since: int = 0, *, limit: int = 1000) -> list[Change]:
        return [_value("Change", each) for each in self._host.get("changes", since=since, limit=limit)["changes"]]

    def watch(self, since: int | None = None, *, timeout: float | None = None) -> Iterator[Change]:
        at = self.last_change() if since is None else since
        while True:
            try:
                told = self._host.get("changes", since=at, wait=_LONGEST_WAIT if timeout is None else timeout)
            except DatabaseUnavailableError:
                if timeout is not None:
                    raise
                time.sleep(_RETRY_SECONDS)  # it is started again, or the tunnel is: nothing is missed meanwhile
                continue
            if told["last"] < at:
                at = told["last"]
            for each in told["changes"]:
                change = _value("Change", each)
                at = change.seq
                yield change
            if timeout is not None and not told["changes"]:
                return

    def stats(self) -> dict[str, Any]:
        return {name: each for name, each in self._host.stats(None, None).items() if name != "oversight"}


class _Grants(_Store):
    """As ``GrantStore``."""

    def list_grants(self, bottle_slug: str | None = None, *, live: bool = True) -> list[Grant]:
        told = self._host.get("grants", bottle=bottle_slug, live=str(live).lower())
        return [_value("Grant", each) for each in told["grants"]]

    def revoke_grant(self, grant_id: str, *, revoked_by: str | None = None, surface: str = "api") -> Grant:
        return cast("Grant", _value("Grant", self._host.post(f"grants/{quote(grant_id, safe='')}/revoke", {})))


class _Audit(_Store):
    """As ``AuditStore``, for reading."""

    def read_audit_entries(
        self,
        component: str | None = None,
        bottle_slug: str | None = None,
        *,
        since: str | None = None,
        limit: int | None = None,
    ) -> list[AuditEntry]:
        asked = {"component": component, "bottle": bottle_slug, "since": since, "limit": limit or 1000}
        return [_value("AuditEntry", each) for each in self._host.get("audit", **asked)["entries"]]


class _Bottles(_Store):
    """As ``BottleStore``, for listing."""

    def list_bottles(self, *, running: bool = False) -> list[Bottle]:
        told = self._host.get("bottles", running=str(running).lower())["bottles"]
        return [_value("Bottle", {name: each for name, each in found.items() if name != "sidecars"}) for found in told]
