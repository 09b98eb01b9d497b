"""How does click know the commands: for their help, for a shell's completions, and to say what is wrong with a line?"""

from __future__ import annotations

import inspect
import re
from collections import UserDict
from collections.abc import Callable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem, shell_complete

from bot_bottle import __version__, visible
from bot_bottle.cli import PROGRAM
from bot_bottle.cli.commands import ASKED, COMMANDS, HELP, TARGETS, load
from bot_bottle.cli.declare import BadValueError, Command, Group, OneOf, Parameter, Whole
from bot_bottle.cli.elsewhere import OPTIONS
from bot_bottle.errors import InvalidInputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bot_bottle.cli.declare import Completions


def root() -> click.Group:
    """All commands; each is imported when it is looked up."""
    group = _Root(
        PROGRAM,
        commands=_Lazy(TARGETS),
        help=inspect.cleandoc(HELP),
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    # They are taken off the line before it is read; here they are for the help.
    for flag, (metavar, about) in OPTIONS.items():
        group.params.append(click.Option([flag], metavar=metavar, help=about, expose_value=False))
    return click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")(group)


def run(arguments: Sequence[str], shared: dict[str, Any]) -> int:
    """Runs a line as ``root.run`` does, or says what is wrong with it.

    click's own ``main`` is not used because it exits by itself, with 1 for a broken pipe.
    """
    cli = root()
    try:
        with cli.make_context(PROGRAM, list(arguments), obj=shared) as context:
            cli.invoke(context)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    return 0


def complete(instruction: str) -> None:
    """Answers a shell that asks for completions."""
    shell_complete(root(), {}, PROGRAM, ASKED, instruction)


def verdict(error: BaseException) -> tuple[int, str, dict[str, Any]]:
    """What an error of click's own says: exit code, one sentence (``""``: nothing), no data."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code, "", {}
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx else PROGRAM
        hint = f"{error.format_message().rstrip('.')} (see '{where} --help')"
        return InvalidInputError.exit_code, hint, {}
    if isinstance(error, click.ClickException):
        return error.exit_code, error.format_message(), {}
    return 1, str(error), {}


def explained(target: Command | Group) -> click.Command:
    """The command as click knows it."""
    text = inspect.cleandoc(target.help)
    if isinstance(target, Group):
        commands = {name: explained(command) for name, command in target.commands.items()}
        return click.Group(target.name, commands=commands, help=text)
    parameters = [_parameter(each) for each in target.parameters]
    last = next((each.name for each in target.parameters if each.rest), None)
    if last is None:
        return click.Command(target.name, callback=target, params=parameters, help=text)
    return _WithRest(target, last, callback=target, params=parameters, help=text)


class _WithRest(click.Command):
    """A command with an argument for what follows ``--``; click would fill the arguments before it from there too."""

    def __init__(self, declared: Command, last: str, **more: Any) -> None:
        super().__init__(declared.name, **more)
        self.declared = declared
        self.last = last

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        takes_a_word = {
            flag for each in self.declared.parameters for flag, sets in each.switches().items() if sets is None
        }
        end = 0
        while end < len(args) and args[end] != "--":
            end += 2 if args[end] in takes_a_word else 1
        left = super().parse_args(ctx, args[:end])
        if (extra := ctx.params[self.last]) and not ctx.resilient_parsing:
            ctx.fail(f"Got unexpected extra arguments ({' '.join(extra)}): a command of several words comes after --")
        ctx.params[self.last] = tuple(args[end + 1 :])
        return left


def _parameter(declared: Parameter) -> click.Parameter:
    names = [declared.name, *declared.flags, *([declared.opposite] if declared.opposite else [])]
    more: dict[str, Any] = {"shell_complete": _completed(declared.complete)} if declared.complete else {}
    if declared.is_argument:
        if declared.rest:
            return click.Argument(names, nargs=-1, metavar=declared.metavar, **more)
        return click.Argument(
            names, type=_type(declared.type), metavar=declared.metavar, required=declared.required, **more
        )
    if declared.name == "as_json":
        # Eager, so that a mistake in a later argument is reported as JSON already.
        more |= {"is_eager": True, "callback": _remember}
    if declared.is_flag:
        return click.Option(names, is_flag=True, help=declared.help, **more)
    if declared.default is not None:
        more |= {"default": declared.default, "show_default": declared.shown_default or True}
    return click.Option(
        names,
        type=_type(declared.type),
        metavar=declared.metavar,
        multiple=declared.multiple,
        required=declared.required,
        help=declared.help,
        **more,
    )


def _remember(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    ctx.ensure_object(dict)["json"] = value
    return value


class _Whole(click.IntRange):
    """Its help says nothing of the most: nobody means so many."""

    def __init__(self, read: Whole) -> None:
        super().__init__(min=read.least)
        self.read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if number > self.read.most:
            self.fail(f"{number} is more than {self.read.most}", param, ctx)
        return number


def _type(read: Callable[[str], Any]) -> click.ParamType[Any] | Callable[[str], Any]:
    if isinstance(read, OneOf):
        return click.Choice(read.words)
    if isinstance(read, Whole):
        return _Whole(read)

    def checked(text: str) -> Any:
        try:
            return read(text)
        except BadValueError as error:
            raise click.BadParameter(str(error)) from None

    checked.__name__ = getattr(read, "__name__", "text")
    return click.STRING if read is str else checked


def _completed(complete: Completions) -> Callable[[Any, Any, str], list[CompletionItem[str]]]:
    def offered(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        # A word goes to the shell's line as it is: whoever can write the file shall not write there.
        return [
            CompletionItem(word, help=visible(about, multiline=False))
            for word, about in complete(incomplete)
            if _WORD.fullmatch(word)
        ]

    return offered


_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class _Lazy(UserDict[str, Any]):
    """Command name → command, imported when it is looked up."""

    def __getitem__(self, name: str) -> click.Command:
        return explained(load(name))


class _Root(click.Group):
    """The top level: lists its commands by section and in the order of ``COMMANDS``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        limit = formatter.width - 6 - width
        for section, names in COMMANDS.items():
            with formatter.section(section):
                rows = [(name.ljust(width), self.commands[name].get_short_help_str(limit)) for name in names]
                formatter.write_dl(rows)
