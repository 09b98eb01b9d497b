"""Does every `--help` end with examples, does the manual have them, and do they run?"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import click
import pexpect
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bot_bottle import AuditStore, GrantStore, Inbox, Keys
from bot_bottle.cli.commands import find
from bot_bottle.cli.declare import Command
from bot_bottle.cli.explain import root
from bot_bottle.cli.man import pages
from cli_process import MORE_ROUTES, ROUTES, Host, commands

T = TypeVar("T")

WIDTH = 80
INDENT = 4  # click's two, and two of the block's own


def examples(text: str) -> list[str]:
    """The lines of the block that a help ends with."""
    _, _, block = text.rpartition("\n\n\b\n")
    return [line.removeprefix("  ") for line in block.splitlines()]


HELPS = {" ".join(("bot-bottle", *path)): command.help or "" for path, command in commands(root())}
LINES = list(dict.fromkeys(line for text in HELPS.values() for line in examples(text)))

SETTINGS = {
    "policy.toml": '[[rule]]\nname = "package indexes"\nverdict = "approve"\nhost_suffix = "pypi.org"\n',
    "config.toml": '[notify.channels.phone]\nkind = "exec"\ncommand = "true"\n',
}
# An editor that adds a line.
EDITOR = """sh -c 'echo "# why?" >> "$0"'"""

# What has to have happened before a line can run.
BEFORE = {
    "bypass end.*": 'bot-bottle bypass start dev --reason "a demo" --yes',
    "db restore.*": "bot-bottle db backup before-the-upgrade.db",
    "git-gate (status|uninstall).*": "bot-bottle git-gate install app.git --bottle dev",
    "hook (test|undo).*": "bot-bottle hook install claude-code --yes",
    "keys revoke.*": "bot-bottle keys rotate",
    "operator remove.*": "bot-bottle operator add ann",
    "operator revoke.*": "bot-bottle operator token ann --out ann.token",
    "completion zsh.*": "fpath=(. .)",
    "completion fish.*": "mkdir -p ~/.config/fish/completions",
}

# Lines that ask: each question in turn, and what is typed.
TERMINAL = {
    "approve 0199d2c4-1a2b": [("[v]iew again: ", "y")],
    "review.*": [("[v]iew again: ", "q")],
    "supervise --plain": [("q quits: ", "q")],
    "hook (install|undo) claude-code": [("Write this?", "y")],
    "init": [
        ("What is the bottle called?", ""),
        ("Who works there", "claude"),
        ("Which image", "my-agent"),
        ("What may it reach", "pypi"),
        ("Which variable", ""),
        ("Write this to", "y"),
    ],
}

# Lines that are made to say what they would do.
HARMLESS = {"bot-bottle run": "bot-bottle run --dry-run"}

# Lines that only have to be ones that the program can read, and why they are not run.
READ = {
    "supervise( --bottle dev)?": "draws on the whole terminal until it is left: tests/tui presses its keys",
    "dashboard.*": "starts a server that goes on, and a browser: tests/web opens it",
    "(notify|policy) run": "runs until it is interrupted",
    "watch .*": "runs until it is interrupted",
    "serve.*": "runs until it is interrupted",
    "run": "without arguments it takes them from a bottle.toml that nobody has written here",
    "image build.*": "needs Docker: tests/containers builds one",
    "image (list|prune)": "needs Docker, and prune would remove what others use",
    "bottle (start|stop) dev .*--run": "needs Docker and the sidecars' image",
    r"bottle stop dev --yes \| sh": "the shell needs Docker",
    "service (install .* --start|uninstall .*)": "needs the session's service manager",
    "hook (claude-code|codex|gemini|opencode) .*": "an agent starts it, and it waits for an operator",
}


def found(table: Mapping[str, T], line: str) -> T | None:
    """What the table has for the line."""
    command = re.sub(r" +# .*", "", line)
    return next((has for key, has in table.items() if re.fullmatch(f"bot-bottle {key}", command)), None)


@pytest.fixture
def prepared(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """A host at work, and a directory with the files that the examples name; returns what fills in their ids."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    host.routes_file("dev")
    decided = host.propose(slug="dev", against=ROUTES, fingerprint="pypi")
    host.run("approve", decided.id, "--yes", "--grant", "for:2h")
    pending = host.propose(ROUTES, slug="dev", against=MORE_ROUTES, fingerprint="github")
    for name, text in SETTINGS.items():
        (host.root / name).write_text(text)
        (host.root / name).chmod(0o600)
    Path("routes.yaml").write_text(MORE_ROUTES)
    for name in ("ann.pub", "laptop.pub"):
        public = Ed25519PrivateKey.generate().public_key()
        Path(name).write_bytes(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    subprocess.run(["git", "init", "--quiet", "--bare", "app.git"], check=True, timeout=60)
    (grant,) = GrantStore().list_grants()
    (key,) = Keys().all()
    with Inbox() as inbox, AuditStore() as audit:
        real = {
            "0199d2c4-1a2b": pending.id,
            "0199d2c4-7e01": decided.id,
            "0199d2c4-c4f2": grant.id,
            "9f86d081884c7d65": inbox.review(pending.id).review_sha256[:16],
            "e3b0c44298fc1c14": audit.verify().head,
            "fb3b3957a5666cb2": key.id,
        }
    return lambda line: re.sub("|".join(real), lambda match: real[match[0]], line)


def test_every_help_ends_with_examples_of_its_command_that_fit_the_screen() -> None:
    for path, text in HELPS.items():
        lines = examples(text)
        assert any(re.search(rf"{path}\b", line) for line in lines), path
        for line in lines:
            assert "bot-bottle " in line and len(line) + INDENT <= WIDTH, line


def test_help_shows_them_as_they_are() -> None:
    for path, command in commands(root()):
        typed = " ".join(("bot-bottle", *path))
        shown = command.get_help(click.Context(command, info_name=typed, terminal_width=WIDTH))
        for line in examples(HELPS[typed]):
            assert f"{' ' * INDENT}{line}\n" in shown


def test_the_manual_has_them() -> None:
    manual = dict(pages())
    for path, text in HELPS.items():
        page = manual[f"{'-'.join(path.split()[:2])}.1".replace("bot-bottle-.", "bot-bottle.")]
        assert ".SH EXAMPLES\n" in page
        for line in examples(text):
            assert f"\n  {line}\n" in page.replace("\\-", "-").replace("\\e", "\\"), (path, line)


@pytest.mark.parametrize("line", [line for line in LINES if not found(READ, line)])
def test_an_example_runs(host: Host, prepared: Callable[[str], str], line: str) -> None:
    script = prepared(f"set -eo pipefail\n{found(BEFORE, line) or ''}\n{line}")
    for command, harmless in HARMLESS.items():
        script = script.replace(command, harmless)
    environment = host.environment(EDITOR=EDITOR, PAGER="cat", GITHUB_TOKEN="none")
    questions = found(TERMINAL, line)
    if not questions:
        done = subprocess.run(
            ["bash", "-c", script],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return
    # Wide enough for a question with a path in it.
    child: pexpect.spawn[str] = pexpect.spawn(
        "bash", ["-c", script], env=environment, dimensions=(200, 500), encoding="utf-8", timeout=60
    )
    for question, typed in questions:
        child.expect_exact(question)
        child.sendline(typed)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0, child.before


@pytest.mark.parametrize("line", [line for line in LINES if found(READ, line)])
def test_an_example_that_is_not_run_can_be_read(line: str) -> None:
    words = shlex.split(line, comments=True)
    _, command, rest = find(words[1 : words.index("|") if "|" in words else None])
    assert isinstance(command, Command) and command.read(rest) is not None


@pytest.mark.parametrize("table", [BEFORE, TERMINAL, READ])
def test_every_exception_is_of_an_example(table: Mapping[str, object]) -> None:
    for key in table:
        assert any(found({key: True}, line) for line in LINES), key
