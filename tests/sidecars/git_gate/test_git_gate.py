"""Who decides about a push with secrets, what does an approval cover, and what happens when something is broken?"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from bot_bottle import AuditStore, GrantStore, QueueStore
from git_pushes import BOTTLE, FAR, World, environment, eventually, secret
from needs import cannot

AWS = "aws-access-token"


def key(name: str) -> str:
    return f'key = "{secret(name)}"\n'


def test_a_push_without_secrets_asks_nobody(world: World) -> None:
    commit = world.clone.commit({"a": "fine\n"})
    world.clone.pushed("main")
    assert world.ref("main") == commit
    assert world.operator.inbox.history() == []


def test_an_approved_push_goes_through(world: World) -> None:
    commit = world.clone.commit({"a": key("one")})
    held = world.held("main", status="approved", notes="a test key")
    assert held.code == 0 and world.ref("main") == commit
    assert "approved by didi" in held.said and "a test key" in held.said
    entries = AuditStore().read_audit_entries("gitleaks-allow", BOTTLE)
    assert [(entry.operator_action, entry.operator_notes) for entry in entries] == [("approved", "a test key")]


def test_what_the_operator_asks_back_is_told_while_the_push_stays_held(world: World) -> None:
    world.clone.commit({"a": key("one")})
    with world.clone.pushing("main") as push:
        item = world.operator.next(push)
        world.operator.inbox.ask(item.proposal.id, "Is it a test key?", asked_by="didi")
        said = ""
        assert push.stderr is not None
        while "amend it and push again" not in said:
            line = push.stderr.readline()
            assert line, said
            said += line
        assert "didi asks about proposal" in said and "Is it a test key?" in said
        assert f"answer-question of the supervise server (proposal_id {item.proposal.id})" in said
        assert world.operator.inbox.read(item.proposal.id).state == "pending"
        with QueueStore(BOTTLE) as queue:
            queue.answer(item.proposal.id, "It is.")
        world.operator.decide(item, "approved")
        assert push.wait(60) == 0


def test_a_rejected_push_does_not_and_says_why(world: World) -> None:
    world.clone.commit({"a": key("one")})
    held = world.held("main", notes="use the vault:\nsee the wiki")
    assert held.code != 0 and world.ref("main") == ""
    assert "push refused: rejected by didi" in held.said
    assert "use the vault:" in held.said and "see the wiki" in held.said


def test_the_operator_sees_what_where_and_nothing_secret(world: World) -> None:
    commit = world.clone.commit({"settings/prod.py": f"a = 1\n{key('one')}", "b": key("one") + key("two")})
    proposal = world.held("main").item.proposal
    assert (proposal.bottle_slug, proposal.tool) == (BOTTLE, "gitleaks-allow")
    assert proposal.justification.splitlines() == [
        "a push to refs/heads/main of origin.git, 1 new commit",
        f"{AWS} in b, line 1, commit {commit[:12]}",
        f"{AWS} in b, line 2, commit {commit[:12]}",
        f"{AWS} in settings/prod.py, line 2, commit {commit[:12]}",
    ]
    text = proposal.proposed_file
    assert text.startswith("gitleaks found 3 possible secrets:\n\n1. aws-access-token in b\n")
    assert '   >    2 | key = "REDACTED"\n' in text and "        1 | a = 1\n" in text
    assert f"   settings/prod.py:2 in commit {commit[:12]} by agent <agent@bottle>: a commit\n" in text
    assert f"refs/heads/main: new at {commit}\n   1 new commit\n" in text
    assert secret("one") not in text and secret("two") not in text


def test_an_undecided_push_is_refused_and_leaves_nothing_to_decide(world: World) -> None:
    world.install(timeout=1)
    world.clone.commit({"a": key("one")})
    assert "there was no decision; push again to ask again" in world.clone.refused("main")
    assert world.operator.inbox.pending() == []


def test_a_pusher_who_hangs_up_takes_the_proposal_back(world: World) -> None:
    world.clone.commit({"a": key("one")})
    with world.clone.pushing("main") as push:
        item = world.operator.next(push)
        push.kill()
        assert world.operator.ends(item.proposal.id) == "withdrawn"
    eventually(lambda: not list((world.home / "tmp").iterdir()))
    assert world.ref("main") == ""


def running_hook(world: World) -> int:
    """The process of the hook itself, not of what it has in the background."""
    parents: dict[int, int] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (
                process.joinpath("cwd").resolve() == world.bare
                and b"pre-receive" in process.joinpath("cmdline").read_bytes()
            ):
                parents[int(process.name)] = int(process.joinpath("stat").read_text().rpartition(") ")[2].split()[1])
        except OSError:  # it has ended meanwhile
            continue
    (hook,) = (pid for pid, parent in parents.items() if parent not in parents)
    return hook


def test_a_hook_that_is_stopped_takes_the_proposal_back(world: World) -> None:
    world.clone.commit({"a": key("one")})
    with world.clone.pushing("main") as push:
        item = world.operator.next(push)
        os.kill(running_hook(world), signal.SIGTERM)
        assert world.operator.ends(item.proposal.id) == "withdrawn"
        assert push.wait(FAR) != 0


def test_a_hook_that_was_killed_has_its_question_taken_back_by_the_next_push(world: World) -> None:
    world.clone.commit({"a": key("one")})
    with world.clone.pushing("main") as push:
        item = world.operator.next(push)
        os.kill(running_hook(world), signal.SIGKILL)
        assert push.wait(FAR) != 0
    assert world.ref("main") == ""
    world.clone.git("switch", "--quiet", "--orphan", "clean")
    world.clone.commit({"b": "fine\n"})
    world.clone.pushed("clean")
    assert world.operator.ends(item.proposal.id) == "withdrawn"


def test_the_same_push_twice_is_one_question(world: World) -> None:
    commit = world.clone.commit({"a": key("one")})
    with world.clone.pushing("main") as first, world.clone.pushing("main") as second:
        item = world.operator.next(first)
        while item.requests < 2:
            item = world.operator.inbox.read(item.proposal.id)
            assert second.poll() is None
        world.operator.decide(item, "approved")
        # Both may go through; git itself lets one of two that create a ref do so.
        assert 0 in (first.wait(FAR), second.wait(FAR))
    assert world.ref("main") == commit
    assert len(world.operator.inbox.history()) == 1


def test_another_push_of_the_same_secret_is_another_question(world: World) -> None:
    clone = world.clone
    clone.commit({"readme": "1\n"})
    clone.pushed("main")
    clone.git("switch", "--quiet", "--create", "one")
    clone.commit({"a": key("one")})
    clone.git("switch", "--quiet", "--create", "two", "main")
    other = clone.commit({"a": key("one"), "more": "of it\n"})
    with clone.pushing("one") as first, clone.pushing("+two:main") as second:
        items = {world.operator.next(first).proposal.id, world.operator.next(second).proposal.id}
        assert len(items) == 2
        for item in map(world.operator.inbox.read, items):
            about_main = (
                f"refs/heads/main: from {clone.git('rev-parse', 'main')} to {other}" in item.proposal.proposed_file
            )
            world.operator.decide(item, "rejected" if about_main else "approved")
        assert first.wait(FAR) == 0 and second.wait(FAR) != 0
    assert world.ref("main") == clone.git("rev-parse", "main")


def test_a_forced_push_says_what_it_drops(world: World) -> None:
    clone = world.clone
    clone.commit({"a": "1\n"})
    old = clone.commit({"a": "2\n"})
    clone.pushed("main")
    clone.git("reset", "--quiet", "--hard", "HEAD~1")
    new = clone.commit({"b": key("one")})
    proposal = world.held("+main").item.proposal
    assert f"refs/heads/main: from {old} to {new}, FORCED: 1 commit is dropped\n" in proposal.proposed_file
    assert proposal.justification.startswith("a push to refs/heads/main (forced) of origin.git, 1 new commit\n")


def test_one_who_joins_a_question_has_the_whole_wait(world: World) -> None:
    world.install(timeout=12)
    world.clone.commit({"a": key("one")})
    with world.clone.pushing("main") as first:
        asked = world.operator.next(first)
        world.install(timeout=FAR)
        with world.clone.pushing("main") as second:
            # On a machine so slow that it asks only after the first has ended, it has a question of its own at once.
            eventually(lambda: world.operator.inbox.read(asked.proposal.id).requests == 2 or first.poll() is not None)
            # What ends the first's wait does not end that of the one that came later.
            assert first.wait(FAR) != 0
            again = world.operator.next(second)
            assert again.proposal.payload_sha256 == asked.proposal.payload_sha256
            world.operator.decide(again, "approved")
            assert second.wait(FAR) == 0


def test_the_pusher_is_told_how_it_goes_away(world: World) -> None:
    clone = world.clone
    clone.commit({"readme": "1\n"})
    clone.pushed("main")
    bad = clone.commit({"settings/prod.py": f"a = 1\n{key('one')}"})
    said = world.held("main").said
    assert f"{AWS} in settings/prod.py, line 2, commit {bad[:12]}" in said
    assert "AWS credentials" in said and "The upstream has nothing of this push." in said
    assert "git commit --amend --all --no-edit" in said and "A commit on top that removes it does not help" in said
    clone.commit({"settings/prod.py": "a = 1\n"})
    held = world.held("main")
    assert f"git rebase --interactive {bad[:12]}^" in held.said
    assert f"bot-bottle approve {held.item.proposal.id}" in held.said
    assert "waiting up to 60 s" in held.said and "Ctrl-C" in held.said
    for hidden in (str(world.home), "proposal", "canary", "payload", secret("one")):
        assert hidden not in held.said.replace(f"file://{world.bare}", ""), hidden


def test_every_place_of_a_secret_is_named(world: World) -> None:
    """Once for each line of the file that it stands in, whichever versions have that line."""
    clone = world.clone
    clone.commit({"readme": "1\n"})
    clone.pushed("main")
    first = clone.commit({"a": key("one")})
    clone.commit({"a": key("one") + "more = 1\n"})
    moved = clone.commit({"a": "more = 1\nmore = 2\n" + key("one")})
    twice = clone.commit({"a": f"{key('one')}more = 1\nagain_{key('one')}"})
    held = world.held("main")
    proposal = held.item.proposal
    places = f"line 3 in commit {moved[:12]}, line 3 in commit {twice[:12]}"
    assert proposal.justification.splitlines()[1:] == [f"{AWS} in a, line 1, commit {first[:12]}, and {places}"]
    assert f"   and {places}\n" in proposal.proposed_file
    assert f'(mark as "edit": {first[:12]}, {moved[:12]}, {twice[:12]})' in held.said
    for number in range(60):
        clone.commit({"a": "\n" * (number + 4) + key("one")})
    held = world.held("main")
    assert held.item.proposal.justification.endswith(f"commit {first[:12]} and 62 more places")
    assert held.item.proposal.proposed_file.count(", line ") == 49
    assert " and 12 more places\n" in held.item.proposal.proposed_file


# --- What an approval covers


def test_an_approval_without_a_grant_is_about_one_push(world: World) -> None:
    world.clone.commit({"a": key("one")})
    assert world.held("main:one", status="approved").code == 0
    # Otherwise it would be known: the same secret in the same file.
    world.clone.git(f"--git-dir={world.bare}", "update-ref", "-d", "refs/heads/one")
    world.clone.git("commit", "--quiet", "--amend", "--message", "again")
    assert world.held("+main:two").code != 0


def test_a_grant_outlives_rebase_squash_and_move_within_the_file(world: World) -> None:
    clone = world.clone
    clone.commit({"other": "1\n"})
    clone.pushed("main")
    clone.git("switch", "--quiet", "--create", "work")
    clone.commit({"a": key("one")})
    clone.commit({"b": "2\n"})
    assert world.held("work", status="approved", grant="bottle").code == 0
    clone.pushed(":work")
    clone.git("switch", "--quiet", "main")
    clone.commit({"other": "2\n"})
    clone.git("rebase", "--quiet", "main", "work")
    assert "possible secrets that were allowed before: 1" in clone.pushed("work:rebased")
    clone.pushed(":rebased")
    clone.git("reset", "--quiet", "--soft", "main")
    clone.commit({"a": f"# on another line now\n\n{key('one')}"})
    clone.pushed("work:squashed")


def test_a_grant_covers_neither_another_secret_nor_another_file(world: World) -> None:
    world.clone.commit({"a": key("one")})
    assert world.held("main", status="approved", grant="bottle").code == 0
    world.clone.commit({"a": key("one") + key("two")})
    other_secret = world.held("main")
    assert other_secret.code != 0 and len(other_secret.findings) == 1
    world.clone.commit({"a": key("one"), "b": key("one")})
    # The commit before still has the other secret.
    assert world.held("main").findings == {(AWS, "a"), (AWS, "b")}


def test_a_grant_for_several_findings_covers_some_of_them_but_no_more(world: World) -> None:
    clone = world.clone
    base = clone.commit({"readme": "1\n"})
    clone.pushed("main")
    clone.commit({"a": key("one"), "b": key("two")})
    assert world.held("main:both", status="approved", grant="uses:3").code == 0
    clone.git("reset", "--quiet", "--hard", base)
    clone.commit({"b": key("two")})
    clone.pushed("main:some")
    clone.commit({"a": key("one"), "c": key("three")})
    assert world.held("main:more").findings == {(AWS, "c")}


def test_a_grant_for_once_pays_for_the_push_it_was_given_for(world: World) -> None:
    world.clone.commit({"a": key("one")})
    assert world.held("main:one", status="approved", grant="once").code == 0
    assert GrantStore().list_grants() == []
    # Otherwise it would be known: the same secret in the same file.
    world.clone.git(f"--git-dir={world.bare}", "update-ref", "-d", "refs/heads/one")
    world.clone.git("commit", "--quiet", "--amend", "--message", "again")
    assert world.held("main:two").code != 0


def test_a_grant_is_not_spent_by_a_push_of_something_else(world: World) -> None:
    clone = world.clone
    clone.commit({"a": key("one"), "b": key("two")})
    assert world.held("main:both", status="approved", grant="uses:2").code == 0
    clone.pushed(":both")
    (before,) = GrantStore().list_grants()
    # Nothing at all, another secret in the same file, the same secret in another file.
    for name, files in {
        "clean": {"readme": "1\n"},
        "other": {"a": key("three")},
        "elsewhere": {"c": key("one")},
    }.items():
        clone.git("switch", "--quiet", "--orphan", name)
        clone.commit(dict(files))
        if name == "clean":
            clone.pushed(name)
        else:
            assert world.held(name).code != 0
        assert GrantStore().list_grants() == [before]


def test_a_grant_is_spent_only_by_a_push_that_goes_through(world: World) -> None:
    clone = world.clone
    clone.commit({"a": key("one")})
    assert world.held("main:one", status="approved", grant="uses:3").code == 0
    clone.pushed(":one")
    (before,) = GrantStore().list_grants()
    clone.commit({"b": key("two")})
    refused = world.held("main:two")
    assert refused.code != 0 and refused.findings == {(AWS, "b")}
    assert GrantStore().list_grants() == [before]
    assert world.held("main:two", status="approved").code == 0
    (after,) = GrantStore().list_grants()
    assert (before.uses_left, after.uses_left) == (2, 1)


def test_a_grant_that_ends_while_its_push_is_held_lets_nothing_through(world: World) -> None:
    world.clone.commit({"a": key("one")})
    assert world.held("main:one", status="approved", grant="bottle").code == 0
    world.clone.pushed(":one")
    world.clone.commit({"b": key("two")})
    with world.clone.pushing("main:two") as push:
        item = world.operator.next(push)
        GrantStore().revoke_grant(GrantStore().list_grants()[0].id)
        world.operator.decide(item, "approved")
        _, said = push.communicate(timeout=FAR)
    assert push.returncode != 0 and "an earlier approval that this push needs has ended meanwhile" in said
    assert world.ref("two") == ""


def test_a_revoked_grant_is_none(world: World) -> None:
    world.clone.commit({"a": key("one")})
    assert world.held("main:one", status="approved", grant="bottle").code == 0
    (grant,) = GrantStore().list_grants()
    assert grant.fingerprint.startswith(f"{AWS} a ")
    GrantStore().revoke_grant(grant.id)
    # Otherwise it would be known: the same secret in the same file.
    world.clone.git(f"--git-dir={world.bare}", "update-ref", "-d", "refs/heads/one")
    world.clone.git("commit", "--quiet", "--amend", "--message", "again")
    assert world.held("main:two").code != 0


# --- What is broken refuses the push


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("exit 1", "gitleaks failed (exit code 1)"),
        ("kill -9 $$", "gitleaks was killed by signal 9"),
        ("echo '[]'", "gitleaks did not read everything to the end"),
        ("echo '[]'; exit 42", "gitleaks did not read everything to the end"),
        ("echo '[{\"RuleID\":'; exit 42", "gitleaks' report cannot be read"),
        ("echo oops; exit 42", "gitleaks' report cannot be read"),
        ("echo oops >&2; exit 126", "oops"),
        ("exit 0", "gitleaks ended without a report"),
        ("echo 'Error: unknown command \"dir\"' >&2; exit 1", "it is too old; install 8.25 or newer"),
    ],
)
def test_a_gitleaks_that_fails_refuses_the_push(world: World, body: str, says: str) -> None:
    world.install(gitleaks=script(world.home / "broken", body))
    world.clone.commit({"a": "fine\n"})
    said = world.clone.refused("main")
    assert says in said and world.ref("main") == ""


@pytest.mark.parametrize(
    "broken",
    ["git rev-list", "git cat-file", "git diff-tree", "git"],
)
def test_whatever_fails_no_secret_gets_through(world: World, broken: str) -> None:
    program, _, verb = broken.partition(" ")
    (world.home / "broken").mkdir()
    otherwise = f'case " $* " in *" {verb} "*) ;; *) exec {shutil.which(program)} "$@" ;; esac' if verb else ""
    script(world.home / "broken" / program, f"{otherwise}\nexit 2")
    world.install(timeout=1)
    hook = world.bare / "hooks" / "pre-receive"
    hook.write_text(hook.read_text().replace("bottle=", f"PATH={world.home}/broken:$PATH\nbottle=", 1))
    world.clone.commit({"a": key("one")})
    blob = world.clone.git("hash-object", "-w", "--stdin", stdin=key("two"))
    world.clone.git("tag", "file", blob)
    world.clone.refused("main", "file")
    assert world.ref("main") == world.ref("file") == ""


def test_a_missing_program_refuses_the_push(world: World) -> None:
    world.clone.commit({"a": "fine\n"})
    world.install(gitleaks="/nowhere/gitleaks")
    assert "/nowhere/gitleaks is not there; install it" in world.clone.refused("main")
    world.install(helper="/nowhere/helper")
    assert "/nowhere/helper is not there; install it" in world.clone.refused("main")


def test_a_missing_or_short_key_refuses_the_push(world: World) -> None:
    world.clone.commit({"a": "fine\n"})
    path = world.bare / "bot-bottle" / "key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"short")
    assert "the key has 5 bytes instead of 32" in world.clone.refused("main")
    path.unlink()
    assert "key cannot be read; install the git gate again" in world.clone.refused("main")


def test_a_database_that_cannot_be_used_refuses_the_push(world: World) -> None:
    world.install(database=str(world.home / "nowhere" / "db"))
    world.clone.commit({"a": key("one")})
    assert "push refused: " in world.clone.refused("main")


def test_a_file_too_large_to_scan_is_refused(world: World) -> None:
    world.install(max_file=1000)
    world.clone.commit({"large file": "x" * 1001})
    assert "large file has 1001 bytes; above 1000 it is not scanned" in world.clone.refused("main")
    world.clone.git("commit", "--quiet", "--amend", "--message", "smaller")
    world.clone.git("rm", "--quiet", "large file")
    world.clone.git("commit", "--quiet", "--amend", "--allow-empty", "--message", "none")
    world.clone.pushed("main")


def test_more_secrets_than_anybody_would_look_through_are_refused(world: World) -> None:
    world.clone.commit({"a": "".join(key(str(n)) for n in range(201))})
    assert "gitleaks found 201 possible secrets, more than" in world.clone.refused("main")


def test_rules_of_ones_own(world: World) -> None:
    rules = world.home / "rules.toml"
    rules.write_text("[[rules]]\nid = 'corp'\nregex = 'corp-[0-9]{8}'\n")
    world.install(rules=str(rules))
    world.clone.commit({"a": key("one"), "b": "corp-12345678\n"})
    assert world.held("main").findings == {("corp", "b")}
    rules.write_text("broken")
    assert "push refused" in world.clone.refused("main")


@pytest.mark.parametrize("given", [{}, {"GIT_DIR": "."}])
def test_a_hook_run_by_hand_says_so(world: World, given: dict[str, str]) -> None:
    done = subprocess.run(
        [world.bare / "hooks" / "pre-receive"],
        cwd=world.bare,
        env=environment(world.home, **given),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("bot-bottle: push refused: this hook only works within a push")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("shell", ["busybox sh", "bash --posix"])
def test_the_hook_runs_in_any_posix_shell(world: World, shell: str) -> None:
    program, argument = shell.split()
    if not (path := shutil.which(program)):
        cannot(f"needs {program}")
    hook = world.bare / "hooks" / "pre-receive"
    hook.write_text(hook.read_text().replace("#!/bin/sh", f"#!{path} {argument}", 1))
    commit = world.clone.commit({"a": "fine\n"})
    world.clone.pushed("main")
    assert world.ref("main") == commit
    world.clone.commit({"a": key("one")})
    assert world.held("main").findings == {(AWS, "a")}
    assert world.held("main", status="approved").code == 0
