"""Do shells complete commands, options, ids and bottles?"""

from __future__ import annotations

import shutil
import subprocess

import pytest

from cli_process import Host


def completions(host: Host, line: str) -> list[str]:
    """What bash offers after ``line``, by its own completion function; the last word may be unfinished."""
    words = line.split(" ")
    script = f"""
        eval "$(bot-bottle completion bash)"
        COMP_WORDS=({" ".join(f"'{word}'" for word in words)})
        COMP_CWORD={len(words) - 1}
        _bot_bottle_completion bot-bottle
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], env=host.environment(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_bash_completes_commands_and_options(host: Host) -> None:
    assert {"pending", "approve", "db", "watch"} <= set(completions(host, "bot-bottle "))
    assert completions(host, "bot-bottle app") == ["approve"]
    assert {"list", "proof", "verify"} == set(completions(host, "bot-bottle audit "))
    assert "--older-than" in completions(host, "bot-bottle db prune --")


def test_bash_completes_ids_that_fit_the_command(host: Host) -> None:
    pending = host.propose("a: 1\n").id
    decided = host.propose("a: 2\n").id
    host.run("reject", decided)
    assert completions(host, "bot-bottle approve ") == [pending]
    assert set(completions(host, f"bot-bottle show {pending[:4]}")) == {pending, decided}
    assert completions(host, "bot-bottle reject zz") == []


def test_bash_completes_bottles_and_grants(host: Host) -> None:
    host.routes_file("demo")
    host.routes_file("other")
    proposal = host.propose("s", tool="gitleaks-allow", fingerprint="f")
    host.run("approve", proposal.id, "--yes", "--notes", "n", "--grant", "once")
    assert set(completions(host, "bot-bottle pending --bottle ")) == {"demo", "other"}
    assert completions(host, "bot-bottle history --bottle o") == ["other"]
    assert completions(host, "bot-bottle grants revoke ") == [host.json("grants", "list")[0]["id"]]


def test_completion_of_a_broken_database_offers_nothing_and_says_nothing(host: Host) -> None:
    host.root.write_text("not a directory")
    assert completions(host, "bot-bottle approve ") == []
    assert completions(host, "bot-bottle pending --bottle ") == []


def test_completion_of_a_new_host_creates_nothing(host: Host) -> None:
    assert completions(host, "bot-bottle approve ") == []
    assert not host.root.exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_it_can_read(host: Host, shell: str) -> None:
    script = host.run("completion", shell).stdout
    assert "_BOT_BOTTLE_COMPLETE" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=60)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_told_what_an_id_is(host: Host, shell: str) -> None:
    proposal = host.propose()
    words = "bot-bottle approve "
    asked = {"COMP_WORDS": words, "COMP_CWORD": "2" if shell == "zsh" else ""}
    output = host.run(_BOT_BOTTLE_COMPLETE=f"{shell}_complete", **asked).stdout
    assert proposal.id in output
    assert "demo egress-allow" in output
