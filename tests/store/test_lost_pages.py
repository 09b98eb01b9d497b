"""What is mapped can lose its pages at any moment: does a host's process live on, and is nothing lost that was said?"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bot_bottle import Inbox
from broker_process import Broker, client, proposal, token
from cli_process import Host
from store_process import Process, assert_sound

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the handler is Linux's")

BESIDE = ("-shm", "-turn")


def cut(host: Host, suffix: str, length: int = 0) -> None:
    with contextlib.suppress(FileNotFoundError):  # whoever opens it anew has removed it just now
        os.truncate(host.root / "db" / f"bot-bottle.db{suffix}", length)


def writes_at_each_word() -> None:
    """Says of each write the id, or in which way it was refused, until it has nothing to do any more."""
    import sys

    from bot_bottle import Inbox, Proposal, QueueStore
    from bot_bottle.errors import BotBottleError

    queue, inbox = QueueStore("dev"), Inbox()
    print("ready")
    for line in sys.stdin:
        try:
            if line.strip() == "read":
                print("read", len(inbox.pending()))
            else:
                print("wrote", queue.write_proposal(Proposal.new("dev", "capability-block", line)).id)
        except BotBottleError as error:
            print("refused", error.exit_code, error)


@pytest.mark.parametrize("suffix", BESIDE)
@pytest.mark.parametrize("length", [0, 4096])
def test_a_process_of_the_host_outlives_what_it_has_mapped(host: Host, suffix: str, length: int) -> None:
    with Process(writes_at_each_word) as writer:
        assert writer.says() == "ready"
        wrote = []

        def tell(word: str) -> str:
            writer.tell(word)
            said = writer.says()
            if said.startswith("wrote"):
                wrote.append(said.split()[1])
            return said

        assert tell("first").startswith("wrote")
        for attempt in range(4):
            cut(host, suffix, length)
            answers = [tell("read" if attempt % 2 else f"{attempt} {again}") for again in range(3)]
            assert all(answer.split()[0] != "refused" for answer in answers[1:]), answers
        writer.ends()
    with Inbox() as inbox:
        assert {item.proposal.id for item in inbox.pending()} >= set(wrote)
    assert_sound(host.root / "db" / "bot-bottle.db")


def writes_until_told() -> None:
    """Writes without a pause, and says what was acknowledged."""
    import threading

    from bot_bottle import Proposal, QueueStore
    from bot_bottle.errors import BotBottleError

    queue = QueueStore(f"dev{__import__('os').getpid()}")
    slug = queue.queue_key
    told = threading.Event()
    threading.Thread(target=lambda: (input(), told.set()), daemon=True).start()
    print("ready")
    while not told.is_set():
        try:
            written = queue.write_proposal(Proposal.new(slug, "capability-block", __import__("uuid").uuid4().hex))
            queue.archive_proposal(written.id)
            print(written.id)
        except BotBottleError:
            pass


def test_writers_that_lose_their_pages_again_and_again_lose_nothing_they_acknowledged(host: Host) -> None:
    writers = [Process(writes_until_told) for _ in range(2)]
    for writer in writers:
        assert writer.says() == "ready"
    acknowledged = []
    for number in range(40):
        cut(host, BESIDE[number % 2], 0)
        acknowledged += [writer.says() for writer in writers]  # each goes on before the next blow
    for writer in writers:
        writer.tell()
        acknowledged += writer.ends().split()
    with Inbox() as inbox:
        kept = {item.proposal.id for item in inbox.history(limit=1_000_000)}
    assert set(acknowledged) <= kept
    assert_sound(host.root / "db" / "bot-bottle.db")


def test_the_broker_of_the_other_bottles_lives_on(host: Host, serve: Callable[..., Broker]) -> None:
    broker = serve()
    with client(broker, token("demo")) as demo, client(broker, token("other")) as other:
        for suffix in BESIDE * 2:
            assert demo.post("/v1/proposals", json=proposal(suffix + os.urandom(8).hex()).to_dict()).status_code == 200
            cut(host, suffix)
            answers = [
                speaks.post("/v1/proposals", json=proposal(os.urandom(8).hex(), slug).to_dict()).status_code
                for speaks, slug in ((other, "other"), (demo, "demo"), (other, "other"))
            ]
            assert answers[-1] == 200, answers
            assert broker.process.poll() is None


def loses_a_page_of_its_own(path: str) -> None:
    """Another file's page, in a process that has our handler."""
    import mmap
    import os

    from bot_bottle import Proposal, QueueStore

    QueueStore("dev").write_proposal(Proposal.new("dev", "capability-block", "x"))
    with open(path, "w+b") as file:
        file.truncate(8192)
        pages = mmap.mmap(file.fileno(), 8192)
        os.truncate(path, 0)
        print("ready")
        print(pages[4096])


def test_a_lost_page_of_any_other_file_ends_the_process_as_ever(host: Host, tmp_path: Path) -> None:
    with Process(loses_a_page_of_its_own, tmp_path / "file") as process:
        assert process.says() == "ready"
        assert process.popen.wait(timeout=60) == -signal.SIGBUS
