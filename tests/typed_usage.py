"""Do the stubs say what a user's type checker needs to know? Checked by mypy in ``make lint``, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from typing_extensions import assert_type

from bot_bottle import (
    STATUS_APPROVED,
    STATUS_MODIFIED,
    AlreadyDecidedError,
    AsyncInbox,
    AsyncQueueStore,
    AuditEntry,
    AuditReport,
    AuditStore,
    Bottle,
    BottleStore,
    Change,
    Database,
    Grant,
    GrantStore,
    Inbox,
    InboxItem,
    InboxSummary,
    Plan,
    Proposal,
    QueueStore,
    Response,
    SchemaTooNewError,
    Supervise,
    Wait,
    visible,
)
from bot_bottle.states import State, Status
from bot_bottle.supervise import wait_for_response


def sidecar(payload: bytes) -> str | None:
    with QueueStore("dev", Path("/run/supervise/bot-bottle.db")) as queue:
        proposal = queue.write_proposal(Proposal.new("dev", "egress-allow", payload, expires_in=60.0))
        assert_type(proposal, Proposal)
        assert_type(queue.read_proposal(proposal.id), Proposal | None)
        assert_type(queue.list_pending_proposals(), list[Proposal])
        assert_type(queue.wait_for_response(proposal.id, timeout=30), Response)
        assert_type(wait_for_response("dev", proposal.id, timeout=None), Response)
        assert_type(queue.begin_wait(proposal.id, print), Wait)
        response = queue.read_response(proposal.id)
        return None if response is None else response.final_file


def operator() -> None:
    with Inbox() as inbox:
        for item in inbox.pending():
            assert_type(item, InboxSummary)
            assert_type(item.waiting, bool)
            try:
                inbox.decide(item.proposal.id, "approved", payload_sha256=item.proposal.payload_sha256, grant="uses:3")
            except AlreadyDecidedError as error:
                assert_type(error.decided_by, str)
        for change in inbox.watch(0, timeout=1):
            assert_type(change, Change)
        assert_type(inbox.stats(), dict[str, Any])


def misspelt(inbox: Inbox, item: InboxItem, change: Change, grant: Grant) -> bool:
    """Each of these is an error to a type checker: an ``ignore`` that there is nothing to ignore for is one as well."""
    seen, looked_at = item.proposal.id, item.proposal.payload_sha256
    inbox.decide(seen, "aproved", payload_sha256=looked_at)  # type: ignore[arg-type]
    inbox.decide(seen, "approved", payload_sha256=looked_at, surface="gui")  # type: ignore[arg-type]
    Response(seen, "reject")  # type: ignore[arg-type]
    BottleStore().register("dev", backend="docker", transport="pipe")  # type: ignore[arg-type]
    Supervise().prepare("dev", transport="pipe")  # type: ignore[arg-type]
    wrong = item.state == "expire" or item.apply_state == "written"  # type: ignore[comparison-overlap]
    wrong = wrong or change.kind == "approve" or grant.scope == "ever"  # type: ignore[comparison-overlap]
    return wrong or STATUS_APPROVED == "aproved"  # type: ignore[comparison-overlap]


def spelt(inbox: Inbox, item: InboxItem, status: Status) -> None:
    assert_type(inbox.decide(item.proposal.id, status, payload_sha256=item.proposal.payload_sha256).status, Status)
    assert_type(item.state, State)
    inbox.decide(item.proposal.id, STATUS_MODIFIED, payload_sha256=item.proposal.payload_sha256, final_file="x")


def others() -> None:
    entry = AuditStore().write_audit_entry(AuditEntry("2026-01-31T12:00:00Z", "dev", "egress", "seen"))
    assert_type(entry.seq, int | None)
    assert_type(AuditStore().verify(head=entry.entry_hash), AuditReport)
    assert_type(GrantStore().use_grant("dev", "gitleaks-allow", "f"), Grant | None)
    assert_type(Supervise().prepare("dev", files={"egress-allow": "routes.yaml"}), Plan)
    assert_type(Supervise().list(), list[Bottle])
    try:
        with Database().transaction() as transaction:
            rows = transaction.execute("SELECT 1 AS one", {"a": None})
        assert_type(rows, list[dict[str, int | float | str | bytes | None]])
    except SchemaTooNewError as error:
        assert_type(error.supported, int)
    assert_type(visible("x", multiline=False), str)


async def coroutines() -> Response:
    async with AsyncQueueStore("dev") as queue, AsyncInbox() as inbox:
        assert_type(inbox.watch(), AsyncIterator[Change])
        written = await queue.write_proposal(Proposal.new("dev", "t", "x"))
        return await queue.wait_for_response(written.id, 30)
