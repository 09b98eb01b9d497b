"""Is the gate like the remote it stands for, and is what it reports what happened, whatever dies on the way?"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from git_gates import KEY, Gate, hook_of, running, upstream_commit, upstream_hook
from git_https import HttpsUpstream
from git_pushes import FAR, Clone, environment, make_world, secret


def in_upstream(gate: Gate, *arguments: str) -> str:
    return gate.clone.git(f"--git-dir={gate.world.bare}", *arguments)


# --- what git does with any remote


def test_push_options_reach_the_upstream(gate: Gate) -> None:
    in_upstream(gate, "config", "receive.advertisePushOptions", "true")
    upstream_hook(gate, "post-receive", 'echo "$GIT_PUSH_OPTION_COUNT $GIT_PUSH_OPTION_0 $GIT_PUSH_OPTION_1" > options')
    gate.clone.commit({"a": "1\n"})
    gate.clone.pushed("--push-option=ci.skip", "--push-option=topic=a b", "main")
    assert (gate.world.bare / "options").read_text() == "2 ci.skip topic=a b\n"


def test_a_branch_becomes_a_directory_of_branches_in_one_push(gate: Gate) -> None:
    commit = gate.clone.commit({"a": "1\n"})
    gate.clone.pushed("main", "main:topic")
    gate.clone.pushed(":topic", "main:topic/one")
    assert gate.upstream("refs/heads/topic/one") == gate.has("refs/heads/topic/one") == commit
    gate.clone.pushed(":topic/one", "main:topic")
    assert gate.upstream("refs/heads/topic") == gate.has("refs/heads/topic") == commit


def test_a_branch_that_became_a_directory_upstream_is_followed(gate: Gate) -> None:
    commit = gate.clone.commit({"a": "1\n"})
    gate.clone.pushed("main", "main:topic")
    in_upstream(gate, "update-ref", "-d", "refs/heads/topic")
    in_upstream(gate, "update-ref", "refs/heads/topic/one", commit)
    gate.clone.git("fetch", "--quiet", "--prune", "origin")
    assert gate.has("refs/heads/topic/one") == commit and gate.has("refs/heads/topic") == ""


def test_a_partial_clone_fetches_what_it_lacks(gate: Gate) -> None:
    gate.clone.commit({"a": "1\n", "b/c": "2\n"})
    gate.clone.pushed("main")
    in_upstream(gate, "symbolic-ref", "HEAD", "refs/heads/main")
    fresh = Clone(gate.world.home / "fresh", gate.world.home)
    url = gate.clone.git("remote", "get-url", "origin")
    gate.clone.git("clone", "--quiet", "--no-checkout", "--filter=blob:none", url, str(fresh.path))
    assert fresh.git("rev-list", "--objects", "--all", "--missing=print").count("?") == 2
    assert fresh.git("show", "main:b/c") == "2"


def test_old_faults_in_the_heads_of_commits_pass_as_upstream_and_others_do_not(gate: Gate) -> None:
    gate.clone.commit({"a": "1\n"})
    gate.clone.pushed("main")
    tree = gate.clone.git("rev-parse", "main^{tree}")

    def committed(author: str) -> str:
        text = f"tree {tree}\nauthor {author}\ncommitter a <a@b> 1 +0000\n\nold\n"
        return gate.clone.git("hash-object", "-t", "commit", "-w", "--literally", "--stdin", stdin=text)

    for nth, author in enumerate(["a <a@b> 1 +051800", "a <a@b> 01 +0000", "<a@b> 1 +0000", "a 1 +0000"]):
        commit = committed(author)
        gate.clone.pushed(f"{commit}:refs/heads/old{nth}")
        assert gate.upstream(f"old{nth}") == commit
    # A second entry of the same name is one that no diff shows.
    blob = bytes.fromhex(gate.clone.git("rev-parse", "main:a"))
    twice = b"100644 a\0" + blob + b"100644 a\0" + blob
    tree = gate.clone.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=twice)
    # git daemon may hang up before its reason has been read.
    gate.clone.refused(f"{committed('a <a@b> 1 +0000')}:refs/heads/twice")
    assert gate.upstream("twice") == ""


# --- what is reported is what happened


def test_a_push_whose_confirmation_is_lost_is_reported_as_what_it_became(gate: Gate) -> None:
    commit = gate.clone.commit({"a": "1\n"})
    # The upstream's receive-pack dies when the ref is written, before it says so.
    upstream_hook(gate, "reference-transaction", 'cat > /dev/null; test "$1" != committed || kill -9 $PPID')
    gate.clone.pushed("main")
    assert gate.upstream("main") == gate.has("main") == commit
    # And here before it is.
    (gate.world.bare / "hooks" / "reference-transaction").unlink()
    upstream_hook(gate, "pre-receive", "kill -9 $PPID")
    gate.clone.commit({"a": "2\n"})
    assert "the upstream did not take it" in gate.clone.refused("main")
    assert gate.upstream("main") == gate.has("main") == commit


def test_of_two_pushes_to_one_branch_the_second_is_told_and_forces_nothing(gate: Gate) -> None:
    gate.clone.commit({"a": "1\n"})
    gate.clone.pushed("main")
    gate.clone.git("switch", "--quiet", "--create", "other")
    gate.clone.commit({"a": f"other = '{secret('other')}'\n"})
    gate.clone.git("switch", "--quiet", "main")
    commit = gate.clone.commit({"a": KEY})
    with gate.clone.pushing("main") as first, gate.clone.pushing("other:main") as second:
        items = [gate.operator.next(push) for push in (first, second)]
        # Whichever question is whose: the sentence names the finding's commit.
        by_commit = {item.proposal.justification.count(commit[:12]): item for item in items}
        gate.operator.decide(by_commit[1], "approved")
        assert first.wait(FAR) == 0
        gate.operator.decide(by_commit[0], "approved")
        said = second.communicate(timeout=FAR)[1]
    assert second.returncode != 0 and "the upstream has moved since you fetched" in said
    assert gate.upstream("main") == gate.has("main") == commit


@pytest.mark.parametrize("taken", [True, False], ids=["when it has taken the push", "before"])
def test_a_hosted_upstream_that_hangs_up_is_asked_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, https: HttpsUpstream, taken: bool
) -> None:
    (tmp_path / "token").write_text("t0ken\n")
    credential = f"    token: {tmp_path / 'token'}\n    username: bot\n"
    world = make_world(tmp_path, monkeypatch)
    with running(world, credential, https.url, GIT_SSL_CAINFO=str(https.certificate)) as gate:
        commit = gate.clone.commit({"a": "1\n"})
        https.hangs_up = "after" if taken else "before"
        if taken:
            gate.clone.pushed("main")
            assert gate.upstream("main") == gate.has("main") == commit
        else:
            said = gate.clone.refused("main")
            assert "the upstream did not take it: it ended the connection in the middle" in said
            assert gate.upstream("main") == gate.has("main") == ""


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://no-such-host.invalid/app.git", "its host name is not known (DNS)"),
        ("https://localhost:1/app.git", "nothing answers there (connection refused)"),
    ],
)
def test_why_an_upstream_cannot_be_reached_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, says: str
) -> None:
    (tmp_path / "token").write_text("t0ken\n")
    with running(make_world(tmp_path, monkeypatch), f"    token: {tmp_path / 'token'}\n", url) as gate:
        gate.clone.commit({"a": "1\n"})
        assert f"the upstream cannot be reached: {says}" in gate.clone.refused("main")


def test_a_ref_that_is_locked_upstream_is_told(gate: Gate) -> None:
    gate.clone.commit({"a": "1\n"})
    gate.clone.pushed("main")
    (gate.world.bare / "refs" / "heads" / "main.lock").touch()
    gate.clone.commit({"a": "2\n"})
    said = gate.clone.refused("main")
    assert "a ref is locked there; try again in a moment" in said and str(gate.world.home) not in said
    (gate.world.bare / "refs" / "heads" / "main.lock").unlink()
    gate.clone.pushed("main")


def test_hundreds_of_new_tags_are_packed_as_git_packs_them(gate: Gate) -> None:
    clone, mirror = gate.clone, gate.world.home / "gate" / "app.git"
    commit = clone.commit({"a": "1\n"})
    clone.pushed("main")
    clone.git("tag", "--annotate", "--message", "one", "annotated")
    tag = clone.git("rev-parse", "annotated")

    def tags(repository: Path) -> str:
        form = "--format=%(refname) %(objectname) %(*objectname)"
        return clone.git(f"--git-dir={repository}", "for-each-ref", form, "refs/tags")

    for kind, ids in enumerate([(commit, tag), (tag, commit)]):
        made = "".join(f"create refs/tags/{kind}/{number} {ids[number % 2]}\n" for number in range(600))
        clone.git("update-ref", "--stdin", stdin=made)
        clone.pushed("--tags")
        assert tags(mirror) == tags(gate.world.bare) == tags(clone.path / ".git")
    assert clone.git(f"--git-dir={mirror}", "fsck", "--connectivity-only") == ""
    assert not list((mirror / "refs" / "tags").rglob("?/*"))
    clone.pushed(":refs/tags/0/7")
    assert gate.has("refs/tags/0/7") == gate.upstream("refs/tags/0/7") == ""
    assert not list(mirror.glob("packed-refs.*"))


def test_a_tag_that_takes_the_place_of_a_directory_of_packed_tags_leaves_one_of_them(gate: Gate) -> None:
    clone, mirror = gate.clone, gate.world.home / "gate" / "app.git"
    clone.commit({"a": "1\n"})
    clone.pushed("main")

    def tag(repository: Path, verb: str, names: list[str], what: str = "") -> None:
        lines = "".join(f"{verb} refs/tags/{name}{what}\n" for name in names)
        clone.git(f"--git-dir={repository}", "update-ref", "--stdin", stdin=lines)

    ours, below = clone.path / ".git", [f"v1/{number}" for number in range(600)]
    tag(ours, "create", below, f" {clone.git('rev-parse', 'main')}")
    clone.pushed("--tags")
    assert "refs/tags/v1/0" in (mirror / "packed-refs").read_text()
    tag(ours, "delete", below)
    tag(ours, "create", ["v1", *(f"v2/{number}" for number in range(600))], f" {clone.commit({'a': KEY})}")
    with clone.pushing("--tags") as push:
        item = gate.operator.next(push)
        # The gate's copy is of before, as it is while a push is held.
        tag(gate.world.bare, "delete", below)
        gate.operator.decide(item, "approved")
        assert push.wait(FAR) == 0
    assert "refs/tags/v1/" not in (mirror / "packed-refs").read_text() or not gate.has("refs/tags/v1")
    clone.git("ls-remote", "origin")
    assert gate.has("refs/tags/v1") == gate.upstream("refs/tags/v1") == clone.git("rev-parse", "v1")
    assert not gate.has("refs/tags/v1/0")


def test_many_pushes_at_once_all_arrive(gate: Gate) -> None:
    gate.clone.commit({"a": "1\n"})
    gate.clone.pushed("main")
    branches = [f"branch{nth}" for nth in range(6)]
    for branch in branches:
        gate.clone.git("switch", "--quiet", "--create", branch, "main")
        gate.clone.commit({"a": f"{branch}\n"})
    with ExitStack() as stack:
        pushes = [stack.enter_context(gate.clone.pushing(branch)) for branch in branches]
        said = [push.communicate(timeout=FAR)[1] for push in pushes]
    assert [push.returncode for push in pushes] == [0] * len(branches), said
    for branch in branches:
        assert gate.upstream(branch) == gate.has(branch) == gate.clone.git("rev-parse", branch)


def test_many_connections_do_not_end_one_another(gate: Gate) -> None:
    with ExitStack() as stack:
        waiting = [stack.enter_context(socket.create_connection(("127.0.0.1", gate.port), FAR)) for _ in range(40)]
        # Connections are taken in their order, so once the last has its answer all have been taken.
        last = stack.enter_context(socket.create_connection(("127.0.0.1", gate.port), FAR))
        last.sendall(b"0024git-upload-pack /nowhere\0host=x\0")
        assert b"ERR" in last.recv(1_000)
        for connection in waiting:
            connection.setblocking(False)
            with pytest.raises(BlockingIOError):  # it is open, and has nothing to say
                connection.recv(1)


# --- what dies on the way


def test_locks_that_a_killed_git_left_heal(gate: Gate) -> None:
    gate.clone.commit({"a": "1\n"})
    gate.clone.pushed("main")
    mirror = gate.world.home / "gate" / "app.git"
    commit = upstream_commit(gate)
    for lock in ("refs/heads/main.lock", "packed-refs.lock"):
        (mirror / lock).touch()
    gate.clone.git("fetch", "--quiet", "origin")
    assert gate.has("main") == commit
    (mirror / "refs" / "heads" / "main.lock").touch()
    gate.clone.git("reset", "--quiet", "--hard", "origin/main")
    commit = gate.clone.commit({"b": "2\n"})
    gate.clone.pushed("main")
    assert gate.upstream("main") == gate.has("main") == commit


def test_the_question_of_a_killed_hook_is_taken_back_at_the_next_request(gate: Gate) -> None:
    gate.clone.commit({"a": KEY})
    with gate.clone.pushing("main") as push:
        item = gate.operator.next(push)
        os.kill(hook_of(gate, "pre-receive"), signal.SIGKILL)
        assert push.wait(FAR) != 0
    assert gate.upstream("main") == gate.has("main") == ""
    argv = ["git", "ls-remote", "origin"]
    subprocess.run(argv, cwd=gate.clone.path, env=environment(gate.world.home), check=True, capture_output=True)
    assert gate.operator.ends(item.proposal.id) == "withdrawn"
