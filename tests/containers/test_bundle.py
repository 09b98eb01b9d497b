"""Do the daemons of a bundle live and end together, in the image that they ship in?"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from engine import FINDINGS, Container, Images, docker, mounting, until_healthy

Run = Callable[..., Container]
Bundle = Callable[..., Container]

# Prints the daemons' names, or does something to one of them: /proc instead of ps, which the image does not have.
DAEMONS = """
import os, pathlib, signal, sys
for path in sorted(pathlib.Path("/proc").glob("[0-9]*/cmdline")):
    words = path.read_text().split(chr(0))
    name = "egress" if words[0].endswith("/bot-bottle-egress") else ""
    if words[1:2] == ["-m"] and words[2].startswith("bot_bottle.sidecars."):
        name = words[2].rpartition(".")[2]
    if name:
        if len(sys.argv) == 1:
            print(name)
        elif name == sys.argv[1]:
            os.kill(int(path.parent.name), getattr(signal, sys.argv[2]))
"""


@pytest.fixture
def bundle(images: Images, shared: Path, run: Run) -> Bundle:
    """Starts the bundle as docker.py would; `variables` are more of its environment."""

    def start(*variables: str, healthy: bool = True) -> Container:
        options = [*mounting(shared), "--read-only", "--tmpfs", "/tmp", "--tmpfs", "/run/egress:mode=1777"]
        options += ["--tmpfs", "/var/lib/bot-bottle:mode=1777", "--cap-drop", "ALL"]
        options += ["--security-opt", "no-new-privileges"]
        for variable in ("SUPERVISE_BOTTLE_SLUG=demo", *variables):
            options += ["--env", variable]
        container = run(images.sidecars, options=options)
        if healthy:
            until_healthy(container.name)
        return container

    return start


def daemons(container: Container, *arguments: str) -> list[str]:
    return sorted(docker("exec", container.name, "python3", "-c", DAEMONS, *arguments).split())


def test_all_three_run_and_a_stop_ends_them_in_peace(bundle: Bundle) -> None:
    container = bundle()
    assert daemons(container) == ["egress", "git_gate", "supervise"]
    docker("stop", "-t", "20", container.name)
    assert container.code() == 0, container.logs()


@pytest.mark.parametrize("chosen", [["supervise"], ["git-gate", "supervise"]], ids=",".join)
def test_the_variable_narrows_them(bundle: Bundle, chosen: Sequence[str]) -> None:
    container = bundle(f"BOT_BOTTLE_SIDECAR_DAEMONS={','.join(chosen)}")
    assert daemons(container) == [name.replace("-", "_") for name in chosen]


@pytest.mark.parametrize("value", ["", "supervise,egres"])
def test_a_variable_that_names_no_daemon_is_refused(bundle: Bundle, value: str) -> None:
    container = bundle(f"BOT_BOTTLE_SIDECAR_DAEMONS={value}", healthy=False)
    assert container.code() == 2
    assert "egress, git-gate, supervise" in container.logs()


def test_a_daemon_that_fails_takes_the_bundle_down_with_its_code(bundle: Bundle) -> None:
    container = bundle("SUPERVISE_PORT=none", healthy=False)
    assert container.code() == 2
    assert "supervise ended with 2" in container.logs()


@pytest.mark.parametrize("name", ["egress", "git_gate", "supervise"])
def test_a_daemon_that_is_killed_takes_the_bundle_down(bundle: Bundle, name: str) -> None:
    container = bundle()
    daemons(container, name, "SIGKILL")
    assert container.code() == 137
    assert f"{name.replace('_', '-')} ended with 137" in container.logs()


def test_a_daemon_that_does_not_end_is_killed_after_the_grace(bundle: Bundle) -> None:
    container = bundle()
    daemons(container, "egress", "SIGSTOP")
    started = time.monotonic()
    docker("stop", "-t", "60", container.name)
    took = time.monotonic() - started
    assert container.code() == 137
    assert "egress did not end within 8 s: killed" in container.logs()
    assert 8 <= took < 40


def test_without_its_mount_the_bundle_ends_and_says_why(images: Images, run: Run) -> None:
    container = run(images.sidecars, options=["--env", "SUPERVISE_BOTTLE_SLUG=demo"])
    assert container.code() != 0
    assert "/run/supervise" in container.logs()


def test_the_file_alone_as_its_mount_is_refused(images: Images, shared: Path, run: Run) -> None:
    alone = f"type=bind,source={shared}/bot-bottle.db,target=/run/supervise/bot-bottle.db"
    user = f"{os.getuid()}:{os.getgid()}"
    options = ["--mount", alone, "--user", user, "--env", "SUPERVISE_BOTTLE_SLUG=demo"]
    container = run(images.sidecars, options=options)
    assert container.code() == 8, container.logs()


def test_a_uid_without_a_name_gets_one_for_ssh(images: Images, run: Run, shared: Path) -> None:
    shared.chmod(0o777)
    for path in shared.iterdir():
        path.chmod(0o666)
    options = ["--mount", f"type=bind,source={shared},target=/run/supervise", "--user", "54321:54321"]
    options += ["--env", "SUPERVISE_BOTTLE_SLUG=demo", "--env", "BOT_BOTTLE_SIDECAR_DAEMONS=supervise"]
    container = run(images.sidecars, options=options)
    until_healthy(container.name)
    # ssh fails for want of a name before it looks at anything else.
    ssh = subprocess.run(["docker", "exec", container.name, "ssh", "-G", "host.test"], capture_output=True, text=True)
    assert ssh.returncode == 0 and "user sidecar" in ssh.stdout.splitlines(), ssh.stderr


def test_the_image_is_what_a_careful_host_wants(images: Images) -> None:
    (image,) = json.loads(docker("image", "inspect", images.sidecars))
    config = image["Config"]
    assert config["User"] == "65532:65532"
    assert config["Healthcheck"]["Test"] == ["CMD", "python3", "-m", "bot_bottle.sidecars", "health"]
    assert config["Entrypoint"][0] == "tini"
    assert "SUPERVISE_DB_PATH=/run/supervise/bot-bottle.db" in config["Env"]
    look = "test ! -e /run/supervise && gitleaks version && git --version && bot-bottle-sidecar --version"
    docker("run", "--rm", "--entrypoint", "sh", images.sidecars, "-c", look)
    for name, tag in (("sidecars", images.sidecars), ("helper", images.helper), ("their base", images.python)):
        size = int(json.loads(docker("image", "inspect", tag))[0]["Size"])
        FINDINGS.append(f"image of {name}: {size / 1e6:.1f} MB")


def test_the_helper_is_the_only_file_of_its_image(images: Images) -> None:
    name = docker("create", images.helper).strip()
    try:
        export = subprocess.Popen(["docker", "export", name], stdout=subprocess.PIPE)
        listing = subprocess.run(["tar", "-t"], stdin=export.stdout, capture_output=True, text=True, check=True)
        export.wait()
    finally:
        docker("rm", name)
    # The rest are the empty places that Docker puts its own files over.
    theirs = {".dockerenv", "dev", "etc", "proc", "sys"}
    assert {line for line in listing.stdout.splitlines() if line.split("/")[0] not in theirs} == {"bot-bottle-sidecar"}
