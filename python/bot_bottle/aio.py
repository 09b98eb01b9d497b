"""How does an asyncio program wait for answers? Without a thread per wait, on the process's one watcher.

:class:`AsyncQueueStore` and :class:`AsyncInbox` have the verbs of their blocking twins as coroutines. Only waits are
truly asynchronous; reads and writes, which take microseconds to milliseconds but may queue behind other writers for up
to 30 s, run in the loop's default executor. Cancelling a wait ends it and leaves the proposal pending.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from os import PathLike
from threading import Lock
from types import TracebackType
from typing import Any, TypeVar, overload

from bot_bottle._native import (
    Broker,
    Change,
    Database,
    Inbox,
    InboxItem,
    InboxSummary,
    Message,
    Proposal,
    QueueStore,
    Response,
    Review,
    Wait,
)
from bot_bottle.errors import ClosedError
from bot_bottle.states import Status, Surface

T = TypeVar("T")


async def _delivered(begin: Callable[[Callable[[Any], object]], Wait]) -> Any:
    """Starts a wait with a callback and awaits what the callback is given; an exception is raised."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any) -> None:
        if future.done():  # cancelled in the meantime
            return
        if isinstance(value, BaseException):
            future.set_exception(value)
        else:
            future.set_result(value)

    def deliver(value: Any) -> None:
        with suppress(RuntimeError):  # the loop was closed: nobody is left to be told
            loop.call_soon_threadsafe(settle, value)

    wait = begin(deliver)
    try:
        return await future
    finally:
        wait.cancel()


class AsyncQueueStore:
    """:class:`QueueStore` for asyncio; each verb does, returns and raises what its twin does."""

    def __init__(
        self,
        queue_key: str,
        db_path: str | PathLike[str] | None = None,
        *,
        broker: Broker | None = None,
        operator_keys: str | PathLike[str] | None = None,
    ) -> None:
        self._store = QueueStore(queue_key, db_path, broker=broker, operator_keys=operator_keys)

    def __repr__(self) -> str:
        return f"Async{self._store!r}"

    @property
    def queue_key(self) -> str:
        """As :attr:`QueueStore.queue_key`."""
        return self._store.queue_key

    @property
    def db_path(self) -> str:
        """As :attr:`QueueStore.db_path`."""
        return self._store.db_path

    async def write_proposal(self, proposal: Proposal) -> Proposal:
        """As :meth:`QueueStore.write_proposal`."""
        return await asyncio.to_thread(self._store.write_proposal, proposal)

    async def read_proposal(self, proposal_id: str) -> Proposal | None:
        """As :meth:`QueueStore.read_proposal`."""
        return await asyncio.to_thread(self._store.read_proposal, proposal_id)

    async def list_pending_proposals(self) -> list[Proposal]:
        """As :meth:`QueueStore.list_pending_proposals`."""
        return await asyncio.to_thread(self._store.list_pending_proposals)

    async def pending(self) -> list[InboxSummary]:
        """As :meth:`QueueStore.pending`."""
        return await asyncio.to_thread(self._store.pending)

    async def inspect(self, proposal_id: str) -> InboxItem | None:
        """As :meth:`QueueStore.inspect`."""
        return await asyncio.to_thread(self._store.inspect, proposal_id)

    async def list_items(self, *, limit: int = 100) -> list[InboxSummary]:
        """As :meth:`QueueStore.list_items`."""
        return await asyncio.to_thread(lambda: self._store.list_items(limit=limit))

    async def read_response(self, proposal_id: str) -> Response | None:
        """As :meth:`QueueStore.read_response`."""
        return await asyncio.to_thread(self._store.read_response, proposal_id)

    async def write_response(self, response: Response) -> Response:
        """As :meth:`QueueStore.write_response`."""
        return await asyncio.to_thread(self._store.write_response, response)

    @overload
    async def wait_for_response(self, proposal_id: str, timeout: float | None = None) -> Response: ...
    @overload
    async def wait_for_response(
        self,
        proposal_id: str,
        timeout: float | None = None,
        *,
        wake_on_question: bool = False,
        after_question: str | None = None,
    ) -> Response | Message: ...
    async def wait_for_response(
        self,
        proposal_id: str,
        timeout: float | None = None,
        *,
        wake_on_question: bool = False,
        after_question: str | None = None,
    ) -> Response | Message:
        """As :meth:`QueueStore.wait_for_response`."""
        word: Response | Message = await _delivered(
            lambda done: self._store.begin_wait(
                proposal_id, done, timeout, wake_on_question=wake_on_question, after_question=after_question
            )
        )
        return word

    async def begin_wait(
        self,
        proposal_id: str,
        callback: Callable[[Any], object],
        timeout: float | None = None,
        *,
        wake_on_question: bool = False,
        after_question: str | None = None,
    ) -> Wait:
        """As :meth:`QueueStore.begin_wait`."""
        return await asyncio.to_thread(
            lambda: self._store.begin_wait(
                proposal_id, callback, timeout, wake_on_question=wake_on_question, after_question=after_question
            )
        )

    async def answer(self, proposal_id: str, text: str, *, message_id: str | None = None) -> Message:
        """As :meth:`QueueStore.answer`."""
        return await asyncio.to_thread(lambda: self._store.answer(proposal_id, text, message_id=message_id))

    async def withdraw_proposal(self, proposal_id: str, reason: str = "withdrawn by the requester") -> None:
        """As :meth:`QueueStore.withdraw_proposal`."""
        await asyncio.to_thread(self._store.withdraw_proposal, proposal_id, reason)

    async def archive_proposal(self, proposal_id: str) -> None:
        """As :meth:`QueueStore.archive_proposal`."""
        await asyncio.to_thread(self._store.archive_proposal, proposal_id)

    def close(self) -> None:
        """As :meth:`QueueStore.close`."""
        self._store.close()

    async def __aenter__(self) -> AsyncQueueStore:
        return self

    async def __aexit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class AsyncInbox:
    """:class:`Inbox` for asyncio; each verb does, returns and raises what its twin does.

    The first verb opens the inbox, which finishes managed files that a crash left half done.
    """

    def __init__(self, db_path: str | PathLike[str] | None = None) -> None:
        self._database = Database(db_path)
        self._opening = Lock()
        self._inbox: Inbox | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"Async{self._database!r}".replace("Database", "Inbox", 1)

    def _opened(self) -> Inbox:
        with self._opening:
            if self._closed:
                raise ClosedError("this inbox was closed; open another")
            if self._inbox is None:
                self._inbox = Inbox(self._database.path)
        if self._closed:  # closed while it was being opened
            self._inbox.close()
        return self._inbox

    async def _do(self, verb: Callable[[Inbox], T]) -> T:
        return await asyncio.to_thread(lambda: verb(self._opened()))

    @property
    def db_path(self) -> str:
        """As :attr:`Inbox.db_path`."""
        return self._database.path

    async def pending(self, bottle_slug: str | None = None) -> list[InboxSummary]:
        """As :meth:`Inbox.pending`."""
        return await self._do(lambda inbox: inbox.pending(bottle_slug))

    async def failed(self) -> list[InboxSummary]:
        """As :meth:`Inbox.failed`."""
        return await self._do(Inbox.failed)

    async def read(self, proposal_id: str) -> InboxItem:
        """As :meth:`Inbox.read`."""
        return await self._do(lambda inbox: inbox.read(proposal_id))

    async def summary(self, proposal_id: str) -> InboxSummary:
        """As :meth:`Inbox.summary`."""
        return await self._do(lambda inbox: inbox.summary(proposal_id))

    async def review(self, proposal_id: str) -> Review:
        """As :meth:`Inbox.review`."""
        return await self._do(lambda inbox: inbox.review(proposal_id))

    async def history(
        self, *, bottle_slug: str | None = None, limit: int = 100, before: str | None = None
    ) -> list[InboxSummary]:
        """As :meth:`Inbox.history`."""
        return await self._do(lambda inbox: inbox.history(bottle_slug=bottle_slug, limit=limit, before=before))

    async def decide(
        self,
        proposal_id: str,
        status: Status,
        *,
        review_sha256: str | None = None,
        payload_sha256: str | None = None,
        notes: str = "",
        final_file: str | bytes | None = None,
        decided_by: str | None = None,
        surface: Surface = "api",
        grant: str | None = None,
    ) -> Response:
        """As :meth:`Inbox.decide`."""
        return await self._do(
            lambda inbox: inbox.decide(
                proposal_id,
                status,
                review_sha256=review_sha256,
                payload_sha256=payload_sha256,
                notes=notes,
                final_file=final_file,
                decided_by=decided_by,
                surface=surface,
                grant=grant,
            )
        )

    async def ask(
        self,
        proposal_id: str,
        text: str,
        *,
        asked_by: str | None = None,
        surface: Surface = "api",
        message_id: str | None = None,
    ) -> Message:
        """As :meth:`Inbox.ask`."""
        return await self._do(
            lambda inbox: inbox.ask(proposal_id, text, asked_by=asked_by, surface=surface, message_id=message_id)
        )

    async def watch(self, since: int | None = None, *, timeout: float | None = None) -> AsyncIterator[Change]:
        """Changes after ``since``, as they come; as :meth:`Inbox.watch`."""
        inbox = await self._do(lambda inbox: inbox)
        at = await asyncio.to_thread(inbox.last_change) if since is None else since
        while True:
            for change in await asyncio.to_thread(inbox.changes, at):
                at = change.seq
                yield change
            try:
                await asyncio.wait_for(_delivered(partial(inbox.begin_watch, at)), timeout)
            except asyncio.TimeoutError:  # another class before Python 3.11
                return

    async def last_change(self) -> int:
        """As :meth:`Inbox.last_change`."""
        return await self._do(Inbox.last_change)

    async def changes(self, since: int = 0, *, limit: int = 1000) -> list[Change]:
        """As :meth:`Inbox.changes`."""
        return await self._do(lambda inbox: inbox.changes(since, limit=limit))

    async def begin_watch(self, since: int, callback: Callable[[BaseException | None], object]) -> Wait:
        """As :meth:`Inbox.begin_watch`."""
        return await self._do(lambda inbox: inbox.begin_watch(since, callback))

    async def stats(self) -> dict[str, Any]:
        """As :meth:`Inbox.stats`."""
        return await self._do(Inbox.stats)

    async def recover(self) -> int:
        """As :meth:`Inbox.recover`."""
        return await self._do(Inbox.recover)

    def close(self) -> None:
        """As :meth:`Inbox.close`."""
        self._closed = True
        if self._inbox is not None:
            self._inbox.close()

    async def __aenter__(self) -> AsyncInbox:
        return self

    async def __aexit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
