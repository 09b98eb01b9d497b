"""Do lists get by without payloads?

The pages that hold nothing but payload are made unreadable: whoever touches one of them gets an error.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bot_bottle import (
    MAX_PAYLOAD_BYTES,
    AuditIntegrityError,
    BottleStore,
    Database,
    DatabaseCorruptError,
    Inbox,
    InboxSummary,
    Keys,
    QueueStore,
    host_db_path,
    sha256_hex,
)
from cli_process import Host
from store_process import decide, proposal, witness

HELPER = Path(sys.executable).with_name("bot-bottle-sidecar")
PAYLOAD = "z" * MAX_PAYLOAD_BYTES
FINAL = "y" * MAX_PAYLOAD_BYTES

# A page of a value's overflow begins with the number of the next one: there is no page of this number.
_BREAK = """
import sys
path, size = sys.argv[1], int(sys.argv[2])
with open(path, "r+b") as file:
    at = broken = 0
    while page := file.read(size):
        if page[4:104] in (b"z" * 100, b"y" * 100):
            file.seek(at)
            file.write(b"\\xff\\xff\\xff\\xff")
            broken += 1
        at += size
        file.seek(at)
print(broken)
"""


@pytest.fixture
def ids(host: Host) -> list[str]:
    """A pending, a modified, a rejected and a withdrawn proposal, whose payloads cannot be read any more."""
    BottleStore().register("dev", backend="docker", files={"egress-allow": "routes.yaml"})
    with QueueStore("dev") as queue, Inbox() as inbox:
        written = [queue.write_proposal(proposal(f"{number}{PAYLOAD[1:]}", tool="note")) for number in range(4)]
        decide(inbox, written[1], "modified", final_file=FINAL)
        decide(inbox, written[2], "rejected")
        queue.withdraw_proposal(written[3].id)
    with Database() as database:
        database.check()
    path = host_db_path()
    witness(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    ((size,),) = witness(path, "PRAGMA page_size")
    arguments = [sys.executable, "-c", _BREAK, str(path), str(size)]
    broken = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    assert int(broken) > 4 * 250
    return [each.id for each in written]


LISTS: dict[str, Callable[[Inbox, QueueStore], Any]] = {
    "Inbox.pending": lambda inbox, queue: inbox.pending(),
    "Inbox.pending of a bottle": lambda inbox, queue: inbox.pending("dev"),
    "Inbox.history": lambda inbox, queue: inbox.history(),
    "Inbox.history of a bottle": lambda inbox, queue: inbox.history(bottle_slug="dev"),
    "Inbox.failed": lambda inbox, queue: inbox.failed(),
    "Inbox.summary": lambda inbox, queue: [inbox.summary(each.proposal.id) for each in inbox.history()],
    "Inbox.changes": lambda inbox, queue: inbox.changes(0),
    "Inbox.watch": lambda inbox, queue: [next(inbox.watch(0, timeout=60))],
    "Inbox.stats": lambda inbox, queue: inbox.stats(),
    "QueueStore.pending": lambda inbox, queue: queue.pending(),
    "QueueStore.list_items": lambda inbox, queue: queue.list_items(),
}


def test_no_list_reads_a_payload(ids: list[str]) -> None:
    with Inbox() as inbox, QueueStore("dev") as queue:
        for name, list_all in LISTS.items():
            assert list_all(inbox, queue) or name == "Inbox.failed", name
        listed = inbox.history()
        assert [each.proposal.id for each in listed] == ids[::-1]
        assert {each.proposal.payload_bytes for each in listed} == {len(PAYLOAD)}
        assert {each.damaged for each in listed} == {None}
        modified = listed[2].response
        assert modified is not None
        assert (modified.final_bytes, modified.final_sha256) == (len(FINAL), sha256_hex(FINAL.encode()))
        for proposal_id in ids:
            with pytest.raises(DatabaseCorruptError):  # so whoever reads one is found out
                inbox.review(proposal_id)
        with pytest.raises(DatabaseCorruptError):
            queue.list_pending_proposals()


def test_no_command_that_lists_reads_a_payload(ids: list[str], host: Host) -> None:
    for command in ("pending", "history", "stats"):
        assert "dev" in host.run(command).stdout, command
    assert [item["id"] for item in host.json("pending")] == ids[:1]
    assert [item["id"] for item in host.json("history")] == ids[::-1]
    for item in host.json("history"):
        assert not {"proposed_file", "final_file", "diff"} & {*item, *(item["response"] or {})}
    asked = [HELPER, "pending", "--bottle", "dev", "--db", host_db_path(), "--json"]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert [item["id"] for item in json.loads(told)] == ids[:1]


def test_a_list_says_what_it_sees_is_damaged_and_the_whole_says_the_rest(host: Host) -> None:
    """A list reads no payload, so that it cannot tell whether it is the one whose hash is beside it."""
    with QueueStore("dev") as queue, Inbox() as inbox:
        asked, other = queue.write_proposal(proposal()), queue.write_proposal(proposal())
        decide(inbox, asked, "modified", final_file="as it was signed\n")
        decide(inbox, other)
    db = host_db_path()
    ((trigger,),) = witness(db, "SELECT sql FROM sqlite_schema WHERE name = 'responses_are_final'")
    witness(
        db,
        "DROP TRIGGER responses_are_final",
        "UPDATE responses SET final_file = 'something else' WHERE status = 'modified'",
        "UPDATE responses SET notes = 'nobody wrote this' WHERE status = 'approved'",
        trigger,
    )
    with Inbox() as inbox:
        approved, modified = inbox.history()
        assert approved.damaged is not None
        assert modified.damaged is None
        whole = inbox.read(modified.proposal.id)
        assert whole.damaged is not None
        assert "final file" in whole.damaged
        assert [each.kind for each in inbox.review(modified.proposal.id).odd] == ["damaged"]
    with QueueStore("dev", operator_keys=Keys().keyring_file) as queue:
        assert [each.damaged is None for each in queue.list_items()] == [False, True]
        with pytest.raises(AuditIntegrityError, match="final file"):
            queue.read_response(modified.proposal.id)


def test_a_list_row_holds_no_payload(host: Host) -> None:
    host.propose()
    with Inbox() as inbox:
        (item,) = inbox.pending()
    assert isinstance(item, InboxSummary)
    for name in ("proposed_file", "final_file", "diff"):
        assert not hasattr(item.proposal, name)
