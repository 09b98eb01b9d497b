"""Does every command go on with the rows beside one that another program wrote whatever into?

The database of a host has each hostile value in every column of every table, each in a row of its own, some values at
a time. What a bottle without such a row is told must be the same as without them all.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cli_process import Host
from hostile import assert_harmless
from hostile_host import GOOD, GROUPS, two_hosts

# What an operator runs, with the exit codes it may have. Findings are what some of them are for.
COMMANDS = {
    "pending": {0},
    "pending --bottle zzz-good": {0},
    "show {pending}": {0},
    "show {decided}": {0},
    "history --limit 500": {0},
    "audit list --limit 500": {0},
    "audit list --full --limit 500": {0},
    "audit list --component egress-allow": {0},
    "audit verify": {0, 7},
    "grants list --all": {0},
    "grants show {grant}": {0},
    "bottles --all": {0},
    "stats": {0},
    "stats --bottle zzz-good": {0},
    "db status": {0},
    "db check": {0, 8},
    "db query select*from(proposals)": {0},
    "db prune --older-than 1h --yes": {0},
    "policy suggest": {0},
    "keys show": {0},
    "notify status": {0, 2},
    "archive {decided}": {0},
    "reject {pending} --notes no": {0},
    "bottle stop zzz-good --yes": {0},
}
HELPER = ("pending", "show {pending}", "use-grant --tool {tool} --fingerprint host:1", "withdraw {pending}")
# What ends by itself only when it is interrupted or asked by a shell.
COMPLETIONS = ("bot-bottle show ", "bot-bottle grants revoke ", "bot-bottle pending --bottle ")


def of_the_good(document: object) -> list[object]:
    """The rows of a list that are the good bottle's."""
    if not isinstance(document, list):
        return [document]
    return [row for row in document if GOOD in (row.get("bottle_slug"), row.get("slug"))]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("values", GROUPS, ids=", ".join)
def test_every_command_goes_on_and_says_the_same_of_the_rest(
    made: tuple[Path, dict[str, str]], tmp_path: Path, values: dict[str, str]
) -> None:
    base, ids = made
    sound, hostile = two_hosts(base, tmp_path, values)
    wrong = []

    def run(host: Host, line: str, codes: set[int], program: str = "bot-bottle", **extra: str) -> str:
        done = subprocess.run(
            [Path(sys.executable).parent / program, *line.format(**ids).split()],
            env=host.environment(**extra),
            capture_output=True,
            timeout=120,
        )
        output, errors = done.stdout.decode(), done.stderr.decode()
        if done.returncode not in codes or "Traceback" in errors or "this is a bug" in errors:
            wrong.append(f"{line}: {done.returncode} {errors[-300:]}")
        assert_harmless(output)
        assert_harmless(errors)
        return output

    for line, codes in COMMANDS.items():
        shown = run(hostile, f"{line} --json", codes)
        if shown.startswith("[") and "query" not in line and "check" not in line:
            # Each side is as the last command left it.
            expected = run(sound, f"{line} --json", codes)
            if of_the_good(json.loads(shown)) != of_the_good(json.loads(expected)):
                wrong.append(f"{line}: the good bottle's rows differ")
        elif line.startswith(("archive", "reject", "bottle", "db prune")):
            run(sound, f"{line} --json", codes)
            continue  # done; a second time is another question
        run(hostile, line, codes)
    database = {"SUPERVISE_DB_PATH": str(hostile.root / "db" / "bot-bottle.db")}
    for line in HELPER:
        for style in ("", " --json"):
            good, victim = ({"SUPERVISE_BOTTLE_SLUG": slug, **database} for slug in (GOOD, "v01"))
            run(hostile, line + style, {0, 4, 5}, "bot-bottle-sidecar", **good)
            run(hostile, line + style, {0, 4, 5, 7}, "bot-bottle-sidecar", **victim)
    for typed in COMPLETIONS:
        asked = {"_BOT_BOTTLE_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
        run(hostile, "", {0}, **asked)
    watch = ["timeout", "--signal=INT", "3", "bot-bottle", "watch", "--since", "0"]
    for style in ([], ["--json"]):
        done = subprocess.run([*watch, *style], env=hostile.environment(), capture_output=True, timeout=60)
        assert done.returncode in (124, 130), done.stderr
        assert b"Traceback" not in done.stderr
        assert_harmless(done.stdout.decode())
    assert not wrong, "\n".join(wrong)
