"""Does `bottle.toml` mean what its schema says, and is it never taken on the agent's word?"""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import jsonschema
import pexpect
import pytest

from bot_bottle.documents import bottle_file
from bot_bottle.errors import InvalidInputError
from bot_bottle.launch.coders import CODERS
from cli_process import PROGRAMS, Host

WHOLE: dict[str, Any] = {
    "bottle": "dev",
    "image": 'my "image"',
    "agent": "claude",
    "command": ["claude", "-p", "ünicode \U0001f600 \x7f\t\\"],
    "workspace": "src",
    "allow": ["pypi", "example.com"],
    "git": ["git@github.com:me/app.git=~/.ssh/key"],
    "secrets": ["ANTHROPIC_API_KEY"],
    "env": ["EGRESS_PORTS"],
    "sidecars": "mine",
    "transport": "broker",
    "hooks": "every",
}


def test_what_is_written_is_read() -> None:
    assert bottle_file.load(bottle_file.write(WHOLE)) == WHOLE
    assert set(WHOLE) | {"version"} == set(bottle_file.schema()["properties"])
    assert bottle_file.schema()["properties"]["agent"]["enum"] == list(CODERS)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bottle", "UPPER"),
        ("agent", "clippy"),
        ("agent", ["claude"]),
        ("allow", "pypi"),
        ("allow", ["pypi", 1]),
        ("image", ""),
        ("image", True),
        ("command", [""]),
        ("other", "x"),
    ],
)
def test_what_the_schema_refuses_is_refused(key: str, value: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"version": 1, key: value}, bottle_file.schema(), cls=jsonschema.Draft202012Validator)
    with pytest.raises(InvalidInputError, match=key):
        bottle_file.load(f"version = 1\n{key} = {json.dumps(value)}\n")


@pytest.mark.parametrize("text", ["", "version = 2\n", "version = true\n", "version = '1'\n", "bottle = 'dev'\n"])
def test_another_version_is_refused_before_its_keys_are_looked_at(text: str) -> None:
    with pytest.raises(InvalidInputError, match="version"):
        bottle_file.load(text + "later = 1\n")


@pytest.mark.parametrize("text", ["version = ", "version = 1\nbottle = " + "[" * 5000, "version = " + "1" * 5000])
def test_what_is_no_toml_is_said_to_be_none(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is not TOML"):
        bottle_file.load(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version = 0x" + "f" * 5_000, "more than 64 bits"),
        ("version = 1\ncommand = [-0x" + "f" * 5_000 + "]", "not TOML"),
        ("version = 1\ncommand = [[9223372036854775808]]", "more than 64 bits"),
        ("version = 1\nimage." + ".".join("x" * 3_000) + " = 1", "nested too deeply"),
        ('version = 1\nworkspace = "a\\u0000b"', "without NUL"),
        ('version = 1\nbottle = "a\\u0000b"', "without NUL"),
        ('version = 1\ncommand = ["a", "b\\u0000c"]', "have no NUL"),
    ],
)
def test_what_no_program_can_use_is_refused_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        bottle_file.load(text)


@pytest.fixture
def project(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "Project X"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_init_writes_what_run_takes(host: Host, project: Path) -> None:
    said = host.run("init", "--yes", "--image", "my-agent", "--agent", "claude", "--allow", "pypi").stdout
    assert "bot-bottle run" in said
    settings = bottle_file.load((project / "bottle.toml").read_text())
    assert settings["bottle"] == "project-x" and settings["secrets"] == ["ANTHROPIC_API_KEY"]
    plan = host.json("run", "--dry-run")
    assert (plan["slug"], plan["agent"], plan["image"]) == ("project-x", "claude", "my-agent")
    assert [each["host"] for each in plan["added"]] == ["pypi.org", "files.pythonhosted.org", "api.anthropic.com"]
    # The line comes first, and adds to lists.
    plan = host.json("run", "other", "--dry-run", "--image", "i2", "--agent", "shell", "--allow", "npm")
    assert (plan["slug"], plan["agent"], plan["image"]) == ("other", "shell", "i2")
    assert [each["host"] for each in plan["added"]][-1] == "registry.npmjs.org"
    assert "is there already" in host.run("init", "--yes", "--image", "i", code=2).stderr
    assert stat.S_IMODE(host.root.stat().st_mode) == 0o700
    assert json.loads(host.run("init", "--schema").stdout) == bottle_file.schema()


def test_init_asks_five_questions(host: Host, project: Path) -> None:
    program = str(PROGRAMS / "bot-bottle")
    with pexpect.spawn(program, ["init"], env=host.environment(), encoding="utf-8", timeout=60) as terminal:
        for question, answer in (
            (r"called\? \[project-x\] $", ""),
            (r"Who works there.* $", "codex"),
            (r"Which image.* $", "my-agent"),
            (r"What may it reach.* $", "pypi, example.com"),
            (r"Which variable.* $", ""),
            (r"Write this.* $", "y"),
        ):
            terminal.expect(question)
            terminal.sendline(answer)
        terminal.expect(pexpect.EOF)
    settings = bottle_file.load((project / "bottle.toml").read_text())
    assert settings["allow"] == ["pypi", "example.com"] and settings["secrets"] == ["OPENAI_API_KEY"]


def test_a_file_that_the_operator_has_not_agreed_to_starts_nothing(host: Host, project: Path) -> None:
    host.run("init", "--yes", "--image", "my-agent")
    file, marker = project / "bottle.toml", project.parent / "ran"
    # As an agent might, whose workspace it is in.
    file.write_text(f'{file.read_text()}secrets = ["KEY=command:touch {marker}"]\n')
    said = host.run("run", code=2)
    assert "without a terminal this needs --yes" in said.stderr
    assert '+secrets = ["KEY=command:touch' in said.stdout
    host.run("run", "--compose", str(project.parent / "c.json"), code=2)
    assert not marker.exists() and not (project.parent / "c.json").exists()
    # Agreed to once, and only as it is.
    host.run("run", "--yes", "--compose", str(project.parent / "c.json"))
    host.run("run", "--compose", str(project.parent / "c.json"))
    file.write_text(file.read_text() + 'allow = ["evil.example"]\n')
    assert "has changed since you agreed" in host.run("run", code=2).stdout


def test_a_file_that_is_none_is_refused(host: Host, project: Path) -> None:
    file = project / "bottle.toml"
    assert "name a bottle" in host.run("run", code=2).stderr
    file.write_bytes(b"\xff")
    assert "not UTF-8" in host.run("run", code=2).stderr
    file.write_text("version = ")
    assert "not TOML" in host.run("run", code=2).stderr
    file.unlink()
    file.mkdir()
    assert "not a regular file" in host.run("run", code=2).stderr
