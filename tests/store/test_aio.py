"""Can a thousand coroutines wait at once, without a thread each, and be cancelled without harm?"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from bot_bottle import (
    AsyncInbox,
    AsyncQueueStore,
    ClosedError,
    Inbox,
    NotFoundError,
    Proposal,
    ProposalExpiredError,
    ProposalWithdrawnError,
    QueueStore,
    Response,
    WaitTimeoutError,
    new_id,
)
from store_process import decide, eventually, proposal
from transports import over_both

LATE = 20.0


def run(main: Coroutine[Any, Any, None]) -> None:
    async def in_time() -> None:
        await asyncio.wait_for(main, 60)

    asyncio.run(in_time())


async def until_waiting(inbox: Inbox, *proposal_ids: str) -> None:
    deadline = time.monotonic() + LATE
    while not all(inbox.read(known).waiting for known in proposal_ids):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


def test_each_verb_does_what_its_twin_does(db: Path, inbox: Inbox) -> None:
    async def main() -> None:
        async with AsyncQueueStore("dev", db) as queue:
            assert (queue.queue_key, queue.db_path) == ("dev", str(db))
            written = await queue.write_proposal(proposal())
            assert await queue.read_proposal(written.id) == written
            assert await queue.list_pending_proposals() == [written]
            assert [item.proposal.id for item in await queue.list_items(limit=5)] == [written.id]
            assert await queue.read_response(written.id) is None
            response = await queue.write_response(Response(written.id, "rejected", "no"))
            assert await queue.read_response(written.id) == response
            assert await queue.wait_for_response(written.id) == response
            item = await queue.inspect(written.id)
            assert item is not None
            assert item.state == "rejected"
            await queue.archive_proposal(written.id)
            other = await queue.write_proposal(proposal())
            await queue.withdraw_proposal(other.id, "never mind")
            with pytest.raises(ProposalWithdrawnError, match="never mind"):
                await queue.wait_for_response(other.id)
        with pytest.raises(ClosedError):
            await queue.list_pending_proposals()

    run(main())


@pytest.mark.parametrize(
    ("blocking", "awaited"), [(QueueStore, AsyncQueueStore), (Inbox, AsyncInbox)], ids=["QueueStore", "Inbox"]
)
def test_each_verb_is_there_with_its_twin_s_arguments(blocking: type, awaited: type) -> None:
    def verbs(of: type) -> dict[str, dict[str, object]]:
        found = {name: getattr(of, name) for name in dir(of) if not name.startswith("_")}
        return {
            name: {
                parameter.name: (parameter.kind, parameter.default)
                for parameter in inspect.signature(verb).parameters.values()
                if parameter.name != "self"
            }
            for name, verb in found.items()
            if callable(verb)
        }

    assert verbs(awaited) == verbs(blocking)
    assert {name for name in dir(awaited) if not name.startswith("_")} == {
        name for name in dir(blocking) if not name.startswith("_")
    }


def test_an_inbox_opens_without_a_wait_and_with_its_first_verb(db: Path, queue: QueueStore) -> None:
    async def main() -> None:
        written = queue.write_proposal(proposal())
        inbox = AsyncInbox(db)
        assert (inbox.db_path, repr(inbox)) == (str(db), f'AsyncInbox("{db}")')
        both = await asyncio.gather(inbox.last_change(), inbox.changes(limit=1))
        assert (both[0], [change.proposal_id for change in both[1]]) == (1, [written.id])
        assert (await inbox.stats())["pending"] == 1
        assert (await inbox.review(written.id)).item.proposal == written
        assert await inbox.recover() == 0
        told: list[object] = []
        (await inbox.begin_watch(0, told.append)).cancel()
        assert told == [None]
        inbox.close()
        unopened = AsyncInbox(db)
        unopened.close()
        for closed in (inbox, unopened):
            with pytest.raises(ClosedError):
                await closed.pending()

    run(main())


def test_an_iteration_ends_after_a_time_without_a_change(db: Path, queue: QueueStore) -> None:
    async def main() -> None:
        written = queue.write_proposal(proposal())
        async with AsyncInbox(db) as inbox:
            assert [change.proposal_id async for change in inbox.watch(0, timeout=0.05)] == [written.id]
            assert [change async for change in inbox.watch(timeout=0.05)] == []

    run(main())


def test_the_inbox_s_verbs_do_what_their_twins_do(db: Path, queue: QueueStore) -> None:
    async def main() -> None:
        written = queue.write_proposal(proposal())
        async with AsyncInbox(db) as inbox:
            assert [item.proposal.id for item in await inbox.pending("dev")] == [written.id]
            assert (await inbox.read(written.id)).proposal == written
            response = await inbox.decide(
                written.id, "modified", payload_sha256=written.payload_sha256, final_file="x", notes="n"
            )
            assert queue.read_response(written.id) == response
            assert await inbox.failed() == []
            assert [item.state for item in await inbox.history(limit=1)] == ["modified"]
        with pytest.raises(ClosedError):
            await inbox.pending()

    run(main())


def test_a_thousand_waits_share_one_watcher_thread(db: Path, inbox: Inbox) -> None:
    async def main() -> None:
        stores = [AsyncQueueStore(f"bottle-{n}", db) for n in range(5)]
        written = [
            QueueStore(store.queue_key, db).write_proposal(Proposal.new(store.queue_key, "t", f"x {n}"))
            for store in stores
            for n in range(40)
        ]
        threads, python_threads = len(os.listdir("/proc/self/task")), threading.active_count()
        by_key = {store.queue_key: store for store in stores}
        waits = [asyncio.create_task(by_key[k.bottle_slug].wait_for_response(k.id)) for k in written * 5]
        assert len(waits) == 1000
        await until_waiting(inbox, *[known.id for known in written])
        assert len(os.listdir("/proc/self/task")) == threads + 1
        assert threading.active_count() == python_threads
        assert not any(wait.done() for wait in waits)

        def answer() -> None:
            for known in written:
                decide(inbox, known, notes=known.id)

        decider = threading.Thread(target=answer)
        decider.start()
        responses = await asyncio.gather(*waits)
        decider.join()
        assert [response.notes for response in responses] == [known.id for known in written * 5]

    run(main())


@over_both
def test_the_loop_runs_on_while_a_coroutine_waits(way: dict[str, Any], queue: QueueStore, inbox: Inbox) -> None:
    async def main() -> None:
        written = queue.write_proposal(proposal())
        wait = asyncio.create_task(AsyncQueueStore("dev", **way).wait_for_response(written.id))
        await until_waiting(inbox, written.id)
        response = await asyncio.to_thread(decide, inbox, written)
        assert await wait == response

    run(main())


@over_both
def test_waits_end_with_their_errors(way: dict[str, Any], queue: QueueStore) -> None:
    async def main() -> None:
        store = AsyncQueueStore("dev", **way)
        written = queue.write_proposal(proposal())
        with pytest.raises(WaitTimeoutError):
            await store.wait_for_response(written.id, 0)
        start = time.monotonic()
        with pytest.raises(WaitTimeoutError):
            await store.wait_for_response(written.id, 0.2)
        assert 0.2 <= time.monotonic() - start < LATE
        with pytest.raises(NotFoundError):
            await store.wait_for_response(new_id())
        expiring = queue.write_proposal(proposal(expires_in=0.1))
        with pytest.raises(ProposalExpiredError):
            await store.wait_for_response(expiring.id)
        wait = asyncio.create_task(store.wait_for_response(written.id))
        await asyncio.sleep(0)
        store.close()
        with pytest.raises(ClosedError):
            await wait

    run(main())


@over_both
def test_a_cancelled_wait_leaves_its_proposal_pending(way: dict[str, Any], queue: QueueStore, inbox: Inbox) -> None:
    async def main() -> None:
        store = AsyncQueueStore("dev", **way)
        written = queue.write_proposal(proposal())
        wait = asyncio.create_task(store.wait_for_response(written.id))
        await until_waiting(inbox, written.id)
        wait.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wait
        assert queue.list_pending_proposals() == [written]
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(store.wait_for_response(written.id), 0.05)
        while inbox.read(written.id).waiting:
            await asyncio.sleep(0.002)
        response = decide(inbox, written)
        assert await store.wait_for_response(written.id) == response

    run(main())


@over_both
def test_a_loop_that_was_closed_meanwhile_harms_nobody(way: dict[str, Any], queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal())
    store = AsyncQueueStore("dev", **way)

    async def begin() -> None:
        asyncio.create_task(store.wait_for_response(written.id))  # noqa: RUF006  # abandoned on purpose
        await until_waiting(inbox, written.id)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()  # with the wait still pending in it
    got: list[object] = []
    queue.begin_wait(written.id, got.append)
    decide(inbox, written)
    eventually(lambda: got)
    assert queue.wait_for_response(written.id).status == "approved"


@over_both
def test_two_loops_in_two_threads_wait_at_once(way: dict[str, Any], queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal())
    answers: list[Response] = []

    async def main() -> None:
        answers.append(await AsyncQueueStore("dev", **way).wait_for_response(written.id, LATE))

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    eventually(lambda: inbox.read(written.id).waiting)
    response = decide(inbox, written)
    for thread in threads:
        thread.join(LATE)
    assert answers == [response, response]


def test_changes_are_iterated_as_they_come(db: Path, queue: QueueStore) -> None:
    async def main() -> None:
        async with AsyncInbox(db) as inbox:
            written = [queue.write_proposal(proposal()) for _ in range(3)]
            seen = []
            async for change in inbox.watch(1):
                seen.append(change.proposal_id)
                if len(seen) == 2:
                    written.append(await asyncio.to_thread(queue.write_proposal, proposal()))
                if len(seen) == 3:
                    break
            assert seen == [known.id for known in written[1:]]

    run(main())


def test_an_iteration_from_now_on_sees_what_comes_and_ends_with_the_inbox(db: Path, queue: QueueStore) -> None:
    async def main() -> None:
        queue.write_proposal(proposal())
        async with AsyncInbox(db) as inbox:
            changes = inbox.watch()
            first = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0.2)  # it begins with what there is when it is first asked
            later = await asyncio.to_thread(queue.write_proposal, proposal())
            assert (await first).proposal_id == later.id
            following = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0.05)
            inbox.close()
            with pytest.raises(ClosedError):
                await following

    run(main())
