"""Where are the agent's pushes forwarded to, and with which credential, which the agent never has?

The file is YAML: ``upstreams:``, a list of ``{name, url}`` and the credential. An ssh url needs ``key`` and
``known_hosts`` (nothing is trusted on first use), an https url ``token``; all three are paths of files.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, fields
from typing import Final
from urllib.parse import urlsplit

from bot_bottle.documents.git_urls import scheme
from bot_bottle.documents.plain_yaml import Node, PlainYamlError, parse, quoted
from bot_bottle.errors import InvalidInputError

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9_-])?")
ONCE: Final = "GIT_GATE_ONCE"
# ssh splits its options at blanks and quotes.
_PATH: Final = re.compile(r"/[^\s\"'\\%~]+")


@dataclass(frozen=True)
class Upstream:
    """A remote of the agent's, served as ``name``.git. The paths are files of this machine."""

    name: str
    url: str
    key: str = ""
    known_hosts: str = ""
    token: str = ""
    username: str = "x-access-token"
    object_format: str = "sha1"

    def git_settings(self) -> dict[str, str]:
        """What git is told so that it reaches this upstream, only this way and with nothing else's credentials."""
        kind = scheme(self.url)
        settings = {
            "remote.upstream.url": self.url,
            "protocol.allow": "never",
            f"protocol.{kind}.allow": "always",
            "credential.helper": "",
        }
        # What the repository itself says of its LFS server (.lfsconfig) is the agent's to write, and counts for less.
        lfs_url = _lfs_url(self.url, kind)
        settings |= {
            "lfs.url": lfs_url,
            "lfs.pushUrl": lfs_url,
            "lfs.skipDownloadErrors": "false",
            "lfs.allowIncompletePush": "false",
        }
        if kind == "ssh":
            options = {
                "BatchMode": "yes",
                "ConnectTimeout": "15",
                "GlobalKnownHostsFile": "/dev/null",
                "IdentitiesOnly": "yes",
                "IdentityAgent": "none",
                "ServerAliveInterval": "15",
                "StrictHostKeyChecking": "yes",
                "UpdateHostKeys": "no",
                "UserKnownHostsFile": self.known_hosts,
            }
            flags = [f"-o{name}={value}" for name, value in options.items()]
            settings["core.sshCommand"] = shlex.join(["ssh", "-F", "/dev/null", "-i", self.key, *flags])
        elif kind == "https":
            # git runs this as a shell function; it reads the file each time, so a token may be renewed.
            user, file = shlex.quote(self.username), shlex.quote(self.token)
            answer = f"printf 'username=%s\\npassword=%s\\n' {user} \"$(cat {file})\""
            # git-lfs asks again and again for a refused credential. It gets it once, with the file named here.
            once = f'test -z "${ONCE}" || rm "${ONCE}" 2>/dev/null'
            host = urlsplit(self.url).netloc.rpartition("@")[2]
            settings[f"credential.https://{host}.helper"] = (
                f'!f() {{ test "$1" != get || {{ {once}; }} && {answer}; }}; f'
            )
            # A redirect would take the token to wherever it points.
            settings["http.followRedirects"] = "false"
            settings |= {"http.lowSpeedLimit": "1", "http.lowSpeedTime": "60"}
            # So git-lfs need not find out that a credential is required, and store that.
            settings[f"lfs.{lfs_url}.access"] = "basic"
        return settings


def _lfs_url(url: str, kind: str) -> str:
    """Where git-lfs would look for the objects of a repository by itself (git-lfs, docs/api/server-discovery.md)."""
    if kind == "file":
        return f"file://{url.removeprefix('file://')}"
    if kind == "ssh":
        return url
    return url.rstrip("/").removesuffix(".git") + ".git/info/lfs"


def read_upstreams(text: str) -> list[Upstream]:
    """The upstreams that a configuration names.

    Raises:
        InvalidInputError: one sentence with the line.
    """
    try:
        root = parse(text)
    except PlainYamlError as error:
        raise _fail(error.line, str(error)) from None
    if root is None or not isinstance(root.value, dict) or set(root.value) != {"upstreams"}:
        raise _fail(1, "it is one key, upstreams, with a list")
    entries = root.value["upstreams"]
    if not isinstance(entries.value, list):
        raise _fail(entries.line, "upstreams is a list")
    found: dict[str, Upstream] = {}
    for entry in entries.value:
        upstream = _read_upstream(entry)
        if upstream.name in found:
            raise _fail(entry.line, f"there is another upstream {upstream.name}")
        found[upstream.name] = upstream
    return list(found.values())


def _read_upstream(entry: Node) -> Upstream:
    if not isinstance(entry.value, dict):
        raise _fail(entry.line, "an upstream has name, url and its credential")
    known = [field.name for field in fields(Upstream)]
    values: dict[str, str] = {}
    for key, node in entry.value.items():
        if key not in known or not isinstance(node.value, str):
            raise _fail(node.line, f"{quoted(key)} is not one of {', '.join(known)}, or not a text")
        values[key] = node.value
    if not _NAME.fullmatch(values.get("name", "")) or values["name"].endswith(".git"):
        raise _fail(entry.line, "name is lower-case letters, digits, '.', '_', '-', without .git")
    if not values.get("url"):
        raise _fail(entry.line, "an upstream has a url")
    if values.get("object_format", "sha1") not in ("sha1", "sha256"):
        raise _fail(entry.line, "object_format is sha1 or sha256")
    upstream = Upstream(**values)
    for name in _needed(entry.line, upstream):
        path = getattr(upstream, name)
        if not path:
            raise _fail(entry.line, f"{upstream.url} needs {name}: the path of a file")
        if not _PATH.fullmatch(path) or not os.path.isfile(path) or not os.access(path, os.R_OK):
            raise _fail(
                entry.line, f"{name} {quoted(path)} is not the absolute path, without blanks, of a readable file"
            )
    return upstream


def _needed(line: int, upstream: Upstream) -> tuple[str, ...]:
    """Names of the fields that this kind of url cannot do without."""
    kind = scheme(upstream.url)
    if kind == "ssh":
        return ("key", "known_hosts")
    if kind == "https":
        if urlsplit(upstream.url).password:
            raise _fail(line, "the url holds a password; put it into a file and give its path as token")
        return ("token",)
    if kind == "file":
        return ()
    raise _fail(line, f"the url {quoted(upstream.url)} is neither ssh (user@host:path), https nor an absolute path")


def _fail(line: int, problem: str) -> InvalidInputError:
    return InvalidInputError(f"the upstreams' file, line {line}: {problem}")
