"""Do real coding agents ask the sidecar of their bottle, and obey? Claude Code and Codex from npm, with a fake model.

Their administrator's settings are laid over ``/etc`` for the agent alone, as ``bot-bottle run --hooks`` puts them into
a container.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import npm_packages
from bot_bottle import Inbox
from bot_bottle.agents import inside
from fake_model import FakeModel
from mcp_sidecar import Sidecar, host
from needs import cannot

pytestmark = pytest.mark.timeout(600)

# Laid over /etc in a mount namespace of its own, and gone with the process.
_AS_IN_A_BOTTLE = """
mount -t tmpfs over "$1" && mkdir "$1/upper" "$1/work" && cp -r "$2/." "$1/upper/" &&
mount -t overlay over -o "lowerdir=/etc,upperdir=$1/upper,workdir=$1/work" /etc && shift 2 && exec "$@"
"""


class Kind(NamedTuple):
    """How an agent is started, and what its model calls to run a command."""

    name: str
    tool: str
    arguments: Callable[[str], dict[str, Any]]
    command: Callable[[FakeModel], list[str]]


def _claude(model: FakeModel) -> list[str]:
    return [*npm_packages.claude(), "-p", "go on", "--allowedTools", "Bash"]


def _codex(model: FakeModel) -> list[str]:
    settings = {
        "model": '"fake"',
        "model_provider": '"fake"',
        "model_providers.fake": f'{{name = "fake", base_url = "{model.url}/v1", wire_api = "responses"}}',
        "sandbox_mode": '"danger-full-access"',
    }
    words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return [*npm_packages.codex(), "exec", "--skip-git-repo-check", *words, "go on"]


KINDS = [
    Kind("claude-code", "Bash", lambda line: {"command": line, "description": "a try"}, _claude),
    Kind("codex", "exec_command", lambda line: {"cmd": line}, _codex),
]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if os.geteuid() != 0:
        cannot("only root can lay an agent's settings over /etc")
    with host(tmp_path_factory.mktemp("host")) as path:
        yield path


@pytest.fixture(scope="module")
def sidecar(root: Path) -> Iterator[Sidecar]:
    with Sidecar(root, "real") as sidecar:
        yield sidecar


class Try:
    """An agent whose model wants to make a file."""

    def __init__(self, kind: Kind, url: str, place: Path) -> None:
        self.made = place / "work" / "made"
        self.made.parent.mkdir()
        (place / "home").mkdir()
        (place / "over").mkdir()
        for path, text in inside.files(url, every=True).items():
            file = place / "etc" / path.removeprefix("/etc/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        self.model = FakeModel(kind.tool, kind.arguments(f"touch {self.made}"))
        self.start = ["unshare", "--mount", "sh", "-c", _AS_IN_A_BOTTLE, "sh", str(place / "over"), str(place / "etc")]
        self.start += kind.command(self.model)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(place / "home"),
            "ANTHROPIC_BASE_URL": self.model.url,
            "ANTHROPIC_API_KEY": "made-up",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            # Without a way out, as in a bottle.
            "https_proxy": "http://127.0.0.1:9",
            "no_proxy": "127.0.0.1",
        }

    def run(self, answer: Callable[[], None] = lambda: None) -> str:
        """Starts it, answers what it asks, and returns what its model was told at the end."""
        with self.model.running():
            process = subprocess.Popen(
                self.start,
                cwd=self.made.parent,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            try:
                answer()
                said, _ = process.communicate(timeout=300)
            finally:
                process.kill()
                process.wait()
        assert self.model.told, said
        return self.model.told[-1]


def answering(status: str, notes: str, word: str) -> Callable[[], None]:
    """What the operator does about the command with that word."""

    def answer() -> None:
        with Inbox() as inbox:
            for change in inbox.watch(0, timeout=240):
                proposal = inbox.read(change.proposal_id).proposal
                if change.kind == "proposed" and word in proposal.proposed_file:
                    inbox.decide(proposal.id, status, payload_sha256=proposal.payload_sha256, notes=notes)
                    return
        raise AssertionError("the agent did not ask")

    return answer


@every_kind
def test_an_approved_command_runs(sidecar: Sidecar, tmp_path: Path, kind: Kind) -> None:
    attempt = Try(kind, sidecar.url, tmp_path)
    attempt.run(answering("approved", "", str(attempt.made)))
    assert attempt.made.exists()


@every_kind
def test_a_rejected_command_does_not_run_and_the_model_reads_why(sidecar: Sidecar, tmp_path: Path, kind: Kind) -> None:
    attempt = Try(kind, sidecar.url, tmp_path)
    told = attempt.run(answering("rejected", "not in this directory", str(attempt.made)))
    assert "operator: not in this directory" in told
    assert not attempt.made.exists()


@every_kind
def test_without_a_sidecar_nothing_runs(root: Path, tmp_path: Path, kind: Kind) -> None:
    attempt = Try(kind, "http://127.0.0.1:9/", tmp_path)
    attempt.run()
    assert not attempt.made.exists()
