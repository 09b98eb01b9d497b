"""Is a secret found in whatever form and by whatever way it comes into a push?"""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
import zipfile

from git_gates import Gate
from git_pushes import World, secret

AWS = "aws-access-token"
KEY = f'key = "{secret("one")}"\n'


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("member", content)
    return file.getvalue()


def tarred(content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        member = tarfile.TarInfo("member")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def wrapped(text: str, width: int) -> str:
    return "".join(f"{text[at : at + width]}\n" for at in range(0, len(text), width))


def test_every_form_of_a_file_is_read(world: World) -> None:
    long = "x = 1\n" * 9 + KEY
    forms: dict[str, bytes] = {
        "utf-16-le": KEY.encode("utf-16-le"),
        "utf-16-be": KEY.encode("utf-16-be"),
        "utf-32-le": KEY.encode("utf-32-le"),
        "utf-32-be": KEY.encode("utf-32-be"),
        "utf-8-sig": KEY.encode("utf-8-sig"),
        "latin-1": f"é {KEY}".encode("latin-1"),
        "carriage returns": f"a\r\n\r{KEY}\r".encode(),
        "environ": f"HOME=/\0AWS={secret('one')}\0TERM=x\0".encode(),
        "one long line": b"[" + b'"x", ' * 60_000 + f'"{secret("one")}"'.encode() + b', "y"' * 60_000 + b"]",
        "gzip in zip": zipped(gzip.compress(KEY.encode())),
        "zip in gzip": gzip.compress(zipped(KEY.encode())),
        "tar.gz": tarred(KEY.encode()),
        "utf-16 in zip": zipped(KEY.encode("utf-16")),
        "base64 in text": b"data: " + base64.b64encode(long.encode()) + b"\n",
        "base64 in base64": base64.b64encode(base64.b64encode(KEY.encode())),
        "base64, wrapped": wrapped(base64.b64encode(("-" * 45 + KEY).encode()).decode(), 76).encode(),
        "hex, wrapped": wrapped(("-" * 20 + KEY).encode().hex(), 60).encode(),
        "json": json.dumps(f"one\n{secret('one')}\ttwo").encode(),
        "json, all escaped": ('"' + "".join(f"\\u{ord(c):04x}" for c in secret("one")) + '"').encode(),
        "coloured": f"\x1b[32m{secret('one')}\x1b[0m\n".encode(),
        "percent": "".join(f"%{ord(c):02X}" for c in KEY).encode(),
    }
    world.clone.commit(dict(forms))
    assert {path.partition("!")[0] for _, path in world.held("main").findings} == set(forms)


def test_a_secret_at_every_edge_of_a_window_is_found(world: World) -> None:
    """Files that differ in where the secret is: about the ends of what gitleaks, and the gate, read at once."""
    edges = [offset + by for offset in (76_000, 88_000, 92_000, 100_000) for by in range(-40, 41, 5)]
    files = {f"{at}": f"{'x' * (at - 1)} {secret('one')} {'y' * 30_000}\n" for at in edges}
    files |= {f"{at} lines": "x = 1;\n" * (at // 7) + " " * (at % 7) + KEY + "y = 2;\n" * 4_000 for at in edges}
    world.clone.commit(dict(files))
    assert {path for _, path in world.held("main").findings} == set(files)


def test_every_place_that_is_no_file_is_read(world: World) -> None:
    clone, names = (
        world.clone,
        [secret(name) for name in ("link", "directory", "submodule", "author", "encoding", "note")],
    )
    clone.commit({"a": "1\n"})
    clone.pushed("main")
    blob = clone.git("hash-object", "-w", "--stdin", stdin=names[0])
    modules = clone.git(
        "hash-object", "-w", "--stdin", stdin=f'[submodule "x"]\n\tpath = x\n\turl = https://me:{names[2]}@host/x\n'
    )
    empty = clone.git("mktree")
    inner = clone.git("mktree", stdin=f"040000 tree {empty}\tinner\n")
    tree = clone.git(
        "mktree", "--missing",
        stdin=f"120000 blob {blob}\tlink\n100644 blob {modules}\t.gitmodules\n040000 tree {inner}\t{names[1]}\n"
        f"160000 commit {'1' * 40}\tx-{names[5]}-\n",
    )  # fmt: skip
    head = f"tree {tree}\nauthor {names[3]} <a@b> 1 +0000\ncommitter a <a@b> 1 +0000\nencoding {names[4]}\n\nmessage\n"
    commit = clone.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=head)
    clone.git("notes", "add", "-m", f"reviewed with {names[5]}", "main")
    clone.git("tag", "--annotate", "--message", "of a directory", "directory", tree)
    held = world.held(f"{commit}:refs/heads/other", "refs/notes/commits")
    note = f"{clone.git('rev-parse', 'main')}"
    assert held.findings == {
        (AWS, "link"), (AWS, ".gitmodules"), (AWS, "file name"), (AWS, "commit message"), (AWS, note)
    }  # fmt: skip
    assert held.item.proposal.proposed_file.count(" in file name\n") == 2
    assert held.item.proposal.proposed_file.count(" in commit message\n") == 2
    assert world.held("directory").item.proposal.proposed_file.count(" in file name\n") == 2


def test_a_key_that_a_merge_of_three_completes_is_found(world: World) -> None:
    clone = world.clone
    value = secret("one")
    clone.commit({"f": "".join(f"{n}\n" for n in range(40))})
    clone.pushed("main")
    for name in ("a", "b"):
        clone.git("switch", "--quiet", "--create", name, "main")
        clone.commit({name: value[:10] if name == "a" else value[10:]})
    clone.pushed("a", "b")
    # The halves are upstream; the merge is what makes one of them, under a name that no parent has it in.
    clone.git("switch", "--quiet", "main")
    clone.commit({"c": "3\n"})
    clone.git("merge", "--quiet", "--no-commit", "a", "b")
    clone.git("rm", "--quiet", "--force", "a", "b")
    clone.commit({"joined": f"{value}\n"}, "merge a and b")
    assert clone.git("rev-list", "--parents", "--max-count=1", "HEAD").count(" ") == 3
    assert world.held("main").findings == {(AWS, "joined")}


def test_a_file_that_a_merge_takes_from_one_side_is_judged_where_it_comes_from(world: World) -> None:
    clone = world.clone
    clone.commit({"f": "1\n"})
    clone.pushed("main")
    clone.git("switch", "--quiet", "--create", "side")
    clone.commit({"f": KEY})
    clone.git("switch", "--quiet", "main")
    clone.commit({"g": "1\n"})
    # "ours" hides the side's change in the result, but its commit is pushed all the same.
    clone.git("merge", "--quiet", "--strategy=ours", "--no-edit", "side")
    assert world.held("main").findings == {(AWS, "f")}


def test_a_path_that_went_and_comes_back_is_judged_by_what_it_had(world: World) -> None:
    clone = world.clone
    clone.commit({"a": KEY})
    assert world.held("main", status="approved").code == 0
    clone.git("rm", "--quiet", "a")
    clone.commit({"b": "1\n"})
    clone.pushed("main")
    # The same in the same path is known; in another path, or another secret in this one, it is not.
    clone.commit({"a": f"# again\n{KEY}"})
    clone.pushed("main")
    clone.git("mv", "a", "c")
    clone.commit({"a": KEY.replace(secret("one"), secret("two"))})
    assert world.held("main").findings == {(AWS, "c"), (AWS, "a")}


def test_neither_attributes_nor_grafts_change_what_is_read(gate: Gate) -> None:
    clone = gate.clone
    clone.commit({"a": "1\n"})
    clone.pushed("main")
    (clone.path / ".git" / "info" / "grafts").write_text("")
    clone.git("config", "diff.none.textconv", "true")
    clone.git("config", "diff.none.command", "true")
    clone.git("config", "filter.none.clean", "cat")
    bad = clone.commit(
        {
            ".gitattributes": "f export-ignore diff=none filter=none working-tree-encoding=UTF-16LE-BOM -text\n",
            "f": KEY.encode("utf-16"),
        }
    )
    good = clone.commit({"f": "1\n".encode("utf-16")})
    (clone.path / ".git" / "info" / "grafts").write_text(f"{good} {clone.git('rev-parse', 'origin/main')}\n")
    assert bad not in clone.git("rev-list", "main").split()
    (clone.path / ".git" / "info" / "grafts").unlink()
    clone.git("replace", "--graft", good, "origin/main")
    assert gate.held("main").findings == {(AWS, "f")}
    assert gate.upstream("main") != good
