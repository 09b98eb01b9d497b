"""What does a command take, and how is a line that fits it read?

Commands are declared once, here in plain data. A line that is in order is read right here and runs at once; help,
completions and the explanation of a line that is not in order come from click (``explain.py``), whose import takes
longer than a decision does.
"""

from __future__ import annotations

from os import environ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Final, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])

    # What a shell is offered: the words with this beginning, each with an explanation.
    Completions = Callable[[str], Sequence[tuple[str, str]]]
    # Raises if nothing has the name that it is given.
    Check = Callable[[str], None]


class BadValueError(ValueError):
    """A word is not a value of its parameter; the message says what would be."""


class MisuseError(Exception):
    """Options that do not go together; the message is told with a hint at the command's help."""


class Whole:
    """A whole number, ``least`` or more, up to what the core counts with."""

    def __init__(self, least: int, most: int = 2**31 - 1) -> None:
        self.least, self.most = least, most

    def __call__(self, text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise BadValueError(f"'{text}' is not a whole number") from None
        if number < self.least:
            raise BadValueError(f"{number} is less than {self.least}")
        if number > self.most:
            raise BadValueError(f"{text[:40]} is more than {self.most}")
        return number


class OneOf:
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def __call__(self, text: str) -> str:
        if text not in self.words:
            raise BadValueError(f"'{text}' is not one of {', '.join(self.words)}")
        return text


def file_path(text: str) -> Any:
    """A ``Path``."""
    from pathlib import Path

    return Path(text)


class Parameter:
    """An option or an argument of a command."""

    def __init__(
        self,
        names: Sequence[str],
        *,
        type: Callable[[str], Any] = str,
        metavar: str | None = None,
        default: str | int | None = None,
        shown_default: str | None = None,
        is_flag: bool = False,
        multiple: bool = False,
        required: bool = False,
        optional: bool = False,
        rest: bool = False,
        complete: Completions | None = None,
        check: Check | None = None,
        help: str = "",
    ) -> None:
        self.flags: Final = [name for name in names if name[0] == "-" and "/" not in name]
        self.opposite: Final = next((name for name in names if "/" in name), "")
        plain = [name for name in names if name[0] != "-"]
        self.name: Final = plain[0] if plain else max(self.flags, key=len).lstrip("-").replace("-", "_")
        self.is_argument: Final = not (self.flags or self.opposite)
        self.type: Final = type
        self.metavar: Final = metavar
        self.default: Final = default
        self.shown_default: Final = shown_default
        self.is_flag: Final = is_flag or bool(self.opposite)
        self.multiple: Final = multiple
        # What follows `--` on the line, and nothing else.
        self.rest: Final = rest
        self.required: Final = required or (self.is_argument and not (optional or rest))
        self.complete: Final = complete
        # Called when the command runs, so that whoever misspells a name gets an error and not an empty list.
        self.check: Final = check
        self.help: Final = help

    def switches(self) -> dict[str, bool | None]:
        """Each spelling with what it sets; ``None``: the word that follows."""
        if self.opposite:
            return dict(zip(self.opposite.split("/"), (True, False), strict=True))
        return dict.fromkeys(self.flags, True if self.is_flag else None)

    def absent(self) -> Any:
        """The value where the line does not give one."""
        if self.is_flag:
            return False
        if self.multiple or self.rest:
            return ()
        return self.type(self.default) if isinstance(self.default, str) else self.default


class Command:
    """A function that a command line runs."""

    def __init__(
        self, function: Callable[..., Any], name: str | None, *, begins: bool = False, writes: bool = False
    ) -> None:
        self.function: Final = function
        # Ended by Ctrl-C, it says whether anything was written.
        self.writes: Final = writes
        # The command makes the root if it does not exist; any other command needs an existing one.
        self.begins: Final = begins
        self.name: Final = name or function.__name__.replace("_", "-")
        self.parameters: Final[list[Parameter]] = vars(function).pop("parameters", [])[::-1]
        self.help: Final = function.__doc__ or ""

    def __call__(self, **values: Any) -> None:
        """Runs it, if what it names is there.

        Raises:
            NotFoundError: it is not; the message has what was probably meant.
        """
        if not self.begins and "BOT_BOTTLE_ROOT" in environ:
            from bot_bottle.operator import known

            known.root()
        for each in self.parameters:
            if each.check is not None and values[each.name] is not None:
                each.check(values[each.name])
        try:
            self.function(**values)
        except KeyboardInterrupt as interrupted:
            if interrupted.args or not self.writes:
                raise
            from bot_bottle.cli.interrupt import what_was_written

            raise KeyboardInterrupt(what_was_written()) from None

    def read(self, words: Sequence[str]) -> dict[str, Any] | None:
        """The function's arguments, or ``None`` if the words do not fit or ask for help."""
        switches = {flag: (each, sets) for each in self.parameters for flag, sets in each.switches().items()}
        given: dict[str, list[Any]] = {}
        arguments: list[str] = []
        after: list[str] = []
        last = next((each for each in self.parameters if each.rest), None)
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if word == "--":
                (after if last else arguments).extend(rest)
                break
            if word[:1] != "-" or word == "-":
                arguments.append(word)
                continue
            flag, equals, value = word.partition("=")
            if flag not in switches:
                return None
            parameter, sets = switches[flag]
            if sets is None:
                if not equals:
                    if not rest:
                        return None
                    value = rest.pop(0)
                given.setdefault(parameter.name, []).append(value)
            elif equals:
                return None
            else:
                given[parameter.name] = [sets]
        places = [each for each in self.parameters if each.is_argument and not each.rest]
        if not sum(each.required for each in places) <= len(arguments) <= len(places):
            return None
        given |= {each.name: [word] for each, word in zip(places, arguments, strict=False)}
        if last:
            given[last.name] = after
        return self._values(given)

    def _values(self, given: Mapping[str, list[Any]]) -> dict[str, Any] | None:
        values = {}
        for each in self.parameters:
            found = given.get(each.name, [])
            if each.required and not found:
                return None
            try:
                read = found if each.is_flag else [each.type(word) for word in found]
            except ValueError:
                return None
            values[each.name] = tuple(read) if each.multiple or each.rest else read[-1] if read else each.absent()
        return values


class Group:
    """Commands under one word."""

    def __init__(self, function: Callable[..., Any], name: str | None) -> None:
        self.name: Final = name or function.__name__.replace("_", "-")
        self.help: Final = function.__doc__ or ""
        self.commands: Final[dict[str, Command]] = {}

    def command(
        self, name: str | None = None, *, begins: bool = False, writes: bool = False
    ) -> Callable[[Callable[..., Any]], Command]:
        """Adds the function below as a command, as ``command`` makes one."""

        def add(function: Callable[..., Any]) -> Command:
            made = Command(function, name, begins=begins, writes=writes)
            self.commands[made.name] = made
            return made

        return add


def command(
    name: str | None = None, *, begins: bool = False, writes: bool = False
) -> Callable[[Callable[..., Any]], Command]:
    """Makes a command of the function below; its docstring is the help. ``begins``: it needs no root, or makes one.
    ``writes``: if Ctrl-C ends it, it says whether it had written."""
    return lambda function: Command(function, name, begins=begins, writes=writes)


def group(name: str | None = None) -> Callable[[Callable[..., Any]], Group]:
    """Makes a group of the function below, which is never called; its docstring is the help."""
    return lambda function: Group(function, name)


def option(*names: str, **more: Any) -> Callable[[F], F]:
    """An option: its spellings, and the name of the function's parameter if it is another."""
    return _adding(names, more)


def argument(name: str, **more: Any) -> Callable[[F], F]:
    """An argument, in the order of their decorators."""
    return _adding((name,), more)


def _adding(names: Sequence[str], more: Mapping[str, Any]) -> Callable[[F], F]:
    def add(function: F) -> F:
        vars(function).setdefault("parameters", []).append(Parameter(names, **more))
        return function

    return add
