"""Do the pages of the manual say what the helps say?"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from bot_bottle.cli.explain import root
from bot_bottle.cli.man import pages

PAGES = dict(pages())


def test_each_command_has_a_page_with_all_its_options() -> None:
    whole = root()
    context = click.Context(whole)
    assert set(PAGES) == {"bot-bottle.1", *(f"bot-bottle-{name}.1" for name in whole.list_commands(context))}
    for name in whole.list_commands(context):
        page, command = PAGES[f"bot-bottle-{name}.1"].replace("\\-", "-"), whole.get_command(context, name)
        under = command.commands.values() if isinstance(command, click.Group) else [command]
        for each in under:
            assert each is not None
            for option in (flag for parameter in each.params for flag in parameter.opts if flag.startswith("--")):
                assert option in page, (name, option)


def test_no_line_of_text_is_a_request() -> None:
    known = {".TH", ".SH", ".SS", ".PP", ".TP", ".B", ".nf", ".fi", ".br"}
    for name, page in PAGES.items():
        requests = {line.split()[0] for line in page.splitlines() if line[:1] in (".", "'")}
        assert requests <= known, name


def test_the_pages_are_written_and_groff_has_nothing_to_say(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "bot_bottle.cli.man", tmp_path / "man1"], check=True, timeout=60)
    written = sorted(tmp_path.glob("man1/*.1"))
    assert [path.name for path in written] == sorted(PAGES)
    if shutil.which("groff") is None:
        pytest.skip("needs groff")
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-K", "utf8", *written], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
