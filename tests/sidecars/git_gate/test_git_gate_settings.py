"""Which settings does the git gate take, and what does it say of the others?"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bot_bottle.documents.upstreams import read_upstreams
from bot_bottle.errors import InvalidInputError
from cli_process import Host
from git_pushes import BOTTLE, Clone, World, environment, secret


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    path = tmp_path / "app.git"
    subprocess.run(["git", "init", "--quiet", "--bare", path], check=True)
    return path


# --- bot-bottle git-gate


def test_install_status_uninstall(host: Host, bare: Path) -> None:
    said = host.run("git-gate", "install", str(bare), "--bottle", BOTTLE, "--timeout", "5m").stdout
    assert f"pushes to {bare} are scanned" in said
    status = host.json("git-gate", "status", str(bare))
    assert (status["state"], status["bottle"], status["timeout"]) == ("installed", BOTTLE, 300)
    assert status["database"] == str(host.root / "bot-bottle.db")
    assert stat.S_IMODE((bare / "hooks/pre-receive").stat().st_mode) == 0o755
    assert BOTTLE in host.run("git-gate", "status", str(bare)).stdout
    host.run("git-gate", "uninstall", str(bare))
    assert host.json("git-gate", "status", str(bare)) == {"state": "missing"}
    assert not (bare / "bot-bottle").exists() and "hooksPath" not in (bare / "config").read_text()


def test_installing_again_keeps_the_key_and_changes_the_settings(host: Host, bare: Path) -> None:
    host.run("git-gate", "install", str(bare), "--bottle", "one")
    key = (bare / "bot-bottle/key").read_bytes()
    host.run("git-gate", "install", str(bare), "--bottle", "two", "--max-file", "7")
    status = host.json("git-gate", "status", str(bare))
    assert (status["bottle"], status["max_file"]) == ("two", 7)
    assert (bare / "bot-bottle/key").read_bytes() == key and len(key) == 32


def test_what_install_refuses(host: Host, bare: Path, tmp_path: Path) -> None:
    def refused(repository: Path, *options: str) -> str:
        arguments = options or ("--bottle", BOTTLE)
        return host.run("git-gate", "install", str(repository), *arguments, code=2).stderr

    subprocess.run(["git", "init", "--quiet", tmp_path / "work"], check=True)
    assert "is not a bare repository" in refused(tmp_path / "work")
    assert "is not a bare repository" in refused(tmp_path / "work" / ".git")
    assert "is not there; make a bare repository with" in refused(tmp_path / "nowhere")
    assert "must be 1 to 63 of" in refused(bare, "--bottle", "No Slug")
    assert "Missing option '--bottle'" in refused(bare, "--timeout", "1s")
    odd = tmp_path / "a:b.git"
    subprocess.run(["git", "init", "--quiet", "--bare", odd], check=True)
    assert "holds a colon" in refused(odd)
    (bare / "hooks/pre-receive").write_text("#!/bin/sh\nexit 0\n")
    assert "hooks/pre-receive is not the git gate's" in refused(bare)
    assert host.json("git-gate", "status", str(bare)) == {"state": "foreign"}
    assert "no hook of the git gate's" in host.run("git-gate", "uninstall", str(bare), code=2).stderr
    assert (bare / "hooks/pre-receive").read_text() == "#!/bin/sh\nexit 0\n"
    (bare / "hooks/pre-receive").unlink()
    subprocess.run(["git", f"--git-dir={bare}", "config", "core.hooksPath", "/elsewhere"], check=True)
    assert "has its hooks in /elsewhere (core.hooksPath)" in refused(bare)


def test_status_sees_a_hook_that_was_changed_or_is_not_run(host: Host, bare: Path) -> None:
    host.run("git-gate", "install", str(bare), "--bottle", BOTTLE)
    hook = bare / "hooks/pre-receive"
    text = hook.read_text()
    hook.write_text(text.replace("exec ", ""))
    assert host.json("git-gate", "status", str(bare))["state"] == "outdated"
    hook.write_text(text)
    subprocess.run(["git", f"--git-dir={bare}", "config", "core.hooksPath", "/elsewhere"], check=True)
    assert host.json("git-gate", "status", str(bare))["state"] == "bypassed"


def test_install_says_what_is_missing(host: Host, bare: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/git").symlink_to(subprocess.check_output(["which", "git"], text=True).strip())
    said = host.run("git-gate", "install", str(bare), "--bottle", BOTTLE, PATH=str(tmp_path / "bin")).stdout
    assert "every push will be refused until gitleaks is installed" in said


def test_a_pushers_own_configuration_does_not_point_past_the_hook(world: World) -> None:
    (world.home / ".gitconfig").write_text("[core]\n\thooksPath = /nowhere\n")
    world.clone.commit({"a": f'key = "{secret("one")}"\n'})
    assert world.held("main").code != 0


def test_a_quoted_path_stays_one_word(world: World) -> None:
    path = world.home / "it's a $(touch pwned) repository.git"
    Clone(world.home, world.home).git("init", "--quiet", "--bare", str(path))
    other = World(world.home, path, world.clone, world.operator)
    rules = world.home / "my rules.toml"
    rules.write_text("[extend]\nuseDefault = true\n")
    other.install(rules=str(rules))
    world.clone.git("remote", "set-url", "origin", str(path))
    world.clone.commit({"a": f'key = "{secret("one")}"\n'})
    assert other.held("main").findings == {("aws-access-token", "a")}
    assert not list(world.home.rglob("pwned"))


# --- The daemon's environment and the file of the upstreams


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "SUPERVISE_BOTTLE_SLUG is not set"),
        ({"SUPERVISE_BOTTLE_SLUG": "No Slug"}, "must be 1 to 63 of"),
        ({"SUPERVISE_BOTTLE_SLUG": "demo", "GIT_GATE_PORT": "http"}, "GIT_GATE_PORT is 'http'; it is a whole number"),
        ({"SUPERVISE_BOTTLE_SLUG": "demo", "GIT_GATE_PORT": "65536"}, "from 1 to 65535"),
        ({"SUPERVISE_BOTTLE_SLUG": "demo", "GIT_GATE_TIMEOUT_SECONDS": "0"}, "GIT_GATE_TIMEOUT_SECONDS is '0'"),
        (
            {"SUPERVISE_BOTTLE_SLUG": "demo", "GIT_GATE_UPSTREAMS": "/nowhere"},
            "/nowhere (GIT_GATE_UPSTREAMS) cannot be",
        ),
        ({"SUPERVISE_BOTTLE_SLUG": "demo", "GIT_GATE_RULES": "/nowhere"}, "/nowhere is no file that gitleaks"),
        ({"SUPERVISE_BOTTLE_SLUG": "demo", "GIT_GATE_ROOT": "/dev/null/x"}, "(GIT_GATE_ROOT) does not serve"),
    ],
)
def test_a_bad_environment_is_one_sentence(tmp_path: Path, settings: dict[str, str], says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bot_bottle.sidecars.git_gate"],
        env=environment(tmp_path, **settings),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and says in done.stderr
    assert done.stderr.startswith("git gate: ") and done.stderr.count("\n") == 1


def test_an_installation_without_yaml_is_told_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "upstreams.yaml").write_text("upstreams: []\n")
    settings = {"SUPERVISE_BOTTLE_SLUG": "demo", "GIT_GATE_UPSTREAMS": str(tmp_path / "upstreams.yaml")}
    start = "runpy.run_module('bot_bottle.sidecars.git_gate', run_name='__main__')"
    without = f"import runpy, sys; sys.modules['yaml'] = None; {start}"
    done = subprocess.run(
        [sys.executable, "-c", without],
        env=environment(tmp_path, **settings),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr == "git gate: the Python module yaml is missing; install bot-bottle[git-gate]\n"


def test_the_upstreams_are_read(tmp_path: Path) -> None:
    for name in ("key", "hosts", "token"):
        (tmp_path / name).touch()
    found = read_upstreams(
        f"upstreams:\n- name: app\n  url: git@github.com:me/app.git\n"
        f"  key: {tmp_path}/key\n  known_hosts: {tmp_path}/hosts\n"
        f"- {{name: web, url: https://github.com/me/web.git, token: {tmp_path}/token}}\n"
    )
    assert [(u.name, u.url) for u in found] == [
        ("app", "git@github.com:me/app.git"),
        ("web", "https://github.com/me/web.git"),
    ]
    assert "StrictHostKeyChecking=yes" in found[0].git_settings()["core.sshCommand"]
    assert read_upstreams("upstreams: []") == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1: it is one key, upstreams, with a list"),
        ("upstreams: 1", "upstreams is a list"),
        ("upstreams: [x]", "an upstream has name, url"),
        ("upstreams: [}", "line 1: not YAML"),
        ("upstreams:\n- {name: a, url: /x, branch: main}", "line 2: 'branch' is not one of name, url"),
        ("upstreams: [{name: A, url: /x}]", "name is lower-case"),
        ("upstreams: [{name: ../a, url: /x}]", "name is lower-case"),
        ("upstreams: [{name: a.git, url: /x}]", "without .git"),
        ("upstreams: [{name: a}]", "has a url"),
        ("upstreams: [{name: a, url: /x}, {name: a, url: /y}]", "there is another upstream a"),
        ("upstreams: [{name: a, url: 'git://host/x'}]", "neither ssh (user@host:path), https nor an absolute path"),
        ("upstreams: [{name: a, url: 'http://host/x'}]", "neither ssh"),
        ("upstreams: [{name: a, url: 'ext::sh -c id'}]", "neither ssh"),
        ("upstreams: [{name: a, url: '-oProxyCommand=id:x'}]", "neither ssh"),
        ("upstreams: [{name: a, url: 'https://me:pw@host/x'}]", "the url holds a password"),
        ("upstreams: [{name: a, url: 'https://host/x'}]", "needs token: the path of a file"),
        ("upstreams: [{name: a, url: 'git@host:x'}]", "needs key: the path of a file"),
        ("upstreams: [{name: a, url: 'git@host:x', key: /dev/null}]", "key '/dev/null' is not the absolute path"),
        ("upstreams: [{name: a, url: /x, object_format: md5}]", "object_format is sha1 or sha256"),
    ],
)
def test_a_bad_file_of_upstreams_is_one_sentence(text: str, says: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        read_upstreams(text)
    assert says in str(refused.value), str(refused.value)
    assert json.dumps(str(refused.value)).isascii() and os.linesep not in str(refused.value)
