"""How do Git LFS objects get to the gate and back? By git-lfs's batch API, over HTTP on the gate's own port.

git-lfs sends objects before the push that names them. This module only stores them; the hook scans them with that push,
and forwards them if it may pass. If the gate does not have an object, ``git lfs`` fetches it from the upstream. The API
is described in docs/api/batch.md and basic-transfers.md of git-lfs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

_JSON: Final = "application/vnd.git-lfs+json"
_ROUTE: Final = re.compile(r"/([a-z0-9][a-z0-9._-]*?)(?:\.git)?/info/lfs/(.+)")
_OBJECT: Final = re.compile(r"objects/([0-9a-f]{64})/(\d{1,15})")
_OID: Final = re.compile(r"[0-9a-f]{64}")
_HOST: Final = re.compile(r"[A-Za-z0-9.:\[\]-]{1,300}")
# A batch of git-lfs has 100 objects.
_LONGEST_BATCH: Final = 1 << 20
# This much is kept for each repository; the least recently used objects are removed first.
_KEPT: Final = 8 << 30
_BLOCK: Final = 1 << 20
# A connection that says nothing for so long is closed, in seconds.
_SILENCE: Final = 60
_DOWNLOAD_SECONDS: Final = 900
# git-lfs asks for a batch again with each attempt: a failure of before is told there, which ends its attempts.
_REMEMBERED_SECONDS: Final = 30.0


class Refused(Exception):
    """Why a request is not served, in a sentence for the one who asks."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Object(NamedTuple):
    """An object by its SHA-256 and size."""

    oid: str
    size: int

    def pointer(self) -> str:
        """The file that stands for it in a repository."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.oid}\nsize {self.size}\n"


@dataclass
class Store:
    """The objects of one repository of the gate's, where git-lfs keeps them too."""

    repository: Path
    object_format: str
    largest: int
    failed: dict[str, tuple[float, str]] = field(default_factory=dict)
    """What the upstream did not give, by id: until when that is remembered, and why."""
    _room: int = 0
    """So many bytes more are kept before all objects are looked at again."""
    _looking: threading.Lock = field(default_factory=threading.Lock)

    def path(self, oid: str) -> Path:
        """Where an object is, or would be."""
        return self.repository / "lfs" / "objects" / oid[:2] / oid[2:4] / oid

    def _owed(self, oid: str) -> Path:
        return self.repository / "lfs" / "owed" / oid

    def has(self, found: Object) -> bool:
        """Is it here?"""
        path = self.path(found.oid)
        return path.is_file() and path.stat().st_size == found.size

    def wanted(self, objects: list[Object]) -> set[str]:
        """Which of these have to be sent: they are neither here nor, according to the gate's copy, at the upstream."""
        missing = [each for each in objects if not self.has(each)]
        asked = "".join(f"{_blob_id(each.pointer().encode(), self.object_format)}\n" for each in missing)
        argv = ["git", f"--git-dir={self.repository}", "cat-file", "--batch-check=%(objecttype)"]
        lines = subprocess.run(argv, input=asked, capture_output=True, text=True, check=True).stdout.splitlines()
        return {
            each.oid
            for each, line in zip(missing, lines, strict=True)
            if line != "blob" or self._owed(each.oid).exists()
        }

    def keep(self, wanted: Object, body: Any) -> None:
        """Reads an object and keeps it; an object that does not match its name is deleted.

        Raises:
            Refused: it has other content, ends early, or there is no room.
        """
        incoming = self.repository / "lfs" / "incoming"
        self.path(wanted.oid).parent.mkdir(parents=True, exist_ok=True)
        incoming.mkdir(exist_ok=True)
        self._owed(wanted.oid).parent.mkdir(exist_ok=True)
        self._make_room(wanted.size)
        digest, left = hashlib.sha256(), wanted.size
        with tempfile.NamedTemporaryFile(dir=incoming) as file:
            while left and (block := body.read(min(_BLOCK, left))):
                digest.update(block)
                file.write(block)
                left -= len(block)
            file.flush()
            if left or digest.hexdigest() != wanted.oid:
                raise Refused(422, "what was sent is not the object that its name says")
            self._owed(wanted.oid).touch()
            # Replaced at once: another push may send, fetch or scan the same object just now.
            os.link(file.name, whole := f"{file.name}.whole")
            os.replace(whole, self.path(wanted.oid))

    def fetch(self, wanted: Object) -> None:
        """Gets an object from the upstream.

        Raises:
            Refused: the upstream does not have it, or cannot be reached.
        """
        # Here, not above: it needs a package whose absence is for main() to explain.
        from bot_bottle.documents.upstreams import ONCE

        self._make_room(wanted.size)
        with tempfile.TemporaryDirectory(prefix="bot-bottle-") as directory:
            (once := Path(directory, "once")).touch()
            environment = os.environ | {"GIT_DIR": str(self.repository), ONCE: str(once)}
            try:
                done = subprocess.run(
                    ["git", "lfs", "smudge"], input=wanted.pointer().encode(), stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE, cwd=self.repository, env=environment, timeout=_DOWNLOAD_SECONDS,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise Refused(504, "the upstream takes too long to send it") from None
            finally:
                # git-lfs keeps a log of each failure, which the agent could have as many of as it likes.
                shutil.rmtree(self.repository / "lfs" / "logs", ignore_errors=True)
        if done.returncode or not self.has(wanted):
            said = done.stderr.decode("utf-8", "replace")
            print(f"git gate: {self.repository.name}: {' '.join(said.split())[:1000]}", file=sys.stderr, flush=True)
            why = f"the upstream's Git LFS does not give it to the gate: {_reason(said)}"
            self.failed[wanted.oid] = (time.monotonic() + _REMEMBERED_SECONDS, why)
            raise Refused(404, why)

    def failure(self, oid: str) -> str:
        """Why the upstream did not give it a moment ago; ``""`` if there is nothing to say."""
        until, why = self.failed.get(oid, (0.0, ""))
        if until > time.monotonic():
            return why
        self.failed.pop(oid, None)
        return ""

    def _make_room(self, size: int) -> None:
        with self._looking:
            self._room -= size
            if self._room >= 0:
                return
            found = []
            for path in (self.repository / "lfs" / "objects").glob("??/??/*"):
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                found.append((status.st_mtime, status.st_size, path))
            self._room = _KEPT - sum(taken for _, taken, _ in found) - size
            # Somewhat more than has to go, so that the next objects need no look at all of them again.
            enough = 0 if self._room >= 0 else _KEPT // 16
            for _, taken, path in sorted(found):
                if self._room >= enough:
                    return
                path.unlink(missing_ok=True)
                self._room += taken


class Handler(BaseHTTPRequestHandler):
    """Serves one connection; ``server`` is the stores by name."""

    protocol_version = "HTTP/1.1"
    server_version = "bot-bottle"
    sys_version = ""
    timeout = _SILENCE

    def do_POST(self) -> None:
        """The batch API."""
        self._answer(self._batch)

    def do_PUT(self) -> None:
        """An object from the agent."""
        self._answer(self._take)

    def do_GET(self) -> None:
        """An object for the agent."""
        self._answer(self._give)

    def _answer(self, serve: Any) -> None:
        try:
            found = _ROUTE.fullmatch(self.path)
            store = cast(Mapping[str, Store], self.server).get(found[1]) if found else None
            if not found or not store:
                raise Refused(404, "there is no such repository at this gate")
            if shutil.which("git-lfs") is None:
                raise Refused(501, "this gate has no git-lfs; ask its operator to install it there")
            if found[2].partition("?")[0].partition("/")[0] == "locks":
                # git-lfs goes on without locks when it hears 404 (docs/api/locking.md of git-lfs).
                raise Refused(404, "this gate passes on objects of Git LFS, but no locks")
            serve(store, found[2])
        except Refused as refused:
            self._refuse(refused.status, str(refused))
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except OSError as error:
            print(f"git gate: a Git LFS object: {error}", file=sys.stderr, flush=True)
            self._refuse(507, f"the git gate cannot keep it: {error.strerror}")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server itself refuses, such as another method, is refused in JSON as well."""
        # Its 501 is about the method alone, for which HTTP has a status of its own (RFC 9110, 15.5.6).
        status, why = (405, "Git LFS needs GET, POST and PUT alone") if code == 501 else (code, message or "")
        self._refuse(status, why)

    def _refuse(self, status: int, why: str) -> None:
        # What was sent along has perhaps not been read.
        self.close_connection = True
        self._send(status, {"message": f"bot-bottle: {why}"})

    def _send(self, status: int, answer: Mapping[str, object]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", _JSON)
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def _length(self, most: int) -> int:
        given = self.headers.get("Content-Length", "")
        if not given.isdecimal() or "Transfer-Encoding" in self.headers:
            raise Refused(411, "a request has a Content-Length")
        if int(given) > most:
            raise Refused(413, f"it has {given} bytes; the gate takes up to {most}")
        return int(given)

    def _batch(self, store: Store, path: str) -> None:
        length = self._length(_LONGEST_BATCH)
        if path != "objects/batch":
            raise Refused(404, "there is only objects/batch here")
        try:
            asked = json.loads(self.rfile.read(length))
            operation, transfers = asked["operation"], list(asked.get("transfers") or ["basic"])
            objects = [Object(str(each["oid"]), int(each["size"])) for each in asked["objects"]]
        except (ValueError, KeyError, TypeError):
            raise Refused(422, "this is no batch of Git LFS") from None
        host = self.headers.get("Host", "")
        if operation not in ("upload", "download") or not _HOST.fullmatch(host):
            raise Refused(422, "this is no batch of Git LFS")
        if not all(_OID.fullmatch(each.oid) and 0 <= each.size < 10**15 for each in objects):
            raise Refused(422, "an object of Git LFS has a SHA-256 and a size")
        if "basic" not in transfers:
            raise Refused(422, "this gate has the transfer basic alone")
        if asked.get("hash_algo", "sha256") != "sha256":
            raise Refused(409, "objects are named by their SHA-256")
        wanted = store.wanted(objects) if operation == "upload" else {each.oid for each in objects}
        base = f"http://{host}{self.path.removesuffix('batch')}"
        answers: list[dict[str, object]] = []
        for each in objects:
            answer: dict[str, object] = {"oid": each.oid, "size": each.size}
            if operation == "upload" and each.size > store.largest:
                why = f"bot-bottle: it has {each.size} bytes; above {store.largest} it is not scanned and cannot pass"
                answer["error"] = {"code": 413, "message": why}
            elif operation == "download" and (why := store.failure(each.oid)):
                answer["error"] = {"code": 404, "message": f"bot-bottle: {why}"}
            elif each.oid in wanted:
                answer["actions"] = {operation: {"href": f"{base}{each.oid}/{each.size}"}}
            answers.append(answer)
        self._send(200, {"transfer": "basic", "objects": answers, "hash_algo": "sha256"})

    def _take(self, store: Store, path: str) -> None:
        wanted = _object(path)
        if self._length(store.largest) != wanted.size:
            raise Refused(422, f"this object has {wanted.size} bytes")
        store.keep(wanted, self.rfile)
        self._send(200, {})

    def _give(self, store: Store, path: str) -> None:
        wanted = _object(path)
        if not store.has(wanted):
            store.fetch(wanted)
        with store.path(wanted.oid).open("rb") as file:
            os.utime(file.fileno())
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(wanted.size))
            self.end_headers()
            self.wfile.flush()
            self.connection.sendfile(file)

    def log_message(self, format: str, *args: object) -> None:
        """As git daemon logs its requests."""
        print(f"git gate: {format % args}", file=sys.stderr, flush=True)


def serve(connection: socket.socket, stores: Mapping[str, Store]) -> None:
    """Serves one connection to its end."""
    with connection:
        try:
            Handler(connection, ("", 0), cast(Any, stores))
        except (ConnectionError, TimeoutError):
            return


def _object(path: str) -> Object:
    found = _OBJECT.fullmatch(path)
    if not found:
        raise Refused(404, "there is no such object")
    return Object(found[1], int(found[2]))


def _blob_id(content: bytes, object_format: str) -> str:
    return hashlib.new(object_format, b"blob %d\0" % len(content) + content).hexdigest()


def _reason(said: str) -> str:
    for sign, reason in [
        ("missing object", "it is not there"),
        ("404", "it is not there"),
        ("redentials for", "the gate's credential is not taken (401); the operator has to renew it"),
        ("uthorization error", "the gate's credential may not do that (403)"),
        ("no such host", "its host name is not known (DNS)"),
        ("connection refused", "nothing answers there (connection refused)"),
    ]:
        if sign in said:
            return reason
    return "the gate's log says why"
