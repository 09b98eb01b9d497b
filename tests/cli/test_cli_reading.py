"""Is a command line read without click as click reads it, and without what takes long to import?"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot_bottle.cli import light_json
from bot_bottle.cli.commands import TARGETS, load
from bot_bottle.cli.declare import Command, Group
from bot_bottle.cli.explain import explained
from bot_bottle.cli.light_json import dumps
from bot_bottle.cli.options import moment
from cli_process import ROUTES, Host


def commands() -> Iterator[tuple[str, Command]]:
    for name in TARGETS:
        target = load(name)
        if isinstance(target, Group):
            yield from ((f"{name} {inner}", command) for inner, command in target.commands.items())
        else:
            yield name, target


COMMANDS = dict(commands())
WORDS = ["", "a", "0199d2c4", "5", "0", "-5", "2h", "5s", "once", "docker", "bash", "a=b", "-", "--", "0" * 64]
WORDS += ["2026-01-31T12:00:00Z", "--nothing", "-h", "-yy", "ä"]


def lines(command: Command) -> st.SearchStrategy[list[str]]:
    flags = [flag for each in command.parameters for flag in each.switches()]
    words = st.sampled_from([*flags, *WORDS, *(f"{flag}={value}" for flag in flags for value in ("", "5", "x"))])
    return st.lists(words, max_size=6)


@settings(max_examples=2000, deadline=None)
@given(st.data())
def test_a_line_means_what_click_takes_it_for(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(COMMANDS)))
    command = COMMANDS[name]
    words = data.draw(lines(command))
    read = command.read(words)
    if read is not None:
        with explained(command).make_context(name, list(words), obj={}) as context:
            # An age counts back from now, which is another now the second time.
            moments = {each.name for each in command.parameters if each.type is moment}
            assert {**context.params, **dict.fromkeys(moments)} == {**read, **dict.fromkeys(moments)}


TEXTS = st.text() | st.sampled_from(["\ud800", '"\\\u2028\U0001f600\x7f\0'])
NUMBERS = st.integers() | st.floats() | st.sampled_from([float("nan"), float("inf"), float("-inf")])
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner) | st.tuples(inner, inner),
)


@settings(deadline=None)
@given(DOCUMENTS)
def test_json_is_written_as_the_standard_library_writes_it(value: object) -> None:
    assert dumps(value) == json.dumps(value)
    assert dumps(value, indent="  ") == json.dumps(value, indent=2)


def test_what_is_no_json_is_no_document() -> None:
    with pytest.raises(TypeError, match="bytes is no JSON"):
        dumps({"a": [b""]})


def test_the_string_encoder_is_the_one_in_c() -> None:
    from json.encoder import c_encode_basestring_ascii

    assert light_json.quoted is c_encode_basestring_ascii


def imported(host: Host, *words: str, program: str = "bot-bottle", code: int = 0) -> set[str]:
    """Every module that a program imported, by the interpreter's own report."""
    report = host.run(*words, program=program, code=code, PYTHONPROFILEIMPORTTIME="1").stderr
    return {line.rsplit("|", 1)[1].strip() for line in report.splitlines() if line.startswith("import time:")}


# What `--json` takes beside it.
JSON = {"json"}

# Each command that prints no table and starts no other program, and which modules of Python's it may take besides those
# of `import bot_bottle`.
LIGHT: dict[str, set[str]] = {
    "pending": {"datetime"},
    "pending --json": JSON,
    "show {id} --json": JSON,
    "approve {id} --yes": set(),
    "approve {id} --hash {hash} --notes fine --json": JSON,
    "reject {id} --notes no": set(),
    "modify {id} --file {file}": set(),
    "history --json": JSON,
    "archive {decided}": set(),
    "stats --json": JSON,
    "audit list --json --since 2h": {"datetime"} | JSON,
    "audit verify": set(),
    "grants list": set(),
    "grants revoke {grant}": set(),
    "keys show --json": JSON,
    "keys rotate": set(),
    "operator list": set(),
    "db path": set(),
    "db status --json": JSON,
    "db migrate --json": JSON,
    "db backup {backup}": set(),
    "db check": set(),
    "db prune --older-than 30d": set(),
    "db query 'select 1' --json": JSON,
    "--version": set(),
}


@pytest.mark.parametrize(("line", "allowed"), LIGHT.items(), ids=LIGHT)
def test_a_command_that_prints_no_table_imports_what_is_listed(
    host: Host, tmp_path: Path, line: str, allowed: set[str]
) -> None:
    if "{" in line or "--json" in line:
        host.routes_file()
        asked, decided = host.propose("a: 1\n", tool="gitleaks-allow", fingerprint="f"), host.propose("a: 2\n")
        host.run("approve", asked.id, "--yes", "--grant", "bottle", "--notes", "n")
        host.run("reject", decided.id)
        proposal = host.propose("a: 3\n", against=ROUTES)
        (tmp_path / "version.yaml").write_text(ROUTES)
        line = line.format(
            id=proposal.id,
            hash=host.json("show", proposal.id)["review_sha256"],
            decided=decided.id,
            grant=host.json("grants", "list")[0]["id"],
            file=tmp_path / "version.yaml",
            backup=tmp_path / "backup.db",
        )
    host.root.mkdir(exist_ok=True)
    known = imported(host, "-c", "import bot_bottle", program="python")
    assert "bot_bottle._native" in known
    own = {name for name in imported(host, *shlex.split(line)) - known if name.partition(".")[0] != "bot_bottle"}
    assert {name.partition(".")[0].lstrip("_") for name in own} - {"importlib"} <= allowed
