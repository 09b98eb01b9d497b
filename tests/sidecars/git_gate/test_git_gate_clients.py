"""Can tools that speak git themselves, without the program git, use the gate as they would use the upstream?"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from git_gates import Gate
from git_pushes import FAR, Clone, environment, secret
from needs import cannot

# Each clones `url`, commits a file `new` with this content, pushes it as `branch`, and prints what it is told.
DULWICH = """
import sys
from dulwich import porcelain

url, path, content, branch = sys.argv[1:]
with porcelain.clone(url, path, errstream=sys.stdout.buffer) as repository:
    with open(f"{path}/new", "w") as file:
        file.write(content)
    porcelain.add(repository, [f"{path}/new"])
    porcelain.commit(repository, b"by dulwich", author=b"a <a@b>", committer=b"a <a@b>")
    told = sys.stdout.buffer
    porcelain.push(repository, url, f"main:refs/heads/{branch}", outstream=told, errstream=told)
"""
LIBGIT2 = """
import sys
import pygit2

url, path, content, branch = sys.argv[1:]
repository = pygit2.clone_repository(url, path)
with open(f"{path}/new", "w") as file:
    file.write(content)
repository.index.add("new")
me = pygit2.Signature("a", "a@b")
repository.create_commit("HEAD", me, me, "by libgit2", repository.index.write_tree(), [repository.head.target])

class Heard(pygit2.RemoteCallbacks):
    def sideband_progress(self, text):
        print(text, end="")

    def push_update_reference(self, name, refusal):
        print(name, refusal or "is there")

repository.remotes["origin"].push([f"refs/heads/main:refs/heads/{branch}"], callbacks=Heard())
"""


@pytest.fixture(scope="session")
def go_git(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same program on go-git, built from ``go_git`` beside this file."""
    if not (go := shutil.which("go")):
        cannot("needs go, for go-git")
    program = tmp_path_factory.mktemp("go-git") / "go-git"
    argv = [go, "build", "-mod=readonly", "-o", str(program), "."]
    built = subprocess.run(argv, cwd=Path(__file__).parent / "go_git", capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return str(program)


def push_as_each_answer_has_it(gate: Gate, directory: Path, client: Sequence[str]) -> None:
    """``client``, given url, path, content and branch, pushes what is clean, what is rejected and what is approved."""
    gate.clone.commit({"a": "1\n"})
    gate.clone.pushed("main")
    gate.clone.git(f"--git-dir={gate.world.bare}", "symbolic-ref", "HEAD", "refs/heads/main")

    def pushing(content: str, branch: str) -> subprocess.Popen[str]:
        argv = [*client, f"git://127.0.0.1:{gate.port}/app.git", str(directory / branch), content, branch]
        return subprocess.Popen(
            argv, env=environment(gate.world.home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    with pushing("fine", "clean") as push:
        said, _ = push.communicate(timeout=FAR)
    assert gate.upstream("clean") == gate.has("clean") != "", said

    for answer in ("rejected", "approved"):
        with pushing(f"key = {secret('one')}\n", answer) as push:
            item = gate.operator.next(push)
            gate.operator.decide(item, answer, "have a look at the wiki")
            said, _ = push.communicate(timeout=FAR)
        assert "possible secrets" in said and "have a look at the wiki" in said and secret("one") not in said
    assert gate.upstream("rejected") == "" and gate.upstream("approved") == gate.has("approved") != ""


@pytest.mark.parametrize("client", [DULWICH, LIBGIT2], ids=["dulwich", "libgit2"])
def test_a_client_of_its_own_pushes_and_is_held(gate: Gate, tmp_path: Path, client: str) -> None:
    push_as_each_answer_has_it(gate, tmp_path, [sys.executable, "-c", client])


@pytest.mark.timeout(600)  # go-git is compiled
def test_go_git_pushes_and_is_held(go_git: str, gate: Gate, tmp_path: Path) -> None:
    push_as_each_answer_has_it(gate, tmp_path, [go_git])


@pytest.mark.parametrize("way", [["--depth=1"], ["--filter=blob:none"], ["--filter=tree:0"], ["--single-branch"]])
def test_a_clone_of_a_part_pushes_and_is_held(gate: Gate, tmp_path: Path, way: list[str]) -> None:
    for number in range(3):
        gate.clone.commit({"a": f"{number}\n", f"b/{number}": "b\n"})
    gate.clone.pushed("main", "main:other")
    gate.clone.git(f"--git-dir={gate.world.bare}", "symbolic-ref", "HEAD", "refs/heads/main")
    part = Clone(tmp_path / "part", gate.world.home)
    gate.clone.git("clone", "--quiet", *way, f"git://127.0.0.1:{gate.port}/app.git", str(part.path))
    part.commit({"a": "more\n"})
    part.pushed("main")
    assert gate.upstream("main") == gate.has("main") == part.git("rev-parse", "main")
    part.commit({"c": f"key = '{secret('one')}'\n"})
    with part.pushing("main") as push:
        gate.operator.decide(gate.operator.next(push), "approved")
        assert push.wait(FAR) == 0
    assert gate.upstream("main") == gate.has("main") == part.git("rev-parse", "main")


def test_a_history_without_its_beginning_is_refused(gate: Gate, tmp_path: Path) -> None:
    """What is cut off was never looked at."""
    elsewhere = Clone(tmp_path / "elsewhere", gate.world.home)
    elsewhere.path.mkdir()
    elsewhere.git("init", "--quiet", "--initial-branch=main")
    elsewhere.commit({"a": f"key = '{secret('one')}'\n"})
    elsewhere.commit({"a": "gone\n"})
    part = Clone(tmp_path / "part", gate.world.home)
    elsewhere.git("clone", "--quiet", "--depth=1", f"file://{elsewhere.path}", str(part.path))
    part.git("remote", "set-url", "origin", f"git://127.0.0.1:{gate.port}/app.git")
    assert "shallow update not allowed" in part.refused("main")
    assert gate.upstream("main") == ""
