"""How does the host's HTTP service run, from its sockets to the signal that ends it?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import uvloop

from bot_bottle import bot_bottle_root
from bot_bottle.launch import address
from bot_bottle.web import certificate, listener
from bot_bottle.web.access_log import AccessLog
from bot_bottle.web.broker.app import Broker
from bot_bottle.web.limits import Limits

# Connections are files; the soft limit of most shells (256 on macOS, 1024 on Linux) is for programs with select(2).
_OPEN_FILES = 16384


def serve(host: str, port: int, path: Path | None, tls: bool) -> bool:
    """Serves on an address and a socket (``None``: the root's own) until a signal; was it an interrupt?"""
    return uvloop.run(run(host, port, path, tls))


async def run(host: str, port: int, path: Path | None, tls: bool, limits: Limits | None = None) -> bool:
    """As ``serve``, with other limits for a test."""
    limits = limits or Limits()
    Path(bot_bottle_root()).mkdir(mode=0o700, parents=True, exist_ok=True)
    if path is None:
        address.link_default_socket()
    path = address.default_socket() if path is None else path.absolute()
    _allow_open_files()
    stop = asyncio.Event()
    interrupted = False
    log = AccessLog(sys.stdout)
    broker = Broker(limits, log)

    def end(number: signal.Signals) -> None:
        nonlocal interrupted
        if stop.is_set():
            os._exit(1)  # asked twice: at once
        interrupted = number is signal.SIGINT
        log.write({"event": "stopping"})
        broker.stop()
        stop.set()

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_report)
    with contextlib.ExitStack() as at_end:
        tcp = at_end.enter_context(listener.tcp(host, port, "--broker-listen"))
        unix = at_end.enter_context(listener.unix(path, "--broker-socket"))
        context = certificate.server_context(host) if tls else None
        where = address.Address(host, tcp.getsockname()[1], tls, str(path))
        address.remember(where)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end, number)
        log.write({"event": "listening", "url": where.url(), "socket": where.socket})
        await listener.serve(broker, [listener.Listener(tcp, context), listener.Listener(unix)], limits, stop)
    broker.close()
    log.write({"event": "stopped"})
    if not (log.close(1) and broker.idle):
        # Nobody reads the log, or a write stands behind another program's: SQLite undoes it, and its client, which got
        # no answer, tries again. Both would keep the process from ending.
        os._exit(130 if interrupted else 0)
    return interrupted


def _allow_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What asyncio would print with a traceback, such as a TLS handshake that failed, as a line."""
    error = context.get("exception")
    reason = f" ({type(error).__name__}: {error})" if error else ""
    _say(f"{context['message']}{reason}")


def _say(sentence: str) -> None:
    with contextlib.suppress(OSError):
        print(f"bot-bottle: {sentence}", file=sys.stderr, flush=True)
