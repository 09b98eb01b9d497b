"""Is every secret found, however it is wrapped and cut, and is what is no secret left alone?"""

from __future__ import annotations

import base64
import gzip
import io
import random
import re
import string
import zipfile
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

import bot_bottle
from bot_bottle.sidecars.egress.secrets.body_scanner import BodyScanner
from bot_bottle.sidecars.egress.secrets.detectors import KINDS, Detectors, Finding
from bot_bottle.sidecars.egress.secrets.inflate import decode

BOTH = ("token_patterns", "known_secrets")
KNOWN = "correct-horse-battery-staple"
ALNUM = string.ascii_letters + string.digits


def made(alphabet: str, length: int) -> str:
    return "".join(random.Random(f"{alphabet}{length}").choices(alphabet, k=length))


A = {length: made(ALNUM, length) for length in range(4, 120)}
HEX = {length: made("0123456789abcdef", length) for length in (8, 32, 40, 48, 64)}
KEY_BODY = "\n".join(made(ALNUM + "+/", 64) for _ in range(12))

# Put together here, so that no scanner takes this file for a leak.
SAMPLES = {
    "private key": "-----BEGIN RSA PRIVATE " + f"KEY-----\n{KEY_BODY}",
    "PGP private key": "-----BEGIN PGP PRIVATE KEY " + f"BLOCK-----\nVersion: X 1.0\n\n{KEY_BODY}",
    "age secret key": "AGE-SECRET-KEY-1" + made("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 58),
    "JSON web token": ".".join(
        (
            base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("="),
            base64.urlsafe_b64encode(b'{"sub":"1234567890","name":"x"}').decode().rstrip("="),
            A[43],
        )
    ),
    "GitHub token": "ghp_" + A[36],
    "GitHub fine-grained token": f"github_pat_{A[22]}_{A[59]}",
    "GitLab token": "glpat-" + A[20],
    "AWS access key id": "AKIA" + made("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16),
    "AWS secret access key": "aws_secret_access_key = " + A[40],
    "Google API key": "AIza" + A[35],
    "Google OAuth secret": "GOCSPX-" + A[28],
    "Google OAuth token": "ya29." + A[60],
    "Google refresh token": "1//0" + A[50],
    "Azure storage key": "AccountKey=" + A[86] + "==",
    "Azure client secret": "abc8" + "Q~" + A[34],
    "Anthropic key": "sk-ant-" + "api03-" + A[93],
    "OpenAI key": "sk-" + "proj-" + A[74],
    "OpenAI-style key": "sk-" + A[48],
    "OpenRouter key": "sk-or-v1-" + HEX[64],
    "Groq key": "gsk_" + A[52],
    "Hugging Face token": "hf_" + A[34],
    "Slack token": "xoxb-" + f"123456789012-123456789012-{A[24]}",
    "Slack webhook": "hooks.slack.com/" + f"services/T00000000/B00000000/{A[24]}",
    "Telegram bot token": "123456789" + ":AA" + A[33],
    "Stripe key": "sk_live_" + A[24],
    "Shopify token": "shpat_" + HEX[32],
    "SendGrid key": f"SG.{A[22]}.{A[43]}",
    "npm token": "npm_" + A[36],
    "PyPI token": "pypi-AgE" + A[80],
    "crates.io token": "cio" + A[32],
    "Docker Hub token": "dckr_pat_" + A[27],
    "Databricks token": "dapi" + HEX[32],
    "DigitalOcean token": "dop_v1_" + HEX[64],
    "HashiCorp Vault token": "hvs." + A[95],
    "Terraform Cloud token": f"{A[14]}.atlasv1.{A[64]}",
    "Grafana token": f"glsa_{A[32]}_{HEX[8]}",
    "Supabase key": "sbp_" + HEX[40],
    "Tailscale key": f"tskey-auth-{A[12]}-{A[32]}",
    "AWS Bedrock key": "ABSK" + A[110],
    "xAI key": "xai-" + A[80],
    "Perplexity key": "pplx-" + A[48],
    "Replicate token": "r8_" + A[37],
    "Slack app token": f"xapp-1-A0123456789-1234567890123-{A[64]}",
    "Discord webhook": "https://discord.com" + f"/api/webhooks/123456789012345678/{A[68]}",
    "Stripe webhook secret": "whsec_" + A[32],
    "Square token": "sq0atp-" + A[22],
    "RubyGems key": "rubygems_" + HEX[48],
    "Atlassian token": "ATATT3" + A[119] + A[70],
    "Linear key": "lin_api_" + A[40],
    "Notion token": "ntn_" + A[46],
    "Figma token": "figd_" + A[40],
    "Heroku key": "HRKU-" + A[60],
    "Sentry token": "sntryu_" + HEX[64],
    "New Relic key": "NRAK-" + made(string.ascii_uppercase + string.digits, 27),
    "Netlify token": "nfp_" + A[36],
    "PlanetScale token": "pscale_tkn_" + A[43],
    "Doppler token": "dp.pt." + A[43],
}

TOKEN = SAMPLES["GitHub token"].encode()


def zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("notes.txt", b"some words " * 30 + data)
    return file.getvalue()


def in_lines(data: bytes, line_break: bytes) -> bytes:
    return base64.encodebytes(b"a first line of quite some length " + data).replace(b"\n", line_break)


# With a character that no token holds behind, so that the token's own end is told.
WRAPPINGS: dict[str, Callable[[bytes], bytes]] = {
    "as it is": lambda data: data,
    "base64, aligned": base64.b64encode,
    "base64, one byte in": lambda data: base64.b64encode(b"." + data + b"."),
    "base64, two bytes in": lambda data: base64.b64encode(b".." + data + b"."),
    "base64 without padding": lambda data: base64.b64encode(data).rstrip(b"="),
    "base64, URL alphabet": lambda data: base64.urlsafe_b64encode(b"?>?>" + data),
    "base64 after letters": lambda data: b"x" + base64.b64encode(data),
    "base64 in lines": lambda data: in_lines(data, b"\n"),
    "base64 in lines, in JSON": lambda data: in_lines(data, b"\\n"),
    "base64 in lines, indented": lambda data: in_lines(data, b"\r\n    "),
    "base64 in base64": lambda data: base64.b64encode(base64.b64encode(data)),
    "hex": lambda data: data.hex().encode(),
    "HEX": lambda data: data.hex().upper().encode(),
    "hex with colons": lambda data: data.hex(":").encode(),
    "hex as C array": lambda data: ", ".join(f"0x{byte:02x}" for byte in data).encode(),
    "percent": lambda data: b"".join(b"%%%02X" % byte for byte in data),
    "percent, twice": lambda data: b"".join(b"%%25%02X" % byte for byte in data),
    "JSON escapes": lambda data: b"".join(b"\\u%04x" % byte for byte in data),
    "C escapes": lambda data: b"".join(b"\\x%02x" % byte for byte in data),
    "HTML escapes": lambda data: b"".join(b"&#%d;" % byte for byte in data),
    "UTF-16": lambda data: data.decode().encode("utf-16-le"),
    "UTF-16, big end first": lambda data: data.decode().encode("utf-16-be"),
    "hex in base64": lambda data: base64.b64encode(data.hex().encode()),
    "base64 in a URL": lambda data: (
        base64.b64encode(b"~~~" + data + b"~~~").replace(b"+", b"%2B").replace(b"/", b"%2F")
    ),
    "gzip": gzip.compress,
    "gzip in gzip": lambda data: gzip.compress(gzip.compress(data)),
    "gzip in base64": lambda data: base64.b64encode(gzip.compress(b"words " + data)),
    "zlib": zlib.compress,
    "zip": zipped,
    "zstd": zstandard.compress,
}
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}


def scan(data: bytes, *cuts: int, codings: tuple[str, ...] = ()) -> tuple[list[Finding], bytes]:
    """What is found in ``data`` that comes in pieces cut there, and what had passed until the first was found."""
    scanner = BodyScanner(Detectors(BOTH, {"a password": KNOWN}), codings)
    passed = b""
    edges = [0, *sorted(cuts), len(data)]
    for begin, end in pairwise(edges):
        scanner.feed(data[begin:end], last=end == len(data))
        if scanner.found:
            break
        passed += scanner.take()
    assert not scanner.unreadable
    return scanner.found, passed


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_is_found_by_its_name(kind: str) -> None:
    text = f'{{"text": "{SAMPLES[kind]}", "more": 1}}'.encode()
    found = Detectors(("token_patterns",), {}).scan(text)
    assert kind in {each.kind for each in found}
    assert {each.detector for each in found} == {"token_patterns"}


def test_every_wrapping_is_undone() -> None:
    for name, wrap in WRAPPINGS.items():
        for secret in (TOKEN, KNOWN.encode()):
            found, _ = scan(b'{"note": "some words", "data": "' + wrap(secret) + b'", "more": "words"}')
            assert {each.secret for each in found} == {secret}, name


@given(
    wrapping=st.sampled_from(sorted(WRAPPINGS)),
    before=st.text('abc {}":,\n', max_size=60),
    cuts=st.lists(st.integers(0, 400), max_size=6),
    known=st.booleans(),
)
@settings(max_examples=400, deadline=None)
def test_a_secret_is_found_across_any_cut_before_most_of_it_has_passed(
    wrapping: str, before: str, cuts: list[int], known: bool
) -> None:
    secret = KNOWN.encode() if known else TOKEN
    head = before.encode() + b'"'
    wrapped = WRAPPINGS[wrapping](secret)
    body = head + wrapped + b'", "and": "more"}'
    found, passed = scan(body, *(cut for cut in cuts if cut < len(body)))
    assert [each.secret for each in found][:1] == [secret]
    if found[0].end:
        assert len(passed) - found[0].start <= 32


@given(coding=st.sampled_from(sorted(CODINGS)), piece=st.integers(1, 200), size=st.integers(0, 5000))
@settings(max_examples=30, deadline=None)
def test_a_secret_is_found_in_a_compressed_body_in_pieces_of_any_size(coding: str, piece: int, size: int) -> None:
    body = CODINGS[coding](random.Random(size).randbytes(size) + b" " + TOKEN + b" ")
    found, _ = scan(body, *range(piece, len(body), piece), codings=(coding,))
    assert [each.secret for each in found][:1] == [TOKEN]


@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000), max_size=5))
@settings(max_examples=200, deadline=None)
def test_what_holds_no_secret_passes_unchanged(data: bytes, cuts: list[int]) -> None:
    scanner = BodyScanner(Detectors(BOTH, {"a password": KNOWN}))
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    passed = b""
    for begin, end in pairwise(edges):
        scanner.feed(data[begin:end], last=end == len(data))
        passed += scanner.take()
    assert passed == data
    assert not scanner.found


@given(wrapping=st.sampled_from(sorted(WRAPPINGS)), cut=st.integers(0, 300))
@settings(max_examples=150, deadline=None)
def test_masking_leaves_the_length_and_takes_the_secret(wrapping: str, cut: int) -> None:
    head, tail = b'{"data": "', b'", "and": "more"}'
    body = head + WRAPPINGS[wrapping](TOKEN) + tail
    cut = min(cut, len(body) - 1)
    scanner = BodyScanner(Detectors(BOTH, {}))
    passed = b""
    for piece, last in ((body[:cut], False), (body[cut:], True)):
        scanner.feed(piece, last=last)
        masked = [scanner.mask(each) for each in scanner.found]
        if not all(masked):
            assert wrapping in {"gzip", "gzip in gzip", "zlib", "zip", "zstd"}
            return
        scanner.found.clear()
        passed += scanner.take()
    assert len(passed) == len(body)
    assert passed.startswith(head) and passed.endswith(tail)
    assert not Detectors(BOTH, {}).scan(passed)


def test_a_token_is_one_secret_wherever_the_pieces_end() -> None:
    long = b"ghp_" + A[100].encode()
    for cut in range(1, len(long)):
        assert [each.secret for each in scan(b'"' + long + b'"', cut)[0]] == [long]


@pytest.mark.parametrize(
    "text",
    [
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "AKIAIOSFODNN7EXAMPLE",
        "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        f"task-{HEX[32]}",
        f"disk-{A[40]}",
        "-----BEGIN PRIVATE KEY----- is how a private key begins, and here is a sentence that goes on for a while.",
        "-----BEGIN PUBLIC KEY-----\n" + KEY_BODY,
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE" + A[43],
        "eyJhbGciOiJIUzI1NiJ9 is a header alone",
        f"sha256:{HEX[64]}",
        "0190f3c2-7b1e-7cc3-98c4-dc0c0c07398f",
        "data:image/png;base64," + base64.b64encode(random.Random(1).randbytes(3000)).decode(),
        "the github_pat_ prefix, the ghp_ prefix and the xoxb- prefix",
        "precios: 12, 13; cio" + "a" * 40,
        "AccountKey=<your key>",
        "https://hooks.slack.com/services/T000/B000/XXXX",
    ],
)
def test_what_only_looks_like_a_secret_is_left_alone(text: str) -> None:
    assert Detectors(BOTH, {"short": "hunter2"}).scan(text.encode()) == []


def test_megabytes_of_noise_hold_no_secret() -> None:
    noise = random.Random(7).randbytes(1 << 20)
    for data in (noise, base64.b64encode(noise), noise.hex().encode(), zlib.compress(noise)):
        assert Detectors(BOTH, {"a password": KNOWN}).scan(data) == []


def test_our_own_sources_hold_no_secret() -> None:
    for path in Path(bot_bottle.__file__).parent.rglob("*.py"):
        assert Detectors(BOTH, {}).scan(path.read_bytes()) == [], path


def test_only_the_named_detectors_look() -> None:
    text = f"{TOKEN.decode()} {KNOWN}".encode()
    assert [each.kind for each in Detectors(("known_secrets",), {"a password": KNOWN}).scan(text)] == ["a password"]
    assert [each.kind for each in Detectors(("token_patterns",), {"a password": KNOWN}).scan(text)] == ["GitHub token"]
    assert not Detectors((), {"a password": KNOWN})


def test_a_finding_does_not_show_its_secret() -> None:
    (finding,) = Detectors(BOTH, {}).scan(TOKEN)
    assert TOKEN.decode() not in repr(finding) + str(finding)
    assert A[36] not in repr(finding)


@pytest.mark.parametrize("coding", sorted(CODINGS))
def test_a_body_that_expands_without_end_is_given_up_on(coding: str) -> None:
    bomb = CODINGS[coding](bytes(80 << 20)) if coding != "br" else brotli.compress(bytes(80 << 20), quality=3)
    scanner = BodyScanner(Detectors(BOTH, {}), (coding,))
    scanner.feed(bomb, last=True)
    assert "expands" in scanner.unreadable


@pytest.mark.parametrize("coding", sorted(CODINGS))
def test_a_body_that_is_not_what_it_says_is_unreadable(coding: str) -> None:
    for body in (b"plainly not compressed, whatever the header says", CODINGS[coding](b"some words " * 40)[:-4]):
        scanner = BodyScanner(Detectors(BOTH, {}), (coding,))
        scanner.feed(body, last=True)
        assert "encoded" in scanner.unreadable
        assert decode(body, (coding,), 1 << 20) is None


def test_codings_are_undone_in_turn_and_members_in_a_row() -> None:
    plain = b"some words " * 1000
    assert decode(zlib.compress(gzip.compress(plain)), ("gzip", "deflate"), 1 << 20) == plain
    assert decode(gzip.compress(plain) + gzip.compress(plain), ("gzip",), 1 << 20) == plain * 2
    assert decode(zlib.compress(plain)[2:-4], ("deflate",), 1 << 20) == plain
    assert decode(gzip.compress(plain), ("gzip",), 100) is None


def test_a_held_back_end_is_short_and_ends() -> None:
    """Ordinary text passes at once: a client that waits for an answer to half a stream gets it."""
    scanner = BodyScanner(Detectors(BOTH, {"a password": KNOWN}))
    for message in (b'{"id": 1, "text": "hello"}\n', b"hello world", b"\x00\x00\x00\x00\x05hello", b"data: go on\n\n"):
        scanner.feed(message)
        assert scanner.take() == message
    scanner.feed(b"x=" + TOKEN[:20])
    assert TOKEN[:20] not in scanner.take()
    scanner.feed(b" no token after all")
    assert scanner.take().endswith(b"no token after all")


@pytest.mark.timeout(60)
def test_a_megabyte_of_beginnings_is_scanned_in_time() -> None:
    beginnings = b"".join(re.sub(rb"[^ -~]", b"", sample.encode()[:12]) for sample in SAMPLES.values())
    Detectors(BOTH, {}).scan(beginnings * 1500)
