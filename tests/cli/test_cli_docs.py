"""Is what docs/cli.md and every ``--help`` say true?"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import click
import pytest

from bot_bottle.cli.explain import root
from checkout import CHECKOUT
from cli_process import ROUTES, Host, commands

DOCUMENT = (CHECKOUT / "docs" / "cli.md").read_text()


COMMANDS = commands(root())


@pytest.mark.parametrize("path", [path for path, _ in COMMANDS], ids=" ".join)
def test_every_command_has_help(host: Host, path: tuple[str, ...]) -> None:
    output = host.run(*path, "--help").stdout
    assert output.startswith(f"Usage: {' '.join(('bot-bottle', *path))}")
    assert host.run(*path, "-h").stdout == output
    assert not host.root.exists()


@pytest.mark.parametrize("path", [path for path, c in COMMANDS if isinstance(c, click.Group)], ids=" ".join)
def test_a_group_alone_prints_its_help(host: Host, path: tuple[str, ...]) -> None:
    assert host.run(*path, code=2).stderr.startswith("Usage: ")


def test_every_command_and_option_explains_itself() -> None:
    for path, command in COMMANDS:
        assert command.help, path
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, (path, parameter.name)


def test_every_command_that_prints_data_has_json() -> None:
    lacking = {
        " ".join(path)
        for path, command in COMMANDS
        if not isinstance(command, click.Group) and "as_json" not in {p.name for p in command.params}
    }
    # A proof and a server's log are JSON anyway, and agents' hooks answer in the agents' words; the others print none.
    answers = {"hook claude-code", "hook codex", "hook gemini", "hook opencode"}
    silent = {"completion", "serve", "supervise", "review", "git-gate install", "git-gate uninstall", "notify run"}
    silent |= {"policy run", "init", "audit proof"}
    assert lacking == silent | answers


def test_every_option_the_document_names_exists() -> None:
    known = {name for _, command in COMMANDS for parameter in command.params for name in parameter.opts}
    for name in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", DOCUMENT)) - {"--signal", "--help"}:
        assert name in known, name


def test_the_document_s_examples_run(host: Host, tmp_path: Path) -> None:
    host.routes_file()
    ids = [
        host.propose("routes: []\n", against=ROUTES).id,
        host.propose("FROM a\n", tool="capability-block").id,
        host.propose("FROM b\n", tool="capability-block").id,
        host.propose("FROM c\n", tool="capability-block").id,
        host.propose("a key", tool="gitleaks-allow", fingerprint="f").id,
    ]
    (tmp_path / "routes.yaml").write_text("routes: []\n")
    examples = [
        line.removeprefix("$ ")
        for block in re.findall(r"```console\n(.*?)```", DOCUMENT, re.DOTALL)
        for line in block.splitlines()
        if line.startswith("$ ")
    ]
    assert len(examples) > 15
    # Each prefix of the document stands for a proposal of the test, in order of appearance.
    for documented, real in zip(dict.fromkeys(re.findall(r"0199d2c4-[0-9a-f]{4}", DOCUMENT)), ids, strict=True):
        examples = [example.replace(documented, real) for example in examples]
    for example in examples:
        done = subprocess.run(
            ["bash", "-c", example], cwd=tmp_path, env=host.environment(), capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{example}: {done.stderr}"
