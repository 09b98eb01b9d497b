"""Does every wait end when it should, for the reason it should, and hold nothing up meanwhile?"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bot_bottle import (
    AuditIntegrityError,
    ClosedError,
    Inbox,
    InvalidInputError,
    NotFoundError,
    ProposalExpiredError,
    ProposalWithdrawnError,
    QueueStore,
    Response,
    WaitTimeoutError,
    new_id,
)
from store_process import Process, decide, eventually, proposal, witness
from transports import over_both

# How late a loaded machine may be. What is fast is measured in benchmarks/, not here.
LATE = 10.0


def watcher_threads() -> set[str]:
    """Their ids. One of an earlier test may be ending still."""
    found = set()
    for path in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if path.read_text().strip() == "bot-bottle-wait":
                found.add(path.parent.name)
    return found


class Waiting:
    """Waits in a thread of its own; there once the operator sees somebody waiting."""

    def __init__(self, queue: QueueStore, proposal_id: str, timeout: float | None = None) -> None:
        self._pool = ThreadPoolExecutor(1)
        self.future: Future[Response] = self._pool.submit(queue.wait_for_response, proposal_id, timeout)
        eventually(lambda: self.future.done() or queue.inspect(proposal_id).waiting)  # type: ignore[union-attr]

    def ends(self) -> Response:
        return self.future.result(LATE)


# --- a wait ends with an answer


@over_both
@pytest.mark.parametrize("status", ["approved", "modified", "rejected"])
def test_a_waiter_gets_the_answer(queue: QueueStore, inbox: Inbox, status: str) -> None:
    written = queue.write_proposal(proposal())
    waiting = Waiting(queue, written.id)
    assert not waiting.future.done()
    final = "x" if status == "modified" else None
    response = decide(inbox, written, status, notes="said so", final_file=final)
    assert waiting.ends() == response
    assert waiting.ends().to_dict() == response.to_dict()


@over_both
def test_the_interpreter_goes_on_while_one_thread_waits(queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal())

    def answer_the_waiter() -> None:
        eventually(lambda: inbox.read(written.id).waiting)
        decide(inbox, written)

    decider = threading.Thread(target=answer_the_waiter)
    decider.start()
    assert queue.wait_for_response(written.id, LATE).status == "approved"  # for ever, if it kept the GIL
    decider.join()


def test_an_answer_that_is_there_is_returned_at_once(queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal())
    response = decide(inbox, written)
    threads = watcher_threads()
    assert queue.wait_for_response(written.id) == queue.wait_for_response(written.id, 0) == response
    assert watcher_threads() <= threads  # nobody had to be asked to watch


@over_both
def test_every_waiter_of_one_proposal_is_answered(way: dict[str, Any], queue: QueueStore, inbox: Inbox) -> None:
    first = queue.write_proposal(proposal("same"))
    second = proposal("same")
    queue.write_proposal(second)
    waits = [Waiting(store, known.id) for store in (queue, QueueStore("dev", **way)) for known in (first, second)]
    response = decide(inbox, first)
    assert [waiting.ends() for waiting in waits] == [response] * 4


@over_both
def test_each_waiter_gets_its_own_answer(queue: QueueStore, inbox: Inbox) -> None:
    written = [queue.write_proposal(proposal()) for _ in range(20)]
    before = watcher_threads()
    waits = [Waiting(queue, known.id) for known in written]
    assert len(watcher_threads() - before) == 1
    for known in reversed(written):
        decide(inbox, known, notes=known.id)
    assert [waiting.ends().notes for waiting in waits] == [known.id for known in written]


@over_both
def test_most_wake_ups_do_not_wait_for_the_heartbeat(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    def answer(db: str, rounds: int) -> None:
        import time

        from bot_bottle import Inbox, QueueStore

        queue, inbox = QueueStore("dev", db), Inbox(db)
        for _ in range(rounds):
            known = input()
            while not queue.inspect(known).waiting:  # type: ignore[union-attr]
                time.sleep(0.002)
            time.sleep(0.02)  # the waiter is surely asleep
            hash_seen = queue.read_proposal(known).payload_sha256  # type: ignore[union-attr]
            inbox.decide(known, "approved", payload_sha256=hash_seen)
            print(time.monotonic())

    late = []
    queue.write_proposal(proposal())
    with Process(answer, db, 20) as decider:
        for _ in range(20):
            written = queue.write_proposal(proposal())
            decider.tell(written.id)
            queue.wait_for_response(written.id, LATE)
            woken = time.monotonic()
            late.append(woken - float(decider.says()))
        decider.ends()
    # Noticed by the one-second heartbeat alone, half of them would be later than that.
    assert sorted(late)[14] < 0.3


@over_both
def test_a_writer_that_does_not_ring_is_noticed(db: Path, queue: QueueStore) -> None:
    written = queue.write_proposal(proposal())
    waiting = Waiting(queue, written.id)
    witness(
        db,
        "BEGIN IMMEDIATE",
        "UPDATE proposals SET state = 'rejected'",
        f"""INSERT INTO responses VALUES (1, 'rejected', 'by hand', '{written.payload_sha256}', NULL,
            'an older program', 'cli', '2026-01-31T12:00:00.000000Z', '', NULL, '', '', NULL)""",
        "COMMIT",
    )
    if queue.db_path == str(db):
        assert waiting.ends() == Response(written.id, "rejected", "by hand")
    else:  # the host passes on what was signed
        with pytest.raises(AuditIntegrityError, match="not signed"):
            waiting.ends()


@over_both
def test_bells_that_somebody_removed_are_hung_again(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    first, second = queue.write_proposal(proposal()), queue.write_proposal(proposal())
    waits = [Waiting(queue, first.id), Waiting(queue, second.id)]
    for bell in (db.parent / "bells").iterdir():
        bell.unlink()
    with contextlib.suppress(OSError):  # they may hang again by now
        (db.parent / "bells").rmdir()
    decide(inbox, first)
    assert waits[0].ends().status == "approved"
    eventually(lambda: (db.parent / "bells" / "dev").exists())
    decide(inbox, second)
    assert waits[1].ends().status == "approved"


# --- a wait ends without one


@over_both
@pytest.mark.parametrize("timeout", [0.05, 0.3])
def test_a_timeout_ends_a_wait_neither_early_nor_late(queue: QueueStore, timeout: float) -> None:
    written = queue.write_proposal(proposal())
    start = time.monotonic()
    with pytest.raises(WaitTimeoutError, match=written.id) as caught:
        queue.wait_for_response(written.id, timeout)
    assert timeout <= time.monotonic() - start < timeout + LATE
    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.exit_code, caught.value.proposal_id) == (6, written.id)
    assert queue.list_pending_proposals() == [written]


def test_a_timeout_of_zero_only_looks(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal())
    threads, changes = watcher_threads(), inbox.last_change()
    with pytest.raises(WaitTimeoutError):
        queue.wait_for_response(written.id, 0)
    assert watcher_threads() <= threads and inbox.last_change() == changes
    assert inbox.read(written.id).waiting_until is None
    assert not (db.parent / "bells").exists()


@over_both
@pytest.mark.parametrize("timeout", [math.inf, 1e18, 1e30])
def test_a_timeout_may_be_as_long_as_one_likes(queue: QueueStore, inbox: Inbox, timeout: float) -> None:
    written = queue.write_proposal(proposal())
    waiting = Waiting(queue, written.id, timeout)
    decide(inbox, written)
    assert waiting.ends().status == "approved"


@over_both
@pytest.mark.parametrize("timeout", [-1, math.nan, -math.inf])
def test_a_timeout_that_is_none_is_refused(queue: QueueStore, timeout: float) -> None:
    written = queue.write_proposal(proposal())
    with pytest.raises(InvalidInputError, match="timeout"):
        queue.wait_for_response(written.id, timeout)


@over_both
def test_an_expiry_ends_a_wait_neither_early_nor_late(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal(expires_in=0.4))
    start = time.time()
    with pytest.raises(ProposalExpiredError) as caught:
        queue.wait_for_response(written.id, 3600)
    late = time.time() - start - 0.4
    assert -0.2 < late < LATE  # it was written a little before `start`
    assert caught.value.expires_at == written.expires_at
    # It was told, so it is so for good, even if the clock goes back now.
    eventually(lambda: witness(db, "SELECT state FROM proposals") == [["expired"]])
    assert [change.kind for change in inbox.changes()] == ["proposed", "expired"]


@over_both
def test_a_withdrawal_ends_a_wait(queue: QueueStore) -> None:
    written = queue.write_proposal(proposal())
    waiting = Waiting(queue, written.id)
    queue.withdraw_proposal(written.id, "never mind")
    with pytest.raises(ProposalWithdrawnError, match="never mind"):
        waiting.ends()


@over_both
def test_one_requester_s_withdrawal_ends_its_wait_alone(queue: QueueStore, inbox: Inbox) -> None:
    first, second = queue.write_proposal(proposal("same")), proposal("same")
    queue.write_proposal(second)
    waits = [Waiting(queue, first.id), Waiting(queue, second.id)]
    queue.withdraw_proposal(first.id)
    with pytest.raises(ProposalWithdrawnError):
        waits[0].ends()
    assert not waits[1].future.done()
    decide(inbox, first)
    assert waits[1].ends().status == "approved"


@over_both
def test_archiving_ends_a_wait(queue: QueueStore) -> None:
    written = queue.write_proposal(proposal())
    waiting = Waiting(queue, written.id)
    queue.archive_proposal(written.id)
    with pytest.raises(ProposalWithdrawnError, match="archived"):
        waiting.ends()


def test_a_wait_for_what_does_not_exist_ends_at_once(db: Path, queue: QueueStore) -> None:
    for _ in range(2):  # without a database, and with one
        unknown = new_id()
        with pytest.raises(NotFoundError, match=unknown):
            queue.wait_for_response(unknown)
        QueueStore("other", db).write_proposal(proposal(slug="other"))


@over_both
def test_close_ends_the_waits_of_its_store_alone(way: dict[str, Any], queue: QueueStore, inbox: Inbox) -> None:
    other = QueueStore("dev", **way)
    written = queue.write_proposal(proposal())
    waits = [Waiting(queue, written.id), Waiting(queue, written.id), Waiting(other, written.id)]
    queue.close()
    for waiting in waits[:2]:
        with pytest.raises(ClosedError):
            waiting.ends()
    assert not waits[2].future.done()
    decide(inbox, written)
    assert waits[2].ends().status == "approved"


def test_the_watcher_ends_with_the_last_store(db: Path) -> None:
    before = watcher_threads()
    stores = [QueueStore("dev", db), QueueStore("other", db)]
    written = stores[0].write_proposal(proposal())
    with pytest.raises(WaitTimeoutError):
        stores[0].wait_for_response(written.id, 0.01)
    assert len(watcher_threads() - before) == 1
    stores.pop().close()
    assert len(watcher_threads() - before) == 1
    stores.pop().close()
    eventually(lambda: watcher_threads() <= before)


# --- signals


def wait_for_signals(reach: dict[str, str], known: str) -> None:
    import signal
    import time

    from bot_bottle import QueueStore
    from transports import opened

    class Stop(Exception):
        pass

    def stop(number: int, frame: object) -> None:
        raise Stop(f"signal {number}")

    signal.signal(signal.SIGUSR1, stop)
    signal.signal(signal.SIGUSR2, lambda number, frame: print("handled"))
    queue = QueueStore("dev", **opened(reach))
    while True:
        print("waiting")
        try:
            print(queue.wait_for_response(known).status)
            break
        except (Stop, KeyboardInterrupt) as error:
            print(repr(error), time.monotonic())


@over_both
@pytest.mark.parametrize(
    ("number", "raised"),
    [(signal.SIGINT, "KeyboardInterrupt()"), (signal.SIGUSR1, f"Stop('signal {int(signal.SIGUSR1)}')")],
)
def test_a_signal_s_exception_ends_a_wait(
    queue: QueueStore, inbox: Inbox, reach: dict[str, str], number: signal.Signals, raised: str
) -> None:
    written = queue.write_proposal(proposal())
    took = []
    with Process(wait_for_signals, reach, written.id) as waiter:
        for _ in range(8):
            assert waiter.says() == "waiting"
            eventually(lambda: inbox.read(written.id).waiting)
            time.sleep(0.01)
            sent = time.monotonic()
            waiter.popen.send_signal(number)
            what, _, at = waiter.says().rpartition(" ")
            assert what == raised
            took.append(float(at) - sent)
        decide(inbox, written)
        assert waiter.ends() == "waiting\napproved\n"  # nothing was lost by it
    assert min(took) < 0.05, took


@over_both
def test_a_handler_that_returns_does_not_end_a_wait(queue: QueueStore, inbox: Inbox, reach: dict[str, str]) -> None:
    written = queue.write_proposal(proposal())
    with Process(wait_for_signals, reach, written.id) as waiter:
        assert waiter.says() == "waiting"
        eventually(lambda: inbox.read(written.id).waiting)
        for _ in range(3):
            waiter.popen.send_signal(signal.SIGUSR2)
            assert waiter.says() == "handled"
        decide(inbox, written)
        assert waiter.ends() == "approved\n"


def test_a_signal_ends_an_iteration_of_changes(db: Path, queue: QueueStore) -> None:
    def watch(db: str) -> None:
        from bot_bottle import Inbox

        try:
            for change in Inbox(db).watch(0):
                print(change.seq)
        except KeyboardInterrupt:
            print("interrupted")

    queue.write_proposal(proposal())
    with Process(watch, db) as watcher:
        assert watcher.says() == "1"
        time.sleep(0.05)
        watcher.popen.send_signal(signal.SIGINT)
        assert watcher.ends() == "interrupted\n"


# --- the end of the process


def leave(db: str, reach: dict[str, str], known: str, how: str) -> None:
    import sys
    import threading
    import time

    from bot_bottle import Inbox, QueueStore
    from transports import opened

    queue, inbox = QueueStore("dev", **opened(reach)), Inbox(db)
    waits = {
        "waiting": lambda: queue.wait_for_response(known),
        "watching": lambda: list(inbox.watch()),
        "subscribed": lambda: queue.begin_wait(known, print),
        "timing out": lambda: [queue.begin_wait(known, print, timeout=n / 1000) for n in range(200)],
    }
    threading.Thread(target=waits[how], daemon=True).start()
    time.sleep(0.1)
    sys.exit(7)


@over_both
@pytest.mark.parametrize("how", ["waiting", "watching", "subscribed", "timing out"])
def test_a_pending_wait_neither_holds_up_nor_crashes_an_exit(
    db: Path, reach: dict[str, str], queue: QueueStore, how: str
) -> None:
    written = queue.write_proposal(proposal())
    with Process(leave, db, reach, written.id, how) as leaver:
        leaver.ends(7)


def stay(db: str, reach: dict[str, str], known: str, how: str) -> None:
    import contextlib
    import ctypes
    import sys
    import threading
    import time

    from bot_bottle import Inbox, QueueStore, WaitTimeoutError
    from transports import opened

    queue, inbox = QueueStore("dev", **opened(reach)), Inbox(db)

    def wait_again() -> None:
        while True:
            with contextlib.suppress(WaitTimeoutError):
                queue.wait_for_response(known, timeout=0.15)

    waits = {
        "waiting": lambda: queue.wait_for_response(known),
        "waiting again": wait_again,
        "watching": lambda: list(inbox.watch()),
        "subscribed": lambda: [queue.begin_wait(known, print, timeout=0.4 + n / 1000) for n in range(200)],
    }
    libc = ctypes.CDLL(None)
    libc["__cxa_atexit"](libc.usleep, 700_000, None)  # between the end of the interpreter and that of the process
    threading.Thread(target=waits[how], daemon=True).start()
    time.sleep(0.1)
    sys.exit(7)


@over_both
@pytest.mark.skipif(sys.platform != "linux", reason="reaches into the C library of Linux")
@pytest.mark.parametrize("how", ["waiting", "waiting again", "watching", "subscribed"])
def test_no_wait_enters_an_interpreter_that_has_ended(
    db: Path, reach: dict[str, str], queue: QueueStore, how: str
) -> None:
    written = queue.write_proposal(proposal())
    with Process(stay, db, reach, written.id, how) as leaver:
        said = leaver.ends(7)
    assert set(said.splitlines()) <= {"the store was closed"}  # as its last reference went, before the end


def leave_during_a_callback(reach: dict[str, str], known: str) -> None:
    import sys
    import threading
    import time

    from bot_bottle import QueueStore
    from transports import opened

    called = threading.Event()

    def callback(_end: object) -> None:
        called.set()
        time.sleep(0.3)
        print("done")

    queue = QueueStore("dev", **opened(reach))
    queue.begin_wait(known, callback, timeout=0.05)
    called.wait()
    sys.exit(7)


@over_both
def test_an_exit_lets_a_callback_end(queue: QueueStore, reach: dict[str, str]) -> None:
    written = queue.write_proposal(proposal())
    with Process(leave_during_a_callback, reach, written.id) as leaver:
        assert leaver.ends(7) == "done\n"


# --- leases: what the operator sees of waiters


@over_both
def test_the_operator_sees_who_waits(queue: QueueStore, inbox: Inbox) -> None:
    written, other = queue.write_proposal(proposal()), queue.write_proposal(proposal())
    changes = inbox.last_change()
    waiting = Waiting(queue, written.id, timeout=0.3)
    item = inbox.read(written.id)
    assert item.waiting
    assert item.waiting_until is not None
    assert [pending.waiting for pending in inbox.pending()] == [True, False]
    assert inbox.stats()["waiting"] == 1
    with pytest.raises(WaitTimeoutError):
        waiting.ends()
    eventually(lambda: not inbox.read(written.id).waiting)
    assert inbox.read(written.id).waiting_until is not None  # so it can say since when nobody is there
    assert inbox.read(other.id).waiting_until is None
    assert inbox.last_change() == changes  # none of this is news to anybody


@over_both
def test_a_wait_is_seen_however_closely_it_follows_another(queue: QueueStore, inbox: Inbox) -> None:
    for _ in range(30):
        written = queue.write_proposal(proposal())
        waiting = Waiting(queue, written.id)
        decide(inbox, written)
        waiting.ends()


def test_a_killed_waiter_s_lease_is_short(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    def wait(db: str, known: str) -> None:
        from bot_bottle import QueueStore

        QueueStore("dev", db).wait_for_response(known)

    written = queue.write_proposal(proposal())
    with Process(wait, db, written.id) as waiter:
        eventually(lambda: inbox.read(written.id).waiting)
        waiter.kill()
    until = inbox.read(written.id).waiting_until
    in_30_s = proposal(expires_in=30).expires_at
    assert until is not None
    assert in_30_s is not None
    assert until < in_30_s
    # What it says once that has passed.
    witness(db, "UPDATE proposals SET waiting_until = '2026-01-31T12:00:00.000000Z'")
    item = inbox.read(written.id)
    assert (item.waiting, item.waiting_until) == (False, "2026-01-31T12:00:00.000000Z")


def test_a_lease_lasts_while_another_process_waits_and_ends_with_the_last(
    db: Path, queue: QueueStore, inbox: Inbox
) -> None:
    def wait(db: str, known: str) -> None:
        import threading

        from bot_bottle import ClosedError, QueueStore

        queue = QueueStore("dev", db)
        threading.Thread(target=lambda: (input(), queue.close()), daemon=True).start()
        try:
            queue.wait_for_response(known)
        except ClosedError:
            print("left")

    def until() -> str:
        found = inbox.read(written.id).waiting_until
        assert found is not None
        return found

    written = queue.write_proposal(proposal())
    with Process(wait, db, written.id) as first, Process(wait, db, written.id) as last:
        eventually(lambda: inbox.read(written.id).waiting)
        begun = until()
        eventually(lambda: until() > begun)  # renewed, or taken by the second one
        begun = until()
        first.tell()
        assert first.says() == "left"
        eventually(lambda: until() > begun)  # by the one that stays
        assert inbox.read(written.id).waiting
        last.tell()
        assert last.says() == "left"
        eventually(lambda: not inbox.read(written.id).waiting)


# --- begin_wait: a wait without a thread


def test_a_callback_is_called_once(queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal())
    got: list[Any] = []
    wait = queue.begin_wait(written.id, got.append)
    assert got == []
    response = decide(inbox, written)
    eventually(lambda: got)
    wait.cancel()
    assert got == [response]
    queue.begin_wait(written.id, got.append)  # it is there: called from here, now
    assert got == [response, response]


@over_both
def test_a_cancelled_wait_calls_nobody(queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal())
    got: list[Any] = []
    gate = threading.Event()
    cancelled = queue.begin_wait(written.id, got.append)
    queue.begin_wait(written.id, lambda value: gate.set())
    cancelled.cancel()
    cancelled.cancel()
    decide(inbox, written)
    assert gate.wait(LATE)
    assert got == []


@over_both
@pytest.mark.parametrize(
    ("end", "error"),
    [
        (lambda queue, known: queue.withdraw_proposal(known), ProposalWithdrawnError),
        (lambda queue, known: queue.close(), ClosedError),
        (lambda queue, known: None, WaitTimeoutError),
    ],
)
def test_a_callback_is_given_the_error(
    way: dict[str, Any], end: Callable[[QueueStore, str], object], error: type[Exception]
) -> None:
    queue = QueueStore("dev", **way)
    written = queue.write_proposal(proposal())
    got: list[Any] = []
    queue.begin_wait(written.id, got.append, timeout=0.2 if error is WaitTimeoutError else None)
    end(queue, written.id)
    eventually(lambda: got)
    assert [type(value) for value in got] == [error]


@over_both
def test_a_wait_inside_a_callback_ends_by_its_timeout(queue: QueueStore, inbox: Inbox) -> None:
    written, other = queue.write_proposal(proposal()), queue.write_proposal(proposal())
    ended: Future[Response] = Future()

    def callback(_answer: object) -> None:
        try:
            ended.set_result(queue.wait_for_response(other.id, timeout=0.2))
        except WaitTimeoutError as error:
            ended.set_exception(error)

    queue.begin_wait(written.id, callback)
    decide(inbox, written)
    with pytest.raises(WaitTimeoutError):
        ended.result(LATE)
    assert queue.wait_for_response(written.id, timeout=LATE).status == "approved"  # others are served again


def test_a_wait_inside_a_callback_ends_by_its_answer(queue: QueueStore, inbox: Inbox) -> None:
    written, other = queue.write_proposal(proposal()), queue.write_proposal(proposal())
    begun = threading.Event()
    ended: Future[Response] = Future()

    def callback(_answer: object) -> None:
        begun.set()
        ended.set_result(queue.wait_for_response(other.id))

    queue.begin_wait(written.id, callback)
    decide(inbox, written)
    assert begun.wait(LATE)
    response = decide(inbox, other)
    assert ended.result(LATE) == response


@over_both
def test_a_callback_that_raises_is_reported_and_harms_nobody(
    queue: QueueStore, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: reported.append(unraisable.exc_value))
    written = queue.write_proposal(proposal())
    got: list[Any] = []

    def fail(value: object) -> None:
        raise RuntimeError("from a callback")

    queue.begin_wait(written.id, fail)
    queue.begin_wait(written.id, got.append)
    decide(inbox, written)
    eventually(lambda: got and reported)  # over a broker each wait has its own thread
    assert [str(error) for error in reported] == ["from a callback"]


@over_both
def test_a_callback_may_use_the_store(queue: QueueStore, inbox: Inbox) -> None:
    first, second = queue.write_proposal(proposal()), queue.write_proposal(proposal())
    got: list[Any] = []
    queue.begin_wait(second.id, got.append)
    queue.begin_wait(first.id, lambda value: decide(inbox, second))
    decide(inbox, first)
    eventually(lambda: got)
    assert got[0].proposal_id == second.id


# --- watch: changes as they come


def test_an_iteration_goes_on_from_where_it_was(queue: QueueStore, inbox: Inbox) -> None:
    written = [queue.write_proposal(proposal()) for _ in range(3)]
    changes = list(inbox.watch(0, timeout=0))
    assert [change.proposal_id for change in changes] == [known.id for known in written]
    watch = inbox.watch(changes[0].seq, timeout=0)
    assert iter(watch) is watch
    assert [next(watch), next(watch)] == changes[1:]
    with pytest.raises(StopIteration):
        next(watch)
    decide(inbox, written[0])
    assert [change.kind for change in watch] == ["approved"]  # the end was that of its patience, not its own


def test_from_now_on_means_after_the_call(queue: QueueStore, inbox: Inbox) -> None:
    queue.write_proposal(proposal())
    watch = inbox.watch(timeout=LATE)
    later = queue.write_proposal(proposal())
    assert next(watch).proposal_id == later.id


def test_an_iteration_ends_after_so_long_without_a_change(queue: QueueStore, inbox: Inbox) -> None:
    queue.write_proposal(proposal())
    start = time.monotonic()
    assert len(list(inbox.watch(0, timeout=0.2))) == 1
    assert 0.2 <= time.monotonic() - start < 0.2 + LATE


def test_an_iteration_is_woken(queue: QueueStore, inbox: Inbox, db: Path) -> None:
    queue.write_proposal(proposal())
    with ThreadPoolExecutor(1) as pool, Inbox(db) as other:
        watch = other.watch()
        future = pool.submit(next, watch)
        time.sleep(0.05)
        written = queue.write_proposal(proposal())
        assert future.result(LATE).proposal_id == written.id
        future = pool.submit(next, watch)
        time.sleep(0.05)
        other.close()
        with pytest.raises(ClosedError):
            future.result(LATE)


def test_an_iteration_may_begin_before_the_database(db: Path, inbox: Inbox) -> None:
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, inbox.watch(0))
        time.sleep(0.05)
        written = QueueStore("dev", db).write_proposal(proposal())
        assert future.result(LATE).proposal_id == written.id


def test_no_change_is_lost_under_concurrent_writers(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    def write(db: str, name: str, count: int) -> None:
        from bot_bottle import Proposal, QueueStore

        queue = QueueStore(name, db)
        input()
        for n in range(count):
            written = queue.write_proposal(Proposal.new(name, "t", f"{n}"))
            queue.withdraw_proposal(written.id)

    queue.write_proposal(proposal())
    writers = [Process(write, db, f"w{n}", 30) for n in range(4)]
    watch = inbox.watch(inbox.last_change(), timeout=LATE)
    for writer in writers:
        writer.tell()
    seen = [next(watch) for _ in range(4 * 30 * 2)]
    for writer in writers:
        writer.ends()
    assert [change.seq for change in seen] == list(range(2, 2 + len(seen)))
    for n in range(4):
        kinds = [change.kind for change in seen if change.bottle_slug == f"w{n}"]
        assert kinds == ["proposed", "withdrawn"] * 30
    assert inbox.changes(seen[-1].seq) == []


def test_begin_watch_calls_once_there_is_something(queue: QueueStore, inbox: Inbox) -> None:
    queue.write_proposal(proposal())
    got: list[Any] = []
    inbox.begin_watch(0, got.append)
    assert got == [None]
    wait = inbox.begin_watch(inbox.last_change(), got.append)
    other = inbox.begin_watch(inbox.last_change(), got.append)
    wait.cancel()
    queue.write_proposal(proposal())
    eventually(lambda: len(got) == 2)
    other.cancel()
    assert got == [None, None]
