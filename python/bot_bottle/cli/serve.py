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


@command(begins=True)
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
@option(
    "--operator", is_flag=True, help="Serve the dashboard too, on a listener of its own; bot-bottle dashboard opens it."
)
@option("--no-broker", is_flag=True, help="Serve the dashboard alone.")
@option(
    "--operator-listen",
    metavar="ADDR:PORT",
    default="127.0.0.1:9102",
    help="Where browsers reach the dashboard; port 0 is any free one. Other than loopback needs --operator-tls.",
)
@option("--operator-socket", metavar="PATH", type=file_path, help="A unix socket for the dashboard instead of a port.")
@option("--operator-tls", is_flag=True, help="Speak TLS there, with the certificate in <root>/operator.")
@option(
    "--operator-name",
    "names",
    metavar="HOST",
    multiple=True,
    help="Another name by which browsers reach it, by TLS: that of your tunnel or proxy.",
)
def serve(
    listen: str,
    path: Path | None,
    tls: bool,
    operator: bool,
    no_broker: bool,
    operator_listen: str,
    operator_socket: Path | None,
    operator_tls: bool,
    names: tuple[str, ...],
) -> None:
    """Serve the broker, and with --operator the dashboard.

    It runs until it is stopped (Ctrl-C, SIGTERM), and prints a line of JSON for each request. The broker is
    for bottles whose sidecars cannot share the database: they reach their own bottle's proposals with the
    token that `bot-bottle bottle start` gave them, and decide nothing. The dashboard is for operators, who
    decide in a browser on this machine or, by a tunnel of theirs or --operator-tls, elsewhere.

    \b
      bot-bottle serve               # on this machine only
      bot-bottle serve --broker-listen 172.17.0.1:9101 --tls
      bot-bottle serve --operator    # the dashboard too
      bot-bottle serve --operator --operator-name box.example.ts.net
    """
    if no_broker and not operator:
        raise InvalidInputError("--no-broker leaves nothing to serve without --operator")
    host, port, local = _address(listen, "--broker-listen")
    operator_host, operator_port, operator_local = _address(operator_listen, "--operator-listen")
    if not operator_local and not operator_tls:
        raise InvalidInputError(
            f"--operator-listen needs a loopback address, not {operator_host}, or --operator-tls: logins would cross "
            "the network in the clear; from another machine, tunnel to it (ssh -L 9102:127.0.0.1:9102)"
        )
    for name in names:
        if not name.isascii() or name.strip("abcdefghijklmnopqrstuvwxyz0123456789.-") or not name.strip(".-"):
            raise InvalidInputError(f"--operator-name needs a host name in lower case without a port, not {name!r}")
    if not local and not no_broker:
        plain = "" if tls else "; without --tls tokens and proposals cross it in the clear"
        print(f"{PROGRAM}: warning: the broker on {listen} can be reached from the network{plain}", file=sys.stderr)
    try:
        from bot_bottle.web import server  # it needs packages that only this command uses
    except ModuleNotFoundError as error:
        raise BotBottleError(f"the Python module {error.name} is missing; install bot-bottle[serve]") from None
    broker_at = None if no_broker else server.BrokerAt(host, port, path, tls)
    dashboard_at = (
        server.DashboardAt(operator_host, operator_port, operator_socket, names, operator_tls) if operator else None
    )
    if server.serve(broker_at, dashboard_at):
        raise KeyboardInterrupt


def _address(text: str, name: str) -> tuple[str, int, bool]:
    """Host, port, and whether that is a loopback address.

    Raises:
        InvalidInputError: the host is not an IP address.
    """
    import ipaddress

    host, port = address.parse(text)
    try:
        return host, port, ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise InvalidInputError(f"{name} needs an IP address, not {host!r}") from None
