"""Is what `bot-bottle bottles` says of a bottle's sidecars what the engine knows?"""

from __future__ import annotations

import io
import json
import secrets
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
from engine import docker

from bot_bottle import Supervise
from bot_bottle.launch.backend import names
from cli_process import Host
from needs import cannot
from store_process import eventually

IMAGE = "bot-bottle-test/busybox:latest"
# A daemon that says two lines and goes on until it is told to end; healthy while a file is there.
DAEMON = "echo one; echo two; trap 'exit 3' TERM; while :; do sleep 1 & wait $!; done"
HEALTH = "test -e /ok || { echo not listening: egress; exit 1; }"


@pytest.fixture(scope="module")
def busybox(engine: None) -> str:
    """An image with a shell and nothing else."""
    program = shutil.which("busybox")
    if program is None:
        cannot("needs a static busybox")
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(program, "bin/busybox")
        for name in ("sh", "sleep", "test", "touch"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    subprocess.run(["docker", "import", "-", IMAGE], input=layer.getvalue(), check=True, capture_output=True)
    return IMAGE


@pytest.fixture
def slug(engine: None, host: Host) -> Iterator[str]:
    slug = f"s{secrets.token_hex(4)}"
    Supervise().prepare(slug)
    yield slug
    subprocess.run(["docker", "rm", "--force", names(slug).sidecars], capture_output=True)


def create(slug: str, image: str, *options: str) -> str:
    name = names(slug).sidecars
    docker("create", "--name", name, *options, image, "/bin/sh", "-c", DAEMON)
    return name


def said(host: Host, slug: str) -> dict[str, Any]:
    (bottle,) = (each for each in host.json("bottles", "--all") if each["slug"] == slug)
    sidecars: dict[str, Any] = bottle["sidecars"]
    return sidecars


def health(name: str) -> str:
    status: str = json.loads(docker("inspect", name))[0]["State"]["Health"]["Status"]
    return status


def test_a_bottle_that_was_only_printed_is_registered(host: Host, slug: str) -> None:
    assert said(host, slug) == {"state": "registered", "since": None, "detail": "it has no sidecars"}
    assert f"{slug} is registered: it has no sidecars" in host.run("bottles").stdout


def test_a_bottle_goes_from_created_to_running_to_ended(host: Host, slug: str, busybox: str) -> None:
    name = create(slug, busybox)
    assert said(host, slug)["state"] == "created"
    docker("start", name)
    assert said(host, slug)["state"] == "running"
    eventually(lambda: "two" in docker("logs", name))
    docker("stop", "--time", "60", name)
    now = said(host, slug)
    assert (now["state"], now["detail"]) == ("ended", "with exit code 3, its last words: two")
    assert now["since"] is not None
    assert f"{slug} is ended since" in host.run("bottles").stdout


def test_a_daemon_that_does_not_answer_degrades_the_bottle_until_it_does(host: Host, slug: str, busybox: str) -> None:
    check = ["--health-cmd", HEALTH, "--health-interval", "1s", "--health-retries", "1", "--health-timeout", "60s"]
    name = create(slug, busybox, *check)
    docker("start", name)
    eventually(lambda: "two" in docker("logs", name))
    eventually(lambda: health(name) == "unhealthy", within=60)
    now = said(host, slug)
    assert (now["state"], now["detail"]) == ("degraded", "not listening: egress; the last line of the log: two")
    assert f"{slug} is degraded since {now['since'][:10]}" in host.run("bottles").stdout
    docker("exec", name, "/bin/touch", "/ok")
    eventually(lambda: health(name) == "healthy", within=60)
    assert (said(host, slug)["state"], said(host, slug)["detail"]) == ("healthy", "")


def test_a_bottle_that_has_not_been_checked_yet_is_starting(host: Host, slug: str, busybox: str) -> None:
    docker("start", create(slug, busybox, "--health-cmd", HEALTH, "--health-interval", "1h"))
    assert said(host, slug)["state"] == "starting"


def test_sidecars_that_outlive_their_bottle_are_named(host: Host, slug: str, busybox: str) -> None:
    docker("start", create(slug, busybox))
    Supervise().stop(slug)
    assert f"{slug} was stopped, but its sidecars run" in host.run("bottles", "--all").stdout


def test_an_engine_that_cannot_be_asked_is_no_state(host: Host, slug: str) -> None:
    gone = f"unix://{host.root}/no.sock"
    (bottle,) = host.json("bottles", DOCKER_HOST=gone)
    assert bottle["sidecars"]["state"] == "unknown" and "Docker daemon" in bottle["sidecars"]["detail"]
    (bottle,) = host.json("bottles", PATH="/nowhere")
    assert bottle["sidecars"] == {"state": "unknown", "since": None, "detail": "docker is not installed here"}


def test_many_bottles_are_one_question_and_each_gets_its_own_answer(host: Host, slug: str, busybox: str) -> None:
    docker("start", create(slug, busybox))
    Supervise().prepare("elsewhere", backend="smolmachines")
    Supervise().prepare("printed")
    states = {bottle["slug"]: bottle["sidecars"]["state"] for bottle in host.json("bottles")}
    assert states == {slug: "running", "elsewhere": "unknown", "printed": "registered"}


def test_a_damaged_registration_leads_to_no_question(host: Host, slug: str) -> None:
    script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2], [sys.argv[3]]); c.commit()"
    update = "UPDATE bottles SET slug = 'a' || char(0) || 'b' WHERE slug = ?"
    # By a process of its own: two copies of SQLite in one break each other's locks.
    subprocess.run([sys.executable, "-c", script, host.root / "db" / "bot-bottle.db", update, slug], check=True)
    (bottle,) = host.json("bottles", "--all")
    assert bottle["damaged"] and bottle["sidecars"] == {"state": "unknown", "since": None, "detail": ""}
