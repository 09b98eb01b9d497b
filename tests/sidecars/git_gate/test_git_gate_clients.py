"""Can tools that speak git themselves, without the program git, use the gate as they would use the upstream?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from git_gates import Gate
from git_pushes import FAR, environment, secret

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


@pytest.mark.parametrize("client", [DULWICH, LIBGIT2], ids=["dulwich", "libgit2"])
def test_a_client_of_its_own_pushes_and_is_held(gate: Gate, tmp_path: Path, client: str) -> None:
    gate.clone.commit({"a": "1\n"})
    gate.clone.pushed("main")
    gate.clone.git(f"--git-dir={gate.world.bare}", "symbolic-ref", "HEAD", "refs/heads/main")

    def pushing(content: str, branch: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", client, f"git://127.0.0.1:{gate.port}/app.git", str(tmp_path / branch)]
        return subprocess.Popen(
            [*argv, content, branch],
            env=environment(gate.world.home),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
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
