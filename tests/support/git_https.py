"""What does a hosted upstream look like to the git gate's tests? TLS, a token, git's http-backend, and Git LFS."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from git_pushes import environment


@dataclass
class HttpsUpstream:
    """A server that takes user ``bot`` with token ``t0ken``, notes who asked, and keeps objects of Git LFS."""

    home: Path
    port: int = 0
    asked: list[str] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    """By their SHA-256."""
    refuses_objects: bool = False
    hangs_up: str = ""
    """``before`` or ``after`` it has taken a push."""

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/origin.git"

    @property
    def certificate(self) -> Path:
        return self.home / "tls.crt"


class _Backend(http.server.BaseHTTPRequestHandler):
    upstream: HttpsUpstream

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "")
        self.upstream.asked.append(base64.b64decode(given.removeprefix("Basic ")).decode())
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.upstream.asked[-1] != "bot:t0ken":
            self.answer(401, b"", {"WWW-Authenticate": 'Basic realm="git"'})
        elif "/info/lfs/objects/" in self.path:
            self.lfs(body)
        else:
            self.git(body)

    do_POST = do_PUT = do_GET

    def answer(self, status: int, content: bytes, fields: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**fields, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def lfs(self, body: bytes) -> None:
        """git-lfs, docs/api/batch.md."""
        kept, name = self.upstream.objects, self.path.rpartition("/")[2]
        form = {"Content-Type": "application/vnd.git-lfs+json"}
        if self.command == "GET":
            self.answer(200, kept[name], {})
        elif self.command == "PUT" and self.upstream.refuses_objects:
            self.answer(422, json.dumps({"message": "no room for large files"}).encode(), form)
        elif self.command == "PUT":
            assert hashlib.sha256(body).hexdigest() == name
            kept[name] = body
            self.answer(200, b"", {})
        else:
            batch = json.loads(body)
            operation, answers = batch["operation"], []
            for each in batch["objects"]:
                answer = {"oid": each["oid"], "size": each["size"], "authenticated": False}
                href = f"{self.upstream.url}/info/lfs/objects/{each['oid']}"
                if (operation == "download") == (each["oid"] in kept):
                    answer["actions"] = {operation: {"href": href}}
                elif operation == "download":
                    answer["error"] = {"code": 404, "message": "missing object"}
                answers.append(answer)
            self.answer(200, json.dumps({"transfer": "basic", "objects": answers}).encode(), form)

    def git(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        pushed = path.endswith("/git-receive-pack") and len(body) > 4
        self.close_connection = pushed and self.upstream.hangs_up != ""
        if pushed and self.upstream.hangs_up == "before":
            return
        done = subprocess.run(
            ["git", "http-backend"],
            input=body,
            capture_output=True,
            env=environment(
                self.upstream.home,
                GIT_PROJECT_ROOT=str(self.upstream.home),
                GIT_HTTP_EXPORT_ALL="1",
                PATH_INFO=path,
                QUERY_STRING=query,
                REQUEST_METHOD=self.command,
                REMOTE_USER="bot",
                CONTENT_TYPE=self.headers.get("Content-Type", ""),
                HTTP_CONTENT_ENCODING=self.headers.get("Content-Encoding", ""),
                GIT_PROTOCOL=self.headers.get("Git-Protocol", ""),
            ),
        )
        if self.close_connection:
            return
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.answer(int(fields.pop("Status", "200").split()[0]), content, fields)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def https(tmp_path: Path) -> Iterator[HttpsUpstream]:
    """A hosted upstream in front of ``origin.git``."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", tmp_path / "tls.key",
         "-out", tmp_path / "tls.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    upstream = HttpsUpstream(tmp_path)
    handler = type("Backend", (_Backend,), {"upstream": upstream})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    upstream.port = server.server_port
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield upstream
    server.shutdown()
    thread.join()
