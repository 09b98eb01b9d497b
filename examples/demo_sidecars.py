"""How do the three sidecars serve an agent? Scenes of `make demo`: MCP, the egress proxy and the git gate, for real.

Each sidecar is the process that runs in the bundle image, here on loopback. A scene whose tool is missing says so.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from bot_bottle import Inbox, bot_bottle_root, host_db_path

ALLOWED = "api.example.test"


@contextmanager
def sidecar(name: str, listening: str, **settings: str) -> Iterator[int]:
    """A sidecar's process until the end of the block; the port it listens on, as its log's line says."""
    environment = {**os.environ, "SUPERVISE_DB_PATH": host_db_path(), **settings}
    process = subprocess.Popen(
        [sys.executable, "-m", f"bot_bottle.sidecars.{name}"], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = ""
    while not (found := re.search(listening, said)):
        line = process.stderr.readline()
        if not line:
            sys.exit(f"demo: the sidecar {name} did not start: {said}")
        said += line
    drain = threading.Thread(target=process.stderr.read, daemon=True)
    drain.start()
    try:
        yield int(found[1])
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def upstream() -> Iterator[int]:
    """A server somewhere in the world."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello from the other side")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()


def fetch(proxy: int) -> str:
    """What the agent gets for its host through the proxy, in a line."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": f"http://127.0.0.1:{proxy}"}))
    print(f"agent    $ curl http://{ALLOWED}/", flush=True)
    try:
        with opener.open(f"http://{ALLOWED}/", timeout=20) as answer:
            said = f"{answer.status} {answer.read().decode()}"
    except urllib.error.HTTPError as refusal:
        said = f"{refusal.code} {json.dumps(json.loads(refusal.read()))}"
    print(f"    {said}", flush=True)
    return said


async def ask(port: int, routes: str) -> str:
    """An MCP client, as agents have one, asks for the host; what it is told."""
    from mcp.client import Client

    async with Client(f"http://127.0.0.1:{port}/") as client:
        print("agent      calls the MCP tool `allow` with a new routes.yaml", flush=True)
        result = await client.call_tool("allow", {"proposed_file": routes, "justification": "the task's API"})
    assert isinstance(result.structured_content, dict), result
    return str(result.structured_content["message"])


def network(bottle: str, inbox: Inbox, newest: Callable[[Inbox], str], operator: Callable[..., str]) -> None:
    """The agent is refused a host, asks for it over MCP, and gets through."""
    if not importlib.util.find_spec("mcp"):
        print("    skipped: the MCP SDK is not installed (pip install 'bot-bottle[supervise]')")
        return
    directory = Path(bot_bottle_root(), "bottles", bottle)
    routes = directory / "routes.yaml"
    common = {"SUPERVISE_BOTTLE_SLUG": bottle}
    with (
        upstream() as server,
        sidecar(
            "egress",
            r"listening on port (\d+)",
            **common,
            EGRESS_HOST="127.0.0.1",
            EGRESS_PORT="0",
            EGRESS_ROUTES_FILE=str(routes),
            EGRESS_CONFDIR=str(Path(bot_bottle_root(), "egress")),
            EGRESS_CONNECT_TO=f"{ALLOWED}:80=127.0.0.1:{server}",
        ) as proxy,
        sidecar(
            "supervise",
            r"http://127\.0\.0\.1:(\d+)/",
            **common,
            SUPERVISE_HOST="127.0.0.1",
            SUPERVISE_PORT="0",
            SUPERVISE_FILES_DIR=str(directory),
        ) as supervise,
    ):
        fetch(proxy)
        told: list[str] = []
        wanted = routes.read_text() + f"  - host: {ALLOWED}\n"
        agent = threading.Thread(target=lambda: told.append(asyncio.run(ask(supervise, wanted))))
        agent.start()
        operator("approve", newest(inbox), "--yes", "--notes", "the task needs it")
        agent.join()
        print(f"agent      is told: {told[0]}", flush=True)
        if not fetch(proxy).startswith("200"):
            sys.exit("demo: the approved host was not let through")


def push(bottle: str, root: Path, inbox: Inbox, newest: Callable[[Inbox], str], operator: Callable[..., str]) -> None:
    """The agent pushes a leaked token; the operator lets it pass, on the record."""
    gopath = Path.home() / "go/bin"
    gitleaks = shutil.which("gitleaks") or shutil.which("gitleaks", path=gopath)
    if not gitleaks or not shutil.which("git"):
        print("    skipped: gitleaks is not installed (go install github.com/zricethezav/gitleaks/v8@latest)")
        return
    remote, work = root / "gate.git", root / "work"
    git = ["git", "-c", "user.name=agent", "-c", "user.email=agent@bottle"]
    subprocess.run([*git, "init", "--quiet", "--bare", "--initial-branch=main", remote], check=True)
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], str(gopath)])
    operator("git-gate", "install", str(remote), "--bottle", bottle)
    subprocess.run([*git, "clone", "--quiet", remote, work], check=True, stderr=subprocess.DEVNULL)
    # What gitleaks takes for an AWS key, made up here: it opens nothing.
    token = "AKIA" + "".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[b % 32] for b in hashlib.sha256(b"demo").digest()[:16])
    (work / "settings.py").write_text(f'aws_access_key_id = "{token}"\n')
    subprocess.run([*git, "add", "."], cwd=work, check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "Add settings"], cwd=work, check=True)
    print("agent    $ git push", flush=True)
    pushing = subprocess.Popen([*git, "push", "origin", "HEAD:main"], cwd=work, stderr=subprocess.PIPE, text=True)
    held = newest(inbox)
    operator("show", held)
    operator("approve", held, "--yes", "--notes", "a made-up key for the demo")
    _, said = pushing.communicate(timeout=60)
    print("".join(f"    {line.rstrip()}\n" for line in said.splitlines()), end="", flush=True)
    if pushing.returncode != 0 or token in Path(host_db_path()).read_bytes().decode("latin1"):
        sys.exit("demo: the push was not accepted, or the database holds the token")
