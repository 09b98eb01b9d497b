"""How does the commands' help become manual pages? ``python -m bot_bottle.cli.man DIRECTORY`` writes them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import click

from bot_bottle import __version__
from bot_bottle.cli import PROGRAM
from bot_bottle.cli.explain import root


def pages() -> Iterator[tuple[str, str]]:
    """Each page's file name and its text: one of the program and one of each command, with those under it."""
    whole = root()
    context = click.Context(whole, info_name=PROGRAM)
    yield f"{PROGRAM}.1", "".join(_page(PROGRAM, whole, context))
    for name in whole.list_commands(context):
        command = whole.get_command(context, name)
        if command is not None:
            inner = click.Context(command, info_name=name, parent=context)
            yield f"{PROGRAM}-{name}.1", "".join(_page(f"{PROGRAM} {name}", command, inner))


def _page(path: str, command: click.Command, context: click.Context) -> Iterator[str]:
    """In the macros of man(7)."""
    title = path.replace(" ", "-")
    yield f'.TH "{title.upper()}" 1 "" "bot-bottle {__version__}" "bot-bottle"\n'
    yield f".SH NAME\n{_text(title)} \\- {_text(command.get_short_help_str(200).rstrip('.'))}\n"
    yield f".SH SYNOPSIS\n.B {_text(path)}\n{_text(' '.join(command.collect_usage_pieces(context)))}\n"
    # Each help ends with its examples.
    about, _, examples = (command.help or "").rpartition("\n\n\b\n")
    yield f".SH DESCRIPTION\n{_paragraphs(about)}"
    yield from _options("OPTIONS", command, context)
    if isinstance(command, click.Group):
        top = context.parent is None
        yield ".SH COMMANDS\n"
        for name in command.list_commands(context):
            under = command.get_command(context, name)
            if under is None:
                continue
            inner = click.Context(under, info_name=name, parent=context)
            usage = "" if top else f" {' '.join(under.collect_usage_pieces(inner))}"
            yield f".SS {_text(name + usage)}\n"
            yield f"{_text(under.get_short_help_str(200))}\n" if top else _paragraphs(under.help or "")
            if top:
                yield f".br\nSee {_text(f'{PROGRAM}-{name}')}(1).\n"
            else:
                yield from _options("", under, inner)
    yield ".SH EXAMPLES\n" + _paragraphs(f"\b\n{examples}")


def _options(heading: str, command: click.Command, context: click.Context) -> Iterator[str]:
    records = [record for each in command.get_params(context) if (record := each.get_help_record(context))]
    if records and heading:
        yield f".SH {heading}\n"
    for names, about in records:
        yield f".TP\n.B {_text(names)}\n{_text(about)}\n"


def _paragraphs(text: str) -> str:
    """Blocks that click keeps as they are (``\\b``) stand without filling, the others are filled."""
    out = []
    for block in text.split("\n\n"):
        if block.startswith("\b"):
            lines = "\n".join(_text(line) for line in block.splitlines()[1:])
            out.append(f".PP\n.nf\n{lines}\n.fi\n")
        else:
            out.append(f".PP\n{_text(' '.join(block.split()))}\n")
    return "".join(out)


def _text(text: str) -> str:
    """``text`` and nothing of it a request: roff takes a line that begins with a dot or an apostrophe for one."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped


def main(directory: str) -> None:
    """Writes all pages into ``directory``."""
    os.makedirs(directory, exist_ok=True)
    for name, text in pages():
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
