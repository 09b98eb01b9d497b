"""How do tests get programs of others from npm, in exactly the versions of ``npm/package-lock.json``?"""

from __future__ import annotations

import fcntl
import platform
import shutil
import subprocess
from pathlib import Path

from needs import cannot

_LISTS = Path(__file__).with_name("npm")
_FOLDER = Path(__file__).resolve().parents[2] / "target" / "npm"
_ARCHITECTURE = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def modules() -> Path:
    """The directory of the packages, installed on first use (20 s, 1.1 GB)."""
    npm = shutil.which("npm")
    if npm is None:
        cannot("npm is not installed")
    lock = (_LISTS / "package-lock.json").read_bytes()
    stamp = _FOLDER / "installed"
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with open(_FOLDER / "lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_bytes() != lock:
            stamp.unlink(missing_ok=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copy(_LISTS / name, _FOLDER)
            # No script of a package is run; EBADENGINE is a warning, and what needs a newer Node is run with ours.
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            done = subprocess.run(command, cwd=_FOLDER, capture_output=True, text=True, timeout=900)
            if done.returncode != 0:
                cannot(f"npm cannot install what tests run: {done.stderr.strip()}")
            stamp.write_bytes(lock)
    return _FOLDER / "node_modules"


def node() -> str:
    """A Node that is new enough for all of them, whatever the machine has; npm has one for x86-64."""
    own = modules() / f"node-linux-{_ARCHITECTURE}" / "bin" / "node"
    return str(own) if own.exists() else "node"


def claude() -> list[str]:
    """Claude Code, as words of a command."""
    return [str(modules() / "@anthropic-ai" / f"claude-code-linux-{_ARCHITECTURE}" / "claude")]


def codex() -> list[str]:
    """Codex."""
    return [node(), str(modules() / "@openai" / "codex" / "bin" / "codex.js")]


def conformance() -> list[str]:
    """The conformance suite of MCP."""
    return [node(), str(modules() / "@modelcontextprotocol" / "conformance" / "dist" / "index.js")]
