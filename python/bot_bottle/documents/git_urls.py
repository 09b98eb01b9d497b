"""Which kind of url does a git remote have, and which spellings mean the same repository?"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

# user@host:path, as git and ssh know it
_SCP_LIKE: Final = re.compile(r"([\w.-]+)@([\w.-]+):([^:]+)")


def scheme(url: str) -> str:
    """``ssh``, ``https``, ``file`` or ``""`` for what the gate does not use."""
    if url.startswith("/"):
        return "file"
    if "://" not in url:
        return "ssh" if _SCP_LIKE.fullmatch(url) else ""
    try:
        parts = urlsplit(url)
        # An invalid port is only detected when it is used.
        found, _ = parts.scheme, parts.port
    except ValueError:
        return ""
    return found if found in ("ssh", "https", "file") else ""


def host(url: str) -> str:
    """The host of an ssh or https url, with ``[…]:port`` as in known_hosts where the port is not the usual one."""
    if found := _SCP_LIKE.fullmatch(url):
        return found[2]
    parts = urlsplit(url)
    name = parts.hostname or ""
    return f"[{name}]:{parts.port}" if parts.port and parts.port != 22 else name


def spellings(url: str) -> list[str]:
    """The url, and by what else a remote may name the same repository of the same server."""
    if scheme(url) == "file":
        return [url]
    if found := _SCP_LIKE.fullmatch(url):
        name, path = found[2], found[3]
    else:
        parts = urlsplit(url)
        if parts.port:
            return [url]
        name, path = parts.hostname or "", parts.path
    path = path.strip("/").removesuffix(".git")
    user = found[1] if found else "git"
    same = [f"{user}@{name}:{path}.git", f"ssh://{user}@{name}/{path}.git", f"https://{name}/{path}.git"]
    return list(dict.fromkeys([url, *same]))
