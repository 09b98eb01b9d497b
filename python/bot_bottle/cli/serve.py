"""How does the host offer its services over HTTP? ``bot-bottle serve`` is one process that runs until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import resource
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bot_bottle import bot_bottle_root
from bot_bottle.cli import PROGRAM
from bot_bottle.errors import BotBottleError, InvalidInputError
from bot_bottle.launch import address

if TYPE_CHECKING:
    from bot_bottle.web.limits import Limits

# Connections are files; the soft limit of most shells (256 on macOS, 1024 on Linux) is for programs with select(2).
_OPEN_FILES = 16384


@click.command()
@click.option(
    "--broker-listen",
    "listen",
    metavar="ADDR:PORT",
    default=f"{address.DEFAULT_HOST}:{address.DEFAULT_PORT}",
    show_default=True,
    help="Where sidecars in VMs reach the broker; port 0 is any free one.",
)
@click.option(
    "--broker-socket",
    "path",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Its unix socket; by default broker.sock in the root.",
)
@click.option("--tls", is_flag=True, help="Speak TLS on TCP, with a certificate made once and handed to each bottle.")
def serve(listen: str, path: Path | None, tls: bool) -> None:
    """Serve the broker: what bottles whose sidecars cannot share the database may do.

    It runs until it is stopped (Ctrl-C, SIGTERM), and prints a line of JSON for each request. A bottle's
    sidecars reach their own bottle's proposals with the token that `bot-bottle bottle start` gave them;
    nothing here decides.

    \b
      bot-bottle serve                                    on this machine only
      bot-bottle serve --broker-listen 172.17.0.1:9101 --tls
    """
    host, port = address.parse(listen)
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise InvalidInputError(f"--broker-listen needs an IP address, not {host!r}") from None
    if not local:
        plain = "" if tls else "; without --tls tokens and proposals cross it in the clear"
        _say(f"warning: the broker on {listen} can be reached from the network{plain}")
    try:
        import uvloop

        interrupted = uvloop.run(run(host, port, path, tls))
    except ModuleNotFoundError as error:
        raise BotBottleError(f"the Python module {error.name} is missing; install bot-bottle[serve]") from None
    if interrupted:
        raise KeyboardInterrupt


async def run(host: str, port: int, path: Path | None, tls: bool, limits: Limits | None = None) -> bool:
    """Serves until a signal; returns whether it was an interrupt. With other limits for a test."""
    # Here, as they need packages that only this command has.
    from bot_bottle.web import certificate, listener
    from bot_bottle.web.access_log import AccessLog
    from bot_bottle.web.broker.app import Broker
    from bot_bottle.web.limits import Limits

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
        print(f"{PROGRAM}: {sentence}", file=sys.stderr, flush=True)
