"""Do the three sidecars do through the broker what they do on the mounted file? Each asks once and is answered."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bot_bottle import BottleStore, Database, host_db_path
from broker_process import Broker, token
from egress_proxy import Answer, Proxy, Server, github_token, server
from git_pushes import BOTTLE, FAR, World, environment, secret, world
from mcp_sidecar import Sidecar, operator, outcome, routes
from store_process import eventually

__all__ = ["server", "world"]

Launch = Callable[[str], dict[str, str]]


@pytest.fixture
def launch(broker: Broker, tmp_path: Path) -> Iterator[Launch]:
    """What a sidecar of a bottle is started with. No file is at the path that the image sets."""

    def settings(slug: str) -> dict[str, str]:
        path = tmp_path / f"{slug}.token"
        path.write_text(token(slug))
        path.chmod(0o600)
        nowhere = str(tmp_path / "nowhere" / "bot-bottle.db")
        return {"SUPERVISE_URL": broker.url, "SUPERVISE_TOKEN_FILE": str(path), "SUPERVISE_DB_PATH": nowhere}

    yield settings
    assert not (tmp_path / "nowhere").exists()
    # Whatever reached the rows came this way, and nothing was refused.
    eventually(lambda: ("POST", "/v1/proposals") in [(line["method"], line["route"]) for line in broker.requests()])
    assert {line["status"] for line in broker.requests()} <= {200, 204, 404}


def test_an_agent_asks_the_mcp_server_for_a_host(launch: Launch, broker: Broker) -> None:
    found = launch("demo")
    root = Path(host_db_path()).parent
    sidecar = Sidecar(
        root,
        "demo",
        wait_seconds="60",
        url=found["SUPERVISE_URL"],
        token_file=found["SUPERVISE_TOKEN_FILE"],
        db_path=found["SUPERVISE_DB_PATH"],
    )
    (sidecar.files / "routes.yaml").write_text(routes("old.example"))
    BottleStore().register("demo", backend="docker", files={"egress-allow": "routes.yaml"})
    file = routes("old.example", "new.example")
    with sidecar, operator("new.example", status="approved", notes="fine"):
        told = outcome(sidecar.call("allow", proposed_file=file, justification="for the build"))
        assert (sidecar.files / "routes.yaml").read_text() == file
    assert (told["status"], told["in_effect"], told["notes"]) == ("approved", True, "fine")


def test_the_proxy_holds_a_request_until_it_is_approved(
    launch: Launch, broker: Broker, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "egress").mkdir()
    proxy = Proxy(tmp_path / "egress", server, **launch("demo"))
    proxy.db = Path(host_db_path())  # where its operator looks
    held = github_token()
    try:
        request = proxy.curl_started("https://api.example.test/", "-d", held)
        assert proxy.decide("approved", grant="uses:2")["tool"] == "egress-token-allow"
        assert Answer.of(request).status == 200
        assert proxy.curl("https://api.example.test/", "-d", held).status == 200  # what the grant is for
    finally:
        assert proxy.stop() == 0, proxy.log()
    assert proxy.audit() and {entry["bottle_slug"] for entry in proxy.audit()} == {"demo"}
    proxy.assert_nowhere(held)
    assert not any(held in str(row) for row in Database().query("SELECT * FROM proposals"))


def test_a_push_is_held_until_it_is_approved(launch: Launch, broker: Broker, world: World) -> None:
    world.install(database="")
    commit = world.clone.commit({"a": f'key = "{secret("one")}"\n'})
    with subprocess.Popen(
        ["git", "push", "--no-progress", "origin", "main"],
        cwd=world.clone.path,
        env=environment(world.home, **launch(BOTTLE)),
        stderr=subprocess.PIPE,
        text=True,
    ) as push:
        world.operator.decide(world.operator.next(push), "approved", "a test key")
        _, said = push.communicate(timeout=FAR)
    assert push.returncode == 0 and "approved by didi" in said
    assert world.ref("main") == commit
