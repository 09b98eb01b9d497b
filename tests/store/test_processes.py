"""Do many processes and threads share one file without losing, doubling or blocking anything, even if they die?"""

from __future__ import annotations

import multiprocessing
import random
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

import child_limits
from bot_bottle import AuditStore, Database, Inbox, QueueStore, supervise
from cli_process import Host
from store_process import Process, assert_sound, decide, eventually, proposal, witness

needs_seccomp = pytest.mark.skipif(not child_limits.can_die, reason="needs seccomp, on a processor known here")


# --- a fresh file


def write_first(paths: list[str | None], name: str) -> None:
    from bot_bottle import Proposal, QueueStore

    for path in paths:
        print("ready")
        input()
        QueueStore(name, path).write_proposal(Proposal.new(name, "t", "x"))


def start_together(writers: list[Process]) -> None:
    """Once all are ready."""
    for writer in writers:
        assert writer.says() == "ready"
    for writer in writers:
        writer.tell()


def test_many_processes_make_a_fresh_file_at_once(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.db" for n in range(12)]
    writers = [Process(write_first, [str(path) for path in paths], f"w{n}") for n in range(8)]
    for _ in paths:
        start_together(writers)
    for writer in writers:
        writer.ends()
    for path in paths:
        assert len(Inbox(path).pending()) == 8
        assert Database(path).check() == []


def test_many_processes_make_a_fresh_root_at_once(host: Host) -> None:
    writers = [Process(write_first, [None], f"w{n}") for n in range(8)]
    start_together(writers)
    for writer in writers:
        writer.ends()
    assert len(Inbox().pending()) == 8
    assert_sound(host.root / "db" / "bot-bottle.db")


# --- one decision


def test_of_many_deciders_one_decides(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    def decide_each(db: str, name: str, status: str, ids: list[list[str]]) -> None:
        from bot_bottle import AlreadyDecidedError, Inbox

        inbox = Inbox(db)
        print("ready")
        input()
        for known, payload_sha256 in ids:
            try:
                inbox.decide(known, status, payload_sha256=payload_sha256, decided_by=name)
                print("won")
            except AlreadyDecidedError as error:
                print(error.decided_by)

    written = [queue.write_proposal(proposal()) for _ in range(40)]
    ids = [[known.id, known.payload_sha256] for known in written]
    deciders = {
        name: Process(decide_each, db, name, status, ids)
        for name, status in (("ann", "approved"), ("bob", "rejected"), ("eve", "approved"), ("joe", "rejected"))
    }
    for decider in deciders.values():
        assert decider.says() == "ready"
    for decider in deciders.values():
        decider.tell()
    said = {name: decider.ends().split() for name, decider in deciders.items()}
    for n, known in enumerate(written):
        (winner,) = [name for name in said if said[name][n] == "won"]
        assert {said[name][n] for name in said} == {"won", winner}
        response = queue.read_response(known.id)
        assert response is not None
        assert response.decided_by == winner
    assert AuditStore(db).verify().entries == len(written)
    assert_sound(db)


def test_a_withdrawal_and_a_decision_at_once_end_as_one_of_them(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    def withdraw_each(db: str, ids: list[str]) -> None:
        from bot_bottle import AlreadyDecidedError, QueueStore

        queue = QueueStore("dev", db)
        print("ready")
        for known in ids:
            try:
                queue.withdraw_proposal(known)
                print("withdrawn")
            except AlreadyDecidedError as error:
                print(error.status)

    written = [queue.write_proposal(proposal()) for _ in range(40)]
    with Process(withdraw_each, db, [known.id for known in written]) as withdrawer:
        assert withdrawer.says() == "ready"
        for known in reversed(written):
            try:
                decide(inbox, known, "rejected")
            except Exception as error:
                assert "withdrawn" in str(error)
        said = withdrawer.ends().split()
    assert [inbox.read(known.id).state for known in written] == said
    assert_sound(db)


# --- threads


def test_threads_share_a_store(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    def round_trip(n: int) -> str:
        written = queue.write_proposal(proposal(f"thread {n}"))
        decide(inbox, written, notes=str(n))
        return queue.wait_for_response(written.id, 20).notes

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(round_trip, range(80))) == [str(n) for n in range(80)]
    assert AuditStore(db).verify().entries == 80
    assert_sound(db)


def test_closing_while_others_use_it_is_an_error_and_no_harm(db: Path) -> None:
    for _ in range(5):
        queue = QueueStore("dev", db)
        begun = threading.Barrier(5)

        def use(queue: QueueStore = queue, begun: threading.Barrier = begun) -> str:
            begun.wait()
            try:
                while True:
                    queue.write_proposal(proposal("same"))
                    queue.list_pending_proposals()
            except Exception as error:
                return type(error).__name__

        with ThreadPoolExecutor(4) as pool:
            ends = [pool.submit(use) for _ in range(4)]
            begun.wait()
            time.sleep(0.02)
            queue.close()
            # Coalesced requests are capped; on a fast machine that may come first.
            assert {end.result(20) for end in ends} <= {"ClosedError", "InvalidProposalError"}
    assert_sound(db)


# --- fork, spawn


def fork_and_use(db: str, how: str) -> None:
    import os
    import sys
    import threading
    import time

    from bot_bottle import DatabaseUnavailableError, Inbox, Proposal, QueueStore

    queue, inbox = QueueStore("dev", db), Inbox(db)
    acknowledged = [queue.write_proposal(Proposal.new("dev", "t", "before"))]
    stop = threading.Event()
    busy = []

    def write() -> None:
        n = 0
        while not stop.is_set():
            queue.write_proposal(Proposal.new("dev", "t", f"meanwhile {n % 50}"))
            n += 1

    if how == "while another thread writes":
        busy = [threading.Thread(target=write)]
    if how == "while another thread waits":
        busy = [threading.Thread(target=lambda: queue.wait_for_response(acknowledged[0].id))]
    for thread in busy:
        thread.start()
    time.sleep(0.05)
    children = []
    for n in range(10):
        child = os.fork()
        if child == 0:
            if how != "and do nothing":
                for use in (
                    lambda: queue.write_proposal(Proposal.new("dev", "t", "child")),
                    lambda: queue.read_proposal(acknowledged[0].id),
                    lambda: QueueStore("dev", db).list_pending_proposals(),
                    lambda: inbox.pending(),
                ):
                    try:
                        use()
                    except DatabaseUnavailableError as refusal:
                        assert "forked" in str(refusal)
                    else:
                        os._exit(1)
                if not busy:  # with other threads in it at the fork, SQLite's own mutexes may be held for ever
                    QueueStore("dev", f"{db}-{n}").write_proposal(Proposal.new("dev", "t", "the child's own"))
            if n % 2:
                os._exit(0)
            sys.exit(0)
        children.append(child)
        acknowledged.append(queue.write_proposal(Proposal.new("dev", "t", f"parent {n}")))
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    stop.set()
    inbox.decide(acknowledged[0].id, "approved", payload_sha256=acknowledged[0].payload_sha256)
    for thread in busy:
        thread.join()
    acknowledged.append(queue.write_proposal(Proposal.new("dev", "t", "after")))
    print(*[known.id for known in acknowledged])


@pytest.mark.parametrize(
    "how", ["and both use it", "and do nothing", "while another thread writes", "while another thread waits"]
)
def test_a_forked_child_is_refused_what_its_parent_has_open(db: Path, how: str) -> None:
    with Process(fork_and_use, db, how) as parent:
        acknowledged = parent.ends().split()
    assert len(acknowledged) == 12
    found = {row[0] for row in witness(db, "SELECT id FROM proposals")}
    assert set(acknowledged) <= found
    assert_sound(db)


def test_a_fork_inside_a_transaction_leaves_the_child_no_lock_to_wait_for(db: Path, queue: QueueStore) -> None:
    def fork_inside(db: str) -> None:
        import os

        from bot_bottle import BotBottleError, Database, DatabaseBusyError, Proposal, QueueStore

        with Database(db).transaction() as transaction:
            transaction.execute("SELECT count(*) FROM proposals")
            child = os.fork()
            if child == 0:
                input()  # until the parent's transaction has ended
                try:
                    QueueStore("dev", db).write_proposal(Proposal.new("dev", "t", "child"))
                    print("written")
                except DatabaseBusyError:
                    print("busy for ever")
                except BotBottleError:
                    print("refused")
                os._exit(0)
        print("ended")
        os.wait()

    queue.write_proposal(proposal())
    with Process(fork_inside, db) as parent:
        assert parent.says() == "ended"
        parent.tell()
        assert parent.ends().strip() == "refused"
    assert_sound(db)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_values_and_functions_work_in_a_pool(host: Host, method: str) -> None:
    made = [proposal() for _ in range(4)]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        written = [pool.submit(supervise.write_proposal, "dev", one) for one in made]
        assert [future.result(60) for future in written] == made
        listed = pool.submit(supervise.list_pending_proposals, "dev").result(60)
    assert sorted(listed, key=lambda one: one.id) == made


# --- death


def live(db: str, part: str) -> None:
    import random

    from bot_bottle import AuditEntry, AuditStore, BotBottleError, Inbox, Proposal, QueueStore

    queue, inbox, log = QueueStore("dev", db), Inbox(db), AuditStore(db)
    n = 0
    while True:
        n += 1
        try:
            if part == "write":
                written = queue.write_proposal(Proposal.new("dev", "t", f"{random.random()}" + "x" * 6000))
                print("proposal", written.id)
                entry = log.write_audit_entry(AuditEntry("2026-01-31T12:00:00Z", "dev", "test", str(n)))
                print("audit", entry.entry_hash)
            elif part == "decide":
                for item in inbox.pending():
                    seen = item.proposal.payload_sha256
                    status = random.choice(["approved", "rejected"])
                    response = inbox.decide(item.proposal.id, status, payload_sha256=seen)
                    print("decision", f"{response.proposal_id}:{status}")
            else:
                for known in queue.list_pending_proposals():
                    queue.wait_for_response(known.id, 0.2)
                    queue.archive_proposal(known.id)
        except BotBottleError:
            pass  # another was first, or nobody was in time


def test_nothing_acknowledged_is_lost_when_everybody_is_killed(db: Path) -> None:
    chance = random.Random(4)
    for _ in range(4):
        alive = [Process(live, db, part) for part in ("write", "write", "decide", "decide", "wait", "wait")]
        # A gate, and not only a pause, so that each has done something however slow the machine is.
        said = [process.says() for process in alive[:4] for _ in range(3)]
        time.sleep(chance.random() * 0.2)
        for process in chance.sample(alive, len(alive)):
            process.popen.send_signal(signal.SIGKILL)
        said += [line for process in alive for line in process.last_words()]
        there = {f"proposal {row[0]}" for row in witness(db, "SELECT id FROM proposals")}
        there |= {f"audit {row[0]}" for row in witness(db, "SELECT entry_hash FROM audit_entries")}
        answers = "SELECT p.id, r.status FROM proposals p JOIN responses r ON r.proposal_seq = p.seq"
        there |= {f"decision {known}:{status}" for known, status in witness(db, answers)}
        assert {line.split()[0] for line in said} == {"proposal", "audit", "decision"}
        assert set(said) <= there
        assert_sound(db)
        assert Database(db).check() == []
    # And whoever comes next finds a file that works.
    with QueueStore("next", db) as queue, Inbox(db) as inbox:
        written = queue.write_proposal(proposal(slug="next"))
        decide(inbox, written)
        assert queue.wait_for_response(written.id, 20).status == "approved"


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize(("ring", "decided"), [(1, False), (2, True)])  # before the commit, and after it
def test_a_decision_that_ends_at_its_bell_reaches_its_waiter_if_it_was_made(
    db: Path, queue: QueueStore, inbox: Inbox, ring: int, decided: bool
) -> None:
    def approve(db: str, known: str, payload_sha256: str) -> None:
        from bot_bottle import Inbox

        Inbox(db).decide(known, "approved", payload_sha256=payload_sha256)

    written = queue.write_proposal(proposal())
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.wait_for_response, written.id, 20)
        eventually(lambda: inbox.read(written.id).waiting)
        dies = ["--trace=utimensat", f"--inject=utimensat:signal=KILL:when={ring}"]
        with Process(approve, db, written.id, written.payload_sha256, strace=dies) as decider:
            decider.ends(-signal.SIGKILL)
        if not decided:
            assert inbox.read(written.id).state == "pending" and not waiting.done()
            decide(inbox, written)
        assert waiting.result(20).status == "approved"
    assert_sound(db)


@needs_seccomp
def test_a_decision_cut_off_in_its_commit_is_whole_or_was_never_made(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    def decide_and_die(db: str, known: str, payload_sha256: str) -> None:
        from bot_bottle import Inbox
        from child_limits import die_at

        inbox = Inbox(db)
        die_at("fdatasync")
        inbox.decide(known, "approved", payload_sha256=payload_sha256)

    for _ in range(5):
        written = queue.write_proposal(proposal())
        with Process(decide_and_die, db, written.id, written.payload_sha256) as decider:
            decider.ends(child_limits.CODE)
        assert_sound(db)
        if inbox.read(written.id).state == "pending":
            decide(inbox, written)
        assert queue.wait_for_response(written.id, 20).status == "approved"
        assert len([one for one in AuditStore(db).read_audit_entries() if one.proposal_id == written.id]) == 1
    assert AuditStore(db).verify().entries == 5


# --- foreign programs


def test_a_foreign_writer_is_waited_for(db: Path, queue: QueueStore) -> None:
    def hold(db: str) -> None:
        import sqlite3

        connection = sqlite3.connect(db, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        print("held")
        input()
        connection.execute("COMMIT")

    queue.write_proposal(proposal())
    with Process(hold, db) as holder, ThreadPoolExecutor(1) as pool:
        assert holder.says() == "held"
        writing = pool.submit(queue.write_proposal, proposal())
        assert len(queue.list_pending_proposals()) == 1  # readers need not wait
        time.sleep(0.3)
        assert not writing.done()
        holder.tell()
        written = writing.result(20)
    assert written in queue.list_pending_proposals()


def test_a_turn_that_is_never_given_back_stops_nobody(db: Path, queue: QueueStore) -> None:
    def hold(db: str) -> None:
        import fcntl
        import mmap

        # As one who was stopped in its turn: its ticket is served, and it is seen to be alive.
        with open(f"{db}-turn", "r+b") as file, mmap.mmap(file.fileno(), 8) as counters:
            fcntl.flock(file, fcntl.LOCK_SH)
            drawn = memoryview(counters).cast("I")
            drawn[0] += 1
            drawn.release()
            print("held")
            input()

    queue.write_proposal(proposal())
    with Process(hold, db) as holder:
        assert holder.says() == "held"
        written = queue.write_proposal(proposal())  # after a few seconds of patience
        assert written in queue.list_pending_proposals()
