"""Would the proxy find a secret in this file, and why? For whoever wonders about a held or a missed one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import bot_bottle
from bot_bottle.errors import BotBottleError, InvalidInputError

NOTHING: Final = 0
FOUND: Final = 1


def main(arguments: Sequence[str]) -> int:
    """Prints a line for each secret; returns 0 for none, 1 for some, or the exit code of an error."""
    parser = argparse.ArgumentParser(
        prog="python -m bot_bottle.sidecars.egress scan",
        description="What would the egress proxy find in a file as a request's body, and why? Exit code 1 if anything.",
        epilog="for example: curl -s https://example.com/app.js | python -m bot_bottle.sidecars.egress scan -",
    )
    parser.add_argument("file", help="a file, or - for standard input")
    parser.add_argument(
        "--known", metavar="NAME=FILE", action="append", default=[], help="a secret of yours, as a file: its first line"
    )
    parser.add_argument(
        "--coding", metavar="NAME", action="append", default=[], help="gzip, deflate, br or zstd, in order"
    )
    parser.add_argument("--host", default="", help="where the request would go")
    options = parser.parse_args(arguments)
    try:
        data = _read(options.file)
        known = dict(_known(option) for option in options.known)
        findings = bot_bottle.scan(data, known=known, host=options.host.lower(), codings=options.coding)
    except BotBottleError as error:
        print(f"scan: {error}", file=sys.stderr)
        return error.exit_code
    for finding in findings:
        where = ""
        if finding.span is not None:
            begin = finding.span[0]
            line = data.count(b"\n", 0, begin) + 1
            column = begin - data.rfind(b"\n", 0, begin)
            where = f"line {line}, byte {column}: "
        print(bot_bottle.visible(where + finding.explain(), multiline=False))
    if not findings:
        print("nothing that the proxy takes for a secret")
    return FOUND if findings else NOTHING


def _read(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{name} cannot be read: {error.strerror}") from None


def _known(option: str) -> tuple[str, bytes]:
    name, equals, file = option.partition("=")
    if not (name and equals and file):
        raise InvalidInputError(f"--known is NAME=FILE, not {option!r}")
    return name, _read(file).partition(b"\n")[0].rstrip(b"\r")
