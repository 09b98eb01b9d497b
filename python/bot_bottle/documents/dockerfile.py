"""Could a builder read this Dockerfile? A light check, so that no human is shown one that a builder would refuse.

It knows the grammar (directives, continuations, heredocs, instructions and the shape of their arguments), not
whether an image exists or a command works. Source: https://docs.docker.com/reference/dockerfile/
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

from bot_bottle.documents.plain_yaml import quoted
from bot_bottle.errors import InvalidInputError

MAX_BYTES: Final = 256 * 1024

# Fewest arguments of each instruction.
_INSTRUCTIONS: Final = {
    "ADD": 2, "ARG": 1, "CMD": 0, "COPY": 2, "ENTRYPOINT": 0, "ENV": 1, "EXPOSE": 1, "FROM": 1, "HEALTHCHECK": 1,
    "LABEL": 1, "MAINTAINER": 1, "ONBUILD": 2, "RUN": 1, "SHELL": 1, "STOPSIGNAL": 1, "USER": 1, "VOLUME": 1,
    "WORKDIR": 1,
}  # fmt: skip
_HEREDOCS_IN: Final = ("ADD", "COPY", "RUN")
_WORD: Final = re.compile(r"""(?:[^\s"']|"(?:\\.|[^"\\])*\\?(?:"|$)|'[^']*(?:'|$))+""")
_HEREDOC: Final = re.compile(r"""\d*<<(?P<dash>-?)(?P<quote>["']?)(?P<end>[^<"'\s]+)(?P=quote)""")
_DIRECTIVE: Final = re.compile(r"#\s*(syntax|escape|check)\s*=\s*(\S+)\s*", re.IGNORECASE)
_IMAGE: Final = re.compile(r"[\w.:/@${}+-]+", re.ASCII)
_STAGE: Final = re.compile(r"[a-z][a-z0-9_.-]*", re.IGNORECASE)
_PORT: Final = re.compile(r"\$.*|\d{1,5}(-\d{1,5})?(/(tcp|udp|sctp))?", re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")


class DockerfileError(InvalidInputError):
    """No builder would take the text as a Dockerfile. Attribute: ``line`` (from 1)."""

    line: int


def check(text: str) -> None:
    """Accepts ``text`` or says what is wrong with it.

    Raises:
        DockerfileError: one sentence that names the line.
    """
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise _fail(1, f"the file is larger than {MAX_BYTES // 1024} KiB; shorten it")
    if control := _CONTROL.search(text):
        line = text.count("\n", 0, control.start()) + 1
        raise _fail(line, f"holds the control character U+{ord(control[0]):04X}; remove it")
    stages: set[str] = set()
    built = False
    for line, name, rest in _instructions(text):
        words = [word for word in _WORD.findall(rest) if not word.startswith("--")]
        if not built and name not in ("FROM", "ARG"):
            raise _fail(line, f"{name} before the first FROM; start with FROM and a base image")
        _check_arguments(line, name, rest, words)
        if name == "FROM":
            built = True
            stage = words[2].lower() if len(words) == 3 else None
            if stage in stages:
                raise _fail(line, f"stage {quoted(words[2])} a second time; give it another name")
            stages |= {stage} if stage else set()
    if not built:
        raise _fail(1, "there is no FROM; a Dockerfile starts with one")


def _check_arguments(line: int, name: str, rest: str, words: list[str]) -> None:
    if rest.startswith("["):
        words = _exec_form(line, name, rest, words)
    elif name == "SHELL":
        raise _fail(line, 'SHELL takes a JSON list of strings, like ["/bin/sh", "-c"]')
    if len(words) < _INSTRUCTIONS[name]:
        raise _fail(line, f"{name} has too few arguments; it takes at least {_INSTRUCTIONS[name]}")
    if name == "FROM":
        if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
            raise _fail(line, "FROM takes an image, or an image AS a name")
        if not _IMAGE.fullmatch(words[0]):
            raise _fail(line, f"{quoted(words[0])} is not the name of an image")
        if len(words) == 3 and not _STAGE.fullmatch(words[2]):
            raise _fail(line, f"{quoted(words[2])} is not a name for a stage; use letters, digits, _ . -")
    elif name == "EXPOSE":
        for word in words:
            if not _PORT.fullmatch(word):
                raise _fail(line, f"{quoted(word)} is not a port; write a number, with /tcp or /udp if needed")
    elif name in ("ENV", "LABEL") and "=" not in words[0] and len(words) == 1:
        raise _fail(line, f"{name} {quoted(words[0])} has no value; write name=value")
    elif name == "HEALTHCHECK" and words[0].upper() not in ("CMD", "NONE"):
        raise _fail(line, "HEALTHCHECK takes CMD and a command, or NONE")
    elif name == "ONBUILD":
        inner = words[0].upper()
        if inner not in _INSTRUCTIONS or inner in ("FROM", "MAINTAINER", "ONBUILD"):
            raise _fail(line, f"ONBUILD cannot trigger {quoted(words[0])}; name another instruction")


def _exec_form(line: int, name: str, rest: str, words: list[str]) -> list[str]:
    try:
        items = json.loads(rest)
    except (ValueError, RecursionError):
        items = None
    if isinstance(items, list) and all(isinstance(item, str) for item in items):
        return items
    if name in ("CMD", "ENTRYPOINT", "SHELL"):
        # A builder would hand the brackets to the shell, which nobody means.
        raise _fail(line, f"{name} starts like a JSON list but is not a valid one; use double quotes around each word")
    return words  # RUN [ -f x ] && ... is plain shell


def _instructions(text: str) -> Iterator[tuple[int, str, str]]:
    """Each instruction as (first line's number, name in capitals, arguments on one line), heredoc bodies skipped."""
    lines = enumerate(text.removeprefix("\ufeff").split("\n"), 1)
    escape, directives = "\\", True
    for number, raw in lines:
        line = raw.strip()
        directive = _DIRECTIVE.fullmatch(line) if directives else None
        directives = directive is not None
        if directive and directive[1].lower() == "escape":
            if directive[2] not in ("\\", "`"):
                raise _fail(number, "the escape directive takes \\ or `")
            escape = directive[2]
        if not line or line.startswith("#"):
            continue
        parts = [line]
        while parts[-1].endswith(escape):
            parts[-1] = parts[-1][:-1]
            following = (more.strip() for _, more in lines)
            more = next((more for more in following if more and not more.startswith("#")), None)
            if more is None:
                raise _fail(number, f"ends with {escape} but nothing follows; remove it or finish the command")
            parts.append(more)
        name, rest = [*" ".join(parts).split(maxsplit=1), "", ""][:2]
        if (name := name.upper()) not in _INSTRUCTIONS:
            raise _fail(number, f"{quoted(name)} is not an instruction; known are {', '.join(_INSTRUCTIONS)}")
        if name in _HEREDOCS_IN:
            for word in _WORD.findall(rest):
                if heredoc := _HEREDOC.fullmatch(word):
                    _skip_heredoc(lines, number, heredoc)
        yield number, name, rest


def _skip_heredoc(lines: Iterator[tuple[int, str]], number: int, heredoc: re.Match[str]) -> None:
    end = heredoc["end"]
    if not any((line.lstrip("\t") if heredoc["dash"] else line) == end for _, line in lines):
        raise _fail(number, f"the heredoc {quoted(end)} has no end; add a line with {quoted(end)} alone")


def _fail(line: int, problem: str) -> DockerfileError:
    return DockerfileError(f"Dockerfile line {line}: {problem}", line=line)
