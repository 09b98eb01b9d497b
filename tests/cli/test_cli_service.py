"""Does a service manager get what starts the program, and nothing that is somebody else's?"""

from __future__ import annotations

import plistlib
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bot_bottle.cli import service
from cli_process import PROGRAMS, Host

UNIT = ".config/systemd/user/bot-bottle-notify.service"

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="there it is launchd's")


def manager(host: Host) -> tuple[Path, str]:
    """A ``systemctl`` that notes how it is called; and the PATH on which it comes first."""
    directory = host.root.parent / "programs"
    directory.mkdir()
    program, log = directory / "systemctl", directory / "log"
    program.write_text(f'#!/bin/sh\necho "$@" >> {shlex.quote(str(log))}\n')
    program.chmod(0o755)
    return log, f"{directory}:{PROGRAMS}:/usr/bin:/bin"


def test_a_unit_is_written_and_nothing_started_unless_asked(host: Host) -> None:
    log, path = manager(host)
    said = host.run("service", "install", "notify", PATH=path).stdout
    unit = host.root.parent / UNIT
    assert f"wrote {unit}" in said and "systemctl --user enable --now bot-bottle-notify.service" in said
    assert not log.exists()
    text = unit.read_text()
    assert f'ExecStart="{PROGRAMS / "bot-bottle"}" "notify" "run"\n' in text
    assert f'Environment="BOT_BOTTLE_ROOT={host.root}"\n' in text
    assert host.json("service", "install", "notify", "--start", PATH=path)["started"] is True
    assert log.read_text().splitlines() == ["--user daemon-reload", "--user enable --now bot-bottle-notify.service"]
    host.run("service", "uninstall", "notify", PATH=path)
    assert log.read_text().splitlines()[-1] == "--user disable --now bot-bottle-notify.service"
    assert not unit.exists()
    assert "there is no" in host.run("service", "uninstall", "notify", code=4, PATH=path).stderr


def test_a_unit_of_somebody_else_is_left_alone(host: Host) -> None:
    unit = host.root.parent / UNIT
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    for verb in ("install", "uninstall"):
        assert "not from here" in host.run("service", verb, "notify", code=2).stderr
    assert "ExecStart=/bin/true" in unit.read_text()


def test_a_manager_that_fails_is_quoted(host: Host) -> None:
    _, path = manager(host)
    (host.root.parent / "programs" / "systemctl").write_text("#!/bin/sh\necho no bus >&2; exit 1\n")
    assert "no bus" in host.run("service", "install", "policy", "--start", code=1, PATH=path).stderr


def test_systemd_reads_each_unit_as_it_was_meant(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    program = tmp_path / 'a "b" 100% $HOME'
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "bot-bottle-test.service"
    unit.write_bytes(service.systemd("x", [str(program), "run"], {"A": 'b "c" %d $e'}))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", unit], capture_output=True, text=True, timeout=60
    )
    assert "bot-bottle-test.service" not in done.stderr, done.stderr


def test_launchd_gets_a_property_list() -> None:
    text = service.plist("io.bot-bottle.notify", ["/a & b/bot-bottle", "notify", "run"], {"BOT_BOTTLE_ROOT": "/<r>"})
    read = plistlib.loads(text)
    assert read["ProgramArguments"] == ["/a & b/bot-bottle", "notify", "run"]
    assert read["EnvironmentVariables"] == {"BOT_BOTTLE_ROOT": "/<r>"}
    assert b"service install" in text
