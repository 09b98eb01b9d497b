"""Which routes are in force right now, as the managed file changes under a running proxy?

The file is looked at whenever a request is judged, so an approval that has been applied is in force for the very next
one. A file that cannot be read leaves the last good routes in force, and at the start nothing at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from bot_bottle.documents.routes import MAX_BYTES, Routes, load
from bot_bottle.errors import BotBottleError

_State = tuple[int, int, int, int]


class RoutesFile:
    """The routes of one file.

    Args:
        path: the managed ``routes.yaml``.
        report: told once of every change: what happened (``routes-loaded``, ``routes-refused``) and a sentence.
    """

    def __init__(self, path: str, report: Callable[[str, str], object]) -> None:
        self._path = path
        self._report = report
        self._routes = Routes()
        self._seen: _State | object | None = self  # neither a state nor "missing": the first look reports
        self._loaded = False

    def current(self) -> Routes:
        """The routes in force; reads the file if it changed since the last call."""
        state = self._state()
        if state != self._seen:
            self._seen = state
            self._reload()
        return self._routes

    def _state(self) -> _State | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)

    def _reload(self) -> None:
        kept = "the last good routes stay in force" if self._loaded else "everything is denied until it is mended"
        try:
            with open(self._path, "rb") as file:
                text = file.read(MAX_BYTES + 1).decode()
            routes = load(text)
        except OSError as error:
            self._report("routes-refused", f"{self._path} cannot be read ({error.strerror}); {kept}.")
        except UnicodeDecodeError as error:
            self._report("routes-refused", f"{self._path} is not UTF-8 at byte {error.start}; {kept}.")
        except BotBottleError as error:
            self._report("routes-refused", f"{error} {kept.capitalize()}.")
        else:
            self._routes, self._loaded = routes, True
            self._report("routes-loaded", f"{len(routes.routes)} routes in force.")
