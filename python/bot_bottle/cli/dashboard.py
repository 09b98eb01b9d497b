"""How does an operator open the dashboard, whether or not a process serves it yet?"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from bot_bottle.cli.declare import command, option
from bot_bottle.cli.options import json_option
from bot_bottle.cli.screen import print_json, say
from bot_bottle.errors import BotBottleError, NotFoundError

if TYPE_CHECKING:
    from bot_bottle.web.dashboard.address import Address

_SERVE = "import sys; from bot_bottle.cli import main; sys.exit(main())"


@command(begins=True)
@option("--no-open", is_flag=True, help="Print the link and open no browser.")
@option(
    "--operator-listen",
    "listen",
    metavar="ADDR:PORT",
    default="127.0.0.1:9102",
    help="Where it is to be served if it is not yet; port 0 is any free one.",
)
@option("--name", metavar="NAME", help="Decide in this name, where several people share the host's dashboard.")
@option("--at", "url", metavar="URL", help="Make the link for the address of your tunnel or proxy, such as a phone's.")
@option("--stop", is_flag=True, help="End the process that serves the dashboard.")
@json_option
def dashboard(no_open: bool, listen: str, name: str | None, url: str | None, stop: bool, as_json: bool) -> None:
    """Open the dashboard in a browser: what waits, live, to be decided with a key.

    If nobody serves it yet, `bot-bottle serve --operator --no-broker` is started and goes on in the
    background until `bot-bottle dashboard --stop`. The link logs one browser in, once, within two minutes;
    the login lasts for twelve hours. It needs bot-bottle[serve].

    \b
      bot-bottle dashboard              # serve it if nobody does, and open it
      bot-bottle dashboard --no-open    # over ssh: print the link instead
      bot-bottle dashboard --stop
    """
    from bot_bottle.web.dashboard import address, login

    where = address.running()
    if stop:
        _stop(where, as_json)
        return
    where = where or _start(listen)
    link = login.make_link(where.url if url is None else url.rstrip("/"), name and login.checked_name(name))
    if as_json:
        print_json({"url": where.url, "socket": where.socket, "pid": where.pid, "link": link})
        return
    if where.socket:
        say(f"The dashboard is on {where.socket}: give a tunnel a port of yours, and put that into the link.")
    elif not (no_open or url) and _has_screen():
        _open(link)
    say(link)
    say("It works once, within two minutes.", "quiet")


def _start(listen: str) -> Address:
    """Starts a process that serves the dashboard, and returns once it listens.

    Raises:
        BotBottleError: the process ended; the message gives its reason.
    """
    from bot_bottle.web.dashboard import address

    complaints = address.directory() / "serve.err"
    arguments = [sys.executable, "-c", _SERVE, "serve", "--operator", "--no-broker", "--operator-listen", listen]
    with open(os.open(complaints, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=file, start_new_session=True, cwd="/"
        )
    assert process.stdout is not None  # noqa: S101  a pipe was asked for
    with process.stdout:
        # Its first line says that it listens. It continues without a reader of its log.
        process.stdout.readline()
    where = address.running()
    if where is None:
        process.wait()
        reason = complaints.read_text(errors="replace").strip().removeprefix("bot-bottle: ")
        raise BotBottleError(f"the dashboard could not be started: {reason or 'it ended at once'}")
    return where


def _stop(where: Address | None, as_json: bool) -> None:
    import signal

    if where is None:
        raise NotFoundError("nobody serves this root's dashboard; 'bot-bottle dashboard' starts it")
    # The lock is held, so this is the process that wrote its number down.
    os.kill(where.pid, signal.SIGTERM)
    if as_json:
        print_json({"url": where.url, "socket": where.socket, "pid": where.pid, "stopped": True})
    else:
        say(f"stopped {where.url}")


def _has_screen() -> bool:
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _open(link: str) -> None:
    """Has a browser open a page that leads on to the link. Were the link itself an argument, every user of this machine
    could read it in the list of processes and be faster."""
    import html
    import webbrowser

    from bot_bottle.web.dashboard import address

    page = address.directory() / "open.html"
    address.write_privately(page, f'<!doctype html><meta http-equiv="refresh" content="0; url={html.escape(link)}">\n')
    with contextlib.suppress(webbrowser.Error):
        webbrowser.open(page.as_uri())
