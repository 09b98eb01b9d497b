"""How do the agent's git remotes lead through the gate? ``upstreams.yaml`` for the gate, ``insteadOf`` for git."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from bot_bottle.documents.git_urls import host, scheme, spellings
from bot_bottle.errors import InvalidInputError
from bot_bottle.launch.managed import write
from bot_bottle.launch.plan import BOTTLE_DIR_IN_CONTAINER

FILE: Final = "upstreams.yaml"
_FOLDER: Final = "git"


class Remote(NamedTuple):
    """A remote that the gate serves."""

    name: str
    url: str
    credential: Path
    """A file of the host: a private key for ssh, a token for https."""


class Remotes(NamedTuple):
    """The gate's upstreams: its file, and what has to lie beside it."""

    text: str
    """``upstreams.yaml``; it is JSON, which is YAML."""
    copies: tuple[tuple[Path, str], ...]
    """A file of the host, and where a copy of it goes in the bottle's directory."""
    settings: str
    """git's own, for the agent: which urls mean the gate."""


def read(text: str) -> Remote:
    """``URL[=FILE]`` as a remote.

    Raises:
        InvalidInputError: the gate does not accept this url, or its credential is missing.
    """
    url, _, file = text.rpartition("=") if "=" in text else (text, "", "")
    kind = scheme(url)
    if kind not in ("ssh", "https"):
        raise InvalidInputError(f"{url!r} is neither an https url nor an ssh one such as git@github.com:me/app.git")
    if not file:
        what = "a private key" if kind == "ssh" else "a file with a token"
        raise InvalidInputError(f"the gate needs {what} for {url}: --git {url}=FILE")
    path = Path(os.path.abspath(os.path.expanduser(file)))
    if not path.is_file() or not os.access(path, os.R_OK):
        raise InvalidInputError(f"{path}, for {url}, is not a file that can be read")
    last = url.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1].removesuffix(".git").lower()
    name = re.sub(r"[^a-z0-9._-]", "-", last).strip("-._")[:60]
    if not name:
        raise InvalidInputError(f"{url} ends in no name for a repository")
    return Remote(name, url, path)


def plan(remotes: Sequence[Remote], before: str | None) -> Remotes | None:
    """The gate's upstreams with these remotes beside those that it has; ``None``: there are none, or others wrote them.

    Raises:
        InvalidInputError: somebody else wrote the ``upstreams.yaml``, or a server's host key is unknown.
    """
    known = _ours(before)
    if known is None:
        if remotes:
            raise InvalidInputError(f"the bottle has an {FILE} of your own: add the remotes there, without --git")
        return None
    upstreams = {each["name"]: each for each in known}
    copies: list[tuple[Path, str]] = []
    for remote in remotes:
        others = {each["name"] for each in upstreams.values() if each["url"] != remote.url}
        name = next(n for n in (remote.name, *(f"{remote.name}-{i}" for i in range(2, 1000))) if n not in others)
        upstreams[name] = {"name": name, "url": remote.url}
        kind = "key" if scheme(remote.url) == "ssh" else "token"
        copies.append((remote.credential, f"{_FOLDER}/{name}.{kind}"))
        upstreams[name][kind] = f"{BOTTLE_DIR_IN_CONTAINER}/{_FOLDER}/{name}.{kind}"
        if kind == "key":
            copies.append((_known_hosts(remote.url), f"{_FOLDER}/{name}.known_hosts"))
            upstreams[name]["known_hosts"] = f"{BOTTLE_DIR_IN_CONTAINER}/{_FOLDER}/{name}.known_hosts"
    if not upstreams:
        return None
    whole = list(upstreams.values())
    text = json.dumps({"upstreams": whole}, indent=2) + "\n"
    return Remotes(text, tuple(copies), _settings(whole))


def place(bottle_dir: Path, remotes: Remotes) -> None:
    """Writes the gate's file and the copies beside it, all 0600."""
    (bottle_dir / _FOLDER).mkdir(mode=0o700, exist_ok=True)
    for source, name in remotes.copies:
        write(bottle_dir / name, source.read_bytes())
    write(bottle_dir / FILE, remotes.text.encode())


def _ours(text: str | None) -> list[dict[str, Any]] | None:
    """The entries of a file that this has written; ``None`` if somebody else has."""
    if text is None:
        return []
    try:
        entries = json.loads(text)["upstreams"]
        return [
            {str(key): str(value) for key, value in each.items()} for each in entries if each["name"] and each["url"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _settings(upstreams: Iterable[dict[str, Any]]) -> str:
    # The gate takes objects of Git LFS by plain HTTP, in the bottle's own network, and has no locks.
    lines = ["[lfs]", "\tgitprotocol = http", "\tlocksverify = false"]
    for each in upstreams:
        lines.append(f'[url "git://git-gate:9418/{each["name"]}.git"]')
        lines += [f"\tinsteadOf = {json.dumps(url)}" for url in spellings(each["url"])]
    return "\n".join(lines) + "\n"


def _known_hosts(url: str) -> Path:
    """The user's own list of host keys, if it has the server's."""
    file, name = Path.home() / ".ssh" / "known_hosts", host(url)
    find = ["ssh-keygen", "-F", name, "-f", str(file)]
    known = shutil.which("ssh-keygen") is None or subprocess.run(find, capture_output=True).returncode == 0
    if known and file.is_file():
        return file
    raise InvalidInputError(
        f"{file} has no key of {name}, and none is trusted on first use: 'ssh {name}' once, and compare what it shows"
    )
