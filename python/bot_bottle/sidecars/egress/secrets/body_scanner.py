"""Which of a body's bytes may pass by now, and what secrets did they hold?

A body is scanned as it comes, in memory that does not grow with it. Each piece is looked at together with the end
of the one before, a piece that could end inside a secret waits for the next, and what is compressed (the whole body,
or a gzip, zlib, zstd or ZIP file inside it) is scanned as what it expands to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from bot_bottle.sidecars.egress.secrets.detectors import MAX_SECRET, Detectors, Finding
from bot_bottle.sidecars.egress.secrets.inflate import FILES, Chain, Inflater, UnreadableError
from bot_bottle.sidecars.egress.secrets.readings import latin1

_OVERLAP: Final = 2 * MAX_SECRET  # bytes; a secret in hex, or in base64 twice, still fits
_MAX_WAITING: Final = 1 << 20  # bytes that may wait for the end of a secret inside compressed data
_EXPANSION: Final = 100  # times; what expands more is not scanned but refused
_FREE_EXPANSION: Final = 64 << 20  # bytes for which that does not matter yet
_UNRECOGNISED: Final = 32  # bytes: how late the beginning of an encoded secret shows, so many may have passed already
_MAX_DEPTH: Final = 3  # a file in a file in a compressed body
_MAX_FILES: Final = 8  # followed at once
_FILE_START: Final = latin1(b"|".join(b"".join(b"\\x%02x" % byte for byte in magic) for magic in FILES))
_LONGEST_START: Final = max(map(len, FILES))


class BodyScanner:
    """Scans one body: feed a piece, look at ``found``, mask or refuse, then :meth:`take` what may pass.

    ``found`` grows by the secrets each piece completes, at positions counted from the body's beginning;
    ``unreadable`` says why the body cannot be scanned to its end, and is empty as long as it can.
    """

    def __init__(
        self, detectors: Detectors, codings: Sequence[str] = (), *, files: bool = True, _depth: int = 0
    ) -> None:
        """``codings``: how the body is encoded, in the order applied. ``files``: look into compressed files in it."""
        self.found: list[Finding] = []
        self.unreadable = ""
        self._detectors = detectors
        self._depth = _depth if files else _MAX_DEPTH
        self._window = b""
        self._window_start = 0
        self._settled = 0  # what ends before it has been reported
        self._begun: set[int] = set()  # where that began
        self._waiting = bytearray()
        self._taken = 0
        self._open = 0  # bytes at the end that may begin a secret
        self._inflated = _FREE_EXPANSION
        self._inside: list[_Inside] = []
        if codings:
            chain = Chain(codings)
            self._inside.append(_Inside(chain, self._deeper(), chain))

    def feed(self, piece: bytes, *, last: bool = False) -> None:
        """Scans ``piece`` and, if it is the last, all that waited for more.

        More may come after the last: what is cut in two by that, such as by messages, is found where it is whole.
        """
        edge = self._window[-_LONGEST_START + 1 :]
        self._waiting += piece
        self._scan(piece, last)
        self._inflated += _EXPANSION * len(piece)
        self._inside = [each for each in self._inside if self._follow(each, piece, last)]
        if self._depth < _MAX_DEPTH:
            self._find_files(edge, piece, last)

    def mask(self, finding: Finding) -> bool:
        """Overwrites a secret with as many ``*``; ``False`` where it cannot (compressed, or begun to pass already)."""
        begin, end = finding.start - self._taken, finding.end - self._taken
        if begin < -_UNRECOGNISED or end <= 0 or finding.end == 0:
            return False
        begin = max(0, begin)
        self._waiting[begin:end] = b"*" * (end - begin)
        return True

    def take(self, *, everything: bool = False) -> bytes:
        """What may pass now: all but an end that may be the beginning of a secret, or that too with ``everything``."""
        passing = bytes(self._waiting if everything else self._waiting[: max(0, len(self._waiting) - self._open)])
        if not everything and any(each.scanner.is_open for each in self._inside):
            # How many of the compressed bytes hold the beginning of that secret cannot be told.
            if len(self._waiting) > _MAX_WAITING:
                self.unreadable = "the end of what may be a secret in it does not come"
            return b""
        del self._waiting[: len(passing)]
        self._taken += len(passing)
        return passing

    @property
    def is_open(self) -> bool:
        """Whether what came so far may end inside a secret."""
        return self._open > 0 or any(each.scanner.is_open for each in self._inside)

    def _scan(self, piece: bytes, last: bool) -> None:
        text, start = self._window + piece, self._window_start
        self._open = 0 if last else self._detectors.open_end(text)
        settled = start + len(text) - self._open
        for finding in self._detectors.scan(text):
            begin, end = start + finding.start, start + finding.end
            # After a last piece the next one's first letters may look like more of a secret that was whole.
            if self._settled < end <= settled and begin not in self._begun:
                self.found.append(replace(finding, start=begin, end=end))
        self._begun = {each.start for each in self.found} | {each for each in self._begun if each >= start}
        self._settled = settled
        self._window = text[-max(_OVERLAP, self._open) :]
        self._window_start = start + len(text) - len(self._window)

    def _find_files(self, edge: bytes, piece: bytes, last: bool) -> None:
        text = edge + piece
        for match in _FILE_START.finditer(text):
            if match.end() > len(edge) and len(self._inside) < _MAX_FILES:
                inside = _Inside(FILES[match.group()](), self._deeper())
                if self._follow(inside, text[match.start() :], last):
                    self._inside.append(inside)

    def _follow(self, inside: _Inside, piece: bytes, last: bool) -> bool:
        """Scans what ``piece`` expands to; whether more of it may come."""
        scanner = inside.scanner
        going_on, broken = not last, False
        try:
            for plain in inside.inflater.feed(piece):
                self._inflated -= len(plain)
                if self._inflated < 0:
                    self.unreadable = f"it expands to more than {_EXPANSION} times its size"
                    return False
                scanner.feed(plain)
                scanner.take()
        except UnreadableError:
            going_on = False
            broken = inside.body is not None
        if last and inside.body is not None and not inside.body.is_whole:
            broken = True
        if broken:
            self.unreadable = "it is not encoded as its Content-Encoding says"
        going_on = going_on and not inside.inflater.done
        if not going_on:
            scanner.feed(b"", last=True)
        self.unreadable = self.unreadable or scanner.unreadable
        self.found += (replace(each, start=0, end=0, how=("compressed", *each.how)) for each in scanner.found)
        scanner.found.clear()
        return going_on

    def _deeper(self) -> BodyScanner:
        return BodyScanner(self._detectors, _depth=self._depth + 1)


class _Inside:
    """Something compressed in a body and the scanner of what it expands to."""

    def __init__(self, inflater: Inflater, scanner: BodyScanner, body: Chain | None = None) -> None:
        """``body``: the same inflater, if it is for the whole body; then it has to be what it says."""
        self.inflater = inflater
        self.scanner = scanner
        self.body = body
