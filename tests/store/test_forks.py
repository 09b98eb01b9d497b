"""Does a transaction stay its process's own, whatever a child forked in the middle of it does?"""

from __future__ import annotations

import fcntl
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bot_bottle import QueueStore
from store_process import Process, assert_sound, eventually, proposal, witness


def counters(db: Path) -> tuple[int, int]:
    """The next ticket of the writers' queue, and the one whose turn it is."""
    with open(f"{db}-turn", "rb") as file:
        tickets, serving = struct.unpack("=II", file.read(8))
    return tickets, serving


def is_seen_at_work(db: Path) -> bool:
    """Whether whoever has the turn is marked as alive: those behind it pass over one that is not."""
    with open(f"{db}-turn", "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def fork_in_a_transaction(db: str, how: str) -> None:
    import os
    import sys

    from bot_bottle import Database, DatabaseUnavailableError

    database = Database(db)
    database.migrate("forge", [("CREATE TABLE forge_notes (note TEXT) STRICT", "DROP TABLE forge_notes")])
    transaction = database.transaction()
    transaction.__enter__()
    transaction.execute("INSERT INTO forge_notes VALUES ('before the fork')")
    if child := os.fork():
        print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        input()
        transaction.execute("INSERT INTO forge_notes VALUES ('after it')")
        transaction.__exit__(None, None, None)
        return
    try:
        if how == "ends with its interpreter":
            sys.exit(3)
        if how == "rolls back":
            error = ValueError("the child's")
            transaction.__exit__(type(error), error, None)
        if how == "commits":
            transaction.__exit__(None, None, None)
        if how == "writes":
            transaction.execute("INSERT INTO forge_notes VALUES ('by the child')")
    except DatabaseUnavailableError as refusal:
        os._exit(4 if "forked" in str(refusal) else 5)
    os._exit(3)


@pytest.mark.parametrize(
    ("how", "code"),
    [("ends at once", 3), ("ends with its interpreter", 3), ("rolls back", 3), ("commits", 4), ("writes", 4)],
)
def test_a_transaction_and_its_turn_stay_the_parent_s_after_a_forked_child(
    db: Path, queue: QueueStore, how: str, code: int
) -> None:
    """Fails where the child gives back its copy of the turn (``Drop for Served`` in turn/mod.rs), since the next writer
    then goes on beside the parent, and where it writes or commits (``ForeignTransaction`` in query.rs)."""
    queue.write_proposal(proposal())
    with Process(fork_in_a_transaction, db, how) as parent, ThreadPoolExecutor(1) as pool:
        assert parent.says() == f"ended {code}"
        tickets, serving = counters(db)
        assert (tickets, is_seen_at_work(db)) == (serving + 1, True)
        writing = pool.submit(queue.write_proposal, proposal())
        eventually(lambda: counters(db)[0] == tickets + 1)  # it stands in the queue
        assert (counters(db)[1], is_seen_at_work(db), writing.done()) == (serving, True, False)
        assert witness(db, "SELECT count(*) FROM forge_notes") == [[0]]
        parent.tell()
        parent.ends()
        written = writing.result(60)
    assert written in queue.list_pending_proposals()
    assert witness(db, "SELECT note FROM forge_notes ORDER BY note") == [["after it"], ["before the fork"]]
    assert_sound(db)
