"""Is an agent told that routes are in effect only once the egress proxy has loaded just these? With the real proxy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bot_bottle import BottleStore, sha256_hex
from mcp_sidecar import Sidecar, ask, operator, outcome, routes


@contextmanager
def proxy(root: Path, slug: str, directory: Path, file: Path) -> Iterator[str]:
    """The proxy of a bottle, and its URL; it reads ``file``."""
    environment = {
        **os.environ,
        "SUPERVISE_BOTTLE_SLUG": slug,
        "SUPERVISE_DB_PATH": str(root / "db" / "bot-bottle.db"),
        "EGRESS_ROUTES_FILE": str(file),
        "EGRESS_HOST": "127.0.0.1",
        "EGRESS_PORT": "0",
        "EGRESS_CONFDIR": str(directory / "conf"),
        "EGRESS_CA_CERT_FILE": str(directory / "ca.pem"),
    }
    command = [sys.executable, "-m", "bot_bottle.sidecars.egress"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            port = next(found[1] for line in process.stderr if (found := re.search(r"listening on port (\d+)", line)))
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def bottle(root: Path, slug: str) -> Path:
    """A bottle whose approvals write its routes; where they are."""
    file = root / "bottles" / slug / "routes.yaml"
    file.parent.mkdir(parents=True, mode=0o700)
    BottleStore().register(slug, backend="docker", files={"egress-allow": str(file)})
    return file


def standing(url: str) -> Any:
    with urllib.request.urlopen(f"{url}/bot-bottle/routes", timeout=60) as answer:
        return json.load(answer)


def test_routes_are_in_effect_once_the_proxy_has_loaded_them(root: Path, tmp_path: Path) -> None:
    file = bottle(root, "forced")
    with proxy(root, "forced", tmp_path, file) as url, Sidecar(root, "forced", egress_url=url) as sidecar:
        assert standing(url) == {"sha256": None, "refused": None}
        with operator("forced.example", status="approved"):
            told = ask(sidecar, routes("forced.example"))
        assert (told["status"], told["in_effect"]) == ("approved", True)
        assert standing(url) == {"sha256": sha256_hex(routes("forced.example")), "refused": None}
        assert ask(sidecar, routes("forced.example"))["in_effect"]
        # The last good ones stay in force, and the proxy says what it does not use.
        file.write_text("routes: [")
        said = standing(url)
        assert said["sha256"] == sha256_hex(routes("forced.example")) and "routes.yaml" in said["refused"]


def test_a_proxy_that_reads_another_file_is_not_taken_for_one_with_these_routes(root: Path, tmp_path: Path) -> None:
    bottle(root, "elsewhere")
    other = tmp_path / "routes.yaml"
    other.write_text(routes("other.example"))
    with proxy(root, "elsewhere", tmp_path, other) as url, Sidecar(root, "elsewhere", egress_url=url) as sidecar:
        with operator("elsewhere.example", status="approved"):
            told = ask(sidecar, routes("elsewhere.example"))
        assert (told["status"], told["in_effect"]) == ("approved", False)
        assert "the egress proxy reads another file" in told["message"] and "Tell the operator" in told["next_step"]
        again = ask(sidecar, routes("elsewhere.example"))
        assert not again["in_effect"]
        other.write_text("routes: [")
        other.touch()
        with operator("refused.example", status="approved"):
            told = ask(sidecar, routes("refused.example"))
        assert not told["in_effect"] and "does not use it" in told["message"]


def test_a_proxy_that_is_not_there_confirms_nothing(root: Path) -> None:
    bottle(root, "gone")
    with Sidecar(root, "gone", egress_url="http://127.0.0.1:9") as sidecar:
        with operator("gone.example", status="approved"):
            told = ask(sidecar, routes("gone.example"))
        assert not told["in_effect"] and "does not answer" in told["message"]


def test_routes_that_were_changed_again_are_not_in_effect_any_more(root: Path, tmp_path: Path) -> None:
    file = bottle(root, "changed")
    with proxy(root, "changed", tmp_path, file) as url, Sidecar(root, "changed", egress_url=url) as sidecar:
        with operator("first.example", status="approved"):
            first = ask(sidecar, routes("first.example"))
        with operator("second.example", status="approved"):
            ask(sidecar, routes("second.example"))
        told = outcome(sidecar.call("check-proposal", proposal_id=first["proposal_id"]))
        assert not told["in_effect"] and "changed again since" in told["message"]


def test_the_proxy_s_page_is_not_for_requests_through_it(root: Path, tmp_path: Path) -> None:
    with proxy(root, "through", tmp_path, tmp_path / "routes.yaml") as url:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": url}))
        with pytest.raises(urllib.error.HTTPError) as refused:
            opener.open("http://example.com/bot-bottle/routes", timeout=60)
        assert refused.value.code == 403


def test_the_health_check_names_routes_that_the_proxy_refuses(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text("routes: [")
    with proxy(root, "ill", tmp_path, file) as url:
        environment = {**os.environ, "BOT_BOTTLE_SIDECAR_DAEMONS": "egress", "EGRESS_PORT": url.rpartition(":")[2]}
        command = [sys.executable, "-m", "bot_bottle.sidecars", "health"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and "routes.yaml" in done.stderr and "egress: " in done.stderr
        file.write_text(routes("well.example"))
        assert subprocess.run(command, env=environment, timeout=60).returncode == 0
