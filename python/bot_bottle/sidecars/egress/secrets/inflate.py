"""What does compressed data say, piece by piece, with memory bounded however far it expands?

For bodies with a ``Content-Encoding`` (RFC 9110, 8.4) and for compressed files found inside a body.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

import brotli  # type: ignore[import-untyped]
import zstandard

PIECE: Final = 64 * 1024  # bytes, about the most that comes out at once
_ZSTD_WINDOW: Final = 8 << 20  # bytes; the most that RFC 9659 lets an HTTP peer ask for
# What these take at once: they give out everything it expands to, and cannot be asked for less.
_ZSTD_BITE: Final = 64
_BROTLI_BITE: Final = 16

_Decode = Callable[[bytes], bytes]


class UnreadableError(Exception):
    """The data is not what its encoding says."""


class Inflater(Protocol):
    """Takes compressed pieces, gives plain ones; once ``done``, ``rest`` is what came after the compressed data."""

    rest: bytes
    done: bool

    def feed(self, data: bytes) -> Iterator[bytes]: ...


class _Zlib:
    def __init__(self, wbits: int, otherwise: int | None = None) -> None:
        self._decoder = zlib.decompressobj(wbits)
        self._otherwise = otherwise
        self.rest = b""
        self.done = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        while not self.done:
            try:
                piece = self._decoder.decompress(data, PIECE)
            except zlib.error:
                if self._otherwise is None:
                    raise UnreadableError from None
                self._decoder = zlib.decompressobj(self._otherwise)
                self._otherwise = None
                continue
            if piece:
                self._otherwise = None
                yield piece
            data = self._decoder.unconsumed_tail
            if self._decoder.eof:
                self.rest, self.done = self._decoder.unused_data, True
            elif not data and len(piece) < PIECE:
                return


class _Bites:
    """For decoders that cannot be told how much to give out at once: they are fed in bites instead."""

    def __init__(self, decode: _Decode, error: type[Exception], bite: int, rest: Callable[[], bytes | None]) -> None:
        """``rest`` is ``None`` until the end of the compressed data, then what came after it."""
        self._decode, self._error, self._bite, self._rest = decode, error, bite, rest
        self.rest = b""
        self.done = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        plain = bytearray()
        for begin in range(0, len(data), self._bite):
            try:
                plain += self._decode(data[begin : begin + self._bite])
            except self._error:
                raise UnreadableError from None
            while len(plain) >= PIECE:
                yield bytes(plain[:PIECE])
                del plain[:PIECE]
            unused = self._rest()
            if unused is not None:
                self.rest, self.done = unused + data[begin + self._bite :], True
                break
        if plain:
            yield bytes(plain)


def _zstd() -> Inflater:
    decoder: Any = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
    return _Bites(
        decoder.decompress, zstandard.ZstdError, _ZSTD_BITE, lambda: decoder.unused_data if decoder.eof else None
    )


def _brotli() -> Inflater:
    decoder: Any = brotli.Decompressor()
    return _Bites(decoder.process, brotli.error, _BROTLI_BITE, lambda: b"" if decoder.is_finished() else None)


ENCODINGS: Final[dict[str, Callable[[], Inflater]]] = {
    "gzip": lambda: _Zlib(31),
    "x-gzip": lambda: _Zlib(31),
    "deflate": lambda: _Zlib(15, -15),  # zlib by the standard, raw by habit
    "br": _brotli,
    "zstd": _zstd,
}
"""Content codings by name."""


class _ZipMember:
    """A member of a ZIP file from its local header on (APPNOTE.TXT, 4.3.7)."""

    def __init__(self) -> None:
        self._header: bytes | None = b""
        self._data = _Zlib(-15)
        self.rest = b""
        self.done = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._header is not None:
            self._header += data
            if len(self._header) < 30:
                return
            method, name, extra = (int.from_bytes(self._header[at : at + 2], "little") for at in (8, 26, 28))
            if method != 8:  # stored: it is there to be read already
                raise UnreadableError
            if len(self._header) < 30 + name + extra:
                return
            data, self._header = self._header[30 + name + extra :], None
        yield from self._data.feed(data)
        self.rest, self.done = self._data.rest, self._data.done


FILES: Final[dict[bytes, Callable[[], Inflater]]] = {
    b"\x1f\x8b\x08": lambda: _Zlib(31),
    b"\x28\xb5\x2f\xfd": _zstd,
    b"PK\x03\x04": _ZipMember,
    b"\x78\x01": lambda: _Zlib(15),
    b"\x78\x5e": lambda: _Zlib(15),
    b"\x78\x9c": lambda: _Zlib(15),
    b"\x78\xda": lambda: _Zlib(15),
}
"""How compressed data inside a body begins, and what reads it."""


class Chain:
    """Undoes the codings of a body, the last applied first."""

    def __init__(self, codings: Sequence[str]) -> None:
        self._make = [ENCODINGS[coding] for coding in reversed(codings)]
        self._inflaters = [make() for make in self._make]
        self._under_way = [False] * len(self._make)
        self.rest = b""
        self.done = False

    @property
    def is_whole(self) -> bool:
        """Whether what was fed so far ends where its encoding says that it ends."""
        return not any(self._under_way)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """
        Raises:
            UnreadableError: it is not so coded.
        """
        yield from self._through(data, 0)

    def _through(self, data: bytes, stage: int) -> Iterator[bytes]:
        if stage == len(self._inflaters):
            yield data
            return
        while data:
            inflater, self._under_way[stage] = self._inflaters[stage], True
            for piece in inflater.feed(data):
                yield from self._through(piece, stage + 1)
            data = inflater.rest
            if inflater.done:  # gzip and zstd allow several members in a row
                self._inflaters[stage], self._under_way[stage] = self._make[stage](), False
            else:
                return


def decode(data: bytes, codings: Sequence[str], limit: int) -> bytes | None:
    """``data`` without its codings; ``None`` if it is not so coded or would be longer than ``limit`` bytes."""
    plain, chain = bytearray(), Chain(codings)
    try:
        for piece in chain.feed(data):
            plain += piece
            if len(plain) > limit:
                return None
    except UnreadableError:
        return None
    return bytes(plain) if chain.is_whole else None
