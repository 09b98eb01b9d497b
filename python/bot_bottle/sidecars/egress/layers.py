"""What may pass on a connection? HTTP and WebSocket, in the clear or in TLS, each body scanned as it passes.

mitmproxy asks its addons what the next protocol on a connection is. :class:`Protocols` answers, so that nothing but
these layers is ever used: no raw TCP, no DNS, no other protocol through a CONNECT. What mitmproxy's own HTTP stream
lacks is added here: to forward nothing that no addon has cleared, to hold back what has not been scanned, to cut a
request that turns out to carry a secret, and to notice a client that leaves while its request is held.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import wsproto.events
from mitmproxy import flow, http
from mitmproxy.net.tls import starts_like_tls_record
from mitmproxy.proxy import commands, events, layer, layers
from mitmproxy.proxy.layers.http import DropStream, HTTPMode, HttpStream, SendHttp
from mitmproxy.proxy.layers.http._events import (
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    RequestTrailers,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._hooks import HttpRequestHook
from mitmproxy.proxy.layers.modes import HttpProxy
from mitmproxy.proxy.layers.websocket import WebsocketConnection, WebsocketLayer

from bot_bottle.documents.routes import Route
from bot_bottle.sidecars.egress.answers import answer
from bot_bottle.sidecars.egress.policy import Refusal
from bot_bottle.sidecars.egress.secrets.body_scanner import BodyScanner

PATIENCE: Final = 2.0  # seconds in which the end of a body has to come for its request to be held as a whole
MAX_MESSAGE: Final = 16 << 20  # bytes of one WebSocket message, which is scanned and passed on as a whole
_POLICY_VIOLATION, _TOO_BIG = 1008, 1009  # RFC 6455, 7.4.1
_Control = wsproto.events.Ping | wsproto.events.Pong | wsproto.events.CloseConnection

log = logging.getLogger("bot_bottle.egress")
Commands = Generator[commands.Command, Any, None]


@dataclass
class Passage:
    """What one request may do, kept with its flow; the addon decides, the layers obey."""

    route: Route | None = None
    cleared: bool = False
    """The head may go to the server. Only ever set once everything has been looked at."""
    streaming: bool = False
    body: BodyScanner | None = None
    """Scans a body too large to be held; ``None``: it passes unseen."""
    returning: BodyScanner | None = None
    """Scans the response's body."""
    control: BodyScanner | None = None
    """Scans what a WebSocket client sends in control frames."""
    allowed: set[str] = field(default_factory=set)
    """Fingerprints of secrets that it may carry."""
    refusal: Refusal | None = None
    """Cut the request, whose head the server may have by now."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client left."""


def passage(of: http.HTTPFlow) -> Passage:
    """The passage of a flow; a new one, with nothing cleared, if it has none yet."""
    found: Passage = of.metadata.setdefault("bot_bottle.passage", Passage())
    return found


@dataclass
class EgressLargeBodyHook(commands.StartHook):
    """A request's body is too large, or too long in coming, to be held; its head is about to be sent."""

    flow: http.HTTPFlow


@dataclass
class EgressSecretHook(commands.StartHook):
    """Secrets were found in a piece of a body that passes; that piece waits."""

    flow: http.HTTPFlow


class Protocols:
    """The addon that picks the layers. Named as mitmproxy names its own, which it replaces."""

    name = "nextlayer"

    def next_layer(self, nextlayer: layer.NextLayer) -> None:
        context, data = nextlayer.context, nextlayer.data_client()
        if isinstance(context.layers[-1], HttpProxy):
            nextlayer.layer = EgressHttpLayer(context, HTTPMode.regular)
        elif len(data) < 3:
            return  # too little to tell; asked again with more
        elif starts_like_tls_record(data) and not context.client.tls:
            server_tls = layers.ServerTLSLayer(context)
            server_tls.child_layer = layers.ClientTLSLayer(context)
            nextlayer.layer = server_tls
        else:
            nextlayer.layer = EgressHttpLayer(context, HTTPMode.transparent)


class EgressHttpLayer(layers.HttpLayer):
    """HTTP whose streams are ours, and which ends a connection that it cannot make sense of."""

    def _handle_event(self, event: events.Event) -> Commands:
        try:
            yield from super()._handle_event(event)
        except Exception as error:
            # mitmproxy would log the traceback and leave the connection in whatever state it is.
            log.error("a connection was closed: %s in its HTTP", type(error).__name__)
            yield commands.CloseConnection(self.context.client)

    def make_stream(self, stream_id: int) -> Commands:
        stream = EgressStream(self.context.fork(), stream_id)
        self.streams[stream_id] = stream
        yield from self.event_to_child(stream, events.Start())


class EgressStream(HttpStream):
    """One request and its response."""

    flow: http.HTTPFlow

    def state_wait_for_request_headers(self, event: RequestHeaders) -> Commands:
        yield from super().state_wait_for_request_headers(event)
        if self.client_state == self.state_consume_request_body and not event.end_stream:
            yield commands.RequestWakeup(PATIENCE)

    def _handle_event(self, event: events.Event) -> Commands:
        if not isinstance(event, events.Wakeup):
            yield from super()._handle_event(event)
        elif self.client_state == self.state_consume_request_body:
            # The client may be waiting for an answer to what it has sent so far: from now on, pass it on.
            collected = bytes(self.request_body_buf)
            self.request_body_buf.clear()
            self.flow.request.stream = True
            yield from self.start_request_stream()
            if collected:
                yield from self.handle_event(RequestData(self.stream_id, collected))

    def handle_event(self, event: events.Event) -> Commands:
        tunnel = self.child_layer
        ends = RequestProtocolError if tunnel is None else (RequestProtocolError, RequestEndOfMessage)
        if isinstance(event, ends) and (self._paused or (tunnel is not None and tunnel._paused)):
            # The event stays in the queue until the hold is over; whoever holds should know now.
            passage(self.flow).gone.set()
        yield from super().handle_event(event)

    def make_server_connection(self) -> Generator[commands.Command, Any, bool]:
        if not passage(self.flow).cleared:
            yield from self._cut(Refusal("internal_error", "The request was not cleared; nothing was sent.", 500))
            return False
        return (yield from super().make_server_connection())

    def start_request_stream(self) -> Commands:
        if self.flow.response is None:
            passage(self.flow).streaming = True
            yield EgressLargeBodyHook(self.flow)
        if self.flow.response is not None:  # mitmproxy cannot answer a request that it streams
            self.flow.response.headers["connection"] = "close"
            yield from self._answer(self.flow.response)
            return
        yield from super().start_request_stream()

    def state_stream_request_body(self, event: events.Event) -> Commands:
        if isinstance(event, RequestData):
            yield from self._pass_request(event.data, last=False)
        elif isinstance(event, RequestTrailers):
            self.flow.request.trailers = event.trailers
        elif isinstance(event, RequestEndOfMessage):
            yield from self._pass_request(b"", last=True)
            if self.client_state == self.state_errored:
                return
            self.flow.request.timestamp_end = time.time()
            yield HttpRequestHook(self.flow)
            if refusal := passage(self.flow).refusal:
                yield from self._cut(refusal)
                return
            self.client_state = self.state_done
            if self.flow.request.trailers:
                yield SendHttp(RequestTrailers(self.stream_id, self.flow.request.trailers), self.context.server)
            yield SendHttp(event, self.context.server)
            if self.server_state == self.state_done:
                yield from self.flow_done()

    def state_stream_response_body(self, event: events.Event) -> Commands:
        scanner = passage(self.flow).returning
        if scanner is None or not isinstance(event, (ResponseData, ResponseEndOfMessage)):
            yield from super().state_stream_response_body(event)
        elif isinstance(event, ResponseData):
            yield from self._pass_response(scanner, event.data, last=False)
        else:
            yield from self._pass_response(scanner, b"", last=True)
            if self.server_state != self.state_errored:
                yield from self.send_response(already_streamed=True)

    def handle_protocol_error(self, event: Any) -> Commands:
        answerable = self.client_state != self.state_errored and self.server_state != self.state_errored
        if isinstance(event, ResponseProtocolError) and self.flow.response is None and answerable:
            # The rest of such a message quotes what the server sent.
            reason = event.message.partition(": b'")[0].partition(': b"')[0].rstrip(".")
            failed = Refusal("upstream_failed", f"The server cannot be used: {reason}.", 502)
            yield from self._answer(answer(failed, self.flow.request))
        else:
            yield from super().handle_protocol_error(event)

    def flow_done(self) -> Commands:
        yield from super().flow_done()
        if isinstance(self.child_layer, WebsocketLayer):
            # Before the first message: the layer waits for the hook that says it has started.
            for end in (self.child_layer.client_ws, self.child_layer.server_ws):
                end.__class__ = GuardedWebsocket
                end.passage = passage(self.flow)

    def _pass_request(self, data: bytes, *, last: bool) -> Commands:
        scanner = passage(self.flow).body
        if scanner is not None:
            scanner.feed(data, last=last)
            data = scanner.take() if not scanner.found else b""
            if scanner.found or scanner.unreadable:
                yield EgressSecretHook(self.flow)
                if refusal := passage(self.flow).refusal:
                    yield from self._cut(refusal)
                    return
                data = scanner.take()
        if data:
            yield SendHttp(RequestData(self.stream_id, data), self.context.server)

    def _pass_response(self, scanner: BodyScanner, data: bytes, *, last: bool) -> Commands:
        scanner.feed(data, last=last)
        if scanner.found:
            yield EgressSecretHook(self.flow)
            if refusal := passage(self.flow).refusal:
                yield from self._cut(refusal)
                return
        if passing := scanner.take():
            yield SendHttp(ResponseData(self.stream_id, passing), self.context.client)

    def _cut(self, refusal: Refusal) -> Commands:
        """Breaks off towards the server, so that it never takes what it got for a whole request, and says why."""
        if self.context.server.connected and self.client_state == self.state_stream_request_body:
            broken = RequestProtocolError(self.stream_id, "cut by egress", RequestProtocolError.code)
            yield SendHttp(broken, self.context.server)
        if self.server_state in (self.state_wait_for_response_headers, self.state_uninitialized):
            response = answer(refusal, self.flow.request)
            response.headers["connection"] = "close"
            yield from self._answer(response)
            return
        self.client_state = self.server_state = self.state_errored
        self.flow.error = flow.Error(flow.Error.KILLED_MESSAGE)
        self.flow.live = False
        reset = ResponseProtocolError(self.stream_id, "cut by egress", ResponseProtocolError.code)
        yield SendHttp(reset, self.context.client)
        yield DropStream(self.stream_id)

    def _answer(self, response: http.Response) -> Commands:
        """Ends the stream with a response of ours; what the client still sends is thrown away."""
        self.client_state = self.server_state = self.state_errored
        self.flow.live = False
        yield SendHttp(ResponseHeaders(self.stream_id, response, end_stream=False), self.context.client)
        yield SendHttp(ResponseData(self.stream_id, response.raw_content or b""), self.context.client)
        yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)
        yield DropStream(self.stream_id)


class GuardedWebsocket(WebsocketConnection):
    """One end of a WebSocket: bounds its messages, scans its control frames, closes when the addon refused."""

    passage: Passage

    def events(self) -> Iterator[wsproto.events.Event]:
        for event in super().events():
            if isinstance(event, _Control) and self._is_told(event):
                event = wsproto.events.CloseConnection(_POLICY_VIOLATION, "a control frame held a secret")
            yield event
            # Back here when what was yielded has been dealt with.
            if self.passage.refusal is not None:
                yield wsproto.events.CloseConnection(_POLICY_VIOLATION, self.passage.refusal.error)
                return
            if sum(map(len, self.frame_buf)) > MAX_MESSAGE:
                yield wsproto.events.CloseConnection(_TOO_BIG, f"message larger than {MAX_MESSAGE >> 20} MiB")
                return

    def _is_told(self, event: _Control) -> bool:
        """Whether a control frame of the client's tells a secret; these cannot be held."""
        scanner = self.passage.control
        if scanner is None or self.client:  # as a client this end faces the server
            return False
        if isinstance(event, wsproto.events.CloseConnection):
            text = (event.reason or "").encode()
        else:
            text = bytes(event.payload)
        scanner.feed(text, last=True)
        scanner.take()
        return bool(scanner.found)
