"""Does a sidecar that was given the operator's keys take only what they signed, whichever way it reaches the rows?"""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bot_bottle import (
    AsyncQueueStore,
    AuditIntegrityError,
    BottleStore,
    GrantStore,
    Inbox,
    Keys,
    Proposal,
    QueueStore,
)
from store_process import decide, proposal, witness
from transports import over_both

FORGED = (
    "UPDATE proposals SET state = 'approved'",
    "INSERT INTO responses SELECT seq, 'approved', '', payload_sha256, payload_sha256, 'operator', 'cli', "
    "arrival_timestamp, '', NULL, '', '', NULL FROM proposals",
)


@pytest.fixture
def mounted(db: Path, tmp_path: Path) -> Path:
    """The keyring as a launch mounts it."""
    BottleStore(db).register("dev", backend="docker")
    return Path(shutil.copy(Keys(db).keyring_file, tmp_path / "keyring"))


def strangers(tmp_path: Path) -> Path:
    """The keys of another host."""
    keys = Keys(tmp_path / "elsewhere.db")
    keys.rotate()
    return keys.keyring_file


@over_both
def test_what_the_operator_decided_is_taken(way: dict[str, Any], inbox: Inbox, mounted: Path) -> None:
    with QueueStore("dev", operator_keys=mounted, **way) as queue:
        written = queue.write_proposal(proposal())
        decide(inbox, written)
        answer = queue.wait_for_response(written.id, 20)
        assert answer.status == "approved"
        assert answer.signed is not None
        assert (answer.signed["bottle_slug"], answer.signed["scope"]) == ("dev", None)
        assert queue.read_response(written.id) == answer


@over_both
def test_what_nobody_signed_is_refused(db: Path, way: dict[str, Any], mounted: Path) -> None:
    with QueueStore("dev", operator_keys=mounted, **way) as queue:
        written = queue.write_proposal(proposal())
        witness(db, *FORGED)
        for read in (queue.wait_for_response, queue.read_response, queue.inspect):
            with pytest.raises(AuditIntegrityError, match="not signed"):
                read(written.id)

        async def waits() -> None:
            async with AsyncQueueStore("dev", operator_keys=mounted, **way) as store:
                await store.wait_for_response(written.id, 20)

        with pytest.raises(AuditIntegrityError, match="not signed"):
            asyncio.run(waits())


@over_both
def test_the_sidecar_verifies_for_itself(way: dict[str, Any], inbox: Inbox, mounted: Path, tmp_path: Path) -> None:
    """Not the host for it: what is between them, the broker too, answers nothing."""
    with QueueStore("dev", operator_keys=strangers(tmp_path), **way) as queue:
        written = queue.write_proposal(proposal())
        decide(inbox, written)
        with pytest.raises(AuditIntegrityError, match="not one of those trusted"):
            queue.wait_for_response(written.id, 20)
        with pytest.raises(AuditIntegrityError, match="not one of those trusted"):
            queue.read_response(written.id)
        (listed,) = queue.list_items()
        assert listed.response is None
        assert "not one of those trusted" in str(listed.damaged)


@over_both
def test_a_grant_counts_as_it_was_signed(
    db: Path, way: dict[str, Any], inbox: Inbox, mounted: Path, tmp_path: Path
) -> None:
    with QueueStore("dev", **way) as queue:
        written = queue.write_proposal(Proposal.new("dev", "gitleaks-allow", "a push", fingerprint="rule/path/1"))
    decide(inbox, written, grant="uses:3", notes="a test key")
    asked = ("dev", "gitleaks-allow", "rule/path/1")
    assert GrantStore(operator_keys=mounted, **way).use_grant(*asked) is not None
    with pytest.raises(AuditIntegrityError, match="not one of those trusted"):
        GrantStore(operator_keys=strangers(tmp_path), **way).use_grant(*asked)
    witness(db, "UPDATE grants SET scope = 'bottle', uses = NULL, uses_left = NULL")
    with pytest.raises(AuditIntegrityError, match="is not what key"):
        GrantStore(operator_keys=mounted, **way).use_grant(*asked)
    (listed,) = GrantStore(db).list_grants()
    assert "is not what key" in str(listed.damaged)


def test_an_answer_is_pickled_and_written_with_its_proof(db: Path, queue: QueueStore, inbox: Inbox) -> None:
    import pickle

    written = queue.write_proposal(proposal())
    answer = decide(inbox, written)
    assert pickle.loads(pickle.dumps(answer)).signed == answer.signed
    assert json.loads(json.dumps(answer.to_dict()))["signed"] == answer.signed
