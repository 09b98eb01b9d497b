"""What does each contender do when it is told to propose, to wait or to answer?

Peers run in an environment of their own (requirements.txt). Each is used as its documentation says, with one change:
``synchronous=FULL``, where its own default is less.
"""

import asyncio
import itertools
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAYLOAD = "routes:\n" + "".join(f"  - host: api-{number:02}.example.com\n    matches: []\n" for number in range(13))


class Contender:
    """One contender's ways. Keys are opaque: what ``ask`` returns, ``wait`` and ``answer`` take."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.numbers = itertools.count()

    def fresh(self) -> str:
        """A payload that no other process and no earlier call has: equal ones may be merged."""
        return f"# {os.getpid()} {next(self.numbers)}\n{PAYLOAD}"

    def ask(self) -> str:
        """Queues something that somebody will wait for."""
        raise NotImplementedError

    def wait(self, key: str) -> None:
        """Blocks until ``key`` is answered, and reads the answer."""
        raise NotImplementedError

    def answer(self, key: str) -> None:
        raise NotImplementedError

    def write(self) -> None:
        """One durable row with a payload."""
        raise NotImplementedError

    def decide(self) -> Callable[[], object]:
        """A decision that makes a grant, ready to be timed."""
        raise NotImplementedError

    def append(self, size: int) -> Callable[[], object]:
        """So many audit entries in one transaction, ready to be timed."""
        raise NotImplementedError

    def idle(self, count: int) -> None:
        """Has ``count`` waiters wait for what will not come, in the background."""
        for _ in range(count):
            threading.Thread(target=self.wait, args=[self.ask()], daemon=True).start()


class BotBottle(Contender):
    def __init__(self, place: Path) -> None:
        import bot_bottle

        super().__init__(place)
        self.api = bot_bottle
        self.database = str(place / "bot-bottle.db")
        self.queue = bot_bottle.QueueStore("waiting", self.database)
        self.inbox = bot_bottle.Inbox(self.database)
        self.audit = bot_bottle.AuditStore(self.database)
        self.written = 0

    def proposal(self, queue: Any, **rest: Any) -> Any:
        return self.api.Proposal.new(queue.queue_key, "egress-allow", self.fresh(), "because", **rest)

    def ask(self) -> str:
        proposal = self.queue.write_proposal(self.proposal(self.queue))
        return f"{proposal.id}/{proposal.payload_sha256}"

    def wait(self, key: str) -> None:
        self.queue.wait_for_response(key.split("/")[0])

    def answer(self, key: str) -> None:
        proposal_id, seen = key.split("/")
        self.inbox.decide(proposal_id, "approved", payload_sha256=seen, decided_by="root")

    def write(self) -> None:
        if self.written % 20 == 0:  # few are pending in a bottle, and 200 are the most
            self.writing = self.api.QueueStore(f"b{os.getpid()}-{self.written}", self.database)
        self.writing.write_proposal(self.proposal(self.writing))
        self.written += 1

    def idle(self, count: int) -> None:
        if count == 1:
            return super().idle(count)

        async def wait_all() -> None:
            queues = [self.api.AsyncQueueStore(f"idle-{number // 50}", self.database) for number in range(count)]
            proposals = [await queue.write_proposal(self.proposal(queue)) for queue in queues]
            pairs = zip(queues, proposals, strict=True)
            await asyncio.gather(*(queue.wait_for_response(proposal.id) for queue, proposal in pairs))

        threading.Thread(target=asyncio.run, args=[wait_all()], daemon=True).start()

    def decide(self) -> Callable[[], object]:
        proposal = self.queue.write_proposal(self.proposal(self.queue, fingerprint="api.example.com"))
        return lambda: self.inbox.decide(
            proposal.id, "approved", payload_sha256=proposal.payload_sha256, decided_by="root", grant="uses:3"
        )

    def append(self, size: int) -> Callable[[], object]:
        now = "2026-01-31T12:00:00.000000Z"
        entry = self.api.AuditEntry(now, "dev", "egress-allow", "approved", "", "because")
        return lambda: self.audit.write_audit_entries([entry] * size)

    def list(self) -> None:
        assert len(self.queue.list_pending_proposals()) == 10

    def tail(self) -> None:
        assert len(self.audit.read_audit_entries(bottle_slug="b7", limit=100)) == 100

    def filter(self) -> None:
        assert self.audit.read_audit_entries("c0", "b7", limit=100)


SCHEMA = """
CREATE TABLE IF NOT EXISTS proposals (id TEXT PRIMARY KEY, slug TEXT, payload TEXT, status TEXT, arrived REAL);
CREATE TABLE IF NOT EXISTS responses (id TEXT PRIMARY KEY, status TEXT);
"""


class Stdlib(Contender):
    """The standard library's ``sqlite3``, written well: one connection for each thread, its statement cache, and
    ``PRAGMA data_version`` every millisecond, which is what a good program can do without events."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.local = threading.local()
        self.connection().executescript(SCHEMA)

    def connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.place / "queue.db", timeout=30, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def connection(self) -> sqlite3.Connection:
        if not hasattr(self.local, "connection"):
            self.local.connection = self.connect()
        connection: sqlite3.Connection = self.local.connection
        return connection

    def execute(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        return self.connection().execute(sql, values).fetchall()

    def ask(self) -> str:
        key = f"{os.getpid()}-{next(self.numbers)}"
        self.execute("INSERT INTO proposals VALUES (?, 'dev', ?, 'pending', ?)", key, PAYLOAD, time.time())
        return key

    def write(self) -> None:
        self.ask()

    def answer(self, key: str) -> None:
        self.execute("INSERT INTO responses VALUES (?, 'approved')", key)

    def wait(self, key: str) -> None:
        seen = None
        while True:
            version = self.execute("PRAGMA data_version")
            if version != seen and self.execute("SELECT status FROM responses WHERE id = ?", key):
                return
            seen = version
            time.sleep(0.001)


class OldDesign(Stdlib):
    """As bot-bottle's queue was first written: a new connection for each operation, a look every half second."""

    def execute(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        connection = self.connect()
        try:
            return connection.execute(sql, values).fetchall()
        finally:
            connection.close()

    def wait(self, key: str) -> None:
        while not self.execute("SELECT status FROM responses WHERE id = ?", key):
            time.sleep(0.5)


class Honker(Contender):
    """honker: events on SQLite, by a thread that reads ``data_version`` every millisecond."""

    def __init__(self, place: Path) -> None:
        import honker

        super().__init__(place)
        self.db = honker.open(str(place / "honker.db"))
        with self.db.transaction() as tx:  # its own default is NORMAL
            tx.execute("COMMIT")
            tx.execute("PRAGMA synchronous=FULL")
            tx.execute("BEGIN IMMEDIATE")
            tx.execute("CREATE TABLE IF NOT EXISTS responses (id TEXT PRIMARY KEY, status TEXT)")
        self.queue = self.db.queue("proposals")

    def ask(self) -> str:
        return str(self.queue.enqueue(PAYLOAD))

    def write(self) -> None:
        self.queue.enqueue(PAYLOAD)

    def answer(self, key: str) -> None:
        with self.db.transaction() as tx:
            tx.execute("INSERT INTO responses VALUES (?, 'approved')", [key])
            tx.notify("answers", key)

    async def waits(self, key: str) -> None:
        listener = self.db.listen("answers")
        while not self.db.query("SELECT status FROM responses WHERE id = ?", [key]):
            await anext(listener)

    def wait(self, key: str) -> None:
        asyncio.run(self.waits(key))

    def idle(self, count: int) -> None:
        async def wait_all() -> None:
            await asyncio.gather(*(self.waits(str(-number)) for number in range(count)))

        threading.Thread(target=asyncio.run, args=[wait_all()], daemon=True).start()


class Huey(Contender):
    """huey's SqliteHuey: tasks and their results; ``fsync=True`` is synchronous=FULL."""

    def __init__(self, place: Path) -> None:
        from huey import SqliteHuey

        super().__init__(place)
        self.huey = SqliteHuey(filename=str(place / "huey.db"), fsync=True, timeout=30)
        self.task = self.huey.task()(len)

    def ask(self) -> str:
        return str(self.task(PAYLOAD).id)

    def write(self) -> None:
        self.task(PAYLOAD)

    def answer(self, key: str) -> None:
        self.huey.put_result(key, "approved")

    def wait(self, key: str) -> None:
        self.huey.result(key, blocking=True)


class LiteQueue(Contender):
    """litequeue; it has no way to wait."""

    def __init__(self, place: Path) -> None:
        from litequeue import LiteQueue

        super().__init__(place)
        self.queue = LiteQueue(str(place / "lite.db"), timeout=30)
        self.queue.conn.execute("PRAGMA synchronous=FULL")  # its own default is NORMAL

    def write(self) -> None:
        self.queue.put(PAYLOAD)


class PersistQueue(Contender):
    """persist-queue's SQLiteQueue; another process's item is seen after up to 10 s, so it is not asked to wait."""

    def __init__(self, place: Path) -> None:
        from persistqueue import SQLiteQueue

        super().__init__(place)
        self.queue = SQLiteQueue(str(place), auto_commit=True, timeout=30)

    def write(self) -> None:
        self.queue.put(PAYLOAD)


CONTENDERS: dict[str, type[Contender]] = {
    "bot-bottle": BotBottle,
    "old design": OldDesign,
    "sqlite3": Stdlib,
    "honker": Honker,
    "huey": Huey,
    "litequeue": LiteQueue,
    "persist-queue": PersistQueue,
}
