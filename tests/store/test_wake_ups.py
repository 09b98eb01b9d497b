"""Is a waiter woken by its bell alone, and by a commit that falls into the beginning of its wait?

Once a second every process that waits looks even if no bell rang, so a wait that missed one would end all the same, but
later. ``no_heartbeat`` takes that look away.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from bot_bottle import BottleStore, Database, Inbox, NotFoundError, QueueStore, Response
from cli_process import Host
from store_process import SLUG, Process, decide, eventually, no_heartbeat, proposal

WITHIN = 60.0


@contextmanager
def only_its_bell_wakes(queue: QueueStore, inbox: Inbox, known: str) -> Iterator[Future[Response]]:
    """A wait in a thread that sleeps already."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.wait_for_response, known)
        try:
            eventually(lambda: inbox.read(known).waiting)
            with no_heartbeat(queue.db_path):
                yield waiting
        finally:
            queue.close()  # so that a test that fails ends


def test_the_bell_rings_once_an_approved_file_is_in_effect(host: Host) -> None:
    """A decision on a managed file rings only the operator's bell, because nothing is in effect yet. Fails where noting
    that it is (``settle`` in managed_file.rs) does not ring the queue's bell."""
    file = host.root / "bottles" / SLUG / "routes.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("before\n")
    BottleStore().register(SLUG, backend="docker", files={"egress-allow": file.name})
    with Inbox() as inbox:
        queue = QueueStore(SLUG, host.root / "db" / "bot-bottle.db")
        written = queue.write_proposal(proposal("after\n", tool="egress-allow"))
        with only_its_bell_wakes(queue, inbox, written.id) as waiting:
            decide(inbox, written)
            response = waiting.result(WITHIN)
    assert (response.status, file.read_text()) == ("approved", "after\n")
    assert response.applied_at is not None


def test_every_bell_rings_after_a_restore(db: Path, tmp_path: Path, inbox: Inbox) -> None:
    """Fails without ``ring_all`` in restore.rs: a waiter for what the copy does not have would wait for ever."""
    queue, database = QueueStore(SLUG, db), Database(db)
    queue.write_proposal(proposal())
    database.backup(tmp_path / "copy.db")
    written = queue.write_proposal(proposal())
    with only_its_bell_wakes(queue, inbox, written.id) as waiting:
        database.restore(tmp_path / "copy.db")
        with pytest.raises(NotFoundError, match=written.id):
            waiting.result(WITHIN)


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("how", ["a thread waits", "a callback waits"])
def test_a_commit_between_the_first_look_and_the_bell_is_not_missed(
    db: Path, tmp_path: Path, queue: QueueStore, inbox: Inbox, how: str
) -> None:
    """The waiter has looked, and is stopped as it opens its bell, before the kernel tells it of any ring. Fails without
    the second look in ``start`` (on_file.rs), and where that look comes before it listens to the bell."""

    def wait(db: str, known: str, how: str) -> None:
        import os
        import signal
        import threading

        from bot_bottle import QueueStore
        from store_process import no_heartbeat

        signal.alarm(60)  # ends a wait that missed it
        queue, told = QueueStore("dev", db), threading.Event()
        with no_heartbeat(db):
            print(os.getpid())
            if how == "a thread waits":
                print(queue.wait_for_response(known).status)
            else:
                queue.begin_wait(known, lambda answer: (print(answer.status), told.set()))
                told.wait()

    written = queue.write_proposal(proposal())
    bell, log = db.parent / "bells" / SLUG, tmp_path / "log"
    stops = [f"--trace-path={bell}", "--inject=openat:signal=STOP:when=1", f"--output={log}"]
    with Process(wait, db, written.id, how, strace=stops) as waiter:
        pid = int(waiter.says())
        eventually(lambda: "stopped by SIGSTOP" in log.read_text(), WITHIN)
        assert "inotify_add_watch" not in log.read_text()
        decide(inbox, written)
        os.kill(pid, signal.SIGCONT)
        assert waiter.says() == "approved"
        waiter.ends()
    assert "inotify_add_watch" in log.read_text()
