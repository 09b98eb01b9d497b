"""Is the file that was named at a bottle's start the one that its sidecars read and its approvals write?"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bot_bottle import Inbox, Supervise
from cli_process import MORE_ROUTES, PROGRAMS, ROUTES, Host


def start(host: Host, directory: Path, *words: str, code: int = 0) -> str:
    """``bottle start demo`` in a directory; what it said on standard error."""
    done = subprocess.run(
        [PROGRAMS / "bot-bottle", "bottle", "start", "demo", *words],
        cwd=directory,
        env=host.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def own(host: Host, name: str = "routes.yaml") -> Path:
    return host.root / "bottles" / "demo" / name


def test_a_path_is_one_from_the_current_directory_and_what_the_sidecars_read_is_a_copy(
    host: Host, tmp_path: Path
) -> None:
    mine = tmp_path / "work" / "routes.yaml"
    mine.parent.mkdir()
    mine.write_text(ROUTES)
    told = start(host, mine.parent, "--file", "egress-allow=routes.yaml")
    assert f"{mine} was copied to {own(host)}" in told
    assert own(host).read_text() == ROUTES and own(host).stat().st_mode & 0o777 == 0o600
    (bottle,) = host.json("bottles")
    assert bottle["files"] == {"egress-allow": str(own(host))}
    # What is registered lies in the one directory of the host that the sidecars are given.
    mounts = {target: source for source, target, _ in Supervise().prepare("demo").mounts}
    assert own(host).parent == Path(mounts["/run/bottle"])


def test_an_approval_replaces_the_copy_and_leaves_the_original_alone(host: Host, tmp_path: Path) -> None:
    mine = tmp_path / "other-name.yaml"
    mine.write_text(ROUTES)
    start(host, tmp_path, "--file", f"egress-allow={mine.name}")
    proposal = host.propose(MORE_ROUTES, against=ROUTES)
    with Inbox() as inbox:
        assert inbox.decide(proposal.id, "approved", payload_sha256=proposal.payload_sha256).applied_at
    assert (own(host).read_text(), mine.read_text()) == (MORE_ROUTES, ROUTES)
    error = start(host, tmp_path, "--file", f"egress-allow={mine.name}", code=2)
    assert f"{mine} is not what the bottle has in {own(host)}" in error
    assert own(host).read_text() == MORE_ROUTES
    assert "copied" not in start(host, tmp_path, "--file", f"egress-allow={own(host)}")
    assert own(host).read_text() == MORE_ROUTES


def test_starting_again_with_the_same_file_copies_nothing(host: Host, tmp_path: Path) -> None:
    (tmp_path / "routes.yaml").write_text(ROUTES)
    for expected in (True, False):
        told = start(host, tmp_path, "--file", "egress-allow=routes.yaml", "--file", "egress-block=routes.yaml")
        assert ("was copied" in told) is expected


def test_a_dockerfile_gets_the_name_by_which_it_is_looked_for(host: Host, tmp_path: Path) -> None:
    (tmp_path / "agent.dockerfile").write_text("FROM debian\n")
    start(host, tmp_path, "--file", "capability-block=agent.dockerfile")
    assert own(host, "Dockerfile").read_text() == "FROM debian\n"


def test_the_bottle_s_own_file_may_still_have_to_be_made(host: Host, tmp_path: Path) -> None:
    start(host, tmp_path, "--file", f"egress-allow={own(host)}")
    (bottle,) = host.json("bottles")
    assert bottle["files"] == {"egress-allow": str(own(host))} and not own(host).exists()


@pytest.mark.parametrize(
    ("word", "code", "why"),
    [
        ("egress-allow=nowhere.yaml", 4, "there is no file"),
        ("egress-allow=.", 2, "is not a regular file"),
        ("egress-allow=pipe", 2, "is not a regular file"),
        ("egress-allow=bad.yaml", 2, "would not be loaded: routes.yaml line 2"),
        ("egress-allow=latin.yaml", 2, "is not UTF-8 text (byte 2)"),
        ("egress-allow=long.yaml", 2, "is longer than"),
        ("gitleaks-allow=routes.yaml", 2, "is not a tool with a file: it is one of egress-allow"),
        ("egres-allow=routes.yaml", 2, "is not a tool with a file"),
    ],
)
def test_a_file_that_no_sidecar_would_load_is_refused_and_nothing_is_registered(
    host: Host, tmp_path: Path, word: str, code: int, why: str
) -> None:
    (tmp_path / "routes.yaml").write_text(ROUTES)
    (tmp_path / "bad.yaml").write_text("routes:\n  - hosst: pypi.org\n")
    (tmp_path / "latin.yaml").write_bytes(b"# \xe9\n")
    (tmp_path / "long.yaml").write_text("#" * 300_000)
    os.mkfifo(tmp_path / "pipe")
    assert why in start(host, tmp_path, "--file", word, code=code)
    host.root.mkdir(exist_ok=True)
    assert host.json("bottles", "--all") == []
    assert not own(host).exists()
