"""Where does the proxy get a key that the agent never sees? The value is in no command and no file of bot-bottle."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from bot_bottle.errors import InvalidInputError

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# The sidecars' own settings begin with these, and no route may refer to them.
_OURS: Final = ("EGRESS_", "SUPERVISE_", "BOT_BOTTLE_", "GIT_GATE_")
_MOST_BYTES: Final = 64 * 1024


class Credential(NamedTuple):
    """A variable of the sidecars', and where its value is."""

    name: str
    kind: str = "environment"
    """``environment``, ``file`` or ``command``."""
    place: str = ""

    @property
    def described(self) -> str:
        """For a person: where the value comes from."""
        return {"environment": "your environment", "file": self.place, "command": f"the command: {self.place}"}[
            self.kind
        ]

    def value(self) -> str:
        """The value; a command is run for it.

        Raises:
            InvalidInputError: there is no value.
        """
        if self.kind == "environment":
            value = os.environ.get(self.name, "")
        elif self.kind == "file":
            try:
                with Path(self.place).expanduser().open("rb") as file:
                    value = file.read(_MOST_BYTES).decode()
            except (OSError, ValueError, RuntimeError) as error:  # not UTF-8, or an unknown user
                raise InvalidInputError(f"{self.name} cannot be read from {self.place}: {error}") from None
        else:
            value = self._said()
        value = value.strip()
        if not value:
            raise InvalidInputError(f"{self.name} has no value: {self._advice()}")
        if "\n" in value or "\0" in value:
            raise InvalidInputError(f"{self.name} has more than one line, from {self.described}")
        return value

    def _said(self) -> str:
        try:
            # Standard error and the terminal stay: it may have to ask for a passphrase.
            done = subprocess.run(shlex.split(self.place), stdout=subprocess.PIPE, text=True)
        except (OSError, ValueError, IndexError) as error:  # unbalanced quotes, or no word at all
            raise InvalidInputError(f"{self.name}: '{self.place}' cannot be run: {error}") from None
        if done.returncode != 0:
            raise InvalidInputError(f"{self.name}: '{self.place}' ended with {done.returncode}")
        return done.stdout.split("\n", 1)[0]

    def _advice(self) -> str:
        if self.kind == "environment":
            name = self.name
            return f"set it, or name a source: --secret {name}=file:PATH or --secret '{name}=command:pass show …'"
        return f"nothing came from {self.described}"


def require(passed: Iterable[str]) -> None:
    """Lets pass only variables that ``--env`` can pass on to the sidecars.

    Raises:
        InvalidInputError: one is not set.
    """
    for name in passed:
        if name not in os.environ:
            raise InvalidInputError(f"--env {name}: there is no such variable in your environment")


def read(text: str) -> Credential:
    """``NAME``, ``NAME=file:PATH`` or ``NAME=command:WORDS`` as a credential.

    Raises:
        InvalidInputError: it is none of these. The message does not repeat the text, which may be a value by mistake.
    """
    name, equals, source = text.partition("=")
    if not _NAME.fullmatch(name) or name.upper().startswith(_OURS):
        raise InvalidInputError(f"{name!r} is no name for a secret: letters, digits and _, none of {', '.join(_OURS)}…")
    if not equals:
        return Credential(name)
    kind, colon, place = source.partition(":")
    if kind not in ("file", "command") or not colon or not place:
        raise InvalidInputError(
            f"the source of {name} is file:PATH or command:WORDS; a value does not belong on a command line"
        )
    return Credential(name, kind, place)
