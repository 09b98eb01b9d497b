"""How does a message leave through a channel, and what counts as a failure?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from typing import Any

from bot_bottle.errors import BotBottleError
from bot_bottle.notify import push
from bot_bottle.notify.message import Message
from bot_bottle.notify.settings import Channel

_SECONDS = 15.0


class DeliveryError(BotBottleError):
    """A message did not leave; the message of the error says why."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the operator chose this address, and the token is for it alone."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def deliver(channel: Channel, message: Message) -> None:
    """Sends it, within seconds.

    Raises:
        DeliveryError: it was not taken.
    """
    if channel.kind == "bell":
        _ring(message)
    elif channel.kind == "desktop":
        _run(_desktop(message), message)
    elif channel.kind == "exec":
        _run(["/bin/sh", "-c", channel.command], message)
    elif channel.kind == "webhook":
        _post(channel, message.to_dict())
    elif channel.kind == "webpush":
        _push(channel, message)
    else:
        body = f"{message.body}\n{message.command}"
        _post(channel, {"topic": channel.topic, "title": message.title, "message": body})


def _ring(message: Message) -> None:
    """The bell, and the count in the title. It contains only bot-bottle's own words, because nothing cleans a title."""
    if not sys.stdout.isatty():
        raise DeliveryError("standard output is no terminal, which a bell needs")
    title = f"\x1b]2;bot-bottle: {message.waiting} waiting\x1b\\" if os.environ.get("TERM", "dumb") != "dumb" else ""
    sys.stdout.write(f"{title}\a")
    sys.stdout.flush()


def _desktop(message: Message) -> list[str]:
    body = f"{message.body}\n{message.command}"
    if sys.platform == "darwin":
        script = ("on run argv", "display notification (item 2 of argv) with title (item 1 of argv)", "end run")
        return ["osascript", *(word for line in script for word in ("-e", line)), message.title, body]
    return ["notify-send", "--app-name=bot-bottle", "--", message.title, body]


def _run(command: list[str], message: Message) -> None:
    """Runs a program with the message in its environment and on its input; none of it is a word of the shell's."""
    try:
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **message.environment()},
            start_new_session=True,
        ) as child:
            try:
                _, errors = child.communicate(json.dumps(message.to_dict()).encode() + b"\n", timeout=_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)  # what it started holds its pipes open
                raise DeliveryError(f"it did not end within {_SECONDS:.0f} s and was killed") from None
    except OSError as error:
        raise DeliveryError(f"{command[0]} cannot be started: {error.strerror}") from None
    if child.returncode:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2][:200]
        raise DeliveryError(f"it ended with exit code {child.returncode}{f': {last}' if last else ''}")


def _push(channel: Channel, message: Message) -> None:
    try:
        problems = push.send(message, channel.url)
    except BotBottleError as error:
        raise DeliveryError(str(error)) from None
    if problems:
        raise DeliveryError("; ".join(problems))


def _post(channel: Channel, body: dict[str, Any]) -> None:
    headers = {"Content-Type": "application/json", "User-Agent": "bot-bottle"}
    if channel.token_env:
        token = os.environ.get(channel.token_env)
        if not token:
            raise DeliveryError(f"${channel.token_env} is not set")
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(channel.url, json.dumps(body).encode(), headers)  # noqa: S310  settings.py takes only http and https
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(request, timeout=_SECONDS) as answer:
            answer.read(1)
    except urllib.error.HTTPError as error:
        error.close()
        raise DeliveryError(f"{channel.url} answered {error.code}") from None
    except (OSError, ValueError) as error:
        raise DeliveryError(f"{channel.url} cannot be reached: {getattr(error, 'reason', error)}") from None
