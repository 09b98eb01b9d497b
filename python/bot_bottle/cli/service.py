"""How does what should always run, such as `notify run`, start with the operator's session?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from bot_bottle.cli.declare import OneOf, argument, group, option
from bot_bottle.cli.options import json_option
from bot_bottle.cli.screen import print_json, say
from bot_bottle.errors import BotBottleError, InvalidInputError, NotFoundError
from bot_bottle.launch import managed

_SERVICES = {
    "notify": (["notify", "run"], "tell what waits for the operator"),
    "policy": (["policy", "run"], "answer by the rules in policy.toml"),
    "serve": (["serve"], "the broker for bottles in VMs"),
    "dashboard": (["serve", "--operator", "--no-broker"], "the operator's dashboard"),
}
_MARK = "# Written by 'bot-bottle service install'."
# What tells the program where its root is, and who decides.
_ENVIRONMENT = ("BOT_BOTTLE_ROOT", "BOT_BOTTLE_OPERATOR_KEY")


@group()
def service() -> None:
    """Have notify, policy, serve or the dashboard start with your session (systemd, launchd).

    \b
      bot-bottle service install notify --start
      bot-bottle service uninstall notify
    """


class _Unit(NamedTuple):
    """The file that a service manager reads, and the commands that put it to work and out of it."""

    path: str
    text: bytes
    start: list[list[str]]
    stop: list[list[str]]


@service.command(begins=True)
@argument("name", metavar="NAME", type=OneOf(*_SERVICES))
@option("--start", is_flag=True, help="Start it too, now and with each session; otherwise the commands are printed.")
@json_option
def install(name: str, start: bool, as_json: bool) -> None:
    """Write a unit of your own session: for systemd, or on macOS for launchd.

    NAME is notify, policy, serve or dashboard. Nothing is started unless you say so. The program is the one that
    runs now, and BOT_BOTTLE_ROOT and BOT_BOTTLE_OPERATOR_KEY are kept as they are set now.

    \b
      bot-bottle service install notify
      bot-bottle service install dashboard --start
    """
    unit = _unit(name)
    if os.path.lexists(unit.path) and not _ours(unit.path):
        raise InvalidInputError(f"{unit.path} is there already, and not from here; remove it first")
    managed.write(Path(unit.path), unit.text)
    if start:
        _call(unit.start)
    if as_json:
        print_json({"path": unit.path, "started": start, "start": unit.start})
        return
    say(f"wrote {unit.path}")
    if not start:
        say("To start it, now and with each session:")
        for command in unit.start:
            say(f"  {' '.join(command)}")


@service.command(begins=True)
@argument("name", metavar="NAME", type=OneOf(*_SERVICES))
@json_option
def uninstall(name: str, as_json: bool) -> None:
    """Stop it and remove its unit.

    \b
      bot-bottle service uninstall notify
    """
    unit = _unit(name)
    if not os.path.lexists(unit.path):
        raise NotFoundError(f"there is no {unit.path}")
    if not _ours(unit.path):
        raise InvalidInputError(f"{unit.path} is not from here, and is left alone")
    try:
        _call(unit.stop)
    finally:
        os.unlink(unit.path)
    if as_json:
        print_json({"path": unit.path, "removed": True})
    else:
        say(f"removed {unit.path}")


def _unit(name: str) -> _Unit:
    arguments, about = _SERVICES[name]
    command = [_program(), *arguments]
    environment = {each: os.environ[each] for each in _ENVIRONMENT if each in os.environ}
    home = os.path.expanduser("~")
    if sys.platform == "darwin":
        label = f"io.bot-bottle.{name}"
        path = os.path.join(home, "Library", "LaunchAgents", f"{label}.plist")
        domain = f"gui/{os.getuid()}"
        return _Unit(
            path,
            plist(label, command, environment),
            [["launchctl", "bootstrap", domain, path]],
            [["launchctl", "bootout", f"{domain}/{label}"]],
        )
    unit = f"bot-bottle-{name}.service"
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    return _Unit(
        os.path.join(config, "systemd", "user", unit),
        systemd(about, command, environment),
        [["systemctl", "--user", "daemon-reload"], ["systemctl", "--user", "enable", "--now", unit]],
        [["systemctl", "--user", "disable", "--now", unit]],
    )


def systemd(about: str, command: list[str], environment: dict[str, str]) -> bytes:
    """A unit for systemd (systemd.service(5)). What cannot get better by itself, exit code 2, is not tried again."""
    lines = [
        _MARK,
        "[Unit]",
        f"Description=bot-bottle: {about}",
        "Documentation=man:bot-bottle(1)",
        "",
        "[Service]",
        f"ExecStart={' '.join(map(_quoted, command))}",
        *(f"Environment={_quoted(f'{name}={value}', dollar='$')}" for name, value in environment.items()),
        "Restart=on-failure",
        "RestartSec=5",
        "RestartPreventExitStatus=2",
        "UMask=0077",
        "NoNewPrivileges=yes",
        "",
        "[Install]",
        "WantedBy=default.target",
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def plist(label: str, command: list[str], environment: dict[str, str]) -> bytes:
    """A property list for launchd (launchd.plist(5))."""
    import plistlib

    keys = {
        "Label": label,
        "ProgramArguments": command,
        "EnvironmentVariables": environment,
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "Umask": 0o077,
    }
    text = plistlib.dumps(keys, sort_keys=False).decode()
    return text.replace("<plist ", f"<!-- {_MARK} -->\n<plist ", 1).encode()


def _quoted(text: str, *, dollar: str = "$$") -> str:
    """As systemd reads one word: specifiers, escapes and, in a command, variables."""
    if any(ord(each) < 32 for each in text):
        raise InvalidInputError(f"a unit cannot hold {text!r}")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", dollar)
    return f'"{escaped}"'


def _program() -> str:
    beside = os.path.join(os.path.dirname(sys.executable), "bot-bottle")
    found = beside if os.access(beside, os.X_OK) else shutil.which("bot-bottle")
    if not found:
        raise NotFoundError("the program bot-bottle is not beside its Python, nor in PATH")
    return os.path.abspath(found)


def _ours(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return _MARK.encode() in file.read(4096)
    except OSError:
        return False


def _call(commands: list[list[str]]) -> None:
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BotBottleError(f"'{' '.join(command)}' did not run: {error}") from None
        if done.returncode:
            said = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
            raise BotBottleError(f"'{' '.join(command)}' failed: {said}")
