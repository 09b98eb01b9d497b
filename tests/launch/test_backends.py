"""Does each backend say in its tool's words what the plan says, and does `bot-bottle bottle` run just that?"""

from __future__ import annotations

import csv
import json
import os
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from bot_bottle import BottleStore, Proposal, QueueStore, UnsafeMountError
from bot_bottle.errors import InvalidInputError
from bot_bottle.launch import docker
from bot_bottle.launch.backend import NAMES, load, names
from bot_bottle.supervise import Plan, Supervise
from cli_process import ROUTES, Host


@pytest.fixture
def plan(host: Host) -> Plan:
    return Supervise().prepare("demo", files={"egress-allow": "routes.yaml"})


@pytest.fixture
def remote(plan: Plan) -> Plan:
    """A plan for a bottle in a VM."""
    return Supervise().prepare("demo", backend="smolmachines")


def volumes(plan: Plan) -> list[str]:
    """The plan's mounts as smolvm and Apple's container write them."""
    return [f"{host}:{inside}:{mode}" for host, inside, mode in plan.mounts]


def option(command: list[str], name: str) -> list[str]:
    """The values of an option that may be given several times."""
    return [value for word, value in pairwise(command) if word == name]


def creating(commands: list[list[str]]) -> list[str]:
    """The command that names the image of the sidecars."""
    (found,) = [command for command in commands if "--env" in command]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_what_the_plan_asks_for_is_in_the_command(remote: Plan, name: str) -> None:
    command = creating(load(name).start(remote, image="some/image:1"))
    assert option(command, "--env") == [f"{key}={value}" for key, value in remote.environment.items()]
    assert "some/image:1" in command
    assert f"{remote.bottle_dir}" in " ".join(command) and "/run/bottle" in " ".join(command)


@pytest.mark.parametrize("name", NAMES)
def test_a_token_for_the_sidecars_is_passed_by_name(remote: Plan, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "ghp_secret")
    words = [word for command in load(name).start(remote, passed=["GITHUB_TOKEN"]) for word in command]
    assert any("GITHUB_TOKEN" in word for word in words)
    assert not any("ghp_secret" in word for word in words)


@pytest.mark.parametrize("name", NAMES)
def test_the_agent_has_nothing_of_the_plan(remote: Plan, plan: Plan, name: str) -> None:
    for each in (remote, plan):
        line = shlex.join(load(name).agent(each))
        assert not any(host in line or inside in line for host, inside, _ in each.mounts)
        assert not any(key in line for key in each.environment)


@pytest.mark.parametrize("name", ["smolmachines", "macos-container"])
def test_a_vm_without_a_broker_is_refused(plan: Plan, name: str) -> None:
    with pytest.raises(UnsafeMountError, match="broker") as refusal:
        load(name).start(plan)
    assert refusal.value.path == plan.db_dir


def test_no_two_bottles_share_a_name() -> None:
    # A slug may contain what tells a bottle's parts apart.
    slugs = ["a", "in-a", "out-a", "a-in", "a-out", "sidecars-a", "agent-a", "state-a", "ca-a"]
    everything = [name for slug in slugs for name in names(slug)]
    assert len(set(everything)) == len(everything)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="docker, smolmachines, macos-container"):
        load("podman")


def test_docker_gives_the_sidecars_the_directory_as_the_host_user(plan: Plan) -> None:
    inner, outer, create, connect, start = docker.start(plan)
    assert inner[:4] == ["docker", "network", "create", "--internal"] and inner[-1] == "bot-bottle-in-demo"
    assert outer == ["docker", "network", "create", "bot-bottle-out-demo"]
    assert f"type=bind,source={plan.db_dir},target=/run/supervise" in option(create, "--mount")
    assert f"type=bind,source={plan.bottle_dir},target=/run/bottle,readonly" in option(create, "--mount")
    assert option(create, "--user") == [f"{os.getuid()}:{os.getgid()}"]
    assert option(create, "--network") == ["bot-bottle-in-demo"]
    assert option(create, "--network-alias") == ["supervise", "egress", "git-gate"]
    assert {"--read-only", "--cap-drop"} < set(create)
    assert connect == ["docker", "network", "connect", "bot-bottle-out-demo", "bot-bottle-sidecars-demo"]
    assert start == ["docker", "start", "bot-bottle-sidecars-demo"]


def test_docker_mounts_a_path_with_a_comma(plan: Plan) -> None:
    mounts = option(docker.start(plan._replace(mounts=(("/a,b", "/run/supervise", "rw"),)))[2], "--mount")
    assert next(csv.reader(mounts[:1])) == ["type=bind", "source=/a,b", "target=/run/supervise"]


def test_docker_puts_the_agent_on_the_inner_network_alone(plan: Plan) -> None:
    agent = docker.agent(plan)
    assert option(agent, "--network") == ["bot-bottle-in-demo"]
    assert option(agent, "--mount") == ["type=volume,source=bot-bottle-ca-demo,target=/run/egress,readonly"]
    assert "HTTPS_PROXY=http://egress:8080" in option(agent, "--env")


def test_compose_says_what_the_commands_say(plan: Plan) -> None:
    document = docker.compose(plan, agent_image="agent:1", passed=["GITHUB_TOKEN"])
    create, agent = docker.start(plan, passed=["GITHUB_TOKEN"])[2], docker.agent(plan)
    for name, command in (("sidecars", create), ("agent", agent)):
        service = document["services"][name]
        environment = [key if value is None else f"{key}={value}" for key, value in service["environment"].items()]
        assert environment == option(command, "--env")
        assert service["container_name"] in command
        assert [mount["target"] for mount in service["volumes"]] == [
            field.removeprefix("target=")
            for mount in option(command, "--mount")
            for field in mount.split(",")
            if field.startswith("target=")
        ]
    assert document["networks"]["inside"]["internal"] is True
    assert list(document["services"]["agent"]["networks"]) == ["inside"]


def test_smolvm(remote: Plan) -> None:
    create, start = load("smolmachines").start(remote, image="./sidecars.tar", passed=["GITHUB_TOKEN"])
    assert create[:5] == ["smolvm", "machine", "create", "--name", "bot-bottle-sidecars-demo"]
    assert option(create, "--image") == ["./sidecars.tar"]
    assert option(create, "--volume") == volumes(remote)
    assert option(create, "--secret-env") == ["GITHUB_TOKEN=GITHUB_TOKEN"]
    assert option(create, "--network") == ["bot-bottle-in-demo"]
    assert start == ["smolvm", "machine", "start", "--name", "bot-bottle-sidecars-demo"]
    for slug in ("a.b", "a--b", "a-"):
        with pytest.raises(InvalidInputError, match="smolvm cannot call a machine"):
            load("smolmachines").start(remote._replace(slug=slug))


def test_apple_container(remote: Plan) -> None:
    network, run = load("macos-container").start(remote, passed=["GITHUB_TOKEN"])
    assert network == ["container", "network", "create", "--internal", "bot-bottle-in-demo"]
    assert run[:3] == ["container", "run", "--detach"] and run[-1] == "bot-bottle-sidecars"
    assert option(run, "--network") == ["default", "bot-bottle-in-demo"]
    assert option(run, "--volume") == volumes(remote)
    assert option(run, "--env")[-1] == "GITHUB_TOKEN"
    with pytest.raises(InvalidInputError, match="at most 43 characters"):
        load("macos-container").start(remote._replace(slug="a" * 44))
    load("macos-container").start(remote._replace(slug="a" * 43))
    with pytest.raises(InvalidInputError, match="colon"):
        load("macos-container").start(remote._replace(mounts=(("/a:b", "/run/bottle", "ro"),)))


def test_start_registers_and_prints_lines_for_a_shell(host: Host, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(ROUTES)
    lines = host.run("bottle", "start", "demo", "--file", f"egress-allow={mine}").stdout.splitlines()
    plan = Supervise().prepare("demo", files={"egress-allow": "routes.yaml"})
    assert [shlex.split(line) for line in lines[:-1]] == docker.start(plan)
    assert lines[-1] == f"# then its agent: {shlex.join([*docker.agent(plan), 'AGENT_IMAGE'])}"
    (bottle,) = host.json("bottle", "list")
    assert (bottle["slug"], bottle["backend"], bottle["stopped_at"]) == ("demo", "docker", None)
    assert bottle["files"] == {"egress-allow": str(host.root / "bottles/demo/routes.yaml")}


def test_start_prints_json_and_compose(host: Host) -> None:
    printed = host.json("bottle", "start", "demo", "--image", "mine:2")
    plan = Supervise().prepare("demo")
    assert printed["commands"] == docker.start(plan, image="mine:2") and printed["started"] is False
    composed = json.loads(host.run("bottle", "start", "demo", "--compose", "agent:1").stdout)
    assert composed == docker.compose(plan, agent_image="agent:1")


def test_stop_withdraws_and_prints(host: Host) -> None:
    host.run("bottle", "start", "demo")
    with QueueStore("demo") as queue:
        queue.write_proposal(Proposal.new("demo", "egress-allow", "routes: []\n", "why"))
        printed = host.json("bottle", "stop", "demo", "--yes")
        assert printed["withdrawn"] == 1 and printed["commands"] == docker.stop("demo")
        assert queue.list_pending_proposals() == []
    assert host.json("bottle", "list") == []


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `docker` that only notes how it was called, one JSON list a line, and fails where `FAIL_AT` is a word of it."""
    directory = tmp_path / "tools"
    directory.mkdir()
    calls = directory / "calls"
    script = directory / "docker"
    script.write_text(
        f"#!/usr/bin/env python3\nimport json, os, sys\n"
        f"if sys.argv[2] == 'inspect': sys.exit(print('[{{}}]'))\n"
        f"open({str(calls)!r}, 'a').write(json.dumps(['docker', *sys.argv[1:]]) + chr(10))\n"
        f"print('0123abcd')\nsys.exit(7 if os.environ.get('FAIL_AT') in sys.argv else 0)\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")
    return calls


def called(calls: Path) -> list[list[str]]:
    return [json.loads(line) for line in calls.read_text().splitlines()]


def test_run_runs_the_commands_in_order(host: Host, tool: Path) -> None:
    output = host.run("bottle", "start", "demo", "--run").stdout
    assert called(tool) == docker.start(Supervise().prepare("demo"))
    assert output.startswith("demo is starting") and "0123abcd" not in output
    tool.unlink()
    assert host.run("bottle", "stop", "demo", "--yes", "--run").stdout.startswith("demo has stopped")
    assert called(tool) == docker.stop("demo")


def test_a_start_that_fails_is_undone(host: Host, tool: Path) -> None:
    error = host.run("bottle", "start", "demo", "--run", code=1, FAIL_AT="connect").stderr
    assert "docker network connect" in error and "ended with 7" in error
    bottle = BottleStore().read_bottle("demo")
    assert bottle is not None and bottle.stopped_at
    assert called(tool) == [*docker.start(Supervise().prepare("demo"))[:4], *docker.stop("demo")]


def test_starting_a_running_bottle_again_leaves_it_alone(host: Host, tool: Path) -> None:
    host.run("bottle", "start", "demo", "--run")
    tool.unlink()
    host.run("bottle", "start", "demo", "--run", code=1, FAIL_AT="--internal")
    assert called(tool) == docker.start(Supervise().prepare("demo"))[:1]
    assert len(host.json("bottle", "list")) == 1


def test_stop_goes_through_all_and_reports_the_first_failure(host: Host, tool: Path) -> None:
    host.run("bottle", "start", "demo")
    error = host.run("bottle", "stop", "demo", "--yes", "--run", code=1, FAIL_AT="stop").stderr
    assert "docker stop bot-bottle-sidecars-demo" in error
    assert called(tool) == docker.stop("demo")
    assert host.json("bottle", "list") == []


def test_mistakes_are_answered_with_a_sentence(host: Host) -> None:
    host.root.mkdir()
    assert "nope" in host.run("bottle", "stop", "nope", code=4).stderr
    assert "TOOL=PATH" in host.run("bottle", "start", "demo", "--file", "routes.yaml", code=2).stderr
    vm = ("bottle", "start", "demo", "--backend", "smolmachines")
    assert "broker" in host.run(*vm, "--transport", "mount", code=8).stderr
    host.run("bottle", "start", "demo", "--backend", "smolmachines", "--compose", "agent:1", code=2)
    assert host.json("bottle", "list") == []
    missing = host.run("bottle", "start", "demo", "--run", code=2, PATH="/nowhere").stderr
    assert "docker is not installed" in missing
    assert host.json("bottle", "list") == []


def test_a_docker_whose_answer_cannot_be_read_is_no_state(host: Host, tool: Path) -> None:
    host.run("bottle", "start", "demo")
    (bottle,) = host.json("bottles")
    assert bottle["sidecars"]["state"] == "unknown" and "cannot be read" in bottle["sidecars"]["detail"]
