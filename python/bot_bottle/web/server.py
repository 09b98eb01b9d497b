"""How does the host's HTTP service run, from its sockets to the signal that ends it?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

import uvloop
from starlette.types import ASGIApp

from bot_bottle import bot_bottle_root
from bot_bottle.launch import address
from bot_bottle.web import certificate, listener
from bot_bottle.web.access_log import AccessLog
from bot_bottle.web.broker.app import Broker
from bot_bottle.web.dashboard import address as dashboard_address
from bot_bottle.web.dashboard import guard
from bot_bottle.web.dashboard.app import Dashboard
from bot_bottle.web.limits import Limits

# Connections are files; the soft limit of most shells (256 on macOS, 1024 on Linux) is for programs with select(2).
_OPEN_FILES = 16384


class BrokerAt(NamedTuple):
    """Where the bottles' side listens; without ``path`` on the root's own socket."""

    host: str
    port: int
    path: Path | None = None
    tls: bool = False


class DashboardAt(NamedTuple):
    """Where the operator's side listens: on ``path`` if there is one, or else on an address; and by which ``names`` it
    is reached beside that, through a tunnel or a proxy that speaks TLS to the browser, or by ``tls`` of its own."""

    host: str
    port: int
    path: Path | None = None
    names: tuple[str, ...] = ()
    tls: bool = False


def serve(broker: BrokerAt | None, dashboard: DashboardAt | None) -> bool:
    """Serves one side or both until a signal; was it an interrupt?"""
    return uvloop.run(run(broker, dashboard))


async def run(
    broker_at: BrokerAt | None, dashboard_at: DashboardAt | None = None, limits: Limits | None = None
) -> bool:
    """As ``serve``, with other limits for a test."""
    limits = limits or Limits()
    Path(bot_bottle_root()).mkdir(mode=0o700, parents=True, exist_ok=True)
    _allow_open_files()
    stop = asyncio.Event()
    interrupted = False
    log = AccessLog(sys.stdout)
    sides: list[Broker | Dashboard] = []

    def end(number: signal.Signals) -> None:
        nonlocal interrupted
        if stop.is_set():
            os._exit(1)  # a second signal ends it at once
        interrupted = number is signal.SIGINT
        log.write({"event": "stopping"})
        for side in sides:
            side.stop()
        stop.set()

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_report)
    with contextlib.ExitStack() as at_end:
        served: list[tuple[ASGIApp, list[listener.Listener]]] = []
        said: dict[str, Any] = {"event": "listening"}
        if broker_at is not None:
            sides.append(Broker(limits, log))
            served.append((sides[-1], _listen_for_bottles(broker_at, at_end, said)))
        if dashboard_at is not None:
            at_end.enter_context(dashboard_address.lock())
            sides.append(Dashboard(limits, log, guard.Names(_names(dashboard_at), dashboard_at.tls)))
            served.append((sides[-1], [_listen_for_operators(dashboard_at, at_end, said)]))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end, number)
        log.write(said)
        await asyncio.gather(*(listener.serve(app, listeners, limits, stop) for app, listeners in served))
    for side in sides:
        side.close()
    log.write({"event": "stopped"})
    if not (log.close(1) and all(side.idle for side in sides)):
        # Nobody reads the log, or a write stands behind another program's: SQLite undoes it, and its client, which got
        # no answer, tries again. Both would keep the process from ending.
        os._exit(130 if interrupted else 0)
    return interrupted


def _listen_for_bottles(at: BrokerAt, at_end: contextlib.ExitStack, said: dict[str, Any]) -> list[listener.Listener]:
    if at.path is None:
        address.link_default_socket()
    path = address.default_socket() if at.path is None else at.path.absolute()
    tcp = at_end.enter_context(listener.tcp(at.host, at.port, "--broker-listen"))
    unix = at_end.enter_context(listener.unix(path, "--broker-socket"))
    context = certificate.server_context(address.certificate_file(), (at.host,)) if at.tls else None
    where = address.Address(at.host, tcp.getsockname()[1], at.tls, str(path))
    address.remember(where)
    said.update(url=where.url(), socket=where.socket)
    return [listener.Listener(tcp, context), listener.Listener(unix)]


def _listen_for_operators(at: DashboardAt, at_end: contextlib.ExitStack, said: dict[str, Any]) -> listener.Listener:
    if at.path is None:
        listening = at_end.enter_context(listener.tcp(at.host, at.port, "--operator-listen"))
        name = f"[{at.host}]" if ":" in at.host else at.host
        scheme = "https" if at.tls else "http"
        where = dashboard_address.Address(f"{scheme}://{name}:{listening.getsockname()[1]}", None, os.getpid())
    else:
        path = at.path.absolute()
        listening = at_end.enter_context(listener.unix(path, "--operator-socket"))
        where = dashboard_address.Address("http://localhost", str(path), os.getpid())
    dashboard_address.remember(where)
    said.update(operator=where.socket or where.url)
    folder = dashboard_address.directory()
    context = certificate.server_context(folder / "cert.pem", _names(at)) if at.tls and at.path is None else None
    return listener.Listener(listening, context)


def _names(at: DashboardAt) -> tuple[str, ...]:
    """The names that a request may call it by; without a unix socket, its address, too."""
    own = f"[{at.host}]" if ":" in at.host else at.host
    return tuple(dict.fromkeys((*at.names, *([] if at.path else [own]))))


def _allow_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Prints as one line what asyncio would print with a traceback, such as a failed TLS handshake."""
    error = context.get("exception")
    reason = f" ({type(error).__name__}: {error})" if error else ""
    _say(f"{context['message']}{reason}")


def _say(sentence: str) -> None:
    with contextlib.suppress(OSError):
        print(f"bot-bottle: {sentence}", file=sys.stderr, flush=True)
