"""Does what `run --hooks` writes ask the sidecar, and end as a no whatever answers instead?"""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent_events import EVENTS
from bot_bottle import Inbox
from bot_bottle.agents import inside
from bot_bottle.errors import InvalidInputError
from mcp_sidecar import Sidecar, host
from needs import cannot

EVENT = json.dumps(EVENTS["codex", "PreToolUse"])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with host(tmp_path_factory.mktemp("host")) as path:
        yield path


@pytest.fixture(params=["curl", "node"])
def programs(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A PATH on which one of the two is."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", request.param):
        found = shutil.which(name)
        if found is None:
            cannot(f"{name} is not installed")
        (folder / name).symlink_to(os.path.realpath(found))
    return str(folder)


def ask(url: str, tmp_path: Path, programs: str) -> subprocess.Popen[str]:
    script = tmp_path / "ask"
    script.write_text(inside.files(url, every=True)["/etc/bot-bottle/ask"])
    process = subprocess.Popen(
        ["/bin/sh", str(script), "codex"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A proxy that does not answer: the sidecar is reached without.
        env={"PATH": programs, "http_proxy": "http://127.0.0.1:9"},
    )
    assert process.stdin
    process.stdin.write(EVENT)
    process.stdin.close()
    process.stdin = None
    return process


@pytest.mark.parametrize("status", ["approved", "rejected"])
def test_the_script_asks_and_prints_the_answer(root: Path, tmp_path: Path, programs: str, status: str) -> None:
    slug = f"{Path(programs).parent.name}".replace("_", "-").lower()[-40:].strip("-.")
    with Sidecar(root, slug) as sidecar, Inbox() as inbox:
        process = ask(sidecar.url, tmp_path, programs)
        for change in inbox.watch(0, timeout=60):
            if change.kind == "proposed" and change.bottle_slug == slug:
                digest = inbox.read(change.proposal_id).proposal.payload_sha256
                inbox.decide(change.proposal_id, status, payload_sha256=digest, notes="as told")
                break
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    if status == "approved":
        assert json.loads(out) == {}
    else:
        assert json.loads(out)["hookSpecificOutput"]["permissionDecisionReason"] == "operator: as told"


@contextmanager
def answering(status: int, body: bytes, length: int) -> Iterator[str]:
    """Something else than the sidecar; ``length`` is what it says the body's length is."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "length"),
    [(200, b"", 0), (200, b"<html>", 6), (500, b"{}", 2), (422, b"{}", 2), (200, b"{}", 3), (302, b"", 0)],
    ids=str,
)
def test_any_other_answer_is_a_no(tmp_path: Path, programs: str, status: int, body: bytes, length: int) -> None:
    with answering(status, body, length) as url:
        process = ask(url, tmp_path, programs)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert "so this is blocked" in err


def test_without_a_sidecar_or_a_program_to_ask_it_is_a_no(tmp_path: Path, programs: str) -> None:
    for path in (programs, str(tmp_path)):
        process = ask("http://127.0.0.1:9/", tmp_path, path)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (2, "")
        assert "so this is blocked" in err


def test_settings_of_the_image_stay() -> None:
    image = {
        "/etc/claude-code/managed-settings.json": b'{"hooks": {"PreToolUse": [{"hooks": []}]}, "model": "x"}',
        "/etc/opencode/opencode.json": b'{"plugin": ["own"]}',
    }
    files = inside.files("http://supervise:9100/", every=True, read=image.get)
    claude = json.loads(files["/etc/claude-code/managed-settings.json"])
    assert claude["model"] == "x" and len(claude["hooks"]["PreToolUse"]) == 2
    assert json.loads(files["/etc/opencode/opencode.json"])["plugin"] == ["own", "file:///etc/bot-bottle/opencode.js"]


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/etc/codex/requirements.toml", b""),
        ("/etc/claude-code/managed-settings.json", b"[]"),
        ("/etc/gemini-cli/settings.json", b"// a comment"),
        ("/etc/gemini-cli/settings.json", b'{"hooks": []}'),
        ("/etc/opencode/opencode.json", b"\xff"),
    ],
)
def test_settings_that_cannot_be_added_to_are_an_error(path: str, content: bytes) -> None:
    with pytest.raises(InvalidInputError, match=path):
        inside.files("http://supervise:9100/", every=False, read={path: content}.get)


def test_without_every_an_agent_asks_where_it_would_ask_its_user() -> None:
    files = inside.files("http://supervise:9100/", every=False)
    assert list(json.loads(files["/etc/claude-code/managed-settings.json"])["hooks"]) == ["PermissionRequest"]
    assert "[[hooks.PermissionRequest]]" in files["/etc/codex/requirements.toml"]
