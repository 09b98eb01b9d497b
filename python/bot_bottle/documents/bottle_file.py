"""What does a project's ``bottle.toml`` say, and is it as its schema says?"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

from bot_bottle.documents import toml
from bot_bottle.errors import InvalidInputError

NAME: Final = "bottle.toml"
VERSION: Final = 1


def schema() -> dict[str, Any]:
    """The JSON schema, by which editors complete the file and :func:`load` checks it."""
    found: dict[str, Any] = json.loads(Path(__file__).with_name("bottle.schema.json").read_text("utf-8"))
    return found


def load(text: str) -> dict[str, Any]:
    """The settings of a ``bottle.toml``, without its version.

    Raises:
        InvalidInputError: it is not TOML, or not what the schema admits; one sentence that names the key.
    """
    try:
        table = toml.loads(text)
    except ValueError as error:
        raise InvalidInputError(f"{NAME} is not TOML: {error}") from None
    # First: a later format may have other keys.
    version = table.pop("version", None)
    if version != VERSION or isinstance(version, bool):
        said = "has no version" if version is None else f"has version {version!r}"
        raise InvalidInputError(f"{NAME} {said}: this bot-bottle reads version = {VERSION}")
    keys = schema()["properties"]
    for key, value in table.items():
        if key not in keys:
            known = ", ".join(name for name in keys)
            raise InvalidInputError(f"{NAME} has an unknown key {key!r}: it has {known}")
        if problem := _problem(keys[key], value):
            raise InvalidInputError(f"{key} in {NAME} {problem}, not {value!r}")
    return table


def _problem(rule: dict[str, Any], value: Any) -> str:
    """What the value should be, or ``""``."""
    if "enum" in rule:
        return "" if value in rule["enum"] else f"is one of {', '.join(rule['enum'])}"
    if rule["type"] == "array":
        fine = isinstance(value, list) and not any(_problem(rule["items"], each) for each in value)
        return "" if fine else "is a list of texts that are not empty and have no NUL"
    if not isinstance(value, str) or not value:
        return "is a text that is not empty"
    # No word of a command and no path can hold it.
    if "\0" in value:
        return "is a text without NUL"
    if "pattern" in rule and not re.search(rule["pattern"].replace("$", r"\Z"), value):
        return f"is of the form {rule['pattern']}"
    return ""


def write(settings: dict[str, Any]) -> str:
    """A ``bottle.toml`` with these settings; empty ones are left out."""
    lines = [
        "# How `bot-bottle run` starts this project's bottle; 'bot-bottle init --schema' prints what may stand here.",
        f"version = {VERSION}",
    ]
    for key in schema()["properties"]:
        if value := settings.get(key):
            lines.append(f"{key} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return toml.quoted(value)
