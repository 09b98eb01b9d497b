"""What does the broker add, for a waiter that a decision wakes over HTTP, for a thousand of them, and for proposals?"""

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import NamedTuple

import bot_bottle
from benchmarks.actor import memory_kib
from benchmarks.harness import CLI, OURS, Lab, Result, times
from benchmarks.waking import wake_helpers

WORKLOAD = "through the broker"


class Served(NamedTuple):
    """A broker of a root of its own."""

    pid: int
    url: str
    database: Path

    def token_file(self, slug: str) -> Path:
        """Of a bottle that runs from now on."""
        bottles = bot_bottle.BottleStore(self.database)
        bottles.register(slug, backend="docker")
        path = self.database.parent.with_name(f"{slug}.token")
        path.write_text(bottles.issue_token(slug))
        path.chmod(0o600)
        return path

    def queue(self, slug: str) -> bot_bottle.QueueStore:
        return bot_bottle.QueueStore(slug, broker=bot_bottle.Broker(self.url, self.token_file(slug)))


@contextmanager
def serve(root: Path) -> Iterator[Served]:
    """As the host does it, with all of it under ``root``."""
    environment = os.environ | {"BOT_BOTTLE_ROOT": str(root)}
    subprocess.run([CLI, "db", "migrate"], env=environment, stdout=DEVNULL, check=True)
    command = [CLI, "serve", "--broker-listen", "127.0.0.1:0"]
    with subprocess.Popen(command, env=environment, stdout=PIPE, stderr=DEVNULL, text=True) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        log = threading.Thread(target=lambda: [None for _ in process.stdout or ()])
        log.start()
        try:
            yield Served(process.pid, url, root / "db" / "bot-bottle.db")
        finally:
            process.terminate()
            log.join()


def run(lab: Lab) -> Iterator[Result]:
    with lab.root() as root, serve(root) as broker:
        way = {"SUPERVISE_URL": broker.url, "SUPERVISE_TOKEN_FILE": str(broker.token_file("helper"))}
        yield Result(WORKLOAD, "wake-up of a helper", OURS, wake_helpers(lab, broker.database, way))
    with lab.root() as root, serve(root) as broker:
        yield idle(lab, broker)
    with lab.root() as root, serve(root) as broker:
        yield proposing(broker)


def idle(lab: Lab, broker: Served) -> Result:
    bottles, each, seconds = 5, 200, 60 if lab.full else 20
    queues = [broker.queue(f"idle-{number}") for number in range(bottles)]
    for queue in queues:
        for _ in range(each):
            queue.begin_wait(propose(queue, queue.queue_key), lambda _: None)
    time.sleep(5)  # until all wait
    before = cpu_seconds(broker.pid)
    time.sleep(seconds)
    used = cpu_seconds(broker.pid) - before
    with bot_bottle.Inbox(broker.database) as inbox:
        waiting = sum(item.waiting for item in inbox.pending())
    figures = {
        "waiting": float(waiting),
        "cpu_percent_of_a_core": 100 * used / seconds,
        "resident_mib": memory_kib(broker.pid) / 1024,
    }
    return Result(WORKLOAD, "1,000 waits", OURS, figures)


def proposing(broker: Served) -> Result:
    """Each client of its own bottle, up to what a bottle may have pending."""
    queues = [broker.queue(f"busy-{number}") for number in range(16)]
    took: list[int] = []

    def work(queue: bot_bottle.QueueStore) -> None:
        for _ in range(150):
            called = time.monotonic_ns()
            propose(queue, queue.queue_key)
            took.append(time.monotonic_ns() - called)

    clients = [threading.Thread(target=work, args=[queue]) for queue in queues]
    start = time.monotonic()
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    rate = len(took) / (time.monotonic() - start)
    return Result(WORKLOAD, "proposals from 16 clients", OURS, {"per_second": rate} | times(took))


def propose(queue: bot_bottle.QueueStore, slug: str) -> str:
    payload = f"number: {time.monotonic_ns()}\n"
    return queue.write_proposal(bot_bottle.Proposal.new(slug, "egress-allow", payload, "because")).id


def cpu_seconds(pid: int) -> float:
    """Used so far, in user and in kernel mode (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
