"""How do the daemons of one bottle live and end together?

``python -m bot_bottle.sidecars`` starts those that ``BOT_BOTTLE_SIDECAR_DAEMONS`` names, tells all of them of a SIGTERM
or SIGINT, and ends with the exit code of the first that ends by itself. ``… health`` says whether they listen. The
image runs it under an init, which reaps what the daemons leave behind.
"""

from __future__ import annotations

import os
import pwd
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bot_bottle.errors import BotBottleError, InvalidInputError
from bot_bottle.sidecars import routes_in_force

# Long enough to answer the requests at hand, short enough for Docker's ten seconds between SIGTERM and SIGKILL.
GRACE_SECONDS: Final = 8.0
# Where Dockerfile.sidecars has the name service look after /etc/passwd.
_PASSWD: Final = Path("/var/lib/extrausers/passwd")
_LISTEN: Final = "0A"  # TCP_LISTEN of include/net/tcp_states.h, as /proc/net/tcp prints it
_WATCHED: Final = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}


class Daemon(NamedTuple):
    """One daemon: the module that has its ``main``, and where it listens."""

    module: str
    port_variable: str
    default_port: int

    def port(self, environment: Mapping[str, str]) -> int:
        """The TCP port it listens on.

        Raises:
            InvalidInputError: its variable is set to something else.
        """
        text = environment.get(self.port_variable) or str(self.default_port)
        if not text.isdecimal() or not 0 < int(text) < 65536:
            raise InvalidInputError(f"{self.port_variable} is {text!r}: it is a port, from 1 to 65535")
        return int(text)


DAEMONS: Final[Mapping[str, Daemon]] = {
    "egress": Daemon("bot_bottle.sidecars.egress", "EGRESS_PORT", 8080),
    "git-gate": Daemon("bot_bottle.sidecars.git_gate", "GIT_GATE_PORT", 9418),
    "supervise": Daemon("bot_bottle.sidecars.supervise", "SUPERVISE_PORT", 9100),
}


def chosen(environment: Mapping[str, str]) -> list[str]:
    """The daemons to run, as ``BOT_BOTTLE_SIDECAR_DAEMONS`` (comma separated) narrows them; all without it.

    Raises:
        InvalidInputError: it names one that does not exist, or none at all.
    """
    value = environment.get("BOT_BOTTLE_SIDECAR_DAEMONS")
    if value is None:
        return list(DAEMONS)
    names = list(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
    unknown = [name for name in names if name not in DAEMONS]
    if unknown or not names:
        what = f"names {', '.join(unknown)}" if unknown else "is empty"
        raise InvalidInputError(f"BOT_BOTTLE_SIDECAR_DAEMONS {what}; it is a comma list of {', '.join(DAEMONS)}")
    return names


class Bundle:
    """The running daemons. Each leads a process group of its own, so a signal also reaches its child processes."""

    def __init__(self, names: Sequence[str]) -> None:
        # Blocked before the first start, so that a daemon that dies at once, or an early stop, is noticed below.
        signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        self._running = {_spawn(DAEMONS[name].module): name for name in names}
        self._code = 0

    def run(self) -> int:
        """Blocks until all have ended; returns the exit code of the bundle.

        That is the code of the daemon that ended by itself (128 + N for signal N), and 0 after a stop that all of them
        obeyed; 137 is a daemon that had to be killed at the end of the grace.
        """
        self._until_one_ends_or_a_stop()
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while self._running and (left := deadline - time.monotonic()) > 0:
            # Whatever arrives, even another SIGTERM: the stop has already begun.
            signal.sigtimedwait(_WATCHED, left)
            self._note(self._reap())
        if self._running:
            _say(f"{', '.join(self._running.values())} did not end within {GRACE_SECONDS:g} s: killed")
            self._signal(signal.SIGKILL)
            self._code = self._code or 128 + signal.SIGKILL
            for pid in self._running:
                os.waitpid(pid, 0)
        return self._code

    def _until_one_ends_or_a_stop(self) -> None:
        while True:
            if signal.sigwait(_WATCHED) != signal.SIGCHLD:
                return
            if ended := self._reap():
                name, self._code = ended[0]
                _say(f"{name} ended with {self._code}: the bundle goes down with it")
                self._note(ended[1:])
                return

    def _reap(self) -> list[tuple[str, int]]:
        """Name and exit code of each daemon that has ended since the last call."""
        ended = []
        for pid, name in list(self._running.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del self._running[pid]
                code = os.waitstatus_to_exitcode(status)
                ended.append((name, code if code >= 0 else 128 - code))
        return ended

    def _note(self, ended: Sequence[tuple[str, int]]) -> None:
        """Remembers the first failure during the stop; to die of the SIGTERM itself is not a failure."""
        for _, code in ended:
            if code != 128 + signal.SIGTERM:
                self._code = self._code or code

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._running:
            os.killpg(pid, number)


def silent(environment: Mapping[str, str]) -> list[str]:
    """The chosen daemons that do not listen on their port. Linux only."""
    listening = set()
    # Ports are looked up, without connecting: the kernel accepts connections for a hanging daemon, too, and git daemon
    # logs each one at length.
    for table in filter(Path.exists, (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))):
        for line in table.read_text("ascii").splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == _LISTEN:
                listening.add(int(local.rpartition(":")[2], 16))
    return [name for name in chosen(environment) if DAEMONS[name].port(environment) not in listening]


def _proxy(environment: Mapping[str, str]) -> str:
    return f"http://127.0.0.1:{DAEMONS['egress'].port(environment)}"


def _refused(environment: Mapping[str, str]) -> str | None:
    """Why the proxy does not use the routes.yaml that is there, if it runs and does not."""
    return routes_in_force.ask(_proxy(environment)).refused if "egress" in chosen(environment) else None


def main(arguments: Sequence[str]) -> int:
    """Runs the bundle, or with ``health`` checks it; returns the exit code."""
    try:
        if list(arguments) == ["health"]:
            if names := silent(os.environ):
                _say(f"not listening: {', '.join(names)}")
                return 1
            if refused := _refused(os.environ):
                _say(f"egress: {refused}")
                return 1
            return 0
        if arguments:
            raise InvalidInputError(f"unknown argument {arguments[0]!r}: there is only 'health'")
        names = chosen(os.environ)
        if "egress" in names:
            # So that an agent is told of new routes only once they are in force.
            os.environ.setdefault("SUPERVISE_EGRESS_URL", _proxy(os.environ))
        _name_this_user()
        return Bundle(names).run()
    except BotBottleError as error:
        _say(str(error))
        return error.exit_code


def _name_this_user() -> None:
    """Gives the uid a line in the image's second passwd file: it is the host user's, whom the image does not know, and
    ssh does not run for a uid without a name."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        line = f"sidecar:x:{os.getuid()}:{os.getgid()}::{os.environ.get('HOME', '/')}:/usr/sbin/nologin\n"
        try:
            _PASSWD.write_text(line, "ascii")
        except OSError as error:
            _say(f"{_PASSWD} cannot be written ({error.strerror}): ssh will not run for uid {os.getuid()}")


def _spawn(module: str) -> int:
    # posix_spawn rather than subprocess: it can give the child an empty signal mask, ours is not to be inherited.
    argv = [sys.executable, "-m", module]
    return os.posix_spawn(sys.executable, argv, os.environ, setpgroup=0, setsigmask=())


def _say(sentence: str) -> None:
    print(f"bot-bottle sidecars: {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
