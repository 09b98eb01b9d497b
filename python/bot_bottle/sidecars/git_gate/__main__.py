"""How does an agent reach its git remotes without their credentials, and never past the scan?

``python -m bot_bottle.sidecars.git_gate`` keeps a bare repository for each upstream and serves them with git daemon.
Before each request the repository is updated from its upstream; each push is scanned and forwarded. The program
``bot-bottle-sidecar git-gate-hook`` does all of that, and the hooks of the repositories start it. Git LFS objects
arrive over HTTP on the same port, because that is where git-lfs looks for them (lfs.py).
"""

from __future__ import annotations

import os
import pwd
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bot_bottle.errors import BotBottleError, InvalidInputError
from bot_bottle.sidecars.git_gate import lfs
from bot_bottle.sidecars.git_gate.hook import MAX_FILE_BYTES, WAIT_SECONDS, HookSettings, found_program, install

if TYPE_CHECKING:
    from bot_bottle.documents.upstreams import Upstream

UPSTREAMS_FILE: Final = "/etc/bot-bottle/upstreams.yaml"
ROOT: Final = "/var/lib/git-gate"
PORT: Final = 9418
# Held pushes are among them. Each costs a few processes; more than these wait for one of them to end.
_CONNECTIONS: Final = 512
# A connection that says nothing for so long is closed, in seconds.
_SILENCE: Final = 30.0
# Of the eight seconds that the bundle gives its daemons: time for a held push to take its proposal back.
_GRACE_SECONDS: Final = 5.0
_WATCHED: Final = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)
_MIRRORED: Final = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+refs/notes/*:refs/notes/*")
# git daemon starts this at each request with the service and the repository.
_SYNC: Final = """\
#!/bin/sh
cd "$2" && exec hooks/pre-receive sync
echo "bot-bottle: the git gate is not complete; tell its operator"
exit 1
"""
_REPOSITORY_SETTINGS: Final = {
    # The upstream decides whether the default branch may be deleted.
    "receive.denyDeleteCurrent": "ignore",
    "receive.maxInputSize": "1g",
    "receive.advertisePushOptions": "true",
    # For partial clones (--filter); what they ask for later is served as well.
    "uploadpack.allowFilter": "true",
    # Larger files are streamed, by whatever git does with them; below 512 MiB git would take them into memory whole.
    "core.bigFileThreshold": "16m",
    # Clones of a large repository then need not count its objects.
    "repack.writeBitmaps": "true",
    "remote.upstream.followRemoteHEAD": "never",
    "remote.upstream.tagOpt": "--no-tags",
}


@dataclass(frozen=True)
class Gate:
    """The settings of the daemon."""

    root: Path
    port: int
    upstreams: Sequence[Upstream]
    hook: HookSettings

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Gate:
        """As docs/git-gate.md lists the variables.

        Raises:
            InvalidInputError: a variable or the file of the upstreams is not as it should be.
        """
        bottle = environment.get("SUPERVISE_BOTTLE_SLUG")
        if not bottle:
            raise InvalidInputError("SUPERVISE_BOTTLE_SLUG is not set; it says whose pushes these are")
        hook = HookSettings(
            bottle=bottle,
            # A path that is given to the helper would win over the broker, which it finds in this environment itself.
            database="" if environment.get("SUPERVISE_URL") else environment.get("SUPERVISE_DB_PATH", ""),
            helper=found_program("bot-bottle-sidecar"),
            gitleaks=found_program("gitleaks"),
            rules=environment.get("GIT_GATE_RULES", ""),
            timeout=_number(environment, "GIT_GATE_TIMEOUT_SECONDS", WAIT_SECONDS),
            max_file=_number(environment, "GIT_GATE_MAX_FILE_BYTES", MAX_FILE_BYTES),
        )
        hook.check()
        upstreams = _read_upstreams(environment.get("GIT_GATE_UPSTREAMS"))
        if any(upstream.key for upstream in upstreams):
            _check_user()
        return cls(
            root=Path(environment.get("GIT_GATE_ROOT") or ROOT).absolute(),
            port=_number(environment, "GIT_GATE_PORT", PORT, most=65535),
            upstreams=upstreams,
            hook=hook,
        )

    def prepare(self) -> list[Path]:
        """Brings the repositories to these settings, new or not; returns them.

        Raises:
            InvalidInputError: the root cannot be written, or a repository in it is not the gate's.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            repositories = [self._prepare(upstream) for upstream in self.upstreams]
            sync = self.root / "sync"
            sync.write_text(_SYNC, "utf-8")
            sync.chmod(0o755)
        except OSError as error:
            raise InvalidInputError(f"{self.root} (GIT_GATE_ROOT) does not serve: {error}") from None
        return repositories

    def _prepare(self, upstream: Upstream) -> Path:
        repository = self.root / f"{upstream.name}.git"
        if not (repository / "HEAD").exists():
            _git("init", "--quiet", "--bare", f"--object-format={upstream.object_format}", str(repository))
        install(repository, replace(self.hook, upstream=upstream.url))
        # In a file of its own, so that nothing of an earlier upstream of this name is left.
        ours = repository / "bot-bottle" / "gitconfig"
        ours.unlink(missing_ok=True)
        for name, value in {**_REPOSITORY_SETTINGS, **upstream.git_settings()}.items():
            _git("config", f"--file={ours}", name, value)
        for refs in _MIRRORED:
            _git("config", f"--file={ours}", "--add", "remote.upstream.fetch", refs)
        _git("config", f"--file={repository / 'config'}", "include.path", "bot-bottle/gitconfig")
        return repository

    def serve(self, repositories: Sequence[Path]) -> int:
        """Takes connections until a SIGTERM or SIGINT; returns the exit code.

        Raises:
            InvalidInputError: the port is taken.
        """
        signals = _signals()
        try:
            listener = socket.create_server(("", self.port), family=socket.AF_INET6, backlog=128, dualstack_ipv6=True)
        except OSError as error:
            raise InvalidInputError(
                f"port {self.port} (GIT_GATE_PORT) cannot be used: {os.strerror(error.errno or 0)}"
            ) from None
        _say(f"serving {', '.join(r.name for r in repositories) or 'no repository'} on port {self.port}")
        served = _Served(self, repositories, listener)
        # So that an upstream that does not answer shows in the log before the agent meets it.
        served.children |= {_spawn(str(self.root / "sync"), "start", str(path)) for path in repositories}
        with listener, selectors.DefaultSelector() as selector:
            selector.register(signals, selectors.EVENT_READ)
            while not served.turn(selector):
                pass
        _end(served.children)
        return 0


class _Served:
    """The connections of a gate. What begins like a packet of git's is handed to git daemon, all else is HTTP."""

    def __init__(self, gate: Gate, repositories: Sequence[Path], listener: socket.socket) -> None:
        self.children: set[int] = set()
        self._listener = listener
        self._silent: dict[socket.socket, float] = {}
        self._http: set[threading.Thread] = set()
        programs = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()
        self._daemon = (
            f"{programs}/git-daemon", "--inetd", f"--base-path={gate.root}", "--export-all",
            "--enable=receive-pack", f"--access-hook={gate.root / 'sync'}", "--informative-errors", "--init-timeout=30",
            "--log-destination=stderr", "--verbose",
            # With no directory at all it would serve every one.
            *(map(str, repositories) if repositories else [str(gate.root / "nothing")]),
        )  # fmt: skip
        self._stores = {
            upstream.name: lfs.Store(repository, upstream.object_format, gate.hook.max_file)
            for upstream, repository in zip(gate.upstreams, repositories, strict=True)
        }

    def turn(self, selector: selectors.BaseSelector) -> bool:
        """Waits for what happens next, and sees to it; is it the end?"""
        room = len(self.children) + len(self._silent) + len(self._http) < _CONNECTIONS
        if room != (self._listener in selector.get_map()):
            if room:
                selector.register(self._listener, selectors.EVENT_READ)
            else:
                selector.unregister(self._listener)
        first = min(self._silent.values(), default=None)
        # Unlike a process, a thread does not report that it has ended.
        patience = 1.0 if self._http else None if first is None else max(0.0, first - time.monotonic())
        for key, _ in selector.select(patience):
            if key.fileobj is self._listener:
                self._accept(selector)
            elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._silent:
                selector.unregister(key.fileobj)
                del self._silent[key.fileobj]
                self._begin(key.fileobj)
            elif any(number != signal.SIGCHLD for number in os.read(key.fd, 1024)):
                return True
        for connection in [each for each, until in self._silent.items() if until <= time.monotonic()]:
            selector.unregister(connection)
            del self._silent[connection]
            connection.close()
        self.children -= {child for child in self.children if _reap(child)}
        self._http = {thread for thread in self._http if thread.is_alive()}
        return False

    def _accept(self, selector: selectors.BaseSelector) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # the client has disconnected, or too many files are open
            return
        self._silent[connection] = time.monotonic() + _SILENCE
        selector.register(connection, selectors.EVENT_READ)

    def _begin(self, connection: socket.socket) -> None:
        try:
            start = connection.recv(1, socket.MSG_PEEK)
        except OSError:
            start = b""
        # git's packets begin with their length in hex; an HTTP method begins with a capital letter.
        if start and start in b"0123456789abcdef":
            with connection:
                self.children.add(_spawn(*self._daemon, connection=connection.fileno()))
        elif start:
            thread = threading.Thread(target=lfs.serve, args=(connection, self._stores), daemon=True)
            thread.start()
            self._http.add(thread)
        else:
            connection.close()


def _signals() -> int:
    """From now on a signal is a byte in what this returns, rather than an interruption."""
    told, wakeup = socket.socketpair()
    for each in (told, wakeup):
        each.setblocking(False)
    signal.set_wakeup_fd(wakeup.detach())
    for number in _WATCHED:
        signal.signal(number, lambda *_: None)
    return told.detach()


def main() -> int:
    """Serves until told to stop; returns the exit code."""
    try:
        gate = Gate.from_environment(os.environ)
        # Whatever git runs here, it is configured by the gate alone.
        os.environ.update(GIT_CONFIG_NOSYSTEM="1", GIT_CONFIG_GLOBAL=os.devnull, GIT_TERMINAL_PROMPT="0")
        return gate.serve(gate.prepare())
    except BotBottleError as error:
        _say(str(error))
        return error.exit_code
    except ModuleNotFoundError as error:
        _say(f"the Python module {error.name} is missing; install bot-bottle[git-gate]")
        return 1


def _read_upstreams(named: str | None) -> Sequence[Upstream]:
    # Here, not above: it needs a package that only this sidecar has, whose absence main() explains.
    from bot_bottle.documents.upstreams import read_upstreams

    path = Path(named or UPSTREAMS_FILE)
    if not named and not path.exists():
        return ()
    try:
        return read_upstreams(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} (GIT_GATE_UPSTREAMS) cannot be read: {error}") from None


def _check_user() -> None:
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        raise InvalidInputError(f"ssh does not run for uid {os.getuid()}, which has no line in /etc/passwd") from None


def _number(environment: Mapping[str, str], name: str, default: int, most: int = 2**31 - 1) -> int:
    text = environment.get(name) or str(default)
    if not text.isdecimal() or not 0 < int(text) <= most:
        raise InvalidInputError(f"{name} is {text!r}; it is a whole number from 1 to {most}")
    return int(text)


def _git(*arguments: str) -> None:
    done = subprocess.run(["git", *arguments], capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode:
        raise InvalidInputError(f"git {arguments[0]} failed: {done.stderr.strip()}")


def _spawn(*argv: str, connection: int | None = None) -> int:
    """Starts a program as the leader of a process group, so that a stop reaches whatever it starts in turn.

    With a connection it talks to that one; without, what it prints is for nobody.
    """
    actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    ]
    if connection is not None:
        actions = [(os.POSIX_SPAWN_DUP2, connection, 0), (os.POSIX_SPAWN_DUP2, connection, 1)]
    return os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions, setpgroup=0)


def _end(leaders: set[int]) -> None:
    """Ends these process groups: SIGTERM, on which a held push withdraws its proposal, and in the end SIGKILL."""
    for leader in leaders:
        _signal(leader, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_SECONDS
    while time.monotonic() < deadline:
        for leader in leaders:
            _reap(leader)
        if not any(_signal(leader, 0) for leader in leaders):
            return
        time.sleep(0.05)
    for leader in leaders:
        _signal(leader, signal.SIGKILL)


def _signal(leader: int, number: int) -> bool:
    """Sends it to a process group; is there any process left in it?"""
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        return False
    return True


def _reap(child: int) -> bool:
    """Has it ended?"""
    try:
        return os.waitpid(child, os.WNOHANG)[0] != 0
    except ChildProcessError:  # reaped before
        return True


def _say(sentence: str) -> None:
    print(f"git gate: {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
