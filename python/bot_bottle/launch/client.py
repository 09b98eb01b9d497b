"""How does bot-bottle ask Docker what the engine has, and read and write files of a container?"""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from bot_bottle.errors import BotBottleError, InvalidInputError

_PATIENCE: Final = 120
# Of a file in a container, which an agent may have written.
_MOST_BYTES: Final = 4 << 20


class File(NamedTuple):
    """A file to be put into a container."""

    content: bytes
    owner: tuple[int, int] = (0, 0)
    mode: int = 0o644


def security() -> list[str]:
    """What the engine says of how it is secured, as ``docker info`` lists it.

    Raises:
        InvalidInputError: there is no client, or no engine that answers.
    """
    said = _run("info", "--format", "{{json .SecurityOptions}}")
    if said is None:
        raise InvalidInputError("docker is not installed here: install Docker Engine to run a bottle")
    try:
        options = json.loads(said.stdout or b"null")
    except ValueError:
        options = None
    if said.returncode != 0 or not isinstance(options, list):
        raise InvalidInputError(f"no Docker Engine answers: {_problem(said)}")
    return [str(option) for option in options]


def inspect(kind: str, name: str) -> dict[str, Any] | None:
    """What the engine knows of a container, network, volume or image; ``None`` if it does not exist."""
    said = _run(kind, "inspect", name)
    if said is None or said.returncode != 0:
        return None
    try:
        found: dict[str, Any] = dict(json.loads(said.stdout)[0])
    except (ValueError, TypeError, LookupError):
        raise BotBottleError(f"docker's answer about {name} cannot be read") from None
    return found


def run(*words: str, environment: Mapping[str, str] | None = None, show: bool = False) -> str:
    """Runs the client; what it says on standard output.

    Args:
        show: its standard error goes to the operator, who is waiting for a download.

    Raises:
        BotBottleError: it failed, with the last thing it said.
    """
    try:
        done = subprocess.run(
            ["docker", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if show else subprocess.PIPE,
            env=None if environment is None else dict(environment),
        )
    except OSError as error:
        raise InvalidInputError(f"docker cannot be run: {error.strerror}") from None
    if done.returncode != 0:
        raise BotBottleError(f"'docker {words[0]}' ended with {done.returncode}: {_problem(done)}")
    return done.stdout.decode(errors="replace").strip()


def attempt(*words: str, patience: float = _PATIENCE) -> subprocess.CompletedProcess[bytes]:
    """Runs the client, and returns however it ended.

    Raises:
        InvalidInputError: there is no client, or it cannot be run.
        BotBottleError: it has not ended after ``patience`` seconds.
    """
    done = _run(*words, patience=patience)
    if done is None:
        raise InvalidInputError("docker is not installed here")
    return done


def exists(container: str, path: str) -> bool:
    """Whether a container's file system has this path. It need not run."""
    with subprocess.Popen(
        ["docker", "cp", f"{container}:{path}", "-"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as copy:
        # The head of the archive says enough: what it is of may be large.
        head = copy.stdout.read(512) if copy.stdout else b""
        copy.kill()
    return len(head) == 512


def read(container: str, path: str) -> bytes | None:
    """A file of a container, links followed; ``None`` if it does not exist.

    Raises:
        ValueError: it is not a regular file, or too large for one of those that are read here.
    """
    import tarfile

    with subprocess.Popen(
        ["docker", "cp", "--follow-link", f"{container}:{path}", "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as copy:
        archive = copy.stdout.read(_MOST_BYTES + 4096) if copy.stdout else b""
        copy.kill()
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            member = tar.next()
            if member is None:
                return None
            file = tar.extractfile(member) if member.isreg() and member.size <= _MOST_BYTES else None
            if file is None:
                raise ValueError(f"{path} is not a regular file of at most {_MOST_BYTES:,} bytes")
            return file.read()
    except tarfile.TarError:
        return None


def write(container: str, files: Mapping[str, File], folders: Mapping[str, tuple[int, int]]) -> None:
    """Puts files into a container that does not run yet.

    Args:
        files: by absolute path. Directories on the way that the container lacks become root's.
        folders: directories to make, or to give to an owner, parents first.

    Raises:
        BotBottleError: the engine refused.
    """
    import tarfile  # nobody who only asks for the state of bottles should wait for it

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, (uid, gid) in folders.items():
            folder = tarfile.TarInfo(path.lstrip("/"))
            folder.type, folder.mode, folder.uid, folder.gid = tarfile.DIRTYPE, 0o755, uid, gid
            tar.addfile(folder)
        for path, each in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode, (entry.uid, entry.gid) = len(each.content), each.mode, each.owner
            tar.addfile(entry, io.BytesIO(each.content))
    done = subprocess.run(["docker", "cp", "-", f"{container}:/"], input=archive.getvalue(), capture_output=True)
    if done.returncode != 0:
        raise BotBottleError(f"files cannot be put into {container}: {_problem(done)}")


def first(container: str, programs: Iterable[str], folders: Sequence[str]) -> str | None:
    """The first of these programs that a container has, in these directories or by an absolute path."""
    for program in programs:
        places = [program] if program.startswith("/") else [f"{folder}/{program}" for folder in folders]
        if any(exists(container, place) for place in places):
            return program
    return None


def _run(*words: str, patience: float = _PATIENCE) -> subprocess.CompletedProcess[bytes] | None:
    try:
        return subprocess.run(["docker", *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=patience)
    except FileNotFoundError:
        return None
    except subprocess.TimeoutExpired:
        raise BotBottleError(f"docker did not answer within {patience:g} s") from None
    except OSError as error:
        raise InvalidInputError(f"docker cannot be run: {error.strerror or error}") from None


def _problem(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = [line for line in (done.stderr or b"").decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"
