"""Does the command line work on another host's inbox, with a token, as it does on its own?"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from bot_bottle import Inbox
from bot_bottle.cli.commands import TARGETS
from bot_bottle.cli.elsewhere import COMMANDS
from cli_process import MORE_ROUTES, PROGRAMS, ROUTES, Host
from dashboard_process import Served
from store_process import eventually


class Elsewhere:
    """Another machine: a root of its own, which must stay empty, and a token for the host."""

    def __init__(self, host: Host, served: Served, folder: Path, *more: str) -> None:
        self.token = folder / "token"
        host.run("operator", "token", "ann", "--out", str(self.token))
        self.machine = Host(folder / "elsewhere")
        self.before = ("--url", served.where, "--token-file", str(self.token), *more)

    def run(self, *words: str, **settings: Any) -> str:
        return self.machine.run(*self.before, *words, **settings).stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))

    def refused(self, *words: str, code: int) -> str:
        return self.machine.run(*self.before, *words, code=code).stderr


@pytest.fixture
def elsewhere(host: Host, dashboard: Served, tmp_path: Path) -> Iterator[Elsewhere]:
    made = Elsewhere(host, dashboard, tmp_path)
    yield made
    assert not made.machine.root.exists()


def test_what_waits_is_seen_and_decided_from_another_machine(host: Host, elsewhere: Elsewhere) -> None:
    routes = host.routes_file()
    first = host.propose(MORE_ROUTES, "to read releases", against=ROUTES)
    second, third = host.propose("FROM a\n", tool="capability-block"), host.propose("FROM b\n", tool="capability-block")
    assert "to read releases" in elsewhere.run("pending")
    assert [each["id"] for each in elsewhere.json("pending")] == [first.id, second.id, third.id]
    shown = elsewhere.run("show", first.id[:13])
    assert "+  - host: api.github.com" in shown
    assert elsewhere.json("show", first.id) == host.json("show", first.id)
    assert "is in effect" in elsewhere.run("approve", first.id, "--yes")
    assert routes.read_text() == MORE_ROUTES
    elsewhere.run("modify", second.id, "--file", "-", stdin="FROM c\n")
    assert elsewhere.json("reject", third.id, "--notes", "no")["surface"] == "cli"
    with Inbox() as inbox:
        answers = [inbox.read(each.id).response for each in (first, second, third)]
    assert [(each.status, each.decided_by) for each in answers if each] == [
        ("approved", "ann"),
        ("modified", "ann"),
        ("rejected", "ann"),
    ]
    assert "No proposal is pending" in elsewhere.run("pending")
    assert [each["id"] for each in elsewhere.json("history")] == [third.id, second.id, first.id]
    elsewhere.run("archive", third.id)
    assert "by ann" in elsewhere.refused("reject", first.id, code=5)
    assert "no proposal" in elsewhere.refused("show", "0199d2c4-1a2b", code=4)
    assert elsewhere.json("stats")["oversight"]["total"]["decided"] == 3


def test_grants_and_bottles_are_those_of_the_host(host: Host, elsewhere: Elsewhere) -> None:
    host.routes_file()
    proposal = host.propose("FROM a\n", tool="capability-block", fingerprint="f")
    elsewhere.run("approve", proposal.id, "--yes", "--grant", "for:2h")
    (grant,) = elsewhere.json("grants", "list")
    assert elsewhere.json("grants", "show", grant["id"][:13])["used"] == []
    elsewhere.run("grants", "revoke", grant["id"])
    assert elsewhere.json("grants", "list") == []
    assert elsewhere.json("bottles") == host.json("bottles")
    assert "did you mean 'demo'" in elsewhere.refused("pending", "--bottle", "dmeo", code=4)


def test_what_is_about_the_host_itself_says_so(host: Host, elsewhere: Elsewhere) -> None:
    assert set(TARGETS) >= COMMANDS
    for command in sorted(set(TARGETS) - COMMANDS):
        assert "is about the host itself" in elsewhere.refused(command, code=2), command
    proposal = host.propose("a: 1\n")
    assert "--remember writes this host's" in elsewhere.refused("reject", proposal.id, "--remember", "1h", code=2)
    with Inbox() as inbox:
        assert inbox.read(proposal.id).state == "pending"


def test_a_question_from_another_machine_is_in_the_name_of_the_token(host: Host, elsewhere: Elsewhere) -> None:
    proposal = host.propose("a: 1\n")
    assert "it stays pending" in elsewhere.run("ask", proposal.id, "what for?")
    with Inbox() as inbox:
        (message,) = inbox.read(proposal.id).thread
    assert (message.text, message.written_by, message.surface) == ("what for?", "ann", "cli")


def test_what_is_of_this_machine_is_left_alone_there(host: Host, elsewhere: Elsewhere, tmp_path: Path) -> None:
    proposal = host.propose("a: 1\n")
    here = Host(tmp_path / "here")
    here.run("bottle", "start", "mine", "--backend", "macos-container")
    here.run("bypass", "start", "mine", "--reason", "a demo", "--yes")
    assert "BYPASS" in here.run("pending").stdout
    assert "BYPASS" not in here.run(*elsewhere.before, "pending").stdout
    child: pexpect.spawn[str] = pexpect.spawn(
        str(PROGRAMS / "bot-bottle"),
        [*elsewhere.before, "approve", proposal.id],
        env=here.environment(),
        dimensions=(60, 200),
        encoding="utf-8",
        timeout=60,
    )
    child.expect_exact("[v]iew again: ")
    child.sendline("r 1h")
    child.expect_exact("a time after r writes this host's policy.toml")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 2
    assert not (here.root / "policy.toml").exists()
    with Inbox() as inbox:
        assert inbox.read(proposal.id).state == "pending"


def test_a_token_that_cannot_be_used_is_refused_in_a_sentence(
    host: Host, dashboard: Served, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    machine, where = elsewhere.machine, dashboard.where

    def refused(*words: str, code: int = 2) -> str:
        return machine.run(*words, "pending", code=code).stderr

    assert "needs --token-file" in refused("--url", where)
    assert "needs --url" in refused("--token-file", str(elsewhere.token))
    assert "needs a value" in machine.run("--url", code=2).stderr
    assert "cannot be read" in refused("--url", where, "--token-file", "/nothing")
    assert "in the clear" in refused("--url", "http://192.0.2.1:9102", "--token-file", str(elsewhere.token))
    assert "needs an address" in refused("--url", "ftp://x", "--token-file", str(elsewhere.token))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
        assert "cannot be reached" in refused("--url", nobody, "--token-file", str(elsewhere.token), code=1)
    elsewhere.token.chmod(0o640)
    assert "chmod 600" in refused(*elsewhere.before)
    elsewhere.token.chmod(0o600)
    assert host.json("operator", "tokens")[0]["name"] == "ann"
    host.run("operator", "revoke", "ann")
    assert "there is no login here" in refused(*elsewhere.before, code=10)
    assert "has no token" in host.run("operator", "revoke", "ann", code=4).stderr
    assert "is there already" in host.run("operator", "token", "ann", "--out", str(elsewhere.token), code=2).stderr
    assert "an operator's name is" in host.run("operator", "token", "a b", "--out", "-", code=2).stderr


def test_a_host_of_its_own_certificate_is_reached_by_tls(host: Host, tmp_path: Path) -> None:
    served = Served(host, "--operator-listen", "127.0.0.1:0", "--operator-tls")
    try:
        assert served.where.startswith("https://")
        made = Elsewhere(host, served, tmp_path, "--cert-file", str(host.root / "operator" / "cert.pem"))
        assert made.json("pending") == []
        untrusted = made.machine.run(*made.before[:4], "pending", code=1).stderr
        assert "--cert-file names a certificate" in untrusted
    finally:
        assert served.end() == 0


def test_a_host_that_is_started_again_is_missed_by_nobody(host: Host, dashboard: Served, elsewhere: Elsewhere) -> None:
    port = dashboard.port
    out = elsewhere.token.with_name("out")
    with open(out, "w") as file:
        process = subprocess.Popen(
            [PROGRAMS / "bot-bottle", *elsewhere.before, "watch", "--since", "0", "--json"],
            stdout=file,
            env=elsewhere.machine.environment(),
        )
    try:
        first = host.propose("a: 1\n")
        eventually(lambda: first.id in out.read_text(), 60)
        assert dashboard.end() == 0
        second = host.propose("a: 2\n")
        again = Served(host, "--operator-listen", f"127.0.0.1:{port}")
        dashboard.process = again.process  # the fixture ends it
        eventually(lambda: second.id in out.read_text(), 60)
        assert [json.loads(line)["proposal_id"] for line in out.read_text().splitlines()] == [first.id, second.id]
    finally:
        process.terminate()
        process.wait(30)


def test_the_help_names_the_options(host: Host) -> None:
    told = host.run("--help").stdout
    assert "--url" in told and "--token-file" in told and "--cert-file" in told
