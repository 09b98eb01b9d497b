"""What happens to each request, response and WebSocket message on its way through the proxy?

A request is judged by the routes, scanned, held or refused if it carries a secret, given its credential, and only then
cleared for the server. Whatever goes wrong on the way, an error in here included, it is not cleared.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from mitmproxy import http, tls

from bot_bottle.documents.routes import Route, canonical_host
from bot_bottle.sidecars.egress.answers import answer
from bot_bottle.sidecars.egress.head import (
    HOST_NAME,
    codings,
    head_of,
    header_places,
    is_stream,
    request_places,
    rewrite,
    scan,
)
from bot_bottle.sidecars.egress.layers import Passage, log, passage
from bot_bottle.sidecars.egress.policy import Refusal, judge, judge_tunnel, token, tokens
from bot_bottle.sidecars.egress.record import Record
from bot_bottle.sidecars.egress.routes_file import RoutesFile
from bot_bottle.sidecars.egress.secrets.body_scanner import BodyScanner
from bot_bottle.sidecars.egress.secrets.detectors import Detectors, Finding, cleaned, masked
from bot_bottle.sidecars.egress.secrets.inflate import ENCODINGS, decode
from bot_bottle.sidecars.egress.token_leave import Question, TokenLeave

MAX_HELD: Final = 1 << 20  # bytes of a body that is collected so that the request can be held
_MAX_SECRETS: Final = 5  # different ones in one request; a human is not asked about more
_SCANNED_AT_ONCE: Final = 64 << 10  # bytes; other connections go on in between
_MAX_DECODED: Final = 8 << 20  # bytes of a compressed body that is taken apart to mask a secret in it
_MAX_SHOWN: Final = 512  # characters of a path; the fingerprint, not the path, is what is approved
_INTERNAL: Final = Refusal("internal_error", "Something went wrong in the egress proxy; nothing was sent.", 500)

Hook = TypeVar("Hook", bound=Callable[..., Awaitable[None]])


@dataclass(frozen=True)
class Seen:
    """A secret seen in a request, where, and how to mask it there (says whether that worked)."""

    finding: Finding
    where: str
    mask: Callable[[], bool]


def _fails_closed(hook: Hook) -> Hook:
    """mitmproxy logs an addon's exception, traceback and all, and goes on; this refuses the request instead."""

    @functools.wraps(hook)
    async def guarded(self: Egress, flow: http.HTTPFlow) -> None:
        try:
            await hook(self, flow)
        except Exception as error:
            log.error("a request was refused: %s in %s", type(error).__name__, hook.__name__)
            way = passage(flow)
            way.cleared, way.refusal = False, _INTERNAL
            if flow.response is None:
                flow.response = answer(_INTERNAL, flow.request)
            elif hook.__name__ == "responseheaders":
                flow.kill()

    return guarded  # type: ignore[return-value]


class Egress:
    """The mitmproxy addon. Its public methods are mitmproxy's events, and two of :mod:`egress_layers`.

    Args:
        ports: those that may be connected to.
        environment: where routes find the tokens they name.
    """

    def __init__(
        self,
        routes: RoutesFile,
        leave: TokenLeave,
        record: Record,
        ports: Collection[int],
        environment: Mapping[str, str],
    ) -> None:
        self._routes = routes
        self._leave = leave
        self._record = record
        self._ports = ports
        self._environment = environment

    # -- requests ------------------------------------------------------------------------------------------------

    @_fails_closed
    async def http_connect(self, flow: http.HTTPFlow) -> None:
        request = flow.request
        verdict = judge_tunnel(request.host, request.port, request.authority, self._routes.current(), self._ports)
        if isinstance(verdict, Refusal):
            self._say_no(flow, verdict)
            flow.response = answer(verdict, request)
        else:
            request.data.host = canonical_host(request.host)

    def tls_clienthello(self, data: tls.ClientHelloData) -> None:
        # The server is greeted by the name that was judged, never by the one that the agent put into its own greeting.
        if data.context.server.address:
            data.context.server.sni = data.context.server.address[0]

    @_fails_closed
    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        if flow.error is not None:  # mitmproxy found it malformed and answers itself
            return
        verdict = self._judge(flow)
        if isinstance(verdict, Refusal):
            self._say_no(flow, verdict)
            flow.response = answer(verdict, flow.request)
            return
        passage(flow).route = verdict
        rewrite(flow.request, canonical_host(flow.request.host))
        flow.request.stream = flow.request.stream or is_stream(flow.request)

    @_fails_closed
    async def request(self, flow: http.HTTPFlow) -> None:
        way = passage(flow)
        if way.streaming:
            await self._check_trailers(flow, way)
            return
        route = way.route
        if flow.response is not None or flow.error is not None or route is None:
            return
        if detectors := self._outbound(route):
            scanner = BodyScanner(detectors, codings(flow.request))
            await _scan(scanner, flow.request.raw_content or b"")
            seen = [*_in_head(flow.request, detectors), *_in_body(flow.request, scanner.found, detectors)]
            refusal = _unreadable(scanner) or await self._settle(flow, route, seen, hold=True)
            # The routes may have changed while it was held.
            verdict = refusal or self._judge(flow)
            if isinstance(verdict, Refusal):
                self._say_no(flow, verdict)
                flow.response = answer(verdict, flow.request)
                return
            way.route = route = verdict
        self._clear(flow, route)

    @_fails_closed
    async def egress_large_body(self, flow: http.HTTPFlow) -> None:
        way = passage(flow)
        route = way.route
        if route is None:
            return
        if detectors := self._outbound(route):
            if refusal := await self._settle(flow, route, _in_head(flow.request, detectors), hold=False):
                self._say_no(flow, refusal)
                flow.response = answer(refusal, flow.request)
                return
            way.body = BodyScanner(detectors, codings(flow.request))
        self._clear(flow, route)

    @_fails_closed
    async def egress_secret(self, flow: http.HTTPFlow) -> None:
        way = passage(flow)
        if way.route is None:
            way.refusal = _INTERNAL
            return
        if (body := way.body) is not None and (body.found or body.unreadable):
            found, body.found = body.found, []
            seen = [Seen(each, "body", functools.partial(body.mask, each)) for each in found]
            way.refusal = _unreadable(body) or await self._settle(flow, way.route, seen, hold=False)
            if way.refusal:
                self._say_no(flow, way.refusal)
                self._record.audit("request-cut", f"A request to {self._host(flow)} was cut: {way.refusal.error}.")
        if (returning := way.returning) is not None and returning.found:
            found, returning.found = returning.found, []
            self._mask_inbound(flow, [functools.partial(returning.mask, each) for each in found])

    # -- responses -----------------------------------------------------------------------------------------------

    @_fails_closed
    async def responseheaders(self, flow: http.HTTPFlow) -> None:
        way = passage(flow)
        if flow.response is None or way.route is None or not way.cleared:
            return  # one of ours
        flow.response.stream = True
        detectors = self._inbound(way.route)
        if detectors:
            for place, finding in scan(header_places(flow.response.headers, "header"), detectors):
                self._mask_inbound(flow, [functools.partial(place.mask, finding)])
            readable = [coding for coding in codings(flow.response) if coding in ENCODINGS]
            way.returning = BodyScanner(detectors, readable, files=False)
            if way.refusal is not None:
                flow.kill()

    def error(self, flow: http.HTTPFlow) -> None:
        passage(flow).gone.set()

    # -- WebSocket -----------------------------------------------------------------------------------------------

    @_fails_closed
    async def websocket_start(self, flow: http.HTTPFlow) -> None:
        way = passage(flow)
        if way.route is None:
            way.refusal = _INTERNAL
            return
        outbound, inbound = self._outbound(way.route), self._inbound(way.route)
        way.body = BodyScanner(outbound) if outbound else None
        way.control = BodyScanner(outbound, files=False) if outbound else None
        way.returning = BodyScanner(inbound, files=False) if inbound else None

    @_fails_closed
    async def websocket_message(self, flow: http.HTTPFlow) -> None:
        if flow.websocket is None:
            return
        way, message = passage(flow), flow.websocket.messages.pop()
        message.drop()
        route = self._routes.current().find(flow.request.host)
        if route is None:
            way.refusal = Refusal("host_denied", "The route was taken away.")
            return
        scanner = way.body if message.from_client else way.returning
        if scanner is not None:
            await _scan(scanner, message.content)
            found, scanner.found = scanner.found, []
            masks = [functools.partial(scanner.mask, each) for each in found]
            if message.from_client:
                seen = [Seen(each, "WebSocket message", mask) for each, mask in zip(found, masks, strict=True)]
                way.refusal = _unreadable(scanner) or await self._settle(flow, route, seen, hold=True)
                if way.refusal:
                    self._say_no(flow, way.refusal)
            elif found:
                self._mask_inbound(flow, masks)
            message.content = scanner.take(everything=True)
        if way.refusal is None:
            message.dropped = False

    # -- what the events share -----------------------------------------------------------------------------------

    def _judge(self, flow: http.HTTPFlow) -> Route | Refusal:
        verdict = judge(head_of(flow), self._routes.current(), self._ports, self._environment)
        if isinstance(verdict, Route) and verdict.dlp.outbound_detectors:
            unknown = [coding for coding in codings(flow.request) if coding not in ENCODINGS]
            if unknown:
                known = ", ".join(ENCODINGS)
                return Refusal(
                    "unreadable_body", f"Its Content-Encoding cannot be inspected; send it as {known} or none."
                )
        return verdict

    def _outbound(self, route: Route) -> Detectors:
        return Detectors(route.dlp.outbound_detectors, tokens(self._routes.current(), self._environment))

    def _inbound(self, route: Route) -> Detectors:
        # A server can return the token it was sent, no other.
        own = token(route, self._environment)
        return Detectors(route.dlp.inbound_detectors, {"injected token": own} if own else {})

    def _clear(self, flow: http.HTTPFlow, route: Route) -> None:
        if route.auth:
            flow.request.headers["Authorization"] = f"{route.auth.scheme} {token(route, self._environment)}"
        if self._inbound(route):
            flow.request.headers["Accept-Encoding"] = "identity"  # so that what comes back can be masked
        passage(flow).cleared = True

    async def _check_trailers(self, flow: http.HTTPFlow, way: Passage) -> None:
        route = way.route
        if flow.request.trailers and route is not None and (detectors := self._outbound(route)):
            places = header_places(flow.request.trailers, "trailer")
            seen = [
                Seen(each, place.where, functools.partial(place.mask, each)) for place, each in scan(places, detectors)
            ]
            way.refusal = await self._settle(flow, route, seen, hold=False)

    async def _settle(self, flow: http.HTTPFlow, route: Route, seen: Sequence[Seen], *, hold: bool) -> Refusal | None:
        """Does with secrets what the route says; ``None``: the request may go on."""
        way, mode = passage(flow), route.dlp.outbound_on_match
        if any(each.where == HOST_NAME for each in seen):
            # Neither may it be stored, as a part of the host, nor does asking the DNS for it keep it here.
            self._record.audit("secret-blocked", f"A request carried a secret in a host name ({route.host}).")
            return Refusal("secret_in_host", "The host name holds a secret; leave it out.")
        host = flow.request.host
        new: dict[str, list[Seen]] = {}
        for each in seen:
            name = self._leave.fingerprint(host, each.finding.secret)
            if name not in way.allowed:
                new.setdefault(name, []).append(each)
        if not new:
            return None
        names = ", ".join(new)
        if mode == "block":
            self._record.audit("secret-blocked", f"A request to {host} carried a secret: {names}.")
            return Refusal("secret_blocked", f"The request carries a secret and the route for {host} blocks those.")
        if mode == "redact":
            if all([each.mask() for several in new.values() for each in several]):
                self._record.audit("secret-redacted", f"A secret was masked in a request to {host}: {names}.")
                return None
            self._record.audit("secret-blocked", f"A secret could not be masked in a request to {host}: {names}.")
            return Refusal("secret_not_masked", "The request carries a secret where it cannot be masked; leave it out.")
        if len(new) > _MAX_SECRETS:
            self._record.audit("secret-blocked", f"A request to {host} carried {len(new)} secrets.")
            return Refusal("too_many_secrets", f"The request carries {len(new)} secrets; send at most {_MAX_SECRETS}.")
        questions = [self._question(flow, name, several) for name, several in new.items()]
        if hold:
            self._record.say(f"holding a request to {host}: {names}")
        refusal = await self._leave.ask(questions, way.gone if hold else None)
        if refusal is None:
            way.allowed.update(new)
        return refusal

    def _question(self, flow: http.HTTPFlow, name: str, seen: Sequence[Seen]) -> Question:
        request = flow.request
        found = {(each.finding.detector, each.finding.kind, self._shown(_place(each))) for each in seen}
        path = self._shown(request.path.partition("?")[0])
        url = f"{request.scheme}://{request.host_header}{path}"
        return Question(name, request.host, self._method(flow), url, tuple(found))

    def _shown(self, text: str) -> str:
        """What of an agent's ``text`` may be stored and shown."""
        clean = cleaned(text, tokens(self._routes.current(), self._environment))
        return clean if len(clean) <= _MAX_SHOWN else f"{clean[:_MAX_SHOWN]}... ({len(clean) - _MAX_SHOWN} more)"

    def _host(self, flow: http.HTTPFlow) -> str:
        return self._shown(flow.request.host)

    def _method(self, flow: http.HTTPFlow) -> str:
        # As sent: mitmproxy's own is in capitals, in which no token would be known any more.
        return self._shown(flow.request.data.method.decode("ascii", "replace"))

    def _mask_inbound(self, flow: http.HTTPFlow, masks: Sequence[Callable[[], bool]]) -> None:
        host = self._host(flow)
        if all([mask() for mask in masks]):
            self._record.audit("answer-masked", f"{host} sent back a secret; the agent did not get it.")
        else:
            passage(flow).refusal = Refusal("answer_cut", f"The answer of {host} held a secret; it was cut.", 502)
            self._record.audit("answer-cut", f"{host} sent back a secret; its answer was cut.")

    def _say_no(self, flow: http.HTTPFlow, refusal: Refusal) -> None:
        self._record.say(f"refused {self._method(flow)} to {self._host(flow)}: {refusal.error}")


def _place(seen: Seen) -> str:
    return f"{seen.where}, {' in '.join(reversed(seen.finding.how))}" if seen.finding.how else seen.where


def _unreadable(scanner: BodyScanner) -> Refusal | None:
    if not scanner.unreadable:
        return None
    return Refusal("unreadable_body", f"The body cannot be inspected: {scanner.unreadable}.")


def _in_head(request: http.Request, detectors: Detectors) -> list[Seen]:
    found = scan(request_places(request), detectors)
    return [Seen(each, place.where, functools.partial(place.mask, each)) for place, each in found]


def _in_body(request: http.Request, found: Sequence[Finding], detectors: Detectors) -> list[Seen]:
    mask_decoded = functools.cache(lambda: _mask_decoded(request, detectors))

    def mask(finding: Finding) -> bool:
        if not finding.end:
            return mask_decoded()
        request.raw_content = masked(request.raw_content or b"", [finding])
        return True

    return [Seen(each, "body", functools.partial(mask, each)) for each in found]


def _mask_decoded(request: http.Request, detectors: Detectors) -> bool:
    """Masks the secrets in an encoded body, which goes on without its encoding; ``False`` if that is not possible."""
    applied = codings(request)
    plain = decode(request.raw_content or b"", applied, _MAX_DECODED) if applied else None
    if plain is None:
        return False
    scanner = BodyScanner(detectors)
    scanner.feed(plain, last=True)
    if scanner.unreadable or not all(each.end for each in scanner.found):
        return False
    request.headers.pop("content-encoding", None)
    if "transfer-encoding" in request.headers:
        request.headers["transfer-encoding"] = "chunked"
    request.content = masked(plain, scanner.found)
    return True


async def _scan(scanner: BodyScanner, content: bytes) -> None:
    """Feeds all of ``content``; other connections go on meanwhile."""
    if len(content) <= _SCANNED_AT_ONCE:
        scanner.feed(content, last=True)
        return
    for begin in range(0, len(content), MAX_HELD):
        end = begin + MAX_HELD
        await asyncio.to_thread(scanner.feed, content[begin:end], last=end >= len(content))
