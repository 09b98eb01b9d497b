"""What do the tests of containers stand on? A Docker Engine, started if none answers, and the images of this checkout."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import bases
import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


class Images(NamedTuple):
    """Tags of what `Dockerfile.sidecars` builds, and of the plain Debian with Python under it."""

    sidecars: str
    helper: str
    python: str


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.containers)
            # The first test pays for the images: only what the tests themselves do counts.
            item.add_marker(pytest.mark.timeout(180, func_only=True))


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Docker Engine that answers; without one the tests are skipped, under `CI=true` they fail."""
    if reason := _cannot():
        if os.environ.get("CI") == "true":
            pytest.fail(f"containers cannot be tested: {reason}")
        pytest.skip(f"containers cannot be tested: {reason}")
    if _answers():
        yield
        return
    log = tmp_path_factory.mktemp("dockerd") / "log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(["dockerd"], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while not _answers():
            assert daemon.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)
        yield
    finally:
        daemon.terminate()
        daemon.wait()


def _cannot() -> str:
    if shutil.which("docker") is None:
        return "docker is not installed"
    if lacks := bases.missing():
        return f"making base images needs {', '.join(lacks)}"
    if not _answers() and shutil.which("dockerd") is None:
        return "no Docker Engine answers, and dockerd is not installed"
    return ""


def _answers() -> bool:
    return subprocess.run(["docker", "version"], capture_output=True).returncode == 0


@pytest.fixture(scope="session")
def images(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Images:
    """The images, built once a session; Docker's own cache makes that quick where nothing changed."""
    arguments = bases.build_arguments(tmp_path_factory.mktemp("debian"))
    tags = {target: f"bot-bottle-test/{target}:latest" for target in ("helper", "sidecars")}
    for target, tag in tags.items():
        build = ["docker", "build", "--network", "host", "--file", "Dockerfile.sidecars", "--target", target]
        done = subprocess.run([*build, "--tag", tag, *arguments, "."], cwd=CHECKOUT, capture_output=True, text=True)
        assert done.returncode == 0, f"{target}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    python = next(word.partition("=")[2] for word in arguments if word.startswith("PYTHON_BASE="))
    return Images(tags["sidecars"], tags["helper"], python)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a host's database: what a sidecar gets at /run/supervise."""
    monkeypatch.setenv("BOT_BOTTLE_ROOT", str(tmp_path / "root"))
    from bot_bottle import Database

    with Database() as database:
        database.migrate_all()
        return Path(database.real_path).parent


@pytest.fixture
def container() -> Iterator[Callable[..., str]]:
    """Starts a container in the background and returns its name; it is gone after the test."""
    names: list[str] = []

    def start(image: str, *command: str, options: tuple[str, ...] = ()) -> str:
        name = f"bot-bottle-test-{secrets.token_hex(4)}"
        names.append(name)
        docker("run", "--detach", "--name", name, *options, image, *command)
        return name

    yield start
    for name in names:
        docker("rm", "--force", "--volumes", name)


def docker(*words: str, code: int = 0) -> str:
    """Runs the client and returns its standard output; `code` is the exit code that it must end with."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True)
    assert done.returncode == code, f"docker {' '.join(words)} ended with {done.returncode}:\n{done.stderr}"
    return done.stdout
