"""How does `bot-bottle` start, and with what message and exit code does it end?

This is the only place that turns an error into a sentence and a code. The commands raise; their
table is in ``commands.py``.
"""

from __future__ import annotations

import os
import sys

from bot_bottle import visible
from bot_bottle.errors import BotBottleError, InvalidInputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


PROGRAM = "bot-bottle"
INTERRUPTED = 130


def main() -> int:
    """Runs the command in ``sys.argv`` and returns one of the exit codes that docs/cli.md lists.

    Nothing but a request for one (``BOT_BOTTLE_TRACEBACK=1``) makes it print a traceback. A reader of
    standard output that has gone away (``| head``) is not a failure.
    """
    shared: dict[str, Any] = {}
    try:
        _open_streams()
        # Imported here so that an interrupt during the import ends like any other.
        from bot_bottle.cli.root import run

        code = run(sys.argv[1:], shared)
        sys.stdout.flush()
        return code
    except BaseException as error:
        _drain(sys.stdout)
        if isinstance(error, BrokenPipeError):
            return 0
        if os.environ.get("BOT_BOTTLE_TRACEBACK") == "1":
            import traceback

            traceback.print_exc()
        # Python makes surrogates of an argument's bytes that are not UTF-8; the core's error names its own parameter.
        odd = [argument for argument in sys.argv[1:] if any("\ud800" <= letter <= "\udfff" for letter in argument)]
        if odd and isinstance(error, (UnicodeEncodeError, InvalidInputError)) and "surrogate" in str(error):
            error = InvalidInputError(f"arguments must be UTF-8 text, unlike {odd[0][:80]!r}")
        code, message, data = _verdict(error)
        if message:
            _report(code, type(error).__name__, message, data, as_json=bool(shared.get("json")))
        return code


def _open_streams() -> None:
    """Makes the three standard streams safe to use, whatever the caller left of them."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # It is closed (`2>&-`): the next file, such as the database, would get its descriptor.
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets its escape instead of an error.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _verdict(error: BaseException) -> tuple[int, str, dict[str, Any]]:
    """Exit code, one sentence (``""``: say nothing) and the error's own data."""
    if isinstance(error, BotBottleError):
        data = {name: value for name, value in vars(error).items() if name != "message" and name[0] != "_"}
        return error.exit_code, str(error), data
    if type(error).__module__.startswith("click."):
        from bot_bottle.cli.explain import verdict

        return verdict(error)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, str(error), {}
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return 1, f"{error.filename}: {reason}" if error.filename else reason, {}
    if isinstance(error, SystemExit):
        return (error.code if isinstance(error.code, int) else 1), "", {}
    kind = type(error).__name__
    return 1, f"this is a bug, please report it: {kind}: {error} (BOT_BOTTLE_TRACEBACK=1 shows where)", {}


def _report(code: int, kind: str, message: str, data: dict[str, Any], *, as_json: bool) -> None:
    """Writes the error to standard error: one JSON object for a program, one sentence for a person."""
    if as_json:
        import json

        document = {"error": kind, "message": message, "exit_code": code, **data}
        line = json.dumps(document, default=str)
    else:
        # A message may quote what an agent wrote, a withdrawal's reason for example.
        line = f"{PROGRAM}: {visible(message, multiline=False)}"
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        _drain(sys.stderr)


def _drain(stream: Any) -> None:
    """Flushes ``stream``; one that cannot take it is pointed at nothing, so that the interpreter's own
    flush at exit neither complains nor changes the exit code."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
