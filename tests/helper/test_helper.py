"""Does the sidecars' static helper ask, wait, look, take back and note, and can it do nothing else?

Its exit codes are in the table of ``test_cli_errors.py``, which holds for both programs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import child_limits
from bot_bottle import (
    MAX_JUSTIFICATION_BYTES,
    MAX_PAYLOAD_BYTES,
    AuditStore,
    GrantStore,
    Inbox,
    Keys,
    Proposal,
    QueueStore,
    new_id,
    sha256_hex,
)
from cli_process import PROGRAMS
from store_process import Process, decide, eventually, proposal, witness
from transports import over_both

PROGRAM = PROGRAMS / "bot-bottle-sidecar"
VERBS = {"propose", "wait", "answer", "show", "pending", "withdraw", "archive", "use-grant", "audit", "doctor", "help"}


class Helper:
    """The helper in a sidecar of its own: what it finds is what the launch set."""

    def __init__(self, **reach: str) -> None:
        variables = {"db_path": "SUPERVISE_DB_PATH", "url": "SUPERVISE_URL", "token_file": "SUPERVISE_TOKEN_FILE"}
        self.environment = {variables[name]: value for name, value in reach.items()} | {"SUPERVISE_BOTTLE_SLUG": "dev"}

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [PROGRAM, *arguments], stdin=pipe, stdout=pipe, stderr=pipe, env=self.environment | more
        )

    def run(self, *arguments: str, code: int = 0, stdin: bytes = b"", **more: str) -> tuple[str, str]:
        """Standard output and error of a call that must end with ``code``."""
        process = self.start(*arguments, **more)
        out, err = process.communicate(stdin, timeout=60)
        assert process.returncode == code, (arguments, out, err)
        assert b"panicked" not in err
        return out.decode(), err.decode()

    def json(self, *arguments: str, **settings: Any) -> Any:
        out, _ = self.run(*arguments, "--json", **settings)
        assert out.count("\n") == 1
        return json.loads(out)


@pytest.fixture
def helper(reach: dict[str, str]) -> Helper:
    """One of the test's bottle, over the test's transport."""
    return Helper(**reach)


@pytest.fixture
def waits(helper: Helper, inbox: Inbox) -> Iterator[Any]:
    """Starts a wait, and returns once the operator sees somebody waiting."""
    started = []

    def start(*arguments: str, stdin: bytes = b"FROM debian:13\n") -> tuple[subprocess.Popen[bytes], Proposal]:
        process = helper.start(*arguments)
        started.append(process)
        assert process.stdin is not None
        process.stdin.write(stdin)
        process.stdin.close()
        process.stdin = None
        eventually(lambda: [item for item in inbox.pending() if item.waiting])
        return process, inbox.read(inbox.pending()[0].proposal.id).proposal

    yield start
    for process in started:
        with process:
            process.kill()


# --- the program


@pytest.mark.skipif(shutil.which("ldd") is None, reason="needs ldd")
def test_it_needs_no_libraries() -> None:
    said = subprocess.run(["ldd", PROGRAM], capture_output=True, text=True)
    assert "=>" not in said.stdout
    assert re.search("statically linked|not a dynamic executable", said.stdout + said.stderr)


def test_it_is_small() -> None:
    # With the broker's client, its TLS, the tables of Unicode, and all that the git gate's hooks do.
    assert PROGRAM.stat().st_size <= 4.2 * (1 << 20)


def test_it_has_these_verbs_and_none_that_decides(helper: Helper, queue: QueueStore) -> None:
    out, _ = helper.run("--help")
    assert set(re.findall(r"^  ([a-z-]+)  ", out, re.MULTILINE)) == VERBS
    written = queue.write_proposal(proposal())
    for verb in ("approve", "reject", "modify", "decide", "respond", "write-response", "grant", "migrate"):
        out, err = helper.run(verb, written.id, code=2)
        assert out == ""
        assert "unrecognized subcommand" in err
    assert queue.list_pending_proposals() == [written]


@pytest.mark.parametrize("verb", sorted(VERBS - {"help"}))
def test_every_verb_and_flag_explains_itself(helper: Helper, verb: str) -> None:
    out, _ = helper.run(verb, "--help")
    assert out.splitlines()[0]
    for flag in re.findall(r"^ +(?:-\w, )?(--[a-z-]+)(.*)$", out, re.MULTILINE):
        assert flag[1].strip(), flag
    version, _ = helper.run("--version")
    assert re.fullmatch(r"bot-bottle-sidecar \d+\.\d+\.\d+\n", version)


# --- propose


@over_both
def test_a_proposal_from_a_file_is_queued_as_it_is(helper: Helper, queue: QueueStore, tmp_path: Path) -> None:
    payload = "routes:\n- host: pypi.org # ä\r\n"
    (tmp_path / "routes.yaml").write_bytes(payload.encode())
    out, err = helper.run(
        *("propose", "--tool", "egress-allow", "--file", str(tmp_path / "routes.yaml"), "--justification", "bitte, ä"),
        *("--current-hash", "a" * 64, "--fingerprint", "f", "--expires-in", "3600"),
    )
    assert err == ""
    written = queue.read_proposal(out.strip())
    assert written is not None
    assert out == f"{written.id}\n"
    assert (written.bottle_slug, written.tool, written.proposed_file) == ("dev", "egress-allow", payload)
    assert (written.justification, written.current_file_hash, written.fingerprint) == ("bitte, ä", "a" * 64, "f")
    assert written.expires_at is not None


@over_both
@pytest.mark.parametrize("file", [[], ["--file", "-"]])
def test_a_proposal_comes_from_standard_input(helper: Helper, queue: QueueStore, file: list[str]) -> None:
    told = helper.json("propose", "--tool", "t", *file, stdin=b"no newline at the end")
    assert told == {"proposal_id": told["proposal_id"], "status": "pending", "notes": "", "final_file": None}
    written = queue.read_proposal(told["proposal_id"])
    assert written is not None
    assert (written.proposed_file, written.justification) == ("no newline at the end", "")


def test_flags_go_before_the_environment(helper: Helper, db: Path) -> None:
    other = db.with_name("other.db")
    flags = ["--db", str(other), "--bottle", "another"]
    told = helper.json("propose", "--tool", "t", *flags, stdin=b"x")
    assert QueueStore("another", other).read_proposal(told["proposal_id"]) is not None
    assert not db.exists()
    for lacking in ("SUPERVISE_DB_PATH", "SUPERVISE_BOTTLE_SLUG"):
        _, err = helper.run("pending", code=2, **dict[str, Any]({lacking: ""}))
        assert "--db" in err if lacking.endswith("PATH") else "bottle" in err


@over_both
def test_identical_proposals_are_told_the_same_id(helper: Helper, queue: QueueStore) -> None:
    first = helper.json("propose", "--tool", "t", "--justification", "one", stdin=b"same")
    assert helper.json("propose", "--tool", "t", "--justification", "two", stdin=b"same") == first
    assert len(queue.list_pending_proposals()) == 1


@pytest.mark.parametrize(
    ("arguments", "stdin", "says"),
    [
        ([], b"", "empty"),
        ([], b"a" * (MAX_PAYLOAD_BYTES + 1), str(MAX_PAYLOAD_BYTES)),
        ([], b"abc\xff", "offset 3"),
        ([], b"ab\0", "offset 2"),
        (["--justification", "x" * (MAX_JUSTIFICATION_BYTES + 1)], b"x", str(MAX_JUSTIFICATION_BYTES)),
        (["--tool", "a tool"], b"x", "tool"),
        (["--bottle", "Dev"], b"x", "must be 1 to 63"),
        (["--bottle", "../dev"], b"x", "must be 1 to 63"),
        (["--current-hash", "abc"], b"x", "64 lower-case hex"),
        (["--fingerprint", "x" * 513], b"x", "512"),
        (["--file", "/"], b"x", ""),
        (["--expires-in", "soon"], b"x", "not a number"),
        (["--expires-in", "-1"], b"x", ""),
        (["--timeout", "nan"], b"x", ""),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_cannot_be_proposed_is_refused_and_not_queued(
    db: Path, helper: Helper, arguments: list[str], stdin: bytes, says: str
) -> None:
    code = 1 if arguments == ["--file", "/"] else 2
    tool = [] if "--tool" in arguments else ["--tool", "t"]
    out, err = helper.run("propose", *tool, *arguments, stdin=stdin, code=code)
    assert out == ""
    assert says in err
    assert len(err) < 1000
    assert not db.exists()


def test_a_flood_is_not_read_to_its_end(helper: Helper) -> None:
    process = helper.start("propose", "--tool", "t")
    assert process.stdin is not None
    sent = 0
    try:
        while True:
            sent += process.stdin.write(b"x" * 65536)
            assert sent < 64 << 20
    except BrokenPipeError:
        pass
    process.stdin = None
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert str(MAX_PAYLOAD_BYTES).encode() in err


# --- wait


@over_both
@pytest.mark.parametrize(("status", "code"), [("approved", 0), ("modified", 0), ("rejected", 3)])
def test_a_waiting_proposal_ends_with_its_answer(waits: Any, inbox: Inbox, status: str, code: int) -> None:
    process, written = waits("propose", "--tool", "t", "--wait", "--json")
    final = "FROM debian:12\n" if status == "modified" else None
    response = decide(inbox, written, status, notes="said so\nä", final_file=final, decided_by="ann")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, b"")
    told = json.loads(out)
    assert told == response.to_dict()
    assert (told["proposal_id"], told["status"], told["notes"], told["final_file"]) == (
        written.id,
        status,
        "said so\nä",
        final,
    )


def test_an_answer_for_people_is_made_visible(waits: Any, inbox: Inbox) -> None:
    process, written = waits("propose", "--tool", "t", "--wait")
    decide(inbox, written, "modified", notes="\x1b[31mred", final_file="FROM a\u202eb\n", decided_by="a\nb")
    out, _ = process.communicate(timeout=60)
    text = out.decode()
    assert text.startswith("modified by a<U+000A>b\nnotes: <U+001B>[31mred\n")
    assert "-FROM debian:13\n+FROM a<U+202E>b\n" in text


@over_both
def test_a_wait_goes_on_where_another_left_off(helper: Helper, waits: Any, inbox: Inbox) -> None:
    known = helper.json("propose", "--tool", "t", stdin=b"x")["proposal_id"]
    process, written = waits("wait", known, "--json")
    response = decide(inbox, written)
    out, _ = process.communicate(timeout=60)
    assert json.loads(out) == response.to_dict()
    assert helper.json("wait", known) == response.to_dict()  # and again, at once
    helper.run("archive", known)
    assert helper.json("wait", known, "--timeout", "0") == response.to_dict()


@over_both
@pytest.mark.parametrize(
    ("flags", "code", "status"),
    [
        (["--timeout", "0"], 6, "pending"),
        (["--timeout", "0.05"], 6, "pending"),
        (["--expires-in", "0.05"], 5, "expired"),
    ],
)
def test_a_wait_without_an_answer_says_how_it_ended(
    helper: Helper, queue: QueueStore, flags: list[str], code: int, status: str
) -> None:
    out, err = helper.run("propose", "--tool", "t", "--wait", *flags, "--json", stdin=b"x", code=code)
    told = json.loads(out)
    assert told == {"proposal_id": told["proposal_id"], "status": status, "notes": "", "final_file": None}
    assert json.loads(err)["exit_code"] == code
    assert len(queue.list_pending_proposals()) == (status == "pending")
    _, err = helper.run("wait", told["proposal_id"], "--timeout", "0", code=code)
    assert err.startswith("bot-bottle-sidecar: proposal ")
    assert told["proposal_id"] in err
    assert err.count("\n") == 1


@over_both
def test_a_withdrawal_ends_a_wait(waits: Any, queue: QueueStore) -> None:
    process, written = waits("propose", "--tool", "t", "--wait", "--json")
    queue.withdraw_proposal(written.id, "bottle stopped")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 5
    assert json.loads(out)["status"] == "withdrawn"
    assert "bottle stopped" in json.loads(err)["message"]


@over_both
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_proposal_is_withdrawn(waits: Any, inbox: Inbox, number: signal.Signals) -> None:
    process, written = waits("propose", "--tool", "t", "--wait")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, b"")
    announced, *doubt, ended = err.decode().splitlines()
    assert written.id in announced  # so that who reads the log knows what it waits for
    assert ended == "bot-bottle-sidecar: interrupted"
    # It does not stay for a broker's word that is slow to come, and says so; the broker does what it read all the same.
    assert not doubt or "may stay pending" in doubt[0]
    eventually(lambda: inbox.read(written.id).state == "withdrawn")
    assert inbox.read(written.id).withdrawn_reason == "the requester was interrupted"


@over_both
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_proposal_is_kept_on_demand(waits: Any, inbox: Inbox, number: signal.Signals) -> None:
    process, written = waits("propose", "--tool", "t", "--wait", "--keep")
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert [item.proposal.id for item in inbox.pending()] == [written.id]


@over_both
def test_an_interrupted_wait_takes_nothing_back(helper: Helper, waits: Any, inbox: Inbox) -> None:
    known = helper.json("propose", "--tool", "t", stdin=b"x")["proposal_id"]
    process, written = waits("wait", known)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert [item.proposal.id for item in inbox.pending()] == [written.id]


@over_both
def test_an_interrupted_requester_leaves_the_proposal_to_the_others(waits: Any, inbox: Inbox) -> None:
    first, written = waits("propose", "--tool", "t", "--wait", "--json")
    second, _ = waits("propose", "--tool", "t", "--wait", "--json")
    eventually(lambda: inbox.read(written.id).requests == 2)
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    assert first.returncode == 130
    response = decide(inbox, written)
    out, _ = second.communicate(timeout=60)
    assert (second.returncode, json.loads(out)) == (0, response.to_dict())


@over_both
def test_a_killed_waiter_leaves_its_proposal_for_who_asks_again(helper: Helper, waits: Any, inbox: Inbox) -> None:
    process, written = waits("propose", "--tool", "t", "--wait")
    process.kill()
    process.wait()
    assert [item.proposal.id for item in inbox.pending()] == [written.id]
    response = decide(inbox, written)
    assert helper.json("propose", "--tool", "t", stdin=b"other")["proposal_id"] != written.id
    assert helper.json("wait", written.id) == response.to_dict()


# --- show, pending, withdraw, archive


@over_both
def test_show_tells_where_a_proposal_stands(helper: Helper, queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal("a\n\x1b[2J", "why\u200b", expires_in=3600))
    item = queue.inspect(written.id)
    assert item is not None
    assert helper.json("show", written.id) == item.to_dict()
    out, _ = helper.run("show", written.id)
    assert "state          pending\n" in out
    assert f"sha256 {written.payload_sha256}" in out
    assert "justification  why<U+200B>\n" in out
    assert out.endswith("a\n<U+001B>[2J\n")
    decide(inbox, written, "rejected", notes="no")
    assert helper.json("show", written.id)["response"]["notes"] == "no"
    out, _ = helper.run("show", written.id)
    assert "rejected" in out


def test_pending_lists_this_bottle_s_own(db: Path, helper: Helper, queue: QueueStore) -> None:
    assert helper.json("pending") == []
    assert helper.run("pending") == ("", "")
    assert not db.exists()
    written = [queue.write_proposal(proposal(None, why)) for why in ("one", "two\nlines\x07")]
    QueueStore("other", db).write_proposal(proposal(slug="other"))
    assert helper.json("pending") == [item.to_dict() for item in queue.pending()]
    assert [item["id"] for item in helper.json("pending")] == [known.id for known in written]
    out, _ = helper.run("pending")
    assert [line.split()[0] for line in out.splitlines()] == [known.id for known in written]
    assert "two<U+000A>lines<U+0007>" in out


def test_another_bottle_s_proposals_are_not_there(db: Path, helper: Helper) -> None:
    other = QueueStore("other", db).write_proposal(proposal(slug="other"))
    for verb in ("show", "wait", "withdraw", "archive"):
        _, err = helper.run(verb, other.id, code=4)
        assert other.id in err
    assert len(QueueStore("other", db).list_pending_proposals()) == 1


@over_both
def test_withdraw_and_archive(helper: Helper, queue: QueueStore, inbox: Inbox) -> None:
    one, two = queue.write_proposal(proposal()), queue.write_proposal(proposal())
    told = helper.json("withdraw", one.id, "--reason", "found another way")
    assert told == {"proposal_id": one.id, "status": "withdrawn", "notes": "found another way", "final_file": None}
    assert inbox.read(one.id).withdrawn_reason == "found another way"
    decide(inbox, two)
    assert helper.json("archive", two.id)["status"] == "archived"
    assert inbox.read(two.id).archived_at is not None
    assert helper.run("archive", one.id) == (f"archived {one.id}\n", "")
    assert helper.run("withdraw", one.id) == (f"withdrawn {one.id}\n", "")  # twice is no error


# --- use-grant, audit append


@over_both
def test_a_grant_is_used_up(transport: str, db: Path, helper: Helper, queue: QueueStore, inbox: Inbox) -> None:
    flags = ["--tool", "egress-token-allow", "--fingerprint", "api.example.com:5a2c"]
    _, err = helper.run("use-grant", *flags, code=4)
    assert "api.example.com:5a2c" in err
    assert db.exists() == (transport == "broker")  # the bottle is in there, and nothing was added
    written = queue.write_proposal(proposal(tool="egress-token-allow", fingerprint="api.example.com:5a2c"))
    decide(inbox, written, notes="a test key", grant="uses:2")
    told = helper.json("use-grant", *flags)
    assert told == GrantStore(db).list_grants()[0].to_dict()
    assert told["uses_left"] == 1
    assert helper.run("use-grant", *flags)[0] == f"used {told['id']}\n"
    helper.run("use-grant", *flags, code=4)
    helper.run("use-grant", "--tool", "egress-token-allow", "--fingerprint", "other", code=4)


def test_an_entry_is_appended(db: Path, helper: Helper) -> None:
    arguments = ["audit", "append", "--component", "egress", "--action", "reload-failed"]
    told = helper.json(*arguments, "--notes", "line 3: ä")
    (entry,) = AuditStore(db).read_audit_entries("egress", "dev")
    assert told == entry.to_dict()
    assert (entry.operator_action, entry.operator_notes, entry.surface) == ("reload-failed", "line 3: ä", "api")
    assert helper.run(*arguments)[0] == "appended entry 2\n"
    assert AuditStore(db).verify().entries == 2
    helper.run("audit", "append", "--component", "Not A Name", "--action", "x", code=2)


# --- doctor


def test_the_doctor_says_what_it_sees(db: Path, helper: Helper, queue: QueueStore) -> None:
    told = helper.json("doctor")
    assert (told["exists"], told["real_path"], told["mount_safe"], told["problem"]) == (False, str(db), True, None)
    assert not db.exists()
    queue.write_proposal(proposal())
    told = helper.json("doctor")
    assert told["exists"] is True
    assert told["wake_up_ms"] > 0
    assert {module["found"] == module["supported"] for module in told["modules"].values()} == {True}
    out, _ = helper.run("doctor")
    assert str(db) in out
    assert "safe to share" in out
    assert "wake-up     heard after" in out


@over_both
def test_answers_are_taken_as_the_keys_say(
    db: Path, helper: Helper, inbox: Inbox, queue: QueueStore, tmp_path: Path
) -> None:
    assert helper.json("doctor")["trusts"] is None
    assert "no keys were given" in helper.run("doctor")[0]
    written = queue.write_proposal(proposal())
    decide(inbox, written)
    keys = {"SUPERVISE_OPERATOR_KEY_FILE": str(Keys(db).keyring_file)}
    assert helper.run("wait", written.id, **keys)[0].startswith("approved")
    (host,) = Keys(db).all()
    assert host.id in helper.run("doctor", **keys)[0]
    strangers = Keys(tmp_path / "elsewhere.db")
    strangers.rotate()
    err = helper.run("wait", written.id, "--operator-keys", str(strangers.keyring_file), code=7)[1]
    assert "not one of those trusted" in err
    missing = str(tmp_path / "missing")
    assert missing in helper.run("wait", written.id, "--operator-keys", missing, code=7)[1]
    assert missing in helper.run("doctor", "--operator-keys", missing, code=1)[1]


def test_the_doctor_names_the_illness(db: Path, helper: Helper, queue: QueueStore) -> None:
    queue.write_proposal(proposal())
    witness(db, "UPDATE schema_versions SET version = 99, compat = 99 WHERE module = 'queue_store'")
    out, err = helper.run("doctor", "--json", code=8)
    assert "99" in json.loads(out)["problem"]
    assert json.loads(err)["error"] == "SchemaTooNewError"


@pytest.mark.skipif(not child_limits.can_mount(), reason="needs root, to mount")
def test_the_doctor_warns_of_a_mounted_file(db: Path, tmp_path: Path, queue: QueueStore) -> None:
    def examine(program: str, source: str, target: str) -> None:
        import subprocess

        from child_limits import mount

        mount(source, target)
        for verb in (["doctor", "--json"], ["pending", "--bottle", "dev"]):
            done = subprocess.run([program, *verb, "--db", target], capture_output=True, text=True)
            print(done.returncode, done.stdout, done.stderr.replace("\n", " "))

    queue.write_proposal(proposal())
    inside = tmp_path / "bot-bottle.db"
    inside.touch()
    with Process(examine, PROGRAM, db, inside) as sidecar:
        said = sidecar.ends()
    assert said.count("8 ") >= 2
    assert '"mount_safe":false' in said
    assert "mount its directory instead" in said


# --- manners


@over_both
def test_an_error_is_json_where_answers_are(helper: Helper) -> None:
    unknown = new_id()
    out, err = helper.run("show", unknown, "--json", code=4)
    error = json.loads(err)
    assert (out, error["error"], error["exit_code"]) == ("", "NotFoundError", 4)
    assert unknown in error["message"]


@over_both
def test_a_hostile_id_does_not_reach_the_terminal(helper: Helper) -> None:
    _, err = helper.run("show", "\x1b[31m\u202eid", code=4)
    assert "\x1b" not in err
    assert "\u202e" not in err


@over_both
def test_a_reader_that_goes_away_is_no_failure(helper: Helper, queue: QueueStore) -> None:
    written = queue.write_proposal(proposal("x" * 500_000))
    process = helper.start("show", written.id)
    assert process.stdout is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 0


def test_closed_streams_do_not_reach_the_database(helper: Helper, db: Path, tmp_path: Path) -> None:
    """A file that is opened as descriptor 2 would get the error messages."""
    (tmp_path / "payload").write_text("x\n")
    propose = f"{PROGRAM} propose --tool t --file {tmp_path / 'payload'}"
    for closed in ("<&- >&- 2>&-", ">&-", "2>&-"):
        done = subprocess.run(
            ["bash", "-c", f"{propose} {closed}"], env=helper.environment | {"PATH": os.environ["PATH"]}
        )
        assert done.returncode == 0
        subprocess.run(["bash", "-c", f"{PROGRAM} show nope {closed}"], env=helper.environment | os.environ)
    assert witness(db, "PRAGMA integrity_check") == [["ok"]]
    assert len(QueueStore("dev", db).list_pending_proposals()) == 1


def test_it_and_the_package_are_one_release(helper: Helper) -> None:
    import bot_bottle

    assert helper.run("--version")[0].split()[1] == bot_bottle.__version__


@over_both
def test_python_and_helper_see_the_same(db: Path, helper: Helper, queue: QueueStore) -> None:
    written = queue.write_proposal(proposal("both\n"))
    told = helper.json("show", written.id)
    assert told["payload_sha256"] == sha256_hex("both\n")
    assert told["id"] == written.id
