"""Is a name that leads to nothing told, with the nearest that there is, and never answered with an empty list?"""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from bot_bottle import Keys
from bot_bottle.cli.commands import TARGETS, load
from bot_bottle.cli.declare import Command, Group
from bot_bottle.cli.explain import root
from cli_process import Host

BOTTLE = "there is no bottle 'dve'; did you mean 'dev'?"


def declared() -> dict[str, Command]:
    """Every command by the words that lead to it."""
    found: dict[str, Command] = {}
    for name in TARGETS:
        target = load(name)
        if isinstance(target, Group):
            found |= {f"{name} {under}": command for under, command in target.commands.items()}
        else:
            found[name] = target
    return found


COMMANDS = declared()
OF_A_BOTTLE = [line for line, each in COMMANDS.items() if any(p.name == "bottle" and p.check for p in each.parameters)]


def needed(command: Command) -> list[str]:
    """Words for what a command cannot do without."""
    words = []
    for each in command.parameters:
        if each.required:
            word = "1" if each.type.__class__.__name__ == "Whole" else "30d" if "duration" in repr(each.type) else "x"
            words += [word] if each.is_argument else [each.flags[-1], word]
    return words


@pytest.mark.parametrize("line", [*OF_A_BOTTLE, "bottle stop"])
def test_a_bottle_that_is_not_there_is_an_error_that_names_the_nearest(host: Host, line: str) -> None:
    host.propose(slug="dev")
    words = [*line.split(), "dve"] if line == "bottle stop" else [*line.split(), "--bottle", "dve"]
    done = host.run(*words, code=4)
    assert (done.stdout, done.stderr) == ("", f"bot-bottle: {BOTTLE}\n")


def test_the_commands_that_take_a_bottle_are_these() -> None:
    assert set(OF_A_BOTTLE) == {
        *("pending", "history", "watch", "stats", "review", "supervise", "audit list", "grants list"),
    }


def test_a_bottle_is_known_by_its_registration_a_proposal_or_the_log_alone(host: Host) -> None:
    host.routes_file("registered")
    asked = host.propose(slug="asked")
    pruned = host.propose(slug="pruned", tool="capability-block", payload="x")
    for each in (asked, pruned):
        host.run("reject", each.id)
    host.run("db", "prune", "--older-than", "0s", "--yes")
    for slug in ("registered", "asked", "pruned"):
        for line in ("pending", "audit list", "history"):
            host.run(*line.split(), "--bottle", slug)


def test_json_says_the_same(host: Host) -> None:
    host.propose(slug="dev")
    error = json.loads(host.run("pending", "--bottle", "dve", "--json", code=4).stderr)
    assert (error["error"], error["message"]) == ("NotFoundError", BOTTLE)


def test_a_name_that_is_like_none_gets_where_they_are_listed(host: Host) -> None:
    host.propose(slug="dev")
    assert "'bot-bottle bottles --all' lists them" in host.run("pending", "--bottle", "\x1b[31mzzz", code=4).stderr


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("audit list --component egress-alow", "no component 'egress-alow' in the log; did you mean 'egress-allow'?"),
        ("operator remove anm", "no operator 'anm'; did you mean 'ann'?"),
        ("keys revoke {key}", "no key '{key}'; did you mean"),
        ("db rollback queue_stor --to 0 --yes", "no module 'queue_stor'; did you mean 'queue_store'?"),
        ("policy test --rule githb", "did you mean 'github'?"),
        ("notify test --channel phon", "did you mean 'phone'?"),
    ],
)
def test_so_is_any_other_name_of_a_few(host: Host, line: str, says: str) -> None:
    host.run("reject", host.propose().id)
    host.run("operator", "add", "ann")
    for file, text in (
        ("policy.toml", "[[rule]]\nname = 'github'\ntool = 'x'\n"),
        ("config.toml", "[notify.channels.phone]\nkind = 'bell'\n"),
    ):
        (host.root / file).touch(0o600)
        (host.root / file).write_text(text)
    key = Keys().all()[0].id
    key = key[:-1] + ("0" if key[-1] != "0" else "1")
    assert says.format(key=key) in host.run(*line.format(key=key).split(), code=4).stderr


@pytest.mark.parametrize("line", [line for line, each in COMMANDS.items() if not each.begins])
def test_a_root_that_is_not_there_is_an_error_for_what_does_not_make_one(host: Host, line: str) -> None:
    other = host.root.parent / "roots"
    (other / "db").mkdir(parents=True)
    done = host.run(*line.split(), *needed(COMMANDS[line]), code=4)
    assert f"there is no directory '{host.root}', which BOT_BOTTLE_ROOT names; did you mean '{other}'?" in done.stderr
    assert not host.root.exists()


def test_a_directory_of_something_else_is_no_root_and_the_one_inside_is_meant(host: Host) -> None:
    home = host.root.parent
    (home / ".bot-bottle" / "db").mkdir(parents=True)
    done = host.run("pending", code=4, BOT_BOTTLE_ROOT=str(home))
    assert f"no root of bot-bottle at '{home}'" in done.stderr
    assert f"did you mean '{home}/.bot-bottle'?" in done.stderr


@pytest.mark.parametrize(
    "line", ["pending", "history", "audit list", "audit verify", "grants list", "bottles", "stats"]
)
def test_the_first_use_of_the_default_root_finds_nothing_and_makes_nothing(host: Host, line: str) -> None:
    home = host.root.parent / "new"
    home.mkdir()
    host.run(*line.split(), BOT_BOTTLE_ROOT="", HOME=str(home))
    assert list(home.iterdir()) == []


def test_a_root_that_was_just_made_is_one(host: Host, tmp_path: Path) -> None:
    host.root.mkdir()
    assert host.run("pending").stdout == "No proposal is pending.\n"


def test_click_calls_what_runs() -> None:
    whole = root()
    context = click.Context(whole)
    for name in whole.list_commands(context):
        command = whole.get_command(context, name)
        under = command.commands.values() if isinstance(command, click.Group) else [command]
        assert all(isinstance(each.callback, Command) for each in under if each is not None)
