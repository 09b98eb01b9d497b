"""Do agents' settings gain our hook and nothing else, and lose it again?"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bot_bottle.agents.hooks import AGENTS
from bot_bottle.agents.settings import MARGIN
from cli_process import PROGRAMS, Host

FILES = {
    "claude-code": ".claude/settings.json",
    "codex": ".codex/hooks.json",
    "gemini": ".gemini/settings.json",
    "opencode": ".config/opencode/plugin/bot-bottle.js",
}
IN_PROJECT = {
    "claude-code": ".claude/settings.local.json",
    "codex": ".codex/hooks.json",
    "gemini": ".gemini/settings.json",
    "opencode": ".opencode/plugin/bot-bottle.js",
}
OTHERS = {
    "permissions": {"allow": ["mcp__supervise"]},
    "hooks": {
        "PostToolUse": [{"matcher": "Edit", "hooks": [{"type": "command", "command": "prettier"}]}],
        "PermissionRequest": [{"matcher": "Bash", "hooks": [{"type": "command", "command": "notify-send asked"}]}],
    },
    "model": "größer",
}
every_agent = pytest.mark.parametrize("agent", AGENTS)


def settings_of(host: Host, agent: str) -> Path:
    return host.root.parent / FILES[agent]


def hooks_of(file: Path, event: str) -> list[dict[str, Any]]:
    groups = json.loads(file.read_text())["hooks"].get(event, [])
    return [entry for group in groups for entry in group["hooks"]]


@every_agent
def test_an_installed_hook_passes_its_own_test(host: Host, agent: str) -> None:
    host.run("hook", "install", agent, "--yes")
    told = host.json("hook", "test", agent)
    assert told["passed"] and len(told["trials"]) == 2 * len(AGENTS[agent].events) + 1
    assert told["file"] == str(settings_of(host, agent))


@pytest.mark.parametrize("broken", ["exit 0", "cat >/dev/null; exit 1", "echo no >&2; exit 2"])
def test_a_hook_that_does_not_ask_fails_its_test(host: Host, broken: str) -> None:
    host.run("hook", "install", "codex", "--yes")
    file = settings_of(host, "codex")
    document = json.loads(file.read_text())
    document["hooks"]["PermissionRequest"][0]["hooks"][0]["command"] = f"{broken} # bot-bottle hook codex "
    file.write_text(json.dumps(document))
    done = host.run("hook", "test", "codex", code=1)
    assert "NOT OK" in done.stdout and "does not do what it should" in done.stderr


def test_there_is_nothing_to_test_or_undo_without_an_installed_hook(host: Host) -> None:
    assert "hook install gemini" in host.run("hook", "test", "gemini", code=4).stderr
    assert "has no hook of bot-bottle" in host.run("hook", "undo", "gemini", "--yes", code=4).stderr
    assert not settings_of(host, "gemini").exists()


def test_what_else_is_in_the_settings_stays_and_comes_back_byte_for_byte(host: Host) -> None:
    file = settings_of(host, "claude-code")
    file.parent.mkdir(parents=True)
    before = json.dumps(OTHERS, indent=4).encode()
    file.write_bytes(before)
    file.chmod(0o640)
    told = host.run("hook", "install", "claude-code", "--yes").stdout
    assert '│ +            "onFailure": "block"' in told
    document = json.loads(file.read_text())
    assert {name: document[name] for name in ("permissions", "model")} == {
        name: OTHERS[name] for name in ("permissions", "model")
    }
    assert hooks_of(file, "PostToolUse") == [{"type": "command", "command": "prettier"}]
    commands = [entry["command"] for entry in hooks_of(file, "PermissionRequest")]
    assert commands[0] == "notify-send asked" and " hook claude-code " in commands[1]
    assert file.stat().st_mode & 0o777 == 0o640
    backup = file.with_name("settings.json.before-bot-bottle")
    assert backup.read_bytes() == before
    host.run("hook", "undo", "claude-code", "--yes")
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["settings.json"]


def test_undoing_keeps_what_was_changed_in_the_meantime(host: Host) -> None:
    file = settings_of(host, "gemini")
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(OTHERS))
    host.run("hook", "install", "gemini", "--yes")
    document = json.loads(file.read_text())
    document["theme"] = "dark"
    file.write_text(json.dumps(document))
    host.run("hook", "undo", "gemini", "--yes")
    assert json.loads(file.read_text()) == {**OTHERS, "theme": "dark"}


@every_agent
def test_a_file_that_only_we_wrote_is_gone_afterwards(host: Host, agent: str) -> None:
    host.run("hook", "install", agent, "--yes")
    host.run("hook", "undo", agent, "--yes")
    assert list(settings_of(host, agent).parent.iterdir()) == []


@every_agent
def test_installing_twice_changes_nothing_and_again_with_other_options_replaces_it(host: Host, agent: str) -> None:
    host.run("hook", "install", agent, "--yes")
    file = settings_of(host, agent)
    once = file.read_text()
    assert "says so already" in host.run("hook", "install", agent, "--yes").stdout
    assert file.read_text() == once
    host.run("hook", "install", agent, "--every", "--timeout", "5m", "--yes")
    again = file.read_text()
    assert "--timeout 300s" in again.replace('", "', " ") and again.replace('", "', " ").count(f" hook {agent} ") == 1
    if agent != "opencode":
        unit = 1000 if agent == "gemini" else 1
        assert [entry["timeout"] for entry in hooks_of(file, AGENTS[agent].every)] == [(300 + MARGIN) * unit]


@every_agent
def test_a_project_s_settings_are_those_of_the_directory(host: Host, agent: str, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    words = [PROGRAMS / "bot-bottle", "hook", "install", agent, "--project", "--yes"]
    subprocess.run(words, cwd=project, env=host.environment(), check=True, capture_output=True, timeout=60)
    assert f"{PROGRAMS / 'bot-bottle'}" in (project / IN_PROJECT[agent]).read_text()
    assert not settings_of(host, agent).exists()


@pytest.mark.parametrize(
    "text", ["// mine\n{}", '{"hooks": []}', '{"hooks": {"BeforeTool": {}}}', '{"hooks": {"BeforeTool": [1]}}', "[]"]
)
def test_settings_that_writing_would_spoil_are_left_alone(host: Host, text: str) -> None:
    file = settings_of(host, "gemini")
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert "nothing was written" in host.run("hook", "install", "gemini", "--yes", code=2).stderr
    assert file.read_text() == text


def test_a_link_to_the_settings_stays_a_link(host: Host, tmp_path: Path) -> None:
    kept = tmp_path / "dotfiles" / "claude.json"
    kept.parent.mkdir()
    kept.write_text("{}")
    file = settings_of(host, "claude-code")
    file.parent.mkdir(parents=True)
    file.symlink_to(kept)
    host.run("hook", "install", "claude-code", "--yes")
    assert file.is_symlink() and "hook claude-code" in kept.read_text()
    host.run("hook", "undo", "claude-code", "--yes")
    assert file.is_symlink() and kept.read_text() == "{}"


def test_nothing_is_written_without_a_yes(host: Host) -> None:
    for words in ([], ["--json"]):
        assert "--yes" in host.run("hook", "install", "codex", *words, code=2).stderr
    assert not settings_of(host, "codex").exists()


def test_the_hook_keeps_to_the_root_it_was_installed_for(host: Host) -> None:
    host.run("hook", "install", "codex", "--yes")
    assert f"BOT_BOTTLE_ROOT={host.root}" in settings_of(host, "codex").read_text()
