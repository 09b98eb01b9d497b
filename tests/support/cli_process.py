"""How do the CLI's tests run the real programs, each in a root of its own?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from bot_bottle import BottleStore, Proposal, QueueStore, sha256_hex

PROGRAMS = Path(sys.executable).parent
ROUTES = "routes:\n  - host: pypi.org\n"
MORE_ROUTES = "routes:\n  - host: pypi.org\n  - host: api.github.com\n"


@dataclass(frozen=True)
class Host:
    """A host with its own bot-bottle root; ``$BOT_BOTTLE_ROOT`` of the test itself points there too."""

    root: Path

    def environment(self, **extra: str) -> dict[str, str]:
        """What a program is started with: nothing of the tester's own terminal or settings."""
        return {
            "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.root.parent),
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "BOT_BOTTLE_ROOT": str(self.root),
            **extra,
        }

    def run(
        self,
        *arguments: str,
        code: int = 0,
        program: str = "bot-bottle",
        stdin: str | bytes = b"",
        **extra: str,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end; ``code`` is the exit code it must have."""
        done = subprocess.run(
            [PROGRAMS / program, *arguments],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            env=self.environment(**extra),
            timeout=60,
        )
        result = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
        assert result.returncode == code, f"{arguments}: {result.stdout}{result.stderr}"
        assert "Traceback" not in result.stderr
        return result

    def json(self, *arguments: str, **settings: Any) -> Any:
        """What a program prints with ``--json``."""
        return json.loads(self.run(*arguments, "--json", **settings).stdout)

    def propose(
        self,
        payload: str = MORE_ROUTES,
        justification: str = "",
        *,
        slug: str = "demo",
        tool: str = "egress-allow",
        against: str | None = None,
        expires_in: float | None = None,
        fingerprint: str | None = None,
    ) -> Proposal:
        """Queues a proposal; ``against`` is the content of the managed file it was written for."""
        proposal = Proposal.new(
            slug,
            tool,
            payload,
            justification,
            None if against is None else sha256_hex(against),
            expires_in=expires_in,
            fingerprint=fingerprint,
        )
        with QueueStore(slug) as queue:
            return queue.write_proposal(proposal)

    def routes_file(self, slug: str = "demo") -> Path:
        """Registers a running bottle whose ``egress-allow`` writes a file; returns the file, which has ``ROUTES``."""
        path = self.root / "bottles" / slug / "routes.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(ROUTES)
        BottleStore().register(slug, backend="docker", files={"egress-allow": "routes.yaml"})
        return path


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    root = tmp_path / "root"
    monkeypatch.setenv("BOT_BOTTLE_ROOT", str(root))
    yield Host(root)


def commands(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    """Every command with the words that lead to it, groups included."""
    found = [(path, command)]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            found += commands(inner, (*path, name))
    return found
