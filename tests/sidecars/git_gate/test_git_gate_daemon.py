"""Does the gate serve what the upstream has, and pass on what was accepted, with a credential the agent never sees?"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bot_bottle import GrantStore
from git_gates import KEY, Gate, free_port, listening, running, upstream_commit, upstream_hook
from git_https import HttpsUpstream
from git_pushes import BOTTLE, FAR, Clone, environment, eventually, make_world
from needs import cannot


def test_a_clean_push_reaches_the_upstream(gate: Gate) -> None:
    commit = gate.clone.commit({"a": "fine\n"})
    gate.clone.git("tag", "--annotate", "--message", "one", "v1")
    gate.clone.pushed("main", "v1")
    assert gate.upstream("main") == gate.has("main") == commit
    assert gate.upstream("v1^{commit}") == commit
    gate.clone.git("commit", "--quiet", "--amend", "--message", "another")
    gate.clone.pushed("+main", ":v1")
    assert gate.upstream("main") == gate.clone.git("rev-parse", "main") and gate.upstream("v1") == ""


def test_what_the_upstream_has_is_served_at_once(gate: Gate) -> None:
    gate.clone.commit({"a": "1\n"})
    gate.clone.pushed("main", "main:gone")
    commit = upstream_commit(gate)
    gate.clone.git(f"--git-dir={gate.world.bare}", "branch", "--delete", "--force", "gone")
    gate.clone.git("fetch", "--quiet", "--prune")
    assert gate.clone.git("for-each-ref", "--format=%(objectname) %(refname)", "refs/remotes/origin") == (
        f"{commit} refs/remotes/origin/main"
    )


def test_a_clone_gets_the_upstreams_default_branch(gate: Gate) -> None:
    gate.clone.commit({"a": "1\n"})
    gate.clone.pushed("main:trunk")
    gate.clone.git(f"--git-dir={gate.world.bare}", "symbolic-ref", "HEAD", "refs/heads/trunk")
    fresh = gate.world.home / "fresh"
    gate.clone.git("clone", "--quiet", f"git://127.0.0.1:{gate.port}/app", str(fresh))
    assert Clone(fresh, gate.world.home).git("branch", "--show-current") == "trunk"


def test_only_an_approval_lets_a_secret_reach_the_upstream(gate: Gate) -> None:
    commit = gate.clone.commit({"a": KEY})
    assert gate.held("main").code != 0
    assert gate.upstream("main") == gate.has("main") == ""
    assert gate.held("main", status="approved").code == 0
    assert gate.upstream("main") == gate.has("main") == commit


def test_an_upstream_that_refuses_is_heard(gate: Gate) -> None:
    hook = gate.world.bare / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho main is protected >&2\nexit 1\n")
    hook.chmod(0o755)
    gate.clone.commit({"a": "1\n"})
    said = gate.clone.refused("main")
    assert "the upstream says: main is protected" in said
    assert "the upstream refused it: pre-receive hook declined" in said
    assert gate.has("main") == ""


def test_a_grant_survives_an_upstream_that_refuses(gate: Gate) -> None:
    gate.clone.commit({"a": "1\n"})
    gate.clone.pushed("main")
    gate.clone.commit({"a": KEY})
    with gate.clone.pushing("main") as push:
        item = gate.operator.next(push)
        upstream_commit(gate)
        gate.operator.decide(item, "approved", grant="once")
        assert "the upstream has moved since you fetched" in push.communicate(timeout=FAR)[1]
    gate.clone.git("pull", "--quiet", "--rebase", "origin", "main")
    gate.clone.pushed("main")
    assert gate.upstream("main") == gate.clone.git("rev-parse", "main")


def test_an_earlier_grant_is_spent_once_the_upstream_has_the_push(gate: Gate) -> None:
    gate.clone.commit({"a": KEY})
    assert gate.held("main:one", status="approved", grant="uses:3").code == 0
    gate.clone.pushed(":one")
    upstream_hook(gate, "pre-receive", "exit 1")
    gate.clone.refused("main:two")
    assert [grant.uses_left for grant in GrantStore().list_grants()] == [2]
    (gate.world.bare / "hooks" / "pre-receive").unlink()
    gate.clone.pushed("main:two")
    assert [grant.uses_left for grant in GrantStore().list_grants()] == [1]


def test_several_refs_reach_the_upstream_together_only_if_asked(gate: Gate) -> None:
    hook = gate.world.bare / "hooks" / "update"
    hook.write_text("#!/bin/sh\ntest $1 != refs/heads/two\n")
    hook.chmod(0o755)
    gate.clone.commit({"a": "1\n"})
    gate.clone.refused("--atomic", "main:one", "main:two")
    assert gate.upstream("one") == gate.has("one") == ""
    said = gate.clone.refused("main:one", "main:two")
    assert "main -> one" in said and "main -> two (the upstream refused it: hook declined)" in said
    assert gate.upstream("one") == gate.has("one") == gate.clone.git("rev-parse", "main")
    assert gate.upstream("two") == gate.has("two") == ""


def test_nobody_is_asked_about_what_the_upstream_would_refuse(gate: Gate) -> None:
    gate.clone.commit({"a": "1\n"})
    gate.clone.pushed("main")
    # The gate's own copy says that the branch is not there, as if it had just been made upstream.
    gate.clone.commit({"a": KEY})
    with gate.clone.pushing("main") as push:
        item = gate.operator.next(push)
        gate.operator.decide(item, "rejected")
        push.communicate(timeout=FAR)
    shutil.move(gate.world.bare, gate.world.home / "away.git")
    assert "cannot be reached" in gate.clone.refused("main")
    assert len(gate.operator.inbox.history()) == 1


def test_an_upstream_that_cannot_be_reached_serves_nobody(gate: Gate) -> None:
    gate.clone.commit({"a": "1\n"})
    gate.clone.pushed("main")
    shutil.move(gate.world.bare, gate.world.home / "away.git")
    said = gate.clone.refused("main")
    assert "the upstream cannot be reached: there is no such repository" in said and str(gate.world.home) not in said
    done = subprocess.run(
        ["git", "ls-remote", "origin"], cwd=gate.clone.path, env=environment(gate.world.home), capture_output=True
    )
    assert done.returncode != 0 and b"cannot be reached" in done.stderr and done.stdout == b""
    shutil.move(gate.world.home / "away.git", gate.world.bare)
    gate.clone.git("fetch", "--quiet")


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_a_thousand_tags_are_one_push_and_take_nothing_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, object_format: str
) -> None:
    def tags(repository: Path) -> dict[str, str]:
        form = "--format=%(refname) %(objectname)"
        listed = gate.clone.git(f"--git-dir={repository}", "for-each-ref", form, "refs/tags")
        return dict(line.split() for line in listed.splitlines())

    world = make_world(tmp_path, monkeypatch, object_format=object_format)
    with running(world, f"    object_format: {object_format}\n") as gate:
        first = gate.clone.commit({"a": "1\n"})
        gate.clone.pushed("main")
        commit = gate.clone.commit({"a": KEY})
        names = [f"refs/tags/v{number}" for number in range(1_000)]
        gate.clone.git("update-ref", "--stdin", stdin="".join(f"create {name} {commit}\n" for name in names))
        with gate.clone.pushing("--tags", "main", "main:two") as push:
            item = gate.operator.next(push)
            # Somebody else makes one of them while the push is held.
            gate.clone.git(f"--git-dir={world.bare}", "update-ref", names[7], first)
            gate.operator.decide(item, "approved")
            said = push.communicate(timeout=FAR)[1]
        assert push.returncode != 0 and said.count("[remote rejected]") == 1
        assert "v7 -> v7 (the upstream has moved since you fetched" in said
        assert tags(world.bare) == dict.fromkeys(names, commit) | {names[7]: first}
        assert gate.upstream("main") == gate.upstream("two") == gate.has("two") == commit
        # The gate has what the upstream confirmed, and takes over the other one with the next request.
        gate.clone.git("ls-remote", "origin")
        assert tags(world.home / "gate" / "app.git") == tags(world.bare)
        assert not list((world.home / "gate" / "app.git" / "bot-bottle" / "pushes").iterdir())


def test_refs_of_other_kinds_are_not_passed_on(gate: Gate) -> None:
    gate.clone.commit({"a": "1\n"})
    said = gate.clone.refused("main:refs/changes/1")
    assert "only branches, tags and notes are passed on, not refs/changes/1" in said


def test_only_the_named_upstreams_are_served(gate: Gate) -> None:
    shutil.copytree(gate.world.home / "gate" / "app.git", gate.world.home / "gate" / "other.git")
    for name in ("other.git", "../origin.git", "app.git/../other.git", "nowhere"):
        url = f"git://127.0.0.1:{gate.port}/{name}"
        done = subprocess.run(["git", "ls-remote", url], env=environment(gate.world.home), capture_output=True)
        assert done.returncode != 0 and done.stdout == b"", name


def test_a_pusher_who_hangs_up_takes_the_proposal_back(gate: Gate) -> None:
    gate.clone.commit({"a": KEY})
    with gate.clone.pushing("main") as push:
        item = gate.operator.next(push)
        push.kill()
        assert gate.operator.ends(item.proposal.id) == "withdrawn"


def test_a_gate_that_is_stopped_takes_its_proposals_back(gate: Gate) -> None:
    gate.clone.commit({"a": KEY})
    with gate.clone.pushing("main") as push:
        item = gate.operator.next(push)
        gate.stop()
        assert gate.operator.inbox.read(item.proposal.id).state == "withdrawn"
        assert push.wait(FAR) != 0


def test_a_gate_started_again_goes_on_with_its_grants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(tmp_path, monkeypatch)
    with running(world) as gate:
        gate.clone.commit({"a": KEY})
        assert gate.held("main", status="approved", grant="bottle").code == 0
    with running(world) as gate:
        gate.clone.git("commit", "--quiet", "--amend", "--message", "again")
        gate.clone.pushed("+main")


def test_a_gate_ends_when_its_port_is_taken(gate: Gate) -> None:
    settings = {"SUPERVISE_BOTTLE_SLUG": BOTTLE, "GIT_GATE_ROOT": str(gate.world.home / "second")}
    done = subprocess.run(
        [sys.executable, "-m", "bot_bottle.sidecars.git_gate"],
        env=environment(gate.world.home, GIT_GATE_PORT=str(gate.port), **settings),
        capture_output=True,
        text=True,
        timeout=FAR,
    )
    assert done.returncode == 2
    assert done.stderr == f"git gate: port {gate.port} (GIT_GATE_PORT) cannot be used: Address already in use\n"


def test_a_sha256_upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(tmp_path, monkeypatch, object_format="sha256")
    with running(world, "    object_format: sha256\n") as gate:
        commit = gate.clone.commit({"a": "1\n"})
        gate.clone.pushed("main")
        assert gate.upstream("main") == commit and len(commit) == 64
        commit = gate.clone.commit({"a": KEY})
        assert gate.held("main", "main:two", status="approved").code == 0
        assert gate.upstream("two") == gate.has("two") == commit
        gate.clone.pushed(":two", "main:three")
        assert gate.upstream("two") == gate.has("two") == "" and gate.has("three") == commit


# --- ssh


@dataclass(frozen=True)
class Sshd:
    url: str
    key: Path
    host_key: str

    def known_hosts(self, path: Path, host_key: str | None = None) -> str:
        port = self.url.rpartition(":")[2].partition("/")[0]
        path.write_text(f"[127.0.0.1]:{port} {host_key or self.host_key}\n")
        return f"    key: {self.key}\n    known_hosts: {path}\n"


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    """An OpenSSH server on loopback that lets one key in."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if not program:
        cannot("needs sshd: apt-get install openssh-server")
    home = tmp_path / "ssh"
    home.mkdir()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / name], check=True)
    port = free_port()
    (home / "authorized").write_text((home / "user.pub").read_text())
    (home / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {home}/host\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {home}/authorized\nPasswordAuthentication no\n"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with subprocess.Popen([program, "-D", "-e", "-f", home / "config"], stderr=subprocess.DEVNULL) as process:
        eventually(lambda: listening(port))
        host_key = " ".join((home / "host.pub").read_text().split()[:2])
        yield Sshd(f"ssh://{getpass.getuser()}@127.0.0.1:{port}{tmp_path}/origin.git", home / "user", host_key)
        process.terminate()


def test_ssh_with_the_pinned_host_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sshd: Sshd) -> None:
    world = make_world(tmp_path, monkeypatch)
    with running(world, sshd.known_hosts(tmp_path / "known"), sshd.url) as gate:
        commit = gate.clone.commit({"a": "1\n"})
        gate.clone.pushed("main")
        assert gate.upstream("main") == commit
        other = upstream_commit(gate)
        gate.clone.git("fetch", "--quiet")
        assert gate.clone.git("rev-parse", "origin/main") == other


@pytest.mark.parametrize("known", ["another", "none"])
def test_ssh_trusts_no_other_host_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sshd: Sshd, known: str) -> None:
    world = make_world(tmp_path, monkeypatch)
    path = tmp_path / "known"
    credential = sshd.known_hosts(path, " ".join((sshd.key.with_suffix(".pub")).read_text().split()[:2]))
    if known == "none":
        path.write_text("")
    before = path.read_text()
    with running(world, credential, sshd.url) as gate:
        gate.clone.commit({"a": "1\n"})
        assert "Host key verification failed" in gate.clone.refused("main")
        assert gate.upstream("main") == "" and path.read_text() == before


# --- https


def test_https_with_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, https: HttpsUpstream) -> None:
    token = tmp_path / "token"
    token.write_text("t0ken\n")
    world = make_world(tmp_path, monkeypatch)
    with running(
        world, f"    token: {token}\n    username: bot\n", https.url, GIT_SSL_CAINFO=str(https.certificate)
    ) as gate:
        commit = gate.clone.commit({"a": "1\n"})
        gate.clone.pushed("main")
        assert gate.upstream("main") == commit and "bot:t0ken" in https.asked
        token.write_text("expired\n")
        assert "does not take the gate's credential (401)" in gate.clone.refused("main:other")
        configured = (tmp_path / "gate" / "app.git").rglob("*")
        assert not any(b"t0ken" in path.read_bytes() for path in configured if path.is_file())
        log = gate.stop()
    assert "t0ken" not in log
