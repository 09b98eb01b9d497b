"""Does every example in README.md and docs/ run, and does every link lead somewhere?

What docs/cli.md shows is run by ``test_cli_docs.py``, on a host prepared for it.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import threading
from pathlib import Path

import pytest

import bot_bottle.errors
from bot_bottle import Inbox, sha256_hex
from bot_bottle.errors import BotBottleError
from checkout import CHECKOUT
from cli_process import ROUTES, Host
from store_process import Process, eventually

ROOT = CHECKOUT
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """The fenced blocks of a page: the line before the first of each, and its text."""
    text = page.read_text()
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(text[: match.start()].count("\n") + 1, match[1]) for match in found]


def pages_with(language: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, language)]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", pages_with("python"), ids=name)
def test_the_python_of_a_page_runs_from_top_to_bottom(
    host: Host, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(page: str, found: list[tuple[int, str]]) -> None:
        names: dict[str, object] = {"__name__": "__main__"}
        for line, block in found:
            exec(compile("\n" * line + block, page, "exec"), names)

    monkeypatch.chdir(tmp_path)
    with Process(run, page, blocks(page, "python")) as process:
        process.ends()


def test_console_sessions_are_where_they_are_run() -> None:
    assert [page.name for page in pages_with("console")] == ["cli.md"]


@pytest.mark.parametrize("page", pages_with("json"), ids=name)
def test_json_is_json(page: Path) -> None:
    for _, block in blocks(page, "json"):
        json.loads(block)


@pytest.mark.parametrize("page", pages_with("yaml"), ids=name)
def test_yaml_is_yaml(page: Path) -> None:
    yaml = pytest.importorskip("yaml")
    for _, block in blocks(page, "yaml"):
        assert yaml.safe_load(block)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_tests_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text())
    assert named or page.name != "security.md"
    for file, test in named:
        assert (ROOT / file).is_file(), file
        assert not test or re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(), re.M), f"{file}::{test}"


def readme_commands() -> list[str]:
    text = "\n".join(block for _, block in blocks(README, "sh")).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_the_readme_names_targets_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = [words[1] for words in map(shlex.split, readme_commands()) if words[0] == "make"]
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_readme_s_commands_run(host: Host, tmp_path: Path) -> None:
    routes = host.routes_file("dev")
    (tmp_path / "routes.yaml").write_text("routes:\n  - host: api.github.com\n")
    (tmp_path / "editor").write_text("#!/bin/sh\necho 'FROM debian:13' >> \"$1\"\n")
    (tmp_path / "editor").chmod(0o755)
    ids = [
        host.propose("FROM a\n", tool="capability-block", slug="dev").id,
        host.propose("FROM b\n", tool="capability-block", slug="dev").id,
        host.propose("FROM c\n", tool="capability-block", slug="dev").id,
    ]
    run = [line for line in readme_commands() if line.startswith(("bot-bottle ", "bot-bottle-sidecar "))]
    assert len(run) > 5
    shown = dict.fromkeys(re.findall(r"0199d2c4-[0-9a-f]{4}", "\n".join(run)))
    for command in run:
        for documented, real in zip(shown, ids, strict=True):
            command = command.replace(documented, real)
        command = command.replace("/run/supervise/bot-bottle.db", str(host.root / "db" / "bot-bottle.db"))
        if " watch" in command:
            command = f"timeout --signal=INT 1 {command} || test $? = 124"
        if " approve " in command:
            command += " --yes"
        if command.startswith("bot-bottle image "):
            continue
        if command.startswith("bot-bottle run "):
            # With an engine, tests/containers/test_run.py goes on from here.
            (tmp_path / "project").mkdir(exist_ok=True)
            command += " --workspace project --dry-run"
        operator = threading.Thread(target=approve_the_next)
        if "--wait" in command:
            operator.start()
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=host.environment(EDITOR=str(tmp_path / "editor")),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        if "--wait" in command:
            operator.join()
            told = json.loads(done.stdout)
            assert set(re.findall(r"`(\w+)`", wait_prints())) <= set(told)
            assert told["status"] == "approved"
    assert sha256_hex(routes.read_text()) != sha256_hex(ROUTES)  # what the helper asked for is in effect


def approve_the_next() -> None:
    with Inbox() as inbox:
        eventually(lambda: any(item.waiting for item in inbox.pending()))
        (item,) = [item for item in inbox.pending() if item.waiting]
        inbox.decide(item.proposal.id, "approved", payload_sha256=item.proposal.payload_sha256)


def wait_prints() -> str:
    found = re.search(r"one line of JSON with (.*?)(?:,? and exits|\.)", README.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_readme_s_exit_codes_are_those_of_the_errors() -> None:
    documented = {
        error: int(code)
        for code, cell in re.findall(r"^\| (\d+) \| (.*) \|$", README.read_text(), re.MULTILINE)
        for error in re.findall(r"`(\w+Error)`", cell)
        if hasattr(bot_bottle.errors, error)
    }
    classes = {
        error.__name__: error.exit_code
        for error in vars(bot_bottle.errors).values()
        if isinstance(error, type) and issubclass(error, BotBottleError) and error is not BotBottleError
    }
    assert documented == classes


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\((?!https?://)([^)#]*)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    headings = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    for anchor in re.findall(r"\]\(#([^)]*)\)", text):
        assert anchor in headings
