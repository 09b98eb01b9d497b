"""Does the proxy start from its settings alone, and say in one sentence why if it cannot?"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from bot_bottle.documents.routes import load
from checkout import CHECKOUT
from egress_proxy import COMMAND


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EGRESS_", "SUPERVISE_"))}
    (tmp_path / "db").mkdir(exist_ok=True)
    return {
        **kept,
        "SUPERVISE_BOTTLE_SLUG": "demo",
        "SUPERVISE_DB_PATH": str(tmp_path / "db" / "bot-bottle.db"),
        "EGRESS_ROUTES_FILE": str(tmp_path / "routes.yaml"),
        "EGRESS_CONFDIR": str(tmp_path / "conf"),
        "EGRESS_HOST": "127.0.0.1",
        "EGRESS_PORT": "0",
        **more,
    }


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("SUPERVISE_BOTTLE_SLUG", "", "SUPERVISE_BOTTLE_SLUG is not set"),
        ("SUPERVISE_BOTTLE_SLUG", "Not A Slug", "Not A Slug"),
        ("EGRESS_PORT", "http", "EGRESS_PORT is 'http'"),
        ("EGRESS_PORT", "70000", "from 0 to 65535"),
        ("EGRESS_PORTS", "80,https", "EGRESS_PORTS is 'https'"),
        ("EGRESS_TOKEN_ALLOW_TIMEOUT_SECONDS", "soon", "EGRESS_TOKEN_ALLOW_TIMEOUT_SECONDS is 'soon'"),
        ("EGRESS_TOKEN_ALLOW_TIMEOUT_SECONDS", "0", "from 1 to 86400"),
        ("EGRESS_TOKEN_ALLOW_TIMEOUT_SECONDS", "nan", "from 1 to 86400"),
        ("EGRESS_PRIVATE_NETWORKS", "house", "EGRESS_PRIVATE_NETWORKS"),
        ("EGRESS_CONNECT_TO", "house", "EGRESS_CONNECT_TO"),
        ("EGRESS_UPSTREAM_CA_FILE", "/absent.pem", "EGRESS_UPSTREAM_CA_FILE /absent.pem: No such file"),
        ("EGRESS_UPSTREAM_CA_FILE", __file__, "holds no certificate"),
        ("EGRESS_CA_CERT_FILE", "/absent/ca.pem", "EGRESS_CA_CERT_FILE /absent/ca.pem: No such file"),
        ("EGRESS_CONFDIR", "/proc/absent", "EGRESS_CONFDIR /proc/absent"),
        ("EGRESS_FINGERPRINT_KEY_FILE", "/proc/absent/key", "EGRESS_FINGERPRINT_KEY_FILE /proc/absent/key"),
        ("EGRESS_FINGERPRINT_KEY_FILE", "/dev/null", "less than 32 bytes"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(tmp_path: Path, name: str, value: str, said: str) -> None:
    done = subprocess.run(
        COMMAND, env=environment(tmp_path, **{name: value}), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if "routes-refused" not in line]) == 1, done.stderr


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            COMMAND, env=environment(tmp_path, EGRESS_PORT=port), capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_obeyed(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(COMMAND, env=environment(tmp_path), stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = ""
        while "listening on port" not in said:
            said += process.stderr.readline()
        assert "everything is denied until it is mended" in said, "it starts without routes, and lets nothing through"
        process.send_signal(number)
        assert process.wait(10) == 0
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.stderr.close()  # type: ignore[union-attr]


def test_every_setting_is_documented() -> None:
    read = set(re.findall(r'"((?:EGRESS|SUPERVISE)_[A-Z_]+)"', (CHECKOUT / "rust/egress/src/settings.rs").read_text()))
    told = (CHECKOUT / "docs" / "egress.md").read_text()
    assert len(read) > 12 and all(f"`{name}`" in told for name in read), sorted(read)


def test_every_refusal_is_documented() -> None:
    told = (CHECKOUT / "docs" / "egress.md").read_text()
    given = set()
    for crate in ("egress", "routes"):
        for path in (CHECKOUT / "rust" / crate / "src").glob("*.rs"):
            given |= set(re.findall(r'Refusal::new\(\s*"([a-z_]+)"', path.read_text()))
    missing = sorted(name for name in given if f"`{name}`" not in told)
    assert len(given) > 15 and not missing, missing


def test_the_documented_routes_are_valid() -> None:
    text = (CHECKOUT / "docs" / "egress.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert [route.host for route in load(example).routes] == ["pypi.org", "*.githubusercontent.com", "api.github.com"]
