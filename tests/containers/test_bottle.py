"""Does a bottle started with `bot-bottle bottle start` work as a whole, with its agent shut in?"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from engine import Images, docker, until_healthy

from bot_bottle import Inbox
from bot_bottle.launch import docker as backend
from bot_bottle.launch.backend import names
from bot_bottle.supervise import Plan, Supervise
from broker_process import Broker
from checkout import CHECKOUT
from cli_process import Host
from needs import cannot

EXAMPLE = CHECKOUT / "examples" / "compose.yaml"
UPSTREAM = "upstream.test"
# The proxy goes to no private address unless it is told to, and the upstream here is on a network of Docker's.
PRIVATE = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"
SERVER = "import http.server as h; h.ThreadingHTTPServer(('', 80), h.SimpleHTTPRequestHandler).serve_forever()"


class Bottle(NamedTuple):
    """A running bottle, and the name of a container on its outer network that serves HTTP as `upstream.test`."""

    plan: Plan
    upstream: str

    def agent(self, image: str, code: str) -> str:
        """What Python code prints that runs as the agent, in a container made by the backend's own command."""
        command = [word for word in backend.agent(self.plan) if word != "-it"]
        done = subprocess.run([*command, "--entrypoint", "python3", image, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def slug(host: Host) -> str:
    """A bottle's slug that no other run has, with an empty routes.yaml to manage."""
    slug = f"t{secrets.token_hex(4)}"
    routes = host.root / "bottles" / slug / "routes.yaml"
    routes.parent.mkdir(mode=0o700, parents=True)
    routes.write_text("routes: []\n")
    return slug


@pytest.fixture
def bottle(
    request: pytest.FixtureRequest, host: Host, images: Images, slug: str, serve: Callable[..., Broker]
) -> Iterator[Bottle]:
    """On the transport that the test names, or the mount."""
    transport = getattr(request, "param", "mount")
    if transport == "broker":
        serve()
    called, upstream = names(slug), f"bot-bottle-test-upstream-{slug}"
    routes = host.root / "bottles" / slug / "routes.yaml"
    start = ["bottle", "start", slug, "--file", f"egress-allow={routes}", "--image", images.sidecars]
    start += ["--transport", transport]
    host.run(*start, "--env", "EGRESS_PRIVATE_NETWORKS", "--run", EGRESS_PRIVATE_NETWORKS=PRIVATE)
    try:
        outer = ["--network", called.outside, "--network-alias", UPSTREAM]
        docker("run", "--detach", "--name", upstream, *outer, images.python, "python3", "-c", SERVER)
        until_healthy(called.sidecars)
        plan = Supervise().prepare(slug, files={"egress-allow": "routes.yaml"}, transport=transport)
        yield Bottle(plan, upstream)
    finally:
        docker("rm", "--force", upstream)
        host.run("bottle", "stop", slug, "--yes", "--run")
        docker("volume", "rm", called.state, called.ca)
    for kind in ("container", "network"):
        assert slug not in docker(kind, "ls", *(["--all"] if kind == "container" else []))


LOOK_AROUND = """
import json, os, socket, ssl, sys
def reaches(host, port):
    try:
        socket.create_connection((host, port), timeout=3).close()
        return True
    except OSError:
        return False
sidecars = {"supervise": 9100, "egress": 8080, "git-gate": 9418}
print(json.dumps({
    "sidecars": [name for name, port in sidecars.items() if reaches(name, port)],
    "others": [place for place in PLACES if reaches(*place)],
    "mounts": [line.split()[1] for line in open("/proc/mounts")],
    "database": os.path.exists("/run/supervise") or os.path.exists("/run/bottle"),
    "trusts": len(ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"]).get_ca_certs()),
    "writes_trust": os.access(os.environ["SSL_CERT_FILE"], os.W_OK) and not os.statvfs("/run/egress").f_flag & 1,
}))
"""


def test_the_agent_reaches_the_sidecars_and_nothing_else(bottle: Bottle, images: Images) -> None:
    called = names(bottle.plan.slug)

    def addresses(container: str) -> dict[str, str]:
        (state,) = json.loads(docker("container", "inspect", container))
        return {name: network["IPAddress"] for name, network in state["NetworkSettings"]["Networks"].items()}

    def gateway(network: str) -> str:
        (state,) = json.loads(docker("network", "inspect", network))
        return str(state["IPAM"]["Config"][0]["Gateway"])

    with socket.create_server(("0.0.0.0", 0)) as service:
        port = service.getsockname()[1]
        upstream = addresses(bottle.upstream)[called.outside]
        # The sidecars reach the upstream, by address and name, and the host itself.
        outside = [(upstream, 80), (UPSTREAM, 80), (gateway(called.outside), port)]
        look = f"import socket; [socket.create_connection(place, timeout=10) for place in {outside}]"
        docker("exec", called.sidecars, "python3", "-c", look)
        theirs = (addresses(called.sidecars)[called.outside], 9100)
        places = [*outside, (gateway(called.inside), port), theirs]
        seen = json.loads(bottle.agent(images.python, LOOK_AROUND.replace("PLACES", repr(places))))
    assert seen["sidecars"] == ["supervise", "egress", "git-gate"]
    assert seen["others"] == []
    assert seen["database"] is False
    assert [path for path in seen["mounts"] if path.startswith("/run")] == ["/run/egress"]
    assert seen["trusts"] == 1 and seen["writes_trust"] is False


def test_the_sidecars_do_not_route(bottle: Bottle) -> None:
    forwarding = "import sys; sys.stdout.write(open('/proc/sys/net/ipv4/ip_forward').read())"
    assert docker("exec", names(bottle.plan.slug).sidecars, "python3", "-c", forwarding) == "0\n"


ASK = """
import asyncio, urllib.error, urllib.request
from mcp.client import Client

def fetch():
    try:
        return urllib.request.urlopen("http://upstream.test/", timeout=30).status
    except urllib.error.HTTPError as error:
        return error.code

async def ask():
    async with Client("http://supervise:9100/") as client:
        file = "routes:\\n  - host: upstream.test\\n"
        result = await client.call_tool("allow", {"proposed_file": file, "justification": "the build needs it"})
        return result.structured_content["status"]

print(fetch(), asyncio.run(ask()), fetch())
"""


@pytest.mark.parametrize("bottle", ["mount", "broker"], indirect=True)
def test_an_agent_asks_for_a_host_is_granted_it_and_goes_there(host: Host, bottle: Bottle, images: Images) -> None:
    said: list[str] = []
    agent = threading.Thread(target=lambda: said.append(bottle.agent(images.sidecars, ASK)))
    agent.start()
    with Inbox() as inbox:
        change = next(inbox.watch(0, timeout=60))
    host.run("approve", change.proposal_id, "--yes")
    agent.join()
    assert said == ["403 approved 200\n"]
    (entry,) = host.json("audit", "list", "--bottle", bottle.plan.slug, "--component", "egress-allow")
    assert entry["operator_action"] == "approved"
    assert host.run("audit", "verify").returncode == 0


def compose_program() -> list[str]:
    """Docker Compose, the plugin or the program of its own; without either the test is skipped, under CI it fails."""
    for program in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(program[0]) and subprocess.run([*program, "version"], capture_output=True).returncode == 0:
            return program
    cannot("Docker Compose is not installed")


def normal(file: Path, **variables: str) -> Any:
    """A Compose file as Docker Compose understands it."""
    config = [*compose_program(), "--project-directory", str(file.parent), "--project-name", "t", "--file", str(file)]
    done = subprocess.run([*config, "config"], capture_output=True, text=True, env={**os.environ, **variables})
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


def test_the_example_is_what_the_backend_would_print(host: Host, slug: str, tmp_path: Path) -> None:
    printed = tmp_path / "compose.json"
    printed.write_text(host.run("bottle", "start", slug, "--env", "GITHUB_TOKEN", "--compose", "my-agent").stdout)
    user = f"{os.getuid()}:{os.getgid()}"
    assert normal(EXAMPLE, BOTTLE=slug, BOTTLE_USER=user, AGENT_IMAGE="my-agent") == normal(printed)


def test_compose_runs_the_whole_bottle(host: Host, images: Images, slug: str, tmp_path: Path) -> None:
    file = tmp_path / "compose.json"
    start = ["bottle", "start", slug, "--image", images.sidecars, "--compose", images.python]
    file.write_text(host.run(*start).stdout)
    compose = [*compose_program(), "--project-name", slug, "--file", str(file)]
    try:
        subprocess.run([*compose, "up", "--detach", "sidecars"], check=True, capture_output=True)
        until_healthy(names(slug).sidecars)
        ask = "import socket; [socket.create_connection((n, p), 5) for n, p in (('supervise', 9100), ('egress', 8080))]"
        run = subprocess.run(
            [*compose, "run", "--rm", "-T", "agent", "python3", "-c", ask], capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr
    finally:
        subprocess.run([*compose, "down", "--volumes"], check=True, capture_output=True)
        host.run("bottle", "stop", slug, "--yes")
