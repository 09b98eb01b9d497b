"""In which other ways could some bytes be read, and where in them does each of those readings come from?

A secret seldom leaves as it is stored: a client percent-encodes it, wraps it in base64 or hex, escapes it in JSON,
compresses it, or does two of these in turn. Each reading here undoes one such step; readings are read again, three
steps deep. This finds what ordinary programs do to text; it is no defence against somebody who invents a cipher.
"""

from __future__ import annotations

import binascii
import re
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import re2  # type: ignore[import-untyped]

MAX_DEPTH: Final = 3
MAX_INFLATED: Final = 4 << 20  # bytes, of one compressed piece found inside encoded text

Origin = Callable[[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Reading:
    """``text`` as it reads after the steps ``how``; ``origin(start, end)`` says which span of the original that is."""

    text: bytes
    how: tuple[str, ...]
    origin: Origin


def latin1(pattern: bytes) -> Any:
    """``pattern`` for RE2 over arbitrary bytes: over alternations and runs ten times as fast as ``re``."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    return re2.compile(pattern, options)


def readings(data: bytes) -> Iterator[Reading]:
    """``data`` as it is, then every other reading of it."""
    level = [Reading(data, (), lambda start, end: (start, end))]
    for depth in range(MAX_DEPTH + 1):
        yield from level
        if depth < MAX_DEPTH:
            level = [deeper for reading in level for deeper in _one_step(reading)]


def _one_step(reading: Reading) -> Iterator[Reading]:
    for step, undo in _STEPS:
        # Compressed data that is not wrapped in anything is the body scanner's: it follows it through a stream.
        if undo is not _inflated or reading.how:
            for text, origin in undo(reading.text):
                yield Reading(text, (*reading.how, step), _chain(origin, reading.origin))


def _chain(inner: Origin, outer: Origin) -> Origin:
    return lambda start, end: outer(*inner(start, end))


# One expression for all escapes, so that text which mixes them (JSON in a URL) comes out in one step.
_ESCAPE: Final = (
    rb"%([0-9A-Fa-f]{2})|\\u00([0-9A-Fa-f]{2})|\\x([0-9A-Fa-f]{2})"
    rb"|&#[xX]([0-9A-Fa-f]{2});|&#([1-9]\d);|&#(1\d\d);|\\(/)"
)
_HAS_ESCAPE: Final = latin1(_ESCAPE)
_ESCAPES: Final = re.compile(_ESCAPE)


def _unescaped(text: bytes) -> Iterator[tuple[bytes, Origin]]:
    if _HAS_ESCAPE.search(text):
        yield _ESCAPES.sub(_character, text), _beside(text, _ESCAPES, 1)


def _character(match: re.Match[bytes]) -> bytes:
    which = match.lastindex or 0
    if which == 7:
        return b"/"
    return bytes((int(match[which], 10 if which >= 5 else 16),))


def _beside(text: bytes, shrunk: re.Pattern[bytes], left: int) -> Origin:
    """The origin for ``text`` in which every match of ``shrunk`` has become ``left`` characters."""
    ends: list[int] = []  # in the shorter text; filled on first use, since hardly any reading holds a secret
    shifts: list[int] = [0]

    def place(offset: int) -> int:
        return offset + shifts[bisect_right(ends, offset)]

    def origin(start: int, end: int) -> tuple[int, int]:
        if not ends:
            for match in shrunk.finditer(text):
                ends.append(match.start() - shifts[-1] + left)
                shifts.append(shifts[-1] + len(match[0]) - left)
        # The end is the place after the last character, however long that one's escape is.
        last = place(end - 1)
        return place(start), last + (place(end) - last if left and end in ends else 1)

    return origin


_WRAPPING: Final = re.compile(rb"[ \t\r\n]+|(?:\\r)?\\n")  # base64 comes in lines, in JSON with escaped breaks
_BASE64_RUN: Final = latin1(rb"[A-Za-z0-9+/_-]{11}")  # 8 bytes, the shortest secret that is looked for
_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
# Whatever is not base64 becomes A, which decodes to NUL bits: no Python runs per word of the text that way.
_AS_BASE64: Final = bytes(
    value if value in _BASE64 else {0x2D: 0x2B, 0x5F: 0x2F}.get(value, 0x41) for value in range(256)
)


def _from_base64(text: bytes) -> Iterator[tuple[bytes, Origin]]:
    if not _BASE64_RUN.search(text):
        return
    unwrapped = text.replace(b"\\r\\n", b"").replace(b"\\n", b"").translate(None, b" \t\r\n")
    outer = _beside(text, _WRAPPING, 0)
    flat = unwrapped.translate(_AS_BASE64) + b"AAA"  # so that the last group is whole
    # Encoded text begins anywhere, so each of the four places a group of four can begin at is decoded; where the
    # secret lies inside the encoded text, its own alignment, does not matter then.
    for skip in range(4):
        decoded = binascii.a2b_base64(flat[skip : skip + ((len(flat) - skip) & ~3)])
        whole = (len(unwrapped) - skip) * 3 // 4
        yield decoded[:whole], _chain(_base64_origin(skip, len(unwrapped)), outer)


def _base64_origin(skip: int, length: int) -> Origin:
    return lambda start, end: (skip + start * 4 // 3, min(length, skip - (-end * 4 // 3)))


_HEX_RUN: Final = latin1(rb"[0-9A-Fa-f]{16,}|(?:0x)?[0-9A-Fa-f]{2}(?:[\s:,-]{1,6}(?:0x)?[0-9A-Fa-f]{2}){3,}")
_HEX_DIGIT: Final = re.compile(rb"[0-9A-Fa-f](?!x)")
_NOT_HEX: Final = bytes(set(range(256)) - set(b"0123456789abcdefABCDEF"))


def _from_hex(text: bytes) -> Iterator[tuple[bytes, Origin]]:
    runs = [(match.group(), match.start()) for match in _HEX_RUN.finditer(text)]
    for skip in range(2) if runs else ():  # a run may begin with a digit that is not part of the encoded text
        pieces = _Pieces()
        for run, begin in runs:
            digits = run.replace(b"0x", b"").translate(None, _NOT_HEX)[skip:]
            pieces.add(binascii.a2b_hex(digits[: len(digits) & ~1]), _places(run, begin, _HEX_DIGIT, skip, 2))
        yield pieces.text(), pieces.origin


_WIDE_RUN: Final = latin1(rb"(?:[\x20-\x7e]\0{1,3}){8,}")
_NOT_NUL: Final = re.compile(rb"[^\0]")


def _narrowed(text: bytes) -> Iterator[tuple[bytes, Origin]]:
    """UTF-16 and UTF-32 of ASCII text are that text with NULs between; the last character's may be cut off."""
    pieces = _Pieces()
    for match in _WIDE_RUN.finditer(text) if b"\0" in text else ():
        run = text[match.start() : match.end() + 1]
        pieces.add(run.replace(b"\0", b""), _places(run, match.start(), _NOT_NUL, 0, 1))
    if pieces.text():
        yield pieces.text(), pieces.origin


def _places(run: bytes, begin: int, kept: re.Pattern[bytes], skip: int, per: int) -> Origin:
    """The origin for a text that has one character for ``per`` kept ones of ``run``, after the first ``skip``."""
    found: list[int] = []

    def origin(start: int, end: int) -> tuple[int, int]:
        if not found:
            found.extend(begin + match.start() for match in kept.finditer(run))
        return found[skip + start * per], found[skip + end * per - 1] + 1

    return origin


class _Pieces:
    """Decoded runs put into one text, so that it is searched once and not run by run."""

    _GAP: Final = b"\xff\xfe"  # in no secret that is looked for

    def __init__(self) -> None:
        self._texts: list[bytes] = []
        self._starts: list[int] = []
        self._origins: list[Origin] = []
        self._length = 0

    def add(self, text: bytes, origin: Origin) -> None:
        self._texts.append(text)
        self._starts.append(self._length)
        self._origins.append(origin)
        self._length += len(text) + len(self._GAP)

    def text(self) -> bytes:
        return self._GAP.join(self._texts)

    def origin(self, start: int, end: int) -> tuple[int, int]:
        piece = bisect_right(self._starts, start) - 1
        base = self._starts[piece]
        return self._origins[piece](start - base, min(end - base, len(self._texts[piece])))


# How a gzip member and a zlib stream of the usual levels begin (RFC 1952, RFC 1950).
_MAGIC: Final = latin1(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]")


def _inflated(text: bytes) -> Iterator[tuple[bytes, Origin]]:
    for tried, match in enumerate(_MAGIC.finditer(text)):
        if tried == 16:
            return
        begin = match.start()
        decoder = zlib.decompressobj(wbits=47)  # gzip or zlib, whichever it is
        try:
            inflated = decoder.decompress(text[begin:], MAX_INFLATED)
        except zlib.error:
            continue
        span = (begin, len(text) - len(decoder.unused_data))
        yield inflated, lambda _start, _end, span=span: span  # type: ignore[misc]


_STEPS: Final = (
    ("escaped", _unescaped),
    ("base64", _from_base64),
    ("hex", _from_hex),
    ("UTF-16", _narrowed),
    ("compressed", _inflated),
)
