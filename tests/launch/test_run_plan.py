"""What does `bot-bottle run` plan to do, and what does it refuse before it does anything?"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bot_bottle.documents import presets, routes
from bot_bottle.launch import coders, trust
from cli_process import Host


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def planned(host: Host, project: Path, *words: str, **extra: str) -> Any:
    arguments = ["run", "dev", "--image", "my/image", "--workspace", str(project), "--dry-run", "--json"]
    before, dashes, after = words, [], []
    if "--" in words:
        at = words.index("--")
        before, dashes, after = words[:at], ["--"], list(words[at + 1 :])
    return json.loads(host.run(*arguments, *before, *dashes, *after, **extra).stdout)


def refused(host: Host, *words: str, code: int = 2, **extra: str) -> str:
    said = host.run("run", "dev", *words, code=code, **extra)
    assert said.stdout == ""
    return said.stderr


def agent_of(plan: Any) -> list[str]:
    (command,) = [each for each in plan["commands"] if "bot-bottle-agent-dev" in each and each[1] == "create"]
    return [str(word) for word in command]


def values(command: list[str], name: str) -> list[str]:
    return [value for word, value in pairwise(command) if word == name]


def test_a_dry_run_says_all_and_leaves_nothing(host: Host, project: Path) -> None:
    words = ["run", "dev", "--image", "my/image", "--workspace", str(project), "--dry-run", "--allow", "pypi"]
    said = host.run(*words, "--agent", "claude", "--secret", "ANTHROPIC_API_KEY", ANTHROPIC_API_KEY="sk-real").stdout
    for part in ("- host: files.pythonhosted.org", "preset pypi", "token_ref: ANTHROPIC_API_KEY", str(project)):
        assert part in said
    assert "docker network create --internal" in said and "docker start --attach" in said
    assert "/home/agent/.claude.json" in said
    assert "sk-real" not in said
    assert not host.root.exists()


def test_the_agent_gets_its_workspace_and_a_placeholder_for_its_key(host: Host, project: Path) -> None:
    agent = agent_of(planned(host, project, "--agent", "claude", "--secret", "ANTHROPIC_API_KEY"))
    owner = project.stat()
    assert values(agent, "--user") == [f"{owner.st_uid}:{owner.st_gid}"]
    assert f"type=bind,source={project},target=/workspace" in values(agent, "--mount")
    assert values(agent, "--workdir") == ["/workspace"]
    assert f"ANTHROPIC_API_KEY={coders.PLACEHOLDER}" in values(agent, "--env")
    assert values(agent, "--entrypoint") == ["claude"] and agent[-1] == "my/image"
    assert values(agent, "--network") == ["bot-bottle-in-dev"]
    assert not any(str(host.root) in mount for mount in values(agent, "--mount"))


def test_words_after_the_dashes_are_the_agent_s_own(host: Host, project: Path) -> None:
    plan = planned(host, project, "--", "/usr/bin/codex", "exec", "--json", "--image", "x", "--")
    agent = agent_of(plan)
    assert plan["agent"] == "codex" and "- host: api.openai.com" in plan["routes"]
    assert values(agent, "--entrypoint")[0] == "/usr/bin/codex"
    assert agent[agent.index("my/image") + 1 :] == ["exec", "--json", "--image", "x", "--"]


def test_a_key_goes_to_the_sidecars_by_name_alone(host: Host, project: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-in-a-file\n")
    plan = planned(host, project, "--secret", f"OPENAI_API_KEY=file:{tmp_path}/key", "--env", "ALSO", ALSO="value")
    create = plan["commands"][2]
    assert {"OPENAI_API_KEY", "ALSO"} <= set(values(create, "--env"))
    assert "sk-in-a-file" not in json.dumps(plan)


def test_what_the_bottle_s_routes_say_already_stays(host: Host, project: Path) -> None:
    file = host.root / "bottles" / "dev" / "routes.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("routes:\n    # by hand\n    - host: pypi.org\n      matches: [{methods: [GET]}]\n")
    plan = planned(host, project, "--allow", "pypi,example.com")
    assert plan["routes"].startswith(file.read_text())
    assert [each["host"] for each in plan["added"]] == ["files.pythonhosted.org", "example.com"]
    loaded = routes.load(plan["routes"])
    assert [route.host for route in loaded.routes] == ["pypi.org", "files.pythonhosted.org", "example.com"]
    assert loaded.routes[0].matches


def test_remotes_lead_to_the_gate(host: Host, project: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    plan = planned(host, project, "--git", f"https://git.example/me/App.git={tmp_path}/token")
    (upstream,) = json.loads(plan["upstreams"])["upstreams"]
    assert upstream == {"name": "app", "url": "https://git.example/me/App.git", "token": "/run/bottle/git/app.token"}
    (tmp_path / "gitconfig").write_text(plan["gitconfig"])
    rewritten = []
    for url in ("https://git.example/me/App.git", "git@git.example:me/App.git", "https://git.example/me/other.git"):
        ask = ["git", "-c", f"include.path={tmp_path}/gitconfig", "ls-remote", "--get-url", url]
        rewritten.append(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())
    gate = "git://git-gate:9418/app.git"
    assert rewritten == [gate, gate, "https://git.example/me/other.git"]


def test_an_ssh_remote_needs_a_key_and_a_known_host(host: Host, project: Path, tmp_path: Path) -> None:
    words = ["--image", "i", "--workspace", str(project), "--dry-run", "--git"]
    assert "needs a private key" in refused(host, *words, "git@git.example:me/app.git")
    (tmp_path / "key").write_text("k")
    with_key = f"git@git.example:me/app.git={tmp_path}/key"
    assert "none is trusted on first use" in refused(host, *words, with_key)
    known = host.root.parent / ".ssh" / "known_hosts"
    known.parent.mkdir()
    known.write_text("git.example ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1pXkDnBtpDJxBBDKGW0eLSAwyb1dTB5HO1JrUgPLM4\n")
    (upstream,) = json.loads(planned(host, project, "--git", with_key)["upstreams"])["upstreams"]
    assert upstream["known_hosts"] == "/run/bottle/git/app.known_hosts"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "--image IMAGE"),
        (["--image", "i", "--allow", "pipy"], "'pipy' is neither a host nor one of anthropic, crates"),
        (["--image", "i", "--allow", "a b.com"], "host"),
        (["--image", "i", "--allow", "a.com\n    tunnel: true"], "host 'a.com\\n    tunnel: true'"),
        (["--image", "i", "--allow", "a.com #"], "is not a host name"),
        (["--image", "i", "--allow", 'a.com"'], "is not a host name"),
        (["--image=--privileged"], "would take it for an option"),
        (["--image", "i", "--sidecars=--privileged"], "would take it for an option"),
        (["--image", "i", "--git", "https://[::1/a=x"], "neither an https url nor an ssh one"),
        (["--image", "i", "--git", "ssh://git.example:port/a=x"], "neither an https url nor an ssh one"),
        (["--image", "i", "--workspace", "~no such user/x"], "cannot be found"),
        (["--image", "i", "--secret", "KEY=sk-12345"], "does not belong on a command line"),
        (["--image", "i", "--secret", "EGRESS_PORT"], "no name for a secret"),
        (["--image", "i", "--env", "NOT_SET"], "no such variable"),
        (["--image", "i", "--git", "ftp://git.example/a"], "neither an https url nor an ssh one"),
        (["--image", "i", "--file", "other=x"], "not a tool with a file"),
        (["--image", "i", "--workspace", "/"], "may not have that"),
        (["--image", "i", "--json"], "--json goes with --dry-run"),
    ],
)
def test_what_cannot_be_is_one_sentence(host: Host, words: list[str], reason: str) -> None:
    host.root.mkdir(parents=True)
    workspace = [] if "--workspace" in words else ["--workspace", str(Path(__file__).parent)]
    dry = [] if "--json" in words else ["--dry-run"]
    said = refused(host, *words, *workspace, *dry)
    assert reason in said and said.count("\n") == 1
    assert "sk-12345" not in said
    assert os.listdir(host.root) == []


def test_without_a_secret_s_value_or_an_engine_nothing_is_done(host: Host, project: Path) -> None:
    words = ["--image", "i", "--workspace", str(project)]
    assert "NOT_SET has no value" in refused(host, *words, "--secret", "NOT_SET")
    for place in ("command: ", "command:'", "file:~no such user/x"):
        assert "KEY" in refused(host, *words, "--secret", f"KEY={place}")
    assert "'false' ended with 1" in refused(host, *words, "--secret", "KEY=command:false")
    assert "no Docker Engine answers" in refused(host, *words, DOCKER_HOST=f"unix://{host.root}/no.sock")
    assert "docker is not installed" in refused(host, *words, PATH="/nowhere")
    assert not host.root.exists()


def test_hooks_are_put_where_root_keeps_agents_settings(host: Host, project: Path, tmp_path: Path) -> None:
    assert "/etc/codex/requirements.toml" not in planned(host, project, "--agent", "codex")["files"]
    plan = planned(host, project, "--agent", "codex", "--hooks", "every")
    assert plan["hooks"] == "every"
    assert {"/etc/codex/requirements.toml", "/etc/claude-code/managed-settings.json"} < set(plan["files"])
    words = ["--image", "i", "--workspace", str(project), "--hooks", "prompts", "--compose", str(tmp_path / "c.json")]
    assert "leave them out of a Compose file" in refused(host, *words)


def test_a_bad_slug_is_refused(host: Host, project: Path) -> None:
    words = ["--image", "i", "--workspace", str(project), "--dry-run"]
    for slug in ("../up", "UPPER", "a/b"):
        assert "slug" in host.run("run", slug, *words, code=2).stderr


def test_compose_writes_a_file_and_furnishes_a_home(host: Host, project: Path, tmp_path: Path) -> None:
    file = tmp_path / "bottle.json"
    words = ["run", "dev", "--image", "my/image", "--workspace", str(project), "--compose", str(file), "--allow", "npm"]
    host.run(*words)
    agent = json.loads(file.read_text())["services"]["agent"]
    home = host.root / "agents" / "dev" / "home"
    assert {"type": "bind", "source": str(home), "target": "/home/agent"} == {
        key: value for key, value in agent["volumes"][1].items() if key != "read_only"
    }
    assert agent["environment"]["SSL_CERT_FILE"] == "/run/egress/ca.pem"
    assert json.loads((home / ".claude.json").read_text())["mcpServers"]["supervise"]["url"] == "http://supervise:9100/"
    assert "registry.npmjs.org" in (host.root / "bottles" / "dev" / "routes.yaml").read_text()
    # What the agent has made of its home is not written through again.
    (home / ".claude.json").unlink()
    (home / ".claude.json").symlink_to(tmp_path / "elsewhere")
    host.run(*words)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_preset_is_routes_that_the_proxy_takes(name: str) -> None:
    secrets = [variable for host in presets.PRESETS[name] for variable in host.auth]
    for held in ([], secrets):
        text, added = presets.added(None, presets.expand([name], held))
        loaded = routes.load(text)
        assert [route.host for route in loaded.routes] == [entry.host for entry in added]
        assert bool(loaded.token_refs()) == bool(held)


def test_the_preset_of_github_reads_and_does_not_push() -> None:
    text, _ = presets.added(None, presets.expand(["github"]))
    route = routes.load(text).find("github.com")
    assert route is not None
    assert route.allows("POST", "/me/app.git/git-upload-pack")
    assert not route.allows("POST", "/me/app.git/git-receive-pack")


@pytest.mark.parametrize("text", ["routes: [{host: a.example}]\n", "routes:\n  - host: a.example\n...\n"])
def test_a_file_that_cannot_be_added_to_is_left_alone(text: str) -> None:
    with pytest.raises(Exception, match=r"do it yourself: registry\.npmjs\.org"):
        presets.added(text, presets.expand(["npm"]))


def furnished(home: dict[str, bytes], *secrets: str) -> dict[str, bytes]:
    written, left = coders.home(home.get, secrets)
    assert left == []
    return {**home, **written}


def test_a_home_is_furnished_once_and_keeps_what_the_agent_put_there() -> None:
    before = {
        ".claude.json": b'{"mcpServers": {"own": {"type": "stdio"}}, "numStartups": 7}',
        ".codex/config.toml": b'model = "x"\n\n[mcp_servers.own]\ncommand = "y"\n',
        ".gemini/GEMINI.md": b"Mine.\n",
    }
    home = furnished(before, "ANTHROPIC_API_KEY")
    claude = json.loads(home[".claude.json"])
    assert set(claude["mcpServers"]) == {"own", "supervise"} and claude["numStartups"] == 7
    assert claude["customApiKeyResponses"]["approved"] == [coders.PLACEHOLDER]
    assert home[".codex/config.toml"].startswith(before[".codex/config.toml"])
    assert home[".gemini/GEMINI.md"].startswith(b"Mine.\n\n<!-- bot-bottle: begin -->")
    assert coders.home(home.get, ["ANTHROPIC_API_KEY"]) == ({}, [])


@pytest.mark.parametrize("content", [b"// a comment\n{}", b"[]", b'{"mcpServers": []}', b"\xff", b"[" * 100_000])
def test_settings_that_are_no_plain_json_are_left_alone(content: bytes) -> None:
    written, left = coders.home({".claude.json": content}.get, [])
    assert left == [".claude.json"] and ".claude.json" not in written


CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def test_the_system_s_bundles_get_the_certificate_and_no_program_loses_another() -> None:
    bundle = b"# comment\n-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----"
    image = {"/etc/ssl/certs/ca-certificates.crt": bundle}
    files = trust.files(CERTIFICATE, image.get, lambda path: False)
    assert files["/etc/ssl/certs/ca-certificates.crt"] == bundle + b"\n" + CERTIFICATE == files[trust.BUNDLE]
    assert not any("apt" in path for path in files)
    again = trust.files(CERTIFICATE, {**image, **files}.get, lambda path: True)
    assert again[trust.BUNDLE] == files[trust.BUNDLE]
    assert any("apt" in path for path in again)


def test_an_image_without_certificates_trusts_the_proxy_s() -> None:
    files = trust.files(CERTIFICATE, lambda path: None, lambda path: False)
    assert files["/etc/ssl/certs/ca-certificates.crt"] == CERTIFICATE


def test_the_commands_are_words_of_a_shell(host: Host, project: Path) -> None:
    plan = planned(host, project)
    for command in plan["commands"]:
        assert shlex.split(shlex.join(command)) == command
