"""What do the tests of containers stand on? A Docker Engine, started if none answers, and images of this checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import bases
import pytest
from engine import FINDINGS, Container, Images, mounting

from bot_bottle import Database
from checkout import CHECKOUT
from cli_process import Host
from needs import cannot


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
        cannot(f"containers cannot be tested: {reason}")
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
    # As much as the rest of this run's programs, and no more, is the image's optimised.
    optimised = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("CARGO_PROFILE_RELEASE_")]
    arguments += [word for each in optimised for word in ("--build-arg", each)]
    tags = {target: f"bot-bottle-test/{target}:latest" for target in ("helper", "sidecars")}
    for target, tag in tags.items():
        build = ["docker", "build", "--network", "host", "--file", "Dockerfile.sidecars", "--target", target]
        done = subprocess.run([*build, "--tag", tag, *arguments, "."], cwd=CHECKOUT, capture_output=True, text=True)
        assert done.returncode == 0, f"{target}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    python = next(word.partition("=")[2] for word in arguments if word.startswith("PYTHON_BASE="))
    return Images(tags["sidecars"], tags["helper"], python)


@pytest.fixture
def shared(host: Host) -> Path:
    """The directory of the host's database, which a sidecar gets at /run/supervise."""
    with Database() as database:
        database.migrate_all()
        return Path(database.real_path).parent


@pytest.fixture
def run() -> Iterator[Callable[..., Container]]:
    """Starts containers, which are gone after the test."""
    started: list[Container] = []

    def start(image: str, *command: str, options: Sequence[str] = ()) -> Container:
        started.append(Container(image, *command, options=options))
        return started[-1]

    yield start
    for container in started:
        subprocess.run(["docker", "rm", "--force", "--volumes", container.name], capture_output=True)
        container.client.communicate()


@pytest.fixture
def sidecar(images: Images, shared: Path, run: Callable[..., Container]) -> Callable[..., Container]:
    """Runs Python code in the bundle's image beside the host's database, as the sidecars are run."""

    def start(code: str, *arguments: str) -> Container:
        return run(images.sidecars, "-c", code, *arguments, options=[*mounting(shared), "--entrypoint", "python3"])

    return start


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was measured on the way; no test depends on it."""
    for finding in FINDINGS:
        terminalreporter.write_line(finding)
