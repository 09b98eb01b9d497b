"""How is the git gate's hook installed in a bare repository, and is the hook that is there the git gate's?

The hook is ``hook.sh`` beside this file, which starts ``bot-bottle-sidecar git-gate-hook``. Before an upstream it has
two names: git asks ``pre-receive`` whether a push may go through, and lets ``proc-receive`` update the refs.
Installing it also pins settings of the repository, each with its reason below.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final, Literal

from bot_bottle import TOOL_GITLEAKS_ALLOW, Proposal
from bot_bottle.errors import InvalidInputError

WAIT_SECONDS: Final = 600
# Far above what hosts take (GitHub: 100 MiB), and a scan of about a minute.
MAX_FILE_BYTES: Final = 512 * 1024 * 1024
KEY_BYTES: Final = 32
_MARK: Final = "# The git gate of bot-bottle "
_SETTINGS: Final = {
    # A pusher's own git configuration could otherwise point git past the hook.
    "core.hooksPath": "hooks",
    # A malformed tree could otherwise hold a file that no diff shows.
    "receive.fsckObjects": "true",
    # What old tools wrote into the heads of commits and tags stays in a history for good, and other hosts take it. None
    # of it changes which files and texts there are, so none of it hides anything from the scan.
    "receive.fsck.badTimezone": "ignore",
    "receive.fsck.zeroPaddedDate": "ignore",
    "receive.fsck.badDate": "ignore",
    "receive.fsck.badDateOverflow": "ignore",
    "receive.fsck.missingSpaceBeforeDate": "ignore",
    "receive.fsck.missingEmail": "ignore",
    "receive.fsck.badEmail": "ignore",
    "receive.fsck.missingNameBeforeEmail": "ignore",
    "receive.fsck.missingSpaceBeforeEmail": "ignore",
    "receive.fsck.multipleAuthors": "ignore",
    # "040000" instead of "40000" for a directory: old JGit and others, read as the same by every git.
    "receive.fsck.zeroPaddedFilemode": "ignore",
}
# git leaves every ref to the hook, which writes the ones that the upstream has taken.
_UPSTREAM_SETTINGS: Final = {"receive.procReceiveRefs": "refs"}
_HOOKS: Final = ("pre-receive", "proc-receive")
# What would end a path early: in GIT_ALTERNATE_OBJECT_DIRECTORIES, or in the TOML that gitleaks is given.
_UNFIT_REPOSITORY: Final = re.compile(r"""[:"\n]""")
_UNFIT_RULES: Final = re.compile(r"['\n]")


@dataclass(frozen=True)
class HookSettings:
    """What a repository's hook is told. ``helper`` and ``gitleaks`` are programs, by name or absolute path.

    ``database`` is empty where the environment of a push tells the helper; ``timeout`` is in seconds, ``max_file`` in
    bytes.
    """

    bottle: str
    database: str
    helper: str = "bot-bottle-sidecar"
    gitleaks: str = "gitleaks"
    rules: str = ""
    timeout: int = WAIT_SECONDS
    max_file: int = MAX_FILE_BYTES
    upstream: str = ""

    def check(self) -> None:
        """Refuses what the hook could not work with.

        Raises:
            InvalidInputError: the slug, a number or the path of gitleaks' rules.
        """
        Proposal.new(self.bottle, TOOL_GITLEAKS_ALLOW, "-")  # the core knows what a slug is
        if self.timeout < 1 or self.max_file < 1:
            raise InvalidInputError("the git gate's timeout and largest file are at least 1")
        if self.rules and (_UNFIT_RULES.search(self.rules) or not Path(self.rules).is_file()):
            raise InvalidInputError(f"{self.rules} is no file that gitleaks could read its rules from")


@dataclass(frozen=True)
class HookStatus:
    """The hook as it is; ``outdated`` is a hook of the git gate's that this release would write differently."""

    state: Literal["installed", "outdated", "foreign", "bypassed", "missing"]
    settings: HookSettings | None = None


def found_program(name: str) -> str:
    """Absolute path of a program, from this installation or ``PATH``; the bare name if it is in neither."""
    ours = shutil.which(name, path=sysconfig.get_path("scripts"))
    return ours or shutil.which(name) or name


def install(repository: Path, settings: HookSettings) -> Path:
    """Writes the hook, its key if there is none yet, and the pinned settings; returns the hook's path.

    Called again with other settings, it changes them. The key stays, so grants stay valid.

    Raises:
        InvalidInputError: not a bare repository, a hook of somebody else's, hooks that live elsewhere, or bad settings.
    """
    settings.check()
    repository = _bare(repository)
    status = read_status(repository)
    hook, passing_on = (repository / "hooks" / name for name in _HOOKS)
    if status.state == "foreign":
        raise InvalidInputError(f"{hook} is not the git gate's: move it away, or call it from elsewhere, then install")
    elsewhere = _config(repository, "core.hooksPath")
    if elsewhere not in ("", _SETTINGS["core.hooksPath"]):
        raise InvalidInputError(f"{repository} has its hooks in {elsewhere} (core.hooksPath): unset that, then install")

    state = repository / "bot-bottle"
    state.mkdir(mode=0o700, exist_ok=True)
    if not (state / "key").exists():
        _replace(state / "key", secrets.token_bytes(KEY_BYTES), 0o600)
    hook.parent.mkdir(exist_ok=True)
    text = _render(settings).encode()
    if settings.upstream:
        _replace(passing_on, text, 0o755)
    for name, value in (_SETTINGS | (_UPSTREAM_SETTINGS if settings.upstream else {})).items():
        if _config(repository, name) != value:
            _git(repository, "config", name, value)
    # Executable for everybody: a hook that the pushing user may not run is one that git skips.
    _replace(hook, text, 0o755)
    if not settings.upstream:
        _forget_upstream(repository)
    return hook


def _forget_upstream(repository: Path) -> None:
    for name, value in _UPSTREAM_SETTINGS.items():
        if _config(repository, name) == value:
            _git(repository, "config", "--unset", name)
    passing_on = repository / "hooks" / _HOOKS[1]
    if passing_on.is_file() and _MARK in passing_on.read_text("utf-8", "replace"):
        passing_on.unlink()


def uninstall(repository: Path) -> None:
    """Removes the hook, its key and the pinned settings. Pushes are no longer looked at.

    Raises:
        InvalidInputError: not a bare repository, or the hook is not the git gate's.
    """
    repository = _bare(repository)
    if read_status(repository).state in ("foreign", "missing"):
        raise InvalidInputError(f"{repository} has no hook of the git gate's; there is nothing to remove")
    (repository / "hooks" / _HOOKS[0]).unlink()
    _forget_upstream(repository)
    shutil.rmtree(repository / "bot-bottle", ignore_errors=True)
    for name, value in _SETTINGS.items():
        if _config(repository, name) == value:
            _git(repository, "config", "--unset", name)


def read_status(repository: Path) -> HookStatus:
    """Which hook is in ``repository``, and with what settings.

    Raises:
        InvalidInputError: not a bare repository.
    """
    repository = _bare(repository)
    hook = repository / "hooks" / _HOOKS[0]
    if not os.path.lexists(hook):
        return HookStatus("missing")
    try:
        text = hook.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return HookStatus("foreign")
    if _MARK not in text:
        return HookStatus("foreign")
    settings = _parse(text)
    if _config(repository, "core.hooksPath") != _SETTINGS["core.hooksPath"] or not os.access(hook, os.X_OK):
        return HookStatus("bypassed", settings)
    current = settings is not None and _render(settings) == text
    pinned = _SETTINGS | (_UPSTREAM_SETTINGS if settings and settings.upstream else {})
    current = current and all(_config(repository, name) == value for name, value in pinned.items())
    return HookStatus("installed" if current else "outdated", settings)


def _template() -> str:
    return files(__package__).joinpath("hook.sh").read_text("utf-8")


def _render(settings: HookSettings) -> str:
    values = asdict(settings)
    return re.sub(r"^(\w+)=@\1@", lambda m: f"{m[1]}={shlex.quote(str(values[m[1]]))}", _template(), flags=re.M)


def _parse(text: str) -> HookSettings | None:
    names = re.findall(r"^(\w+)=@\1@", _template(), re.M)
    values: dict[str, str] = {}
    for name in names:
        found = re.search(rf"^{name}=.*$", text, re.M)
        words = shlex.split(found[0], comments=True) if found else []
        if len(words) != 1:
            return None
        values[name] = words[0].partition("=")[2]
    return _settings(values)


def _settings(values: Mapping[str, str]) -> HookSettings | None:
    try:
        numbers = {name: int(values[name]) for name in ("timeout", "max_file")}
    except ValueError:
        return None
    texts = {name: value for name, value in values.items() if name not in numbers}
    return HookSettings(**texts, **numbers)  # type: ignore[arg-type]


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Replaces a file as a whole; a reader sees either the old or the new one."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
    os.replace(new, path)


def _bare(repository: Path) -> Path:
    path = repository.resolve()
    if _UNFIT_REPOSITORY.search(str(path)):
        raise InvalidInputError(f"{str(path)!r} holds a colon, a double quote or a newline, which git gives a meaning")
    if not path.is_dir():
        raise InvalidInputError(f"{path} is not there; make a bare repository with 'git init --bare {path}'")
    done = _run(path, "rev-parse", "--is-bare-repository")
    if done.stdout.strip() != "true":
        raise InvalidInputError(f"{path} is not a bare repository; the git gate is for the one that is pushed to")
    return path


def _config(repository: Path, name: str) -> str:
    """The repository's own setting, ``""`` if it has none."""
    return _run(repository, "config", "--local", name).stdout.strip()


def _git(repository: Path, *arguments: str) -> None:
    done = _run(repository, *arguments)
    if done.returncode:
        raise InvalidInputError(f"{repository} cannot be changed: {done.stderr.strip()}")


def _run(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = ["git", f"--git-dir={repository}", *arguments]
    return subprocess.run(argv, capture_output=True, encoding="utf-8", errors="replace", check=False)
