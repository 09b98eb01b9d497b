"""How does a file that an operator names become the one that a bottle's sidecars read and approvals write?

The sidecars get the bottle's own directory, and nothing else of the host. So a file from elsewhere is copied there,
under the name by which the sidecars look for it: what is registered, mounted and read is one file.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from bot_bottle._native import (
    TOOL_CAPABILITY_BLOCK,
    TOOL_EGRESS_ALLOW,
    TOOL_EGRESS_BLOCK,
    bot_bottle_root,
)
from bot_bottle.documents import routes
from bot_bottle.errors import InvalidInputError, NotFoundError

NAMES: Final = {
    TOOL_EGRESS_ALLOW: "routes.yaml",
    TOOL_EGRESS_BLOCK: "routes.yaml",
    TOOL_CAPABILITY_BLOCK: "Dockerfile",
}
"""Tool to the name of its file, as the sidecars read it."""


class Source:
    """A file that was named for a tool, read and found to be one that its sidecar would load."""

    def __init__(self, slug: str, tool: str, path: str) -> None:
        """
        Args:
            path: as any program takes one: absolute, or from the current directory.

        Raises:
            InvalidInputError: the tool has no file, or the file is not one that its sidecar would load.
            NotFoundError: there is no such file.
        """
        if tool not in NAMES:
            raise InvalidInputError(f"{tool!r} is not a tool with a file: it is one of {', '.join(NAMES)}")
        self.tool: Final = tool
        self.path: Final = Path(os.path.abspath(path))
        self.own: Final = Path(bot_bottle_root(), "bottles", slug, NAMES[tool])
        self.content: Final = _read(self.path, optional=self.is_own)
        if self.content is not None:
            _check(self.path, self.own.name, self.content)

    @property
    def is_own(self) -> bool:
        """Is it the bottle's file itself? It may still have to be made, by an approval."""
        return self.path == self.own or (self.own.exists() and self.path.exists() and self.path.samefile(self.own))

    def place(self) -> bool:
        """Copies it to where the bottle's sidecars read it; false if it is there already.

        Raises:
            InvalidInputError: the bottle has another one, which approvals may have made what it is.
        """
        if self.is_own or self.content is None:
            return False
        before = _read(self.own, optional=True)
        if before == self.content:
            return False
        if before is not None:
            raise InvalidInputError(
                f"{self.path} is not what the bottle has in {self.own}, which approvals may have changed: name that "
                "file to go on with it, or remove it to begin again with yours"
            )
        write(self.own, self.content)
        return True


def write(path: Path, content: bytes) -> None:
    """Puts content in place of a file (0600), at once or not at all."""
    for folder in reversed(path.parents):
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def content(path: Path) -> bytes | None:
    """A bottle's file, if it has it.

    Raises:
        InvalidInputError: it is not a regular file, or longer than any that a sidecar loads.
    """
    return _read(path, optional=True)


def _read(path: Path, *, optional: bool) -> bytes | None:
    """What is in the file, if it is one; never waits on a pipe.

    Raises:
        NotFoundError: it does not exist and is not ``optional``.
        InvalidInputError: it is not a regular file, or longer than any that a sidecar loads.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if optional:
            return None
        raise NotFoundError(f"there is no file {path}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidInputError(f"{path} is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(routes.MAX_BYTES + 1)
    if len(content) > routes.MAX_BYTES:
        raise InvalidInputError(f"{path} is longer than {routes.MAX_BYTES:,} bytes")
    return content


def _check(path: Path, name: str, content: bytes) -> None:
    """Would the sidecar load it?

    Raises:
        InvalidInputError: it would not; the message says why.
    """
    try:
        text = content.decode()
        # A Dockerfile is read by the builder, who says what is wrong with it.
        if name == "routes.yaml":
            routes.load(text)
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path} is not UTF-8 text (byte {error.start})") from None
    except routes.RoutesError as error:
        raise InvalidInputError(f"{path} would not be loaded: {error}") from None
