"""Does ``bot-bottle dashboard`` lead to a dashboard, whether or not there was one?"""

from __future__ import annotations

import stat
from pathlib import Path

import httpx

from bot_bottle.web.dashboard import address
from cli_process import Host
from dashboard_process import Served


def test_it_starts_one_and_leads_to_the_same_again_until_it_is_stopped(host: Host) -> None:
    assert "nobody serves" in host.run("dashboard", "--stop", code=4).stderr
    served = Served(host)
    try:
        first, second = host.json("dashboard"), host.json("dashboard")
        assert first["url"] == second["url"] == served.where
        assert first["link"] != second["link"]
        assert first["link"].startswith(f"{served.where}/login#")
        assert host.run("dashboard", "--no-open").stdout.splitlines()[0].startswith(f"{served.where}/login#")
        assert host.json("dashboard", "--stop")["stopped"] is True
        assert served.process.wait(30) == 0
    finally:
        served.process.kill()
        served.process.communicate()
    assert address.running() is None


def test_one_that_it_started_goes_on_alone(host: Host) -> None:
    told = host.json("dashboard", "--operator-listen", "127.0.0.1:0")
    try:
        assert httpx.get(f"{told['url']}/login", trust_env=False).status_code == 200
        assert address.running() == address.Address(told["url"], None, told["pid"])
    finally:
        host.run("dashboard", "--stop")


def test_the_link_is_in_no_list_of_processes(host: Host, tmp_path: Path, dashboard: Served) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/arguments\n')
    browser.chmod(0o755)
    link = host.run("dashboard", DISPLAY=":99", BROWSER=f"{browser} %s").stdout.splitlines()[0]
    secret = link.partition("#")[2]
    arguments = (tmp_path / "arguments").read_text()
    assert arguments.startswith("file://") and secret not in arguments
    page = Path(arguments.strip().removeprefix("file://"))
    assert secret in page.read_text()
    assert stat.S_IMODE(page.stat().st_mode) == 0o600


def test_what_keeps_it_from_starting_is_said(host: Host) -> None:
    refused = host.run("dashboard", "--operator-listen", "0.0.0.0:0", code=1)
    assert "could not be started: --operator-listen needs a loopback address" in refused.stderr
