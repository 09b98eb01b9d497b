"""What of a push does gitleaks get to see? Everything, whatever the push itself says about that."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from git_pushes import World, make_world, secret

AWS = "aws-access-token"
KEY = f'key = "{secret("one")}"\n'


def test_a_secret_in_a_file_is_found_whatever_its_name_its_form_and_its_neighbours(world: World) -> None:
    files: dict[str, str | bytes] = {
        "plain.txt": KEY,
        "comment.py": f"{KEY.strip()} # gitleaks:allow\n",
        "ignored.txt": KEY,
        "binary.dat": b"\0\1\2" + KEY.encode() + b"\0",
        "no newline": KEY.strip(),
        " leading and trailing ": KEY,
        "new\nline": KEY,
        'quo"te': KEY,
        "tab\there": KEY,
        "back\\slash": KEY,
        "ünï/cödé": KEY,
        "dev/null": KEY,
        "a/b b/a": KEY,
        "crlf.txt": KEY.replace("\n", "\r\n"),
        "base64.txt": base64.b64encode(KEY.encode()),
    }
    # The same content would be one object, and each file is to be found for itself.
    numbered = {
        name: content + (b"%d" if isinstance(content, bytes) else "%d") % n
        for n, (name, content) in enumerate(files.items())
    }
    hiding: dict[str, str | bytes] = {
        ".gitattributes": "* binary -diff -text filter=none diff=none\n",
        ".gitleaksignore": "ignored.txt:aws-access-token:1\n",
        ".gitleaks.toml": 'title = "no rules at all"\n[allowlist]\npaths = [".*"]\n',
    }
    world.clone.commit(hiding | numbered)
    held = world.held("main")
    assert held.findings == {(AWS, name.replace("\n", "<U+000A>").replace("\t", "<U+0009>")) for name in files}
    assert held.code != 0 and world.ref("main") == ""


def test_a_file_that_gitleaks_takes_for_its_configuration_is_looked_into(world: World) -> None:
    world.clone.commit({".gitleaks.toml": KEY})
    assert world.held("main").findings == {(AWS, ".gitleaks.toml")}


NAMES = [
    "yarn.lock", "x\\", "logo.png", "go.sum", "vendor/github.com/x/y.go", "node_modules/x/y.js", "a.zip", "b.tar.gz",
    "jquery.min.js", "font.ttf", "c.exe", "-", "--all", "p/0", "none", "HEAD", "\x01\x7f", "a" * 250, "d/" * 200 + "e",
]  # fmt: skip


def test_no_name_hides_a_secret(world: World) -> None:
    world.clone.commit({name: f"{KEY}{n}" for n, name in enumerate(NAMES)})
    shown = {name.replace("\x01\x7f", "<U+0001><U+007F>") for name in NAMES}
    assert world.held("main").findings == {(AWS, name) for name in shown}


def test_a_name_that_is_no_utf8_hides_nothing(world: World) -> None:
    blob = world.clone.git("hash-object", "-w", "--stdin", stdin=KEY)
    tree = world.clone.git("mktree", "-z", stdin=b"100644 blob " + blob.encode() + b"\t\xff\nx\0")
    world.clone.git("update-ref", "refs/heads/main", world.clone.git("commit-tree", "-m", "x", tree))
    assert world.held("main").findings == {(AWS, "\ufffd<U+000A>x")}


def test_a_secret_that_a_later_commit_removes_is_found(world: World) -> None:
    world.clone.commit({"a": KEY})
    world.clone.commit({"a": "key = None\n"})
    assert world.held("main").findings == {(AWS, "a")}


def test_a_secret_in_a_commit_message_is_found(world: World) -> None:
    world.clone.commit(message=f"use {secret('one')}")
    assert world.held("main").findings == {(AWS, "commit message")}


def test_a_secret_behind_the_end_of_a_message_is_found(world: World) -> None:
    # git itself refuses a NUL there as long as it checks objects.
    world.clone.git(f"--git-dir={world.bare}", "config", "receive.fsckObjects", "false")
    tree = world.clone.git("mktree")
    text = f"tree {tree}\nauthor a <a> 0 +0000\ncommitter a <a> 0 +0000\n\nshown\0{secret('one')}\n"
    commit = world.clone.git("hash-object", "-t", "commit", "-w", "--stdin", "--literally", stdin=text)
    world.clone.git("update-ref", "refs/heads/main", commit)
    assert world.held("main").findings == {(AWS, "commit message")}


def test_a_message_cannot_pass_for_another_section(world: World) -> None:
    world.clone.commit(message=f"0000000000000000000000000000000000000000 blob 5\n{secret('one')}")
    assert world.held("main").findings == {(AWS, "commit message")}


@pytest.mark.parametrize("name", ["branch", "tag"])
def test_a_secret_in_a_refs_name_is_found(world: World, name: str) -> None:
    world.clone.commit()
    world.clone.git(name, secret("one"))
    held = world.held(secret("one"))
    assert held.findings == {(AWS, "ref name")}
    assert secret("one") not in held.item.proposal.justification


def test_a_secret_in_a_files_name_is_found_even_if_its_content_is_known(world: World) -> None:
    world.clone.commit({"a": "known\n"})
    world.clone.pushed("main")
    world.clone.commit({f"dir/{secret('one')}/b": "known\n"})
    held = world.held("main")
    assert held.findings == {(AWS, "file name")}


def test_a_secret_in_the_message_of_an_annotated_tag_is_found_however_deep(world: World) -> None:
    world.clone.commit()
    world.clone.pushed("main")
    world.clone.git("tag", "--annotate", "--message", f"v1 {secret('one')}", "v1")
    world.clone.git("tag", "--annotate", "--message", "outer", "v2", "v1")
    assert world.held("v2").findings == {(AWS, "tag message")}


def test_a_secret_in_a_tagged_file_or_directory_is_found(world: World) -> None:
    blob = world.clone.git("hash-object", "-w", "--stdin", stdin=KEY)
    world.clone.git("tag", "file", blob)
    tree = world.clone.git("mktree", stdin=f"100644 blob {blob}\tsettings\n")
    world.clone.git("tag", "--annotate", "--message", "a directory", "directory", tree)
    assert world.held("file").findings == {(AWS, "tagged-file")}
    assert world.held("directory").findings == {(AWS, "settings")}


def test_what_a_merge_itself_brings_is_found(world: World) -> None:
    clone = world.clone
    clone.commit({"f": "".join(f"{n}\n" for n in range(30))})
    clone.git("switch", "--quiet", "--create", "side")
    clone.commit({"side": "1\n"})
    clone.git("switch", "--quiet", "main")
    clone.commit({"mine": "2\n"})
    clone.git("merge", "--quiet", "--no-commit", "side")
    clone.commit({"evil": KEY, "f": "".join(f"{n}\n" for n in range(30)) + KEY}, "merge side")
    assert world.held("main").findings == {(AWS, "evil"), (AWS, "f")}


def test_what_a_merge_takes_over_is_not_asked_about_again(world: World) -> None:
    clone = world.clone
    lines = [f"{n}\n" for n in range(30)]
    clone.commit({"f": "".join(lines)})
    clone.git("branch", "side")
    theirs = [*lines[:4], "first\n", KEY, *lines[4:]]
    clone.commit({"f": "".join(theirs)})
    assert world.held("main", status="approved").code == 0
    clone.git("switch", "--quiet", "side")
    clone.commit({"f": "".join([*lines, "last\n"])})
    clone.git("merge", "--quiet", "--no-edit", "main")
    clone.pushed("side")


def test_only_what_is_new_is_looked_at(world: World) -> None:
    clone = world.clone
    clone.commit({"a": KEY})
    assert world.held("main", status="approved").code == 0
    clone.commit({"b": "1\n"})
    clone.commit({"a": f"# moved down\n{KEY}", "d": "1\n"})
    clone.git("tag", "v1", "HEAD~1")
    clone.pushed("main", "main:copy", "v1")
    clone.pushed(":copy", ":v1")
    assert world.ref("copy") == "" and world.ref("main") == clone.git("rev-parse", "HEAD")


def test_a_replace_ref_does_not_hide_a_commit(world: World) -> None:
    clone = world.clone
    bad = clone.commit({"a": KEY})
    clone.git("switch", "--quiet", "--orphan", "good")
    good = clone.commit({"a": "harmless\n"})
    clone.git("replace", bad, good)
    clone.pushed(f"{good}:refs/replace/{bad}")
    assert world.held("main").findings == {(AWS, "a")}


def test_settings_of_the_repository_do_not_change_what_is_seen(world: World) -> None:
    config = world.bare / "config"
    config.write_text(
        config.read_text()
        + '[diff]\n\tnoprefix = true\n\torderFile = nowhere\n\tsubmodule = log\n[diff "x"]\n\ttextconv = true\n'
        + "[log]\n\tshowRoot = false\n\tdiffMerges = off\n\tdate = relative\n[color]\n\tui = always\n"
        + "[core]\n\tquotePath = false\n\tattributesFile = attributes\n[format]\n\tpretty = oneline\n"
    )
    (world.bare / "attributes").write_text("* diff=x binary\n")
    world.clone.commit({"ä b": KEY})
    assert world.held("main").findings == {(AWS, "ä b")}


def test_many_refs_at_once_go_through_or_not_together(world: World) -> None:
    clone = world.clone
    clone.commit()
    for name in ("one", "two"):
        clone.git("switch", "--quiet", "--create", name, "main")
        clone.commit({name: KEY if name == "two" else "fine\n"})
    held = world.held("main", "one", "two")
    assert held.findings == {(AWS, "two")}
    assert "refs/heads/main, refs/heads/one, refs/heads/two of origin.git" in held.item.proposal.justification
    assert [world.ref(name) for name in ("main", "one", "two")] == ["", "", ""]


def test_a_force_push_is_looked_at(world: World) -> None:
    world.clone.commit({"a": "1\n"})
    world.clone.pushed("main")
    world.clone.git("commit", "--quiet", "--amend", "--message", f"now with {secret('one')}")
    assert world.held("+main").findings == {(AWS, "commit message")}


def test_an_empty_push_is_none(world: World) -> None:
    world.clone.commit()
    world.clone.pushed("main")
    assert "Everything up-to-date" in world.clone.pushed("main")


def test_more_commits_than_one_run_of_gitleaks_takes(world: World) -> None:
    stream = "".join(
        f"commit refs/heads/main\ncommitter a <a> {n} +0000\ndata 1\nc\n"
        + (f"M 644 inline first\ndata {len(KEY)}\n{KEY}" if n == 0 else "")
        for n in range(1500)
    )
    world.clone.git("fast-import", "--quiet", stdin=stream)
    held = world.held("main")
    assert held.findings == {(AWS, "first")}
    assert "looking for secrets in 1500 commits with 1 file" in held.said


def test_a_sha256_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(tmp_path, monkeypatch, object_format="sha256")
    world.clone.commit({"a": "1\n"})
    world.clone.pushed("main")
    world.clone.commit({"a": KEY})
    world.clone.git("tag", "file", world.clone.git("rev-parse", "HEAD:a"))
    assert world.held("main", "file").findings == {(AWS, "a"), (AWS, "tagged-file")}
    world.clone.pushed(":main")


def test_nothing_of_a_secret_stays_anywhere(world: World) -> None:
    world.clone.commit({secret("two"): KEY}, f"{secret('three')}")
    held = world.held("main", notes="no")
    assert held.code != 0
    values = [secret(name) for name in ("one", "two", "three")]
    assert not any(value in held.said for value in values)
    searched = [path for where in ("root", "tmp", "origin.git") for path in (world.home / where).rglob("*")]
    kept = [path for path in searched if path.is_file() and any(v.encode() in path.read_bytes() for v in values)]
    assert kept == []
    objects = subprocess.run(
        ["git", f"--git-dir={world.bare}", "cat-file", "--batch-all-objects", "--batch-check"], capture_output=True
    )
    assert objects.stdout == b"" and list((world.home / "tmp").iterdir()) == []
