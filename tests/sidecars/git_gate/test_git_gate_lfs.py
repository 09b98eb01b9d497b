"""Do objects of Git LFS go through the gate like the files that they stand for: scanned, held, passed on, and back?"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bot_bottle.sidecars.git_gate import lfs
from git_gates import KEY, Gate, running
from git_https import HttpsUpstream
from git_pushes import FAR, Clone, World, environment, make_world, secret
from needs import cannot

AWS = "aws-access-token"


def with_lfs(clone: Clone) -> None:
    """A working copy that keeps ``*.bin`` in Git LFS, set up as ``bot-bottle run`` sets git up."""
    if not shutil.which("git-lfs"):
        cannot("needs git-lfs: apt-get install git-lfs")
    clone.git("config", "--global", "lfs.gitprotocol", "http")
    clone.git("config", "--global", "lfs.locksverify", "false")
    clone.git("lfs", "install", "--skip-repo")
    clone.git("lfs", "install", "--local")
    clone.git("lfs", "track", "*.bin")
    clone.commit()


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, https: HttpsUpstream) -> Iterator[Gate]:
    world = make_world(tmp_path, monkeypatch)
    (tmp_path / "token").write_text("t0ken\n")
    credential = f"    token: {tmp_path / 'token'}\n    username: bot\n"
    with running(world, credential, https.url, GIT_SSL_CAINFO=str(https.certificate)) as gate:
        with_lfs(gate.clone)
        yield gate


def objects(https: HttpsUpstream) -> set[bytes]:
    return set(https.objects.values())


def test_objects_reach_the_upstream_with_their_push_and_come_back(gate: Gate, https: HttpsUpstream) -> None:
    content = b"x" * 100_000
    commit = gate.clone.commit({"a.bin": content, "b.bin": b"small", "c.txt": "3\n"})
    gate.clone.git("lfs", "push", "origin", "main")
    # They are at the gate now, and no further: nobody has looked at them yet.
    assert objects(https) == set()
    gate.clone.pushed("main")
    assert gate.upstream("main") == gate.has("main") == commit
    assert objects(https) == {content, b"small"}
    # What the gate itself no longer has comes from the upstream.
    shutil.rmtree(gate.world.home / "gate" / "app.git" / "lfs" / "objects")
    gate.clone.git(f"--git-dir={gate.world.bare}", "symbolic-ref", "HEAD", "refs/heads/main")
    fresh = Clone(gate.world.home / "fresh", gate.world.home)
    gate.clone.git("clone", "--quiet", f"git://127.0.0.1:{gate.port}/app", str(fresh.path))
    assert (fresh.path / "a.bin").read_bytes() == content
    assert set(https.asked) <= {"", "bot:t0ken"}
    assert "t0ken" not in gate.stop()


def test_a_secret_in_an_object_is_asked_about_with_the_push(gate: Gate, https: HttpsUpstream) -> None:
    content = b"\0" * 3_000 + KEY.encode()
    commit = gate.clone.commit({"a.bin": content})
    held = gate.held("main")
    assert held.code != 0 and held.findings == {(AWS, "a.bin")} and secret("one") not in held.said
    assert objects(https) == set() and gate.upstream("main") == ""
    held = gate.held("main", status="approved")
    assert held.code == 0 and objects(https) == {content} and gate.upstream("main") == commit
    # Another version of the file with the same secret in it is not news.
    gate.clone.commit({"a.bin": content + b"more"})
    gate.clone.pushed("main")


def test_an_archive_among_the_objects_is_opened(gate: Gate) -> None:
    packed = subprocess.run(["gzip"], input=KEY.encode(), capture_output=True, check=True).stdout
    gate.clone.commit({"a.bin": packed})
    assert gate.held("main").findings == {(AWS, "a.bin")}


def test_a_pointer_without_its_object_is_refused_with_the_way_out(gate: Gate) -> None:
    gate.clone.commit({"a.bin": b"never sent"})
    said = gate.clone.refused("--no-verify", "main")
    assert "a.bin is kept in Git LFS, and the object itself has not come here" in said
    assert "git lfs push --all origin" in said and gate.upstream("main") == ""
    gate.clone.git("lfs", "push", "--all", "origin")
    gate.clone.pushed("--no-verify", "main")


def test_a_file_that_is_only_moved_is_not_sent_again(gate: Gate, https: HttpsUpstream) -> None:
    gate.clone.commit({"a.bin": b"content"})
    gate.clone.pushed("main")
    for place in (gate.world.home / "gate" / "app.git", gate.clone.path / ".git"):
        shutil.rmtree(place / "lfs" / "objects")
    gate.clone.git("mv", "a.bin", "b.bin")
    commit = gate.clone.commit()
    gate.clone.pushed("main")
    assert gate.upstream("main") == commit and objects(https) == {b"content"}


def test_objects_that_the_upstream_refuses_end_the_push(gate: Gate, https: HttpsUpstream) -> None:
    https.refuses_objects = True
    commit = gate.clone.commit({"a.bin": b"content"})
    said = gate.clone.refused("main")
    assert "the upstream did not take the Git LFS objects of this push: it refused them (422)" in said
    assert gate.upstream("main") == gate.has("main") == "" and str(gate.world.home) not in said
    # The gate's repository has the commit's files by now, but the upstream still lacks the object.
    https.refuses_objects = False
    shutil.rmtree(gate.world.home / "gate" / "app.git" / "lfs" / "objects")
    assert "has not come here" in gate.clone.refused("--no-verify", "main")
    gate.clone.pushed("main")
    assert gate.upstream("main") == commit and objects(https) == {b"content"}


def test_a_download_that_fails_says_why(gate: Gate, https: HttpsUpstream) -> None:
    gate.clone.commit({"a.bin": b"content"})
    gate.clone.pushed("main")
    shutil.rmtree(gate.world.home / "gate" / "app.git" / "lfs" / "objects")
    shutil.rmtree(gate.clone.path / ".git" / "lfs" / "objects")

    def fetched() -> str:
        argv = ["git", "lfs", "fetch", "origin", "main"]
        done = subprocess.run(argv, cwd=gate.clone.path, env=environment(gate.world.home), capture_output=True)
        assert done.returncode != 0
        return done.stderr.decode()

    kept = https.objects.copy()
    https.objects.clear()
    assert "the upstream's Git LFS does not give it to the gate: it is not there" in fetched()
    https.objects |= kept
    gate.clone.git("reset", "--quiet", "--hard", "origin/main")
    gate.clone.commit({"b.bin": b"other"})
    gate.clone.pushed("main")
    for place in (gate.world.home / "gate" / "app.git", gate.clone.path / ".git"):
        shutil.rmtree(place / "lfs" / "objects")
    (gate.world.home / "token").write_text("expired\n")
    asked = len(https.asked)
    gate.clone.git("config", "lfs.fetchexclude", "a.bin")
    assert "the gate's credential is not taken (401)" in fetched()
    # git-lfs itself would go on asking without end.
    assert len(https.asked) - asked < 5


def test_a_repository_cannot_send_the_gate_to_another_lfs_server(gate: Gate, https: HttpsUpstream) -> None:
    gate.clone.git("config", "--file=.lfsconfig", "lfs.url", "https://localhost:1/else/info/lfs")
    gate.clone.git("config", "lfs.url", f"http://127.0.0.1:{gate.port}/app.git/info/lfs")
    gate.clone.commit({"a.bin": b"content"})
    gate.clone.pushed("main")
    gate.clone.git(f"--git-dir={gate.world.bare}", "symbolic-ref", "HEAD", "refs/heads/main")
    gate.clone.git("ls-remote", "origin")
    gate.clone.commit({"a.bin": b"more"})
    gate.clone.pushed("main")
    assert objects(https) == {b"content", b"more"}


def test_what_is_no_request_of_git_lfs_is_refused(gate: Gate) -> None:
    oid = hashlib.sha256(b"right").hexdigest()

    def asked(method: str, path: str, body: bytes = b"", **fields: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", gate.port, timeout=FAR)
        connection.request(method, path, body, headers=fields)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"{}").get("message", "")

    base = "/app.git/info/lfs/objects"
    assert asked("PUT", f"{base}/{oid}/5", b"wrong") == (
        422, "bot-bottle: what was sent is not the object that its name says"
    )  # fmt: skip
    assert asked("PUT", f"{base}/{oid}/7", b"right") == (422, "bot-bottle: this object has 7 bytes")
    assert asked("PUT", f"{base}/{oid}/5", **{"Transfer-Encoding": "chunked"})[0] == 411
    assert asked("PUT", f"{base}/../../hooks/{oid}/5", b"right")[0] == 404
    assert asked("GET", f"{base}/{'x' * 64}/5")[0] == 404
    assert asked("POST", "/other.git/info/lfs/objects/batch", b"{}")[0] == 404
    for body in (b"", b"[]", b"{", b'{"operation":"upload","objects":[{"oid":"../x","size":1}]}',
                 b'{"operation":"upload","objects":[],"transfers":5}'):  # fmt: skip
        assert asked("POST", f"{base}/batch", body)[0] == 422
    for method, path in [
        ("GET", "locks?limit=100"),
        ("POST", "locks"),
        ("POST", "locks/verify"),
        ("POST", "locks/1/unlock"),
    ]:
        assert asked(method, f"/app.git/info/lfs/{path}", b"{}") == (
            404, "bot-bottle: this gate passes on objects of Git LFS, but no locks"
        )  # fmt: skip
    for transfers, status in [(["tus"], 422), (["ssh", "basic"], 200), ([], 200)]:
        batch = json.dumps({"operation": "upload", "objects": [], "transfers": transfers}).encode()
        assert asked("POST", f"{base}/batch", batch)[0] == status
    for method in ("PATCH", "DELETE", "OPTIONS"):
        assert asked(method, f"{base}/{oid}/5") == (405, "bot-bottle: Git LFS needs GET, POST and PUT alone")
    assert asked("PUT", f"{base}/{oid}/5", b"right") == (200, "")
    kept = [path for path in (gate.world.home / "gate" / "app.git" / "lfs").rglob("*") if path.is_file()]
    assert sorted(path.parent.name for path in kept) == sorted([oid[2:4], "owed"])


def test_an_object_that_is_sent_again_is_there_all_the_time(tmp_path: Path) -> None:
    (tmp_path / "lfs").mkdir()
    store, content = lfs.Store(tmp_path, "sha1", 1 << 20), b"x" * 5_000
    wanted = lfs.Object(hashlib.sha256(content).hexdigest(), len(content))
    store.keep(wanted, io.BytesIO(content))
    with ThreadPoolExecutor(3) as pool:
        again = [pool.submit(store.keep, wanted, io.BytesIO(content)) for _ in range(300)]
        while not all(each.done() for each in again):
            assert store.has(wanted)
    assert [each.exception() for each in again if each.exception()] == []


def test_the_objects_that_were_used_last_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lfs, "_KEPT", 3_200)
    (tmp_path / "lfs").mkdir()
    store = lfs.Store(tmp_path, "sha1", 1 << 20)
    sent = []
    for number in range(40):
        content = b"%d" % number * 100
        sent.append(lfs.Object(hashlib.sha256(content).hexdigest(), len(content)))
        store.keep(sent[-1], io.BytesIO(content))
        os.utime(store.path(sent[-1].oid), (number, number))
        kept = [store.has(each) for each in sent]
        assert sum(each.size for each in sent if store.has(each)) <= 3_200
        assert kept == sorted(kept), "none that is older than one that is gone"
    # There is room for sixteen of 200 bytes, and looking for room leaves a sixteenth of it free.
    assert 14 <= sum(kept) <= 16


def test_an_object_too_large_to_scan_is_refused_before_it_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(tmp_path, monkeypatch)
    with running(world, GIT_GATE_MAX_FILE_BYTES="1000") as gate:
        with_lfs(gate.clone)
        gate.clone.commit({"a.bin": b"x" * 1_001})
        said = gate.clone.refused("main")
        assert "it has 1001 bytes; above 1000 it is not scanned and cannot pass" in said
        said = gate.clone.refused("--no-verify", "main")
        assert "a.bin has 1001 bytes; above 1000 it is not scanned and cannot pass" in said


def test_a_repository_of_ones_own_has_its_objects_scanned(world: World) -> None:
    with_lfs(world.clone)
    world.clone.commit({"a.bin": KEY})
    assert world.held("main").findings == {(AWS, "a.bin")}
    assert "is damaged" in _pushed_after_damage(world)


def _pushed_after_damage(world: World) -> str:
    (kept,) = (path for path in (world.bare / "lfs" / "objects").rglob("*") if path.is_file())
    kept.chmod(0o600)
    kept.write_bytes(b"something else")
    return world.clone.refused("--no-verify", "main")
