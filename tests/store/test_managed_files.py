"""Is an approved file in effect when its waiter hears of it, and never written over what somebody else wrote?"""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import child_limits
from bot_bottle import (
    AuditStore,
    BottleStore,
    Inbox,
    InvalidInputError,
    Proposal,
    ProposalWithdrawnError,
    QueueStore,
    StaleReviewError,
    sha256_hex,
)
from cli_process import Host
from store_process import Process, assert_sound, decide, eventually, proposal, witness

TOOL = "egress-allow"
BEFORE, AFTER = "routes: []\n", "routes:\n- host: pypi.org\n"
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
needs_seccomp = pytest.mark.skipif(not child_limits.can_die, reason="needs seccomp, on a processor known here")


class Managed:
    """A bottle with one managed file on the host's own database."""

    def __init__(self, root: Path) -> None:
        self.dir = root / "bottles" / "dev"
        self.dir.mkdir(parents=True)
        self.file = self.dir / "routes.yaml"
        self.file.write_text(BEFORE)
        self.db = root / "db" / "bot-bottle.db"
        BottleStore().register("dev", backend="docker", files={TOOL: "routes.yaml"})
        self.queue, self.inbox = QueueStore("dev"), Inbox()

    def proposes(self, payload: str = AFTER, **fields: Any) -> Proposal:
        return self.queue.write_proposal(proposal(payload, tool=TOOL, **fields))

    def decides(self, written: Proposal, status: str = "approved", **more: Any) -> Any:
        return decide(self.inbox, written, status, **more)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.dir.iterdir())


@pytest.fixture
def managed(host: Host) -> Iterator[Managed]:
    bottle = Managed(host.root)
    with bottle.queue, bottle.inbox:
        yield bottle


# --- in effect


def test_an_approval_is_in_effect_when_the_waiter_hears_of_it(managed: Managed) -> None:
    written = managed.proposes()
    (item,) = managed.inbox.pending()
    assert item.managed_file == str(managed.file)
    seen: list[Any] = []
    managed.queue.begin_wait(written.id, lambda answer: seen.extend([managed.file.read_text(), answer]))
    response = managed.decides(written)
    eventually(lambda: len(seen) == 2)
    assert seen == [AFTER, response]
    assert response.applied_at is not None
    assert response.applied_at >= response.decided_at
    assert managed.queue.read_response(written.id) == response
    item = managed.inbox.read(written.id)
    assert (item.apply_state, item.apply_error) == ("applied", None)
    assert [change.kind for change in managed.inbox.changes()] == ["proposed", "approved", "applied"]
    assert managed.names() == ["routes.yaml"]


def test_a_modification_writes_what_the_operator_wrote(managed: Managed) -> None:
    response = managed.decides(managed.proposes(), "modified", final_file="routes: [] # no\n")
    assert managed.file.read_text() == "routes: [] # no\n"
    assert response.final_sha256 == sha256_hex("routes: [] # no\n")


def test_a_rejection_leaves_the_file_alone(managed: Managed) -> None:
    before = managed.file.stat()
    response = managed.decides(managed.proposes(), "rejected")
    assert (managed.file.stat().st_ino, managed.file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert response.applied_at is None


def test_the_log_has_the_change_from_what_was_there(managed: Managed) -> None:
    for status, final in (("approved", None), ("modified", "x\n"), ("rejected", None)):
        current = managed.file.read_text()
        written = managed.proposes(f"{status}\n")
        managed.decides(written, status, final_file=final)
        diff = AuditStore().read_audit_entries(limit=1)[0].diff
        label = str(managed.file).lstrip("/")
        assert diff.startswith(f"--- a/{label}\n+++ b/{label}\n@@")
        for line in current.splitlines():
            assert f"-{line}\n" in diff
        assert f"+{(final or written.proposed_file).strip()}" in diff


def test_another_tool_of_the_bottle_writes_nothing(managed: Managed) -> None:
    response = managed.decides(managed.queue.write_proposal(proposal(tool="capability-block")))
    assert response.applied_at is None
    assert managed.file.read_text() == BEFORE


def test_an_absent_file_is_created_for_its_owner_alone(managed: Managed) -> None:
    managed.file.unlink()
    managed.decides(managed.proposes())
    assert managed.file.read_text() == AFTER
    assert managed.file.stat().st_mode & 0o777 == 0o600


@needs_root
def test_owner_and_mode_are_kept(managed: Managed) -> None:
    os.chown(managed.file, NOBODY, NOBODY)
    managed.file.chmod(0o2750)
    managed.decides(managed.proposes())
    after = managed.file.stat()
    assert (managed.file.read_text(), after.st_uid, after.st_gid) == (AFTER, NOBODY, NOBODY)
    assert after.st_mode & 0o7777 == 0o2750


def test_a_reader_sees_the_old_file_or_the_new_never_half(managed: Managed) -> None:
    def read(path: str, *sizes: int) -> None:
        print("reading")
        seen: set[int] = set()
        while len(seen) < 2:
            with open(path) as file:
                seen.add(len(file.read()))
        print(seen == set(sizes))

    large = "x" * 1_000_000
    written = managed.proposes(large)
    with Process(read, managed.file, len(BEFORE), len(large)) as reader:
        reader.says()
        managed.decides(written)
        assert reader.ends() == "True\n"


# --- changed meanwhile


@pytest.mark.parametrize("says_so", [True, False], ids=["hash given", "hash taken at the write"])
def test_a_file_changed_since_the_proposal_is_left_as_it_is(managed: Managed, says_so: bool) -> None:
    written = managed.proposes(current_file_hash=sha256_hex(BEFORE) if says_so else None)
    managed.file.write_text("somebody: else\n")
    for status, final in (("approved", None), ("modified", "x\n")):
        with pytest.raises(StaleReviewError, match=str(managed.file)) as caught:
            managed.decides(written, status, final_file=final)
        assert caught.value.exit_code == 5
        assert (caught.value.proposal_id, caught.value.expected) == (written.id, sha256_hex(BEFORE))
        assert caught.value.actual == sha256_hex("somebody: else\n")
    assert managed.file.read_text() == "somebody: else\n"
    assert [item.proposal.id for item in managed.inbox.pending()] == [written.id]
    assert AuditStore().read_audit_entries() == []
    assert managed.names() == ["routes.yaml"]
    managed.decides(written, "rejected", notes="propose it again")


def test_a_proposal_that_was_written_against_another_file_is_stale(managed: Managed) -> None:
    written = managed.proposes(current_file_hash=sha256_hex("never there\n"))
    with pytest.raises(StaleReviewError):
        managed.decides(written)
    assert managed.file.read_text() == BEFORE


def test_a_file_that_appeared_or_vanished_is_a_change(managed: Managed) -> None:
    written = managed.proposes()
    managed.file.unlink()
    with pytest.raises(StaleReviewError) as caught:
        managed.decides(written)
    assert (caught.value.expected, caught.value.actual) == (sha256_hex(BEFORE), None)
    assert not managed.file.exists()
    again = managed.proposes("b\n")
    managed.file.write_text("appeared\n")
    with pytest.raises(StaleReviewError) as caught:
        managed.decides(again)
    assert (caught.value.expected, caught.value.actual) == (None, sha256_hex("appeared\n"))
    assert managed.file.read_text() == "appeared\n"


def test_of_two_proposals_against_one_file_the_second_is_stale(managed: Managed) -> None:
    first, second = managed.proposes("one\n"), managed.proposes("two\n")
    managed.decides(first)
    with pytest.raises(StaleReviewError):
        managed.decides(second)
    assert managed.file.read_text() == "one\n"


def test_two_deciders_write_one_file_between_them(managed: Managed) -> None:
    def approve(known: str, payload_sha256: str) -> None:
        from bot_bottle import BotBottleError, Inbox

        with Inbox() as inbox:
            print("ready")
            input()
            try:
                print(inbox.decide(known, "approved", payload_sha256=payload_sha256).status)
            except BotBottleError as error:
                print(type(error).__name__)

    for _ in range(3):
        written = [managed.proposes(f"{managed.file.read_text()}# {name}\n") for name in "ab"]
        deciders = [Process(approve, known.id, known.payload_sha256) for known in (*written, *written)]
        for decider in deciders:
            assert decider.says() == "ready"
        for decider in deciders:
            decider.tell()
        ends = sorted(decider.ends().strip() for decider in deciders)
        assert ends.count("approved") == 1
        assert set(ends) <= {"approved", "AlreadyDecidedError", "StaleReviewError"}
        (won,) = [known for known in written if managed.inbox.read(known.id).state == "approved"]
        assert managed.file.read_text() == won.proposed_file
        for item in managed.inbox.pending():
            managed.decides(managed.inbox.read(item.proposal.id).proposal, "rejected")
    assert_sound(managed.db)


# --- not a file that a decision may write (any more)


@pytest.mark.parametrize("trick", ["symlink", "dangling symlink", "directory", "fifo"])
def test_what_is_no_regular_file_is_neither_followed_nor_replaced(managed: Managed, tmp_path: Path, trick: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text(BEFORE)
    written = managed.proposes()
    managed.file.unlink()
    if trick == "directory":
        managed.file.mkdir()
    elif trick == "fifo":
        os.mkfifo(managed.file)
    else:
        managed.file.symlink_to(victim if trick == "symlink" else tmp_path / "nowhere")
    with pytest.raises(InvalidInputError, match="symlink" if "symlink" in trick else "not a regular file") as caught:
        managed.decides(written)
    assert caught.value.exit_code == 2
    assert str(managed.file) in str(caught.value)
    assert victim.read_text() == BEFORE
    assert not (tmp_path / "nowhere").exists()
    assert managed.names() == ["routes.yaml"]
    assert len(managed.inbox.pending()) == 1


def test_a_directory_that_was_replaced_by_a_symlink_is_not_followed(managed: Managed, tmp_path: Path) -> None:
    written = managed.proposes()
    elsewhere = tmp_path / "elsewhere"
    managed.dir.rename(elsewhere)
    managed.dir.symlink_to(elsewhere)
    with pytest.raises(InvalidInputError, match="symlink"):
        managed.decides(written)
    assert (elsewhere / "routes.yaml").read_text() == BEFORE
    assert len(managed.inbox.pending()) == 1


def test_a_directory_that_is_gone_decides_nothing(managed: Managed) -> None:
    written = managed.proposes()
    shutil.rmtree(managed.dir)
    with pytest.raises(InvalidInputError, match=str(managed.dir)):
        managed.decides(written)
    assert len(managed.inbox.pending()) == 1
    managed.decides(written, "rejected")


def test_a_directory_that_cannot_be_written_decides_nothing(managed: Managed) -> None:
    def approve(known: str, payload_sha256: str) -> None:
        from bot_bottle import BotBottleError, Inbox
        from child_limits import drop_privileges

        drop_privileges()
        try:
            Inbox().decide(known, "approved", payload_sha256=payload_sha256)
        except BotBottleError as error:
            print(isinstance(error, OSError), error)

    written = managed.proposes()
    managed.dir.chmod(0o500)
    with Process(approve, written.id, written.payload_sha256) as decider:
        said = decider.ends()
    managed.dir.chmod(0o700)
    assert said.startswith("True ")
    assert str(managed.file) in said
    assert "ermission denied" in said
    assert (managed.file.read_text(), managed.names()) == (BEFORE, ["routes.yaml"])
    assert [item.proposal.id for item in managed.inbox.pending()] == [written.id]


# --- a crash


def approve_and_die(known: str, payload_sha256: str, call: str) -> None:
    from bot_bottle import Inbox
    from child_limits import die_at

    inbox = Inbox()
    die_at(call)
    inbox.decide(known, "approved", payload_sha256=payload_sha256, decided_by="ann")


def crash(managed: Managed, written: Proposal, call: str) -> None:
    with Process(approve_and_die, written.id, written.payload_sha256, call) as decider:
        decider.ends(child_limits.CODE)


@needs_seccomp
def test_a_crash_before_the_decision_decided_nothing(managed: Managed) -> None:
    written = managed.proposes()
    crash(managed, written, "fsync")  # of the staged file
    assert managed.file.read_text() == BEFORE
    assert [item.proposal.id for item in managed.inbox.pending()] == [written.id]
    assert len(managed.names()) == 2  # what was staged
    with Inbox():
        assert managed.names() == ["routes.yaml"]
    managed.decides(written)
    assert (managed.file.read_text(), managed.names()) == (AFTER, ["routes.yaml"])


@needs_seccomp
def test_what_a_killed_decider_staged_is_gone_with_the_next_decision(managed: Managed) -> None:
    crash(managed, managed.proposes(), "fsync")
    managed.decides(managed.proposes("routes:\n- host: example.org\n"))
    assert managed.names() == ["routes.yaml"]


@needs_seccomp
def test_notes_of_staged_files_that_somebody_else_wrote_delete_nothing(managed: Managed, tmp_path: Path) -> None:
    written = managed.proposes()
    crash(managed, written, "renameat")  # its content is staged for a decision
    staged = managed.names()
    (notes,) = managed.db.parent.glob("*-apply")
    notes.write_text(f"../routes.yaml\n/etc/passwd\n\n{written.id}\n{written.id[:-1]}\nroutes.yaml\n" + "x" * 100_000)
    aside = managed.dir.with_name("aside")
    managed.dir.rename(aside)
    assert managed.inbox.recover() == 0
    aside.rename(managed.dir)
    assert managed.names() == staged
    assert managed.inbox.recover() == 1
    assert (managed.file.read_text(), managed.names()) == (AFTER, ["routes.yaml"])


@needs_seccomp
def test_a_decision_that_was_put_away_is_never_in_effect_and_its_waiter_is_told(managed: Managed) -> None:
    written = managed.proposes()
    got: list[Any] = []
    managed.queue.begin_wait(written.id, got.append)
    crash(managed, written, "renameat")
    managed.queue.archive_proposal(written.id)
    eventually(lambda: got)
    with Inbox() as inbox:
        assert inbox.recover() == 0
    assert (managed.file.read_text(), managed.names()) == (BEFORE, ["routes.yaml"])
    assert isinstance(got[0], ProposalWithdrawnError)
    assert "put away before its file was in effect" in str(got[0])
    with pytest.raises(ProposalWithdrawnError):
        managed.queue.wait_for_response(written.id)
    item = managed.inbox.read(written.id)
    assert (item.state, item.apply_state) == ("approved", "failed")
    assert item.archived_at is not None
    assert [change.kind for change in managed.inbox.changes()][-2:] == ["apply_failed", "archived"]


def test_a_decision_that_is_put_away_once_its_file_is_there_stays_in_effect(managed: Managed) -> None:
    written = managed.proposes()
    managed.decides(written)
    witness(managed.db, "UPDATE applies SET state = 'intended'")  # what a crash before the last step leaves
    managed.queue.archive_proposal(written.id)
    assert managed.inbox.read(written.id).apply_state == "applied"
    assert managed.queue.wait_for_response(written.id).status == "approved"
    assert managed.file.read_text() == AFTER


@needs_seccomp
@pytest.mark.parametrize("call", ["utimensat", "renameat"])
def test_a_crash_after_the_decision_is_finished_by_the_next_inbox(managed: Managed, call: str) -> None:
    written = managed.proposes()
    got: list[Any] = []
    managed.queue.begin_wait(written.id, got.append)
    crash(managed, written, call)
    # Decided, and nobody is told before it is in effect.
    item = managed.inbox.read(written.id)
    assert (item.state, item.apply_state) == ("approved", "intended")
    assert [failed.proposal.id for failed in managed.inbox.failed()] == [written.id]
    assert managed.queue.read_response(written.id) is None
    assert (managed.file.read_text(), got) == (BEFORE, [])
    assert_sound(managed.db)
    with Inbox():
        eventually(lambda: got)
        assert managed.file.read_text() == AFTER
    assert (got[0].status, got[0].decided_by) == ("approved", "ann")
    assert managed.inbox.read(written.id).apply_state == "applied"
    assert managed.inbox.failed() == []
    assert managed.names() == ["routes.yaml"]
    assert managed.inbox.recover() == 0
    assert [change.kind for change in managed.inbox.changes()] == ["proposed", "approved", "applied"]


def test_a_crash_after_the_file_was_written_is_finished_without_writing_it_again(managed: Managed) -> None:
    written = managed.proposes()
    managed.decides(written)
    witness(managed.db, "UPDATE applies SET state = 'intended'")  # what a crash before the last step leaves
    before = managed.file.stat()
    assert managed.inbox.recover() == 1
    assert managed.inbox.read(written.id).apply_state == "applied"
    assert managed.file.stat().st_ino == before.st_ino


@needs_seccomp
def test_recovery_leaves_a_file_alone_that_changed_meanwhile(managed: Managed) -> None:
    written = managed.proposes()
    got: list[Any] = []
    managed.queue.begin_wait(written.id, got.append)
    crash(managed, written, "renameat")
    managed.file.write_text("somebody: else\n")
    assert managed.inbox.recover() == 1
    eventually(lambda: got)
    assert isinstance(got[0], StaleReviewError)
    assert managed.file.read_text() == "somebody: else\n"
    (item,) = managed.inbox.failed()
    assert (item.proposal.id, item.state, item.apply_state) == (written.id, "approved", "failed")
    assert item.apply_error is not None
    assert str(managed.file) in item.apply_error
    assert managed.queue.read_response(written.id) is None
    with pytest.raises(StaleReviewError):
        managed.queue.wait_for_response(written.id)
    assert managed.inbox.recover() == 0
    assert managed.inbox.changes()[-1].kind == "apply_failed"


@needs_seccomp
def test_recovery_that_cannot_write_is_tried_again(managed: Managed) -> None:
    written = managed.proposes()
    crash(managed, written, "renameat")
    aside = managed.dir.with_name("aside")
    managed.dir.rename(aside)
    assert managed.inbox.recover() == 0
    assert [item.apply_state for item in managed.inbox.failed()] == ["intended"]
    aside.rename(managed.dir)
    assert managed.inbox.recover() == 1
    assert managed.file.read_text() == AFTER


@needs_seccomp
def test_several_inboxes_finish_a_crash_once(managed: Managed) -> None:
    def open_inbox() -> None:
        from bot_bottle import Inbox

        input()
        Inbox().close()

    written = managed.proposes()
    crash(managed, written, "renameat")
    openers = [Process(open_inbox) for _ in range(4)]
    for opener in openers:
        opener.tell()
    for opener in openers:
        opener.ends()
    assert managed.file.read_text() == AFTER
    assert [change.kind for change in managed.inbox.changes()] == ["proposed", "approved", "applied"]
    assert managed.inbox.read(written.id).apply_state == "applied"


@needs_seccomp
def test_a_crash_is_finished_before_the_next_decision_on_the_same_file(managed: Managed) -> None:
    first = managed.proposes("one\n")
    crash(managed, first, "renameat")
    second = managed.proposes("two\n")  # written against a file that is about to change
    with Inbox() as inbox, pytest.raises(StaleReviewError):
        decide(inbox, second)
    assert managed.file.read_text() == "one\n"


def test_a_stopped_bottle_s_files_are_still_told_of_but_started_ones_count(managed: Managed) -> None:
    written = managed.proposes()
    BottleStore().stop("dev")
    item = managed.inbox.read(written.id)
    assert (item.state, item.withdrawn_reason) == ("withdrawn", "bottle stopped")
    assert managed.file.read_text() == BEFORE


# --- in which order


def approve(db: str, known: str, payload_sha256: str) -> None:
    import os

    from bot_bottle import Inbox, StaleReviewError

    inbox = Inbox(db)
    inbox.pending()
    print(os.getpid())
    try:
        inbox.decide(known, "approved", payload_sha256=payload_sha256)
    except StaleReviewError as error:
        print(error)


@pytest.mark.usefixtures("strace")
def test_a_file_is_on_the_disk_before_its_decision_and_in_place_before_anybody_hears(
    managed: Managed, tmp_path: Path
) -> None:
    written, log = managed.proposes(), tmp_path / "log"
    calls = ["--decode-fds=path", "--trace=fsync,fdatasync,renameat,utimensat", f"--output={log}"]
    with Process(approve, managed.db, written.id, written.payload_sha256, strace=calls) as decider:
        decider.ends()
    steps = [
        ("its content", rf"fsync\(\d+<{managed.dir}/\.routes\.yaml\.{written.id}>"),
        ("its name", rf"fsync\(\d+<{managed.dir}>"),
        ("the decision", r"fdatasync\(\d+<.*-wal>"),
        ("the exchange", rf'renameat\(\d+<{managed.dir}>, "\.routes\.yaml\.{written.id}", .*"routes\.yaml"'),
        ("its name", rf"fsync\(\d+<{managed.dir}>"),
        ("that it is in effect", r"fdatasync\(\d+<.*-wal>"),
        ("the bell", r"utimensat\(.*bells/dev"),
    ]
    rest = log.read_text()
    for step, call in steps:
        found = re.search(call, rest)
        assert found, f"{step} is missing or too early: {rest}"
        rest = rest[found.end() :]
    assert "renameat" not in rest


@pytest.mark.usefixtures("strace")
def test_a_file_that_changes_between_its_decision_and_the_exchange_is_left_alone(
    managed: Managed, tmp_path: Path
) -> None:
    written, log = managed.proposes(), tmp_path / "log"
    # Stopped as soon as the decision is on the disk.
    stops = ["--trace=fdatasync", "--inject=fdatasync:signal=STOP:when=1", f"--output={log}"]
    with Process(approve, managed.db, written.id, written.payload_sha256, strace=stops) as decider:
        pid = int(decider.says())
        eventually(lambda: "stopped by SIGSTOP" in log.read_text())
        managed.file.write_text("somebody else's\n")
        os.kill(pid, signal.SIGCONT)
        assert "changed" in decider.ends()
    item = managed.inbox.read(written.id)
    assert (item.state, item.apply_state) == ("approved", "failed")
    assert (managed.file.read_text(), managed.names()) == ("somebody else's\n", ["routes.yaml"])
    with pytest.raises(StaleReviewError, match=written.id):
        managed.queue.wait_for_response(written.id, 20)
    assert_sound(managed.db)
