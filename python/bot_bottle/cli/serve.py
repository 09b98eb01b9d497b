"""How does the host offer its services over HTTP? ``bot-bottle serve`` is one process that runs until it is stopped."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from bot_bottle.cli import PROGRAM
from bot_bottle.cli.declare import command, file_path, option
from bot_bottle.errors import BotBottleError, InvalidInputError
from bot_bottle.launch import address

if TYPE_CHECKING:
    from pathlib import Path


@command()
@option(
    "--broker-listen",
    "listen",
    metavar="ADDR:PORT",
    default=f"{address.DEFAULT_HOST}:{address.DEFAULT_PORT}",
    help="Where sidecars in VMs reach the broker; port 0 is any free one.",
)
@option(
    "--broker-socket",
    "path",
    metavar="PATH",
    type=file_path,
    help="Its unix socket; by default broker.sock in the root.",
)
@option("--tls", is_flag=True, help="Speak TLS on TCP, with a certificate made once and handed to each bottle.")
def serve(listen: str, path: Path | None, tls: bool) -> None:
    """Serve the broker: what bottles whose sidecars cannot share the database may do.

    It runs until it is stopped (Ctrl-C, SIGTERM), and prints a line of JSON for each request. A bottle's
    sidecars reach their own bottle's proposals with the token that `bot-bottle bottle start` gave them;
    nothing here decides.

    \b
      bot-bottle serve                                    on this machine only
      bot-bottle serve --broker-listen 172.17.0.1:9101 --tls
    """
    import ipaddress

    host, port = address.parse(listen)
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise InvalidInputError(f"--broker-listen needs an IP address, not {host!r}") from None
    if not local:
        plain = "" if tls else "; without --tls tokens and proposals cross it in the clear"
        print(f"{PROGRAM}: warning: the broker on {listen} can be reached from the network{plain}", file=sys.stderr)
    try:
        from bot_bottle.web import server  # it needs packages that only this command has
    except ModuleNotFoundError as error:
        raise BotBottleError(f"the Python module {error.name} is missing; install bot-bottle[serve]") from None
    if server.serve(host, port, path, tls):
        raise KeyboardInterrupt
