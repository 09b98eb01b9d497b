"""How does an agent reach its git remotes without their credentials, and never past the scan?

``python -m bot_bottle.sidecars.git_gate`` keeps a bare repository for each upstream and serves them with git daemon.
Before each request the repository is brought to what its upstream has; each push is scanned and passed on. All of
that is ``bot-bottle-sidecar git-gate-hook``, which the hooks of the repositories start.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bot_bottle.errors import BotBottleError, InvalidInputError
from bot_bottle.sidecars.git_gate.hook import MAX_FILE_BYTES, WAIT_SECONDS, HookSettings, found_program, install

if TYPE_CHECKING:
    from bot_bottle.documents.upstreams import Upstream

UPSTREAMS_FILE: Final = "/etc/bot-bottle/upstreams.yaml"
ROOT: Final = "/var/lib/git-gate"
PORT: Final = 9418
# At git daemon's own limit of 32 it ends connections to make room for others, and a held push is one. Each costs a few
# processes, so there is a limit all the same.
_CONNECTIONS: Final = 512
# Of the eight seconds that the bundle gives its daemons: time for a held push to take its proposal back.
_GRACE_SECONDS: Final = 5.0
_WATCHED: Final = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
_MIRRORED: Final = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+refs/notes/*:refs/notes/*")
# git daemon starts this at each request with the service and the repository.
_SYNC: Final = """\
#!/bin/sh
cd "$2" && exec hooks/pre-receive sync
echo "bot-bottle: the git gate is not complete; tell its operator"
exit 1
"""
_REPOSITORY_SETTINGS: Final = {
    # Whether the default branch may go is the upstream's to say.
    "receive.denyDeleteCurrent": "ignore",
    "receive.maxInputSize": "1g",
    "receive.advertisePushOptions": "true",
    # For partial clones (--filter); what they ask for later is served as well.
    "uploadpack.allowFilter": "true",
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
            # Otherwise the helper knows: it is this environment's, or behind the host's broker.
            # The helper finds a broker in its own environment; a path given to it would win.
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
        """Runs git daemon until it ends or a SIGTERM or SIGINT; returns the exit code."""
        # Blocked before the first child: a stop that comes early waits to be taken below.
        signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        daemon = _spawn(
            "git", "daemon", f"--port={self.port}", f"--base-path={self.root}", "--reuseaddr", "--export-all",
            "--enable=receive-pack", f"--access-hook={self.root / 'sync'}", "--informative-errors", "--init-timeout=30",
            f"--max-connections={_CONNECTIONS}", "--log-destination=stderr", "--verbose",
            # With no directory at all it would serve every one.
            *(map(str, repositories) if repositories else [str(self.root / "nothing")]),
        )  # fmt: skip
        _say(f"serving {', '.join(r.name for r in repositories) or 'no repository'} on port {self.port}")
        # So that an upstream that does not answer shows in the log before the agent meets it.
        children = {daemon, *(_spawn(str(self.root / "sync"), "start", str(path)) for path in repositories)}
        while True:
            if signal.sigwait(_WATCHED) != signal.SIGCHLD:
                _end(children)
                return 0
            for child in sorted(children):
                pid, status = os.waitpid(child, os.WNOHANG)
                if pid:
                    children.discard(pid)
                if pid == daemon:
                    _say("git daemon ended")
                    _end({daemon, *children})
                    return os.waitstatus_to_exitcode(status) or 1


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


def _spawn(*argv: str) -> int:
    """Starts a program as the leader of a process group, so that a stop reaches whatever it starts in turn."""
    # Its standard output is git's to write to; what it has to tell us goes to standard error.
    silent = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
    return os.posix_spawnp(argv[0], argv, os.environ, file_actions=[silent], setpgroup=0, setsigmask=())


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


def _reap(child: int) -> None:
    try:
        os.waitpid(child, os.WNOHANG)
    except ChildProcessError:  # reaped before
        return


def _say(sentence: str) -> None:
    print(f"git gate: {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
