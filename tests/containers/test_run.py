"""Does `bot-bottle run` lead from nothing to an agent at work, and again after a crash?"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import bases
import pexpect
import pytest
import trustme
from engine import docker, until_healthy

from agent_events import EVENTS
from bot_bottle import Inbox, Proposal, QueueStore, __version__
from bot_bottle.launch.backend import names
from cli_process import PROGRAMS, Host

UPSTREAM = "upstream.test"
PRIVATE = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"
OWNER = 4711
AGENT_IMAGE = "bot-bottle-test/agent:latest"
SIDECARS = "bot-bottle-test/installed:latest"
# Answers what it was asked with, over TLS.
SERVER = """
import http.server, json, ssl
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"path": self.path, "key": self.headers.get("x-api-key")}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.ThreadingHTTPServer(("", 443), Handler)
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain("/tls/server.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


class Built(NamedTuple):
    """What the tests' containers are made from."""

    sidecars: str
    python: str


@pytest.fixture(scope="module")
def built(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sidecars' image as `bot-bottle image build` makes it from this installation."""
    arguments = bases.build_arguments(tmp_path_factory.mktemp("debian"))
    base = dict(word.split("=", 1) for word in arguments if "=" in word)
    words = ["image", "build", "--tag", SIDECARS, "--network", "host"]
    words += ["--python-base", base["PYTHON_BASE"], "--go-base", base["GO_BASE"]]
    done = subprocess.run([PROGRAMS / "bot-bottle", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-4000:]}"
    return Built(SIDECARS, base["PYTHON_BASE"])


@pytest.fixture(scope="module")
def agent_image(built: Built) -> str:
    """What a project's own image may be: Debian with some clients of the network's."""
    dockerfile = (
        f"FROM {built.python}\n"
        "RUN apt-get update && apt-get install -y --no-install-recommends curl git wget\n"
        'ENTRYPOINT ["/bin/false"]\n'
    )
    build = ["docker", "build", "--network", "host", "--tag", AGENT_IMAGE, "-"]
    done = subprocess.run(build, input=dockerfile, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return AGENT_IMAGE


class Bottle:
    """A bottle that a test runs agents in, and a server beyond the proxy."""

    def __init__(self, host: Host, images: Built, image: str, folder: Path) -> None:
        self.host, self.images, self.image = host, images, image
        self.slug = f"r{secrets.token_hex(4)}"
        self.called = names(self.slug)
        self.upstream = f"bot-bottle-test-upstream-{self.slug}"
        self.workspace = folder / "project"
        self.workspace.mkdir()
        os.chown(self.workspace, OWNER, OWNER)
        authority = trustme.CA()
        (folder / "tls").mkdir()
        authority.issue_cert(UPSTREAM).private_key_and_cert_chain_pem.write_to_path(str(folder / "tls" / "server.pem"))
        own = host.root / "bottles" / self.slug
        own.mkdir(mode=0o700, parents=True)
        authority.cert_pem.write_to_path(str(own / "upstream.pem"))
        self.tls = folder / "tls"
        self.settings = {
            "EGRESS_PRIVATE_NETWORKS": PRIVATE,
            "EGRESS_UPSTREAM_CA_FILE": "/run/bottle/upstream.pem",
        }

    def words(self, *options: str, agent: tuple[str, ...]) -> list[str]:
        passed = [word for name in self.settings for word in ("--env", name)]
        own = ["--image", self.image, "--sidecars", self.images.sidecars, "--workspace", str(self.workspace)]
        return ["run", self.slug, *own, *passed, *options, "--", *agent]

    def run(self, *options: str, script: str, code: int = 0, **extra: str) -> subprocess.CompletedProcess[str]:
        """Runs a shell script as the agent."""
        words = self.words(*options, agent=("sh", "-c", script))
        environment = self.host.environment(**self.settings, **extra)
        done = subprocess.run(
            [PROGRAMS / "bot-bottle", *words], env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def serve(self) -> None:
        """Starts the server beyond the proxy: the bottle's outer network has to be there."""
        beyond = ["--network", self.called.outside, "--network-alias", UPSTREAM]
        mount = ["--mount", f"type=bind,source={self.tls},target=/tls,readonly"]
        docker("run", "--detach", "--name", self.upstream, *beyond, *mount, self.images.python, "python3", "-c", SERVER)

    def remove(self) -> None:
        for name in (self.upstream, self.called.agent, self.called.sidecars):
            subprocess.run(["docker", "rm", "--force", name], capture_output=True)
        subprocess.run(["docker", "network", "rm", self.called.inside, self.called.outside], capture_output=True)
        volumes = [self.called.state, self.called.ca, self.called.home]
        subprocess.run(["docker", "volume", "rm", *volumes], capture_output=True)


@pytest.fixture
def bottle(host: Host, built: Built, agent_image: str, tmp_path: Path) -> Iterator[Bottle]:
    made = Bottle(host, built, agent_image, tmp_path)
    yield made
    made.remove()


def test_an_agent_works_as_the_owner_of_its_workspace(bottle: Bottle) -> None:
    done = bottle.run(script="id -u; id -un; pwd; echo made > made; echo $HOME; touch $HOME/kept; exit 7", code=7)
    assert done.stdout.split() == [str(OWNER), "agent", "/workspace", "/home/agent"]
    made = bottle.workspace / "made"
    assert made.read_text() == "made\n" and made.stat().st_uid == OWNER
    assert "the sidecars are healthy after" in done.stderr
    # The container is gone, its home is not, and the sidecars go on.
    again = bottle.run(script="ls -A $HOME; cat $HOME/.claude.json")
    assert "kept" in again.stdout and '"supervise"' in again.stdout
    assert "its sidecars run already" in again.stderr


PYTHON = "import urllib.request as u; print(u.urlopen('https://upstream.test/x', timeout=30).read().decode())"
CLIENTS = {
    "curl": "curl -sS https://upstream.test/x",
    "curl by the list of the system": "env -u CURL_CA_BUNDLE -u SSL_CERT_FILE curl -sS https://upstream.test/x",
    "wget": "wget -qO- https://upstream.test/x",
    "python": f'python3 -c "{PYTHON}"',
    "git": "git ls-remote https://upstream.test/x 2>&1 | grep -o 'not valid\\|not found\\|certificate' | head -1",
}


def test_clients_trust_the_proxy_and_the_key_is_the_proxy_s(bottle: Bottle) -> None:
    routes = bottle.workspace.parent / "routes.yaml"
    routes.write_text(f"routes:\n  - host: {UPSTREAM}\n    auth: {{header: x-api-key, token_ref: API_KEY}}\n")
    options = ["--file", f"egress-allow={routes}", "--secret", "API_KEY"]
    key = "a-key-of-the-operator"
    bottle.run(*options, script="true", API_KEY=key)
    bottle.serve()
    script = "\n".join(f"echo; echo '# {name}'; {command}" for name, command in CLIENTS.items())
    own = bottle.host.root / "bottles" / bottle.slug / "routes.yaml"
    options = ["--file", f"egress-allow={own}", "--secret", "API_KEY"]
    done = bottle.run(*options, script=f'{script}\necho; echo "mine: $API_KEY"', API_KEY=key)
    said = dict(part.split("\n", 1) for part in done.stdout.split("# ")[1:])
    for name in CLIENTS:
        if name != "git":
            assert json.loads(said[name].split("\n\n")[0]) == {"path": "/x", "key": key.replace(key, "*" * len(key))}, (
                name
            )
    assert "certificate" not in said["git"], done.stdout
    assert "mine: held-by-the-proxy" in done.stdout and key not in done.stdout + done.stderr
    for container in (bottle.called.sidecars,):
        assert key in docker("container", "inspect", container)


def test_a_held_proposal_is_approved_on_the_host(bottle: Bottle) -> None:
    # By MCP's bare wire, as this image has no client: a call of the tool that asks for a host.
    arguments = {"proposed_file": f"routes:\n  - host: {UPSTREAM}\n", "justification": "the build needs it"}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "allow", "arguments": arguments}}
    fetch = f"curl -s -o /dev/null -w '%{{http_code}}\\n' https://{UPSTREAM}/"
    headers = "-H 'content-type: application/json' -H 'accept: application/json, text/event-stream'"
    version = "-H 'mcp-protocol-version: 2025-06-18'"
    ask = f"curl -sS {headers} {version} --data {shlex.quote(json.dumps(call))} http://supervise:9100/"
    said: list[str] = []
    bottle.run(script="true")
    bottle.serve()
    script = f"{fetch}; {ask} | grep -o 'approved' | head -1; {fetch}"
    agent = threading.Thread(target=lambda: said.append(bottle.run(script=script).stdout))
    agent.start()
    with Inbox() as inbox:
        change = next(inbox.watch(0, timeout=60))
    bottle.host.run("approve", change.proposal_id, "--yes")
    agent.join()
    assert said[0].split() == ["000", "approved", "200"]


def test_what_a_crash_left_is_used_again_and_nothing_pending_is_lost(bottle: Bottle) -> None:
    bottle.run(script="true")
    queue = QueueStore(bottle.slug)
    pending = queue.write_proposal(Proposal.new(bottle.slug, "egress-allow", "routes: []\n", "why"))
    # The power goes: the sidecars are dead, a network is gone, and an agent's container is left that never ran.
    docker("kill", bottle.called.sidecars)
    label = f"bot-bottle.root={bottle.host.root}"
    docker("create", "--name", bottle.called.agent, "--label", label, bottle.image)
    docker("network", "disconnect", "--force", bottle.called.outside, bottle.called.sidecars)
    docker("network", "rm", bottle.called.outside)
    done = bottle.run(script="echo back")
    assert done.stdout == "back\n" and "made anew" in done.stderr
    assert [item.proposal.id for item in Inbox().pending()] == [pending.id]


def test_a_running_agent_and_foreign_containers_are_left_alone(bottle: Bottle) -> None:
    docker("create", "--name", bottle.called.sidecars, bottle.image)
    said = bottle.run(script="true", code=2).stderr
    assert "does not belong to" in said
    docker("rm", bottle.called.sidecars)
    docker("create", "--name", bottle.called.agent, bottle.image)
    assert "not of this bottle" in bottle.run(script="true", code=2).stderr
    docker("rm", bottle.called.agent)
    docker("network", "create", bottle.called.inside)
    assert "leads outside" in bottle.run(script="true", code=2).stderr
    # Refused before anything was registered or made.
    assert bottle.host.json("bottles", "--all") == []
    docker("network", "rm", bottle.called.inside)
    first = subprocess.Popen(
        [PROGRAMS / "bot-bottle", *bottle.words(agent=("sh", "-c", "echo at work; cat"))],
        env=bottle.host.environment(**bottle.settings),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdin and first.stdout and first.stdout.readline() == "at work\n"
    assert "is running already" in bottle.run(script="true", code=2).stderr
    # The end of its input is the agent's to see, too.
    assert first.communicate("heard", timeout=60)[0] == "heard" and first.returncode == 0


def test_a_bottle_is_stopped_with_its_agent_at_work(bottle: Bottle) -> None:
    agent = subprocess.Popen(
        [
            PROGRAMS / "bot-bottle",
            *bottle.words(agent=("sh", "-c", "trap 'exit 5' TERM; echo at work; sleep 1000 & wait")),
        ],
        env=bottle.host.environment(**bottle.settings),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert agent.stdout and agent.stdout.readline() == "at work\n"
    bottle.host.run("bottle", "stop", bottle.slug, "--yes", "--run")
    assert agent.wait(timeout=60) == 5
    for kind in ("container", "network"):
        assert bottle.slug not in docker(kind, "ls", *(["--all"] if kind == "container" else []))


def test_an_image_without_the_program_is_refused_with_what_to_do(bottle: Bottle) -> None:
    words = [word for word in bottle.words("--agent", "claude", agent=()) if word != "--"]
    done = bottle.host.run(*words, code=2, **bottle.settings)
    assert "has no program claude" in done.stderr and "npm install -g" in done.stderr
    for kind in ("container", "network"):
        assert bottle.slug not in docker(kind, "ls", *(["--all"] if kind == "container" else []))
    done = bottle.host.run(
        "run", bottle.slug, "--image", "no.such.test/image", "--workspace", str(bottle.workspace), code=4
    )
    assert "cannot be fetched" in done.stderr


def test_the_agent_has_the_terminal(bottle: Bottle) -> None:
    words = [word for word in bottle.words(agent=()) if word != "--"]
    environment = bottle.host.environment(**bottle.settings)
    program = str(PROGRAMS / "bot-bottle")
    with pexpect.spawn(
        program, words, env=environment, encoding="utf-8", timeout=120, dimensions=(31, 101)
    ) as terminal:
        terminal.expect(r"[$#] $")
        until_healthy(bottle.called.sidecars)
        terminal.sendline("stty size")
        terminal.expect("31 101")
        terminal.setwinsize(40, 90)
        terminal.expect(r"[$#] $")
        terminal.sendline("until test \"$(stty size)\" = '40 90'; do sleep 0.1; done; echo resized | tr a-z A-Z")
        terminal.expect("RESIZED")
        # What says READY is what Ctrl-C then meets.
        terminal.sendline("echo ready | tr a-z A-Z >/tmp/said; tail -f /tmp/said")
        terminal.expect("READY")
        terminal.sendintr()
        terminal.expect(r"[$#] $")
        terminal.sendline("echo ended with $?")
        terminal.expect("ended with 130")
        terminal.sendline("exit 9")
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert terminal.exitstatus == 9


def test_an_image_of_another_schema_says_which_command_helps(bottle: Bottle) -> None:
    tables = {"audit_store": 1, "bottle_store": 1, "grant_store": 1, "queue_store": 99}
    label = f"LABEL bot-bottle.version=9.9.9 bot-bottle.schema={json.dumps(json.dumps(tables))}"
    tag = f"bot-bottle-test/newer-{bottle.slug}"
    file = f"FROM {bottle.image}\n{label}\n"
    subprocess.run(["docker", "build", "--tag", tag, "-"], input=file, text=True, check=True, capture_output=True)
    try:
        words = ["run", bottle.slug, "--image", bottle.image, "--sidecars", tag, "--workspace", str(bottle.workspace)]
        assert "(9.9.9) is newer than this bot-bottle" in bottle.host.run(*words, code=2).stderr
        start = ["bottle", "start", bottle.slug, "--image", tag, "--run"]
        assert "pip install --upgrade" in bottle.host.run(*start, code=2).stderr
        listed = {name: each for each in bottle.host.json("image", "list") for name in each["tags"]}
        assert listed[f"{tag}:latest"]["misfit"] and not listed[SIDECARS]["misfit"]
        assert listed[SIDECARS]["version"] == __version__
    finally:
        docker("image", "rm", "--force", tag)
    assert bottle.host.json("bottles", "--all") == []


def test_an_agent_s_hooks_ask_and_cannot_be_taken_out(bottle: Bottle) -> None:
    event = shlex.quote(json.dumps(EVENTS["codex", "PreToolUse"]))
    script = (
        "! touch /etc/codex/requirements.toml /etc/bot-bottle/ask 2>/dev/null || exit 9;"
        f"echo {event} | sh /etc/bot-bottle/ask codex || exit 1; echo {event} | sh /etc/bot-bottle/ask codex"
    )

    def answer() -> None:
        with Inbox() as inbox:
            left = ["approved", "rejected"]
            for change in inbox.watch(0, timeout=300):
                if change.kind == "proposed" and change.bottle_slug == bottle.slug:
                    proposal = inbox.read(change.proposal_id).proposal
                    digest = proposal.payload_sha256
                    inbox.decide(proposal.id, left.pop(0), payload_sha256=digest, notes="as told")
                    if not left:
                        return

    operator = threading.Thread(target=answer)
    operator.start()
    done = bottle.run("--hooks", "every", script=script)
    operator.join(60)
    assert "{}" in done.stdout and "operator: as told" in done.stdout
