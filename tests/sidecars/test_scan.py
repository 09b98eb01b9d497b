"""Does ``bot_bottle.scan`` find what the proxy finds, and say why?"""

from __future__ import annotations

import base64
import gzip
import subprocess
import sys
from pathlib import Path

import pytest

import bot_bottle

TOKEN = b"ghp_" + b"x7Kq2Vw9ZtR4mB6nYc1DgH3jL5pS8uE0aTfI"


def test_a_secret_is_found_and_explained_without_being_shown() -> None:
    text = b"note: " + base64.b64encode(gzip.compress(b"some words " + TOKEN))
    (finding,) = bot_bottle.scan(text, place="header x-note")
    assert (finding.detector, finding.kind, finding.secret) == ("GitHub token", "token_patterns", TOKEN)
    assert (finding.how, finding.span, finding.place) == (["base64", "gzip"], None, "header x-note")
    assert "GitHub token in header x-note" in finding.explain() and "https://" in finding.explain()
    assert TOKEN.decode() not in repr(finding)


def test_known_secrets_count_from_8_bytes_on() -> None:
    known = {"seven": "1234567", "eight": "abcd-_~8"}
    found = bot_bottle.scan("1234567 abcd-_~8", known=known, token_patterns=False)
    assert [(finding.detector, finding.secret) for finding in found] == [("eight", b"abcd-_~8")]
    encoded = base64.urlsafe_b64encode(b"\xfb\xff\xfe" + b"abcd-_~8" + b"\xff\xef\xbf").decode()
    assert {"-", "_"} <= set(encoded)
    (finding,) = bot_bottle.scan(encoded, known=known, token_patterns=False)
    assert (finding.detector, finding.how) == ("eight", ["base64"])


def test_the_span_covers_what_spells_a_known_secret() -> None:
    text = b"key=correct%2Dhorse-battery&more=words"
    (finding,) = bot_bottle.scan(text, known={"a password": "correct-horse-battery"}, token_patterns=False)
    assert (finding.detector, finding.kind) == ("a password", "known_secrets")
    begin, end = finding.span or (0, 0)
    assert text[begin:end] == b"correct%2Dhorse-battery"


def test_what_cannot_be_scanned_is_an_error() -> None:
    with pytest.raises(bot_bottle.InvalidInputError, match="gzip"):
        bot_bottle.scan(b"plainly no gzip", codings=["gzip"])
    with pytest.raises(bot_bottle.InvalidInputError, match="compress"):
        bot_bottle.scan(b"x", codings=["compress"])
    with pytest.raises(bot_bottle.InvalidInputError, match="work"):
        bot_bottle.scan(
            gzip.compress(b"%41\\x42 eyJ0abcdefghijklmnopqrstuvwxyz 6162636465666768696a6b6c6d6e6f70 " * 400_000)
        )


def egress(*arguments: str | Path, stdin: bytes = b"") -> tuple[int, str, str]:
    argv = [sys.executable, "-m", "bot_bottle.sidecars.egress", *map(str, arguments)]
    done = subprocess.run(argv, input=stdin, capture_output=True)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def explained(*arguments: str | Path, stdin: bytes = b"") -> tuple[int, str, str]:
    return egress("scan", *arguments, stdin=stdin)


@pytest.mark.parametrize("word", ["--help", "scna"])
def test_another_word_than_scan_starts_no_proxy(word: str) -> None:
    code, out, err = egress(word)
    assert (code, out) == (2, "")
    assert "scan FILE" in err and "docs/egress.md" in err


def test_a_file_is_explained(tmp_path: Path) -> None:
    file, known = tmp_path / "app.js", tmp_path / "password"
    file.write_bytes(b"// fine\nconst a = 1; // " + TOKEN + b"\npassword=correct%2Dhorse\n")
    known.write_text("correct-horse\n")
    code, out, err = explained(file, "--known", f"our password={known}")
    assert (code, err) == (1, "")
    first, second = out.splitlines()
    assert first.startswith("line 2, byte 17: GitHub token in body") and "https://" in first
    assert second.startswith("line 3, byte 10: our password in body") and "under escapes" in second
    assert TOKEN.decode() not in out and "correct" not in out
    assert explained("-", stdin=b"fine") == (0, "nothing that the proxy takes for a secret\n", "")
    assert explained("-", "--coding", "gzip", stdin=gzip.compress(TOKEN))[0] == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["/nowhere"], "scan: /nowhere cannot be read: No such file or directory"),
        (["-", "--known", "x"], "scan: --known is NAME=FILE, not 'x'"),
        (["-", "--known", "x=/nowhere"], "scan: /nowhere cannot be read"),
        (["-", "--coding", "rot13"], "rot13"),
    ],
)
def test_what_cannot_be_explained_is_one_sentence(arguments: list[str], says: str) -> None:
    code, out, err = explained(*arguments, stdin=b"x")
    assert (code, out, err.count("\n")) == (bot_bottle.InvalidInputError.exit_code, "", 1) and says in err
