"""How does the dashboard feel in a browser, and what does serving it hold? `python -m benchmarks.dashboard` prints it.

It drives the system's Chromium against `bot-bottle serve --operator` in a root of its own. docs/dashboard.md has the
figures.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.harness import times
from bot_bottle import BottleStore, Broker, Inbox, Proposal, QueueStore
from bot_bottle.web.dashboard import login

CLI = Path(sys.executable).parent / "bot-bottle"
EVENTS, CLICKS = 200, 100
WAITS, PAGES = 1000, 20
CLIENTS, REQUESTS_A_SECOND, SECONDS = 200, 20, 20


def main() -> None:
    home = Path(tempfile.mkdtemp())
    os.environ["BOT_BOTTLE_ROOT"] = str(home / "root")
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            with serve() as (served, _, _):
                interactive(browser, served)
                painted(browser, served)
                decided(browser, served)
            with serve() as (served, broker, process):
                memory(browser, served, broker, process)
                crowd(served)
            browser.close()
    finally:
        shutil.rmtree(home)


@contextmanager
def serve() -> Iterator[tuple[str, str, int]]:
    command = [CLI, "serve", "--operator", "--operator-listen", "127.0.0.1:0", "--broker-listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        threading.Thread(target=lambda: [None for _ in process.stdout or ()], daemon=True).start()
        try:
            yield said["operator"], said["url"], process.pid
        finally:
            process.terminate()


def opened(browser: Browser, served: str) -> Page:
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.goto(login.make_link(served))
    page.wait_for_selector("html[data-live=true]")
    return page


def until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.001)


def say(what: str, milliseconds: list[float]) -> None:
    took = times([round(each * 1e6) for each in milliseconds])
    print(
        f"{what}: median {took['median_ms']:.1f} ms, p99 {took['p99_ms']:.1f} ms, worst {took['worst_ms']:.1f} ms",
        flush=True,
    )


def interactive(browser: Browser, served: str) -> None:
    """From the request for the page to a selected, painted proposal, with 1,000 pending."""
    for number in range(1000):
        slug = f"b{number // 100}"
        with QueueStore(slug) as queue:
            queue.write_proposal(Proposal.new(slug, "capability-block", f"FROM x:{number}\n" * 20, f"reason {number}"))
    page = opened(browser, served)
    page.add_init_script(
        """new MutationObserver((_, seen) => {
            if (!document.querySelector('#review[data-shown]')) return;
            seen.disconnect();
            window.ready = performance.now();
        }).observe(document, { subtree: true, childList: true, attributes: true });"""
    )
    took = []
    for _ in range(10):
        page.reload()
        until(lambda: page.evaluate("window.ready"))
        took.append(float(page.evaluate("window.ready")))
    say("interactive with 1,000 pending", took)
    page.context.close()


def painted(browser: Browser, served: str) -> None:
    """From the commit of a proposal to the frame that has its row, with the page filtered to what is new."""
    page = opened(browser, served)
    page.fill("#filter", "new-reason")
    page.evaluate(
        """() => {
            window.seen = {};
            new MutationObserver(() => {
                for (const row of document.querySelectorAll('.row'))
                    if (!window.seen[row.id]) requestAnimationFrame(() => requestAnimationFrame(() => {
                        window.seen[row.id] ??= performance.timeOrigin + performance.now();
                    }));
            }).observe(document.getElementById('list'), { subtree: true, childList: true });
        }"""
    )
    took = []
    for number in range(EVENTS):
        with QueueStore("fresh") as queue:
            made = queue.write_proposal(Proposal.new("fresh", "capability-block", f"new {number}\n", "new-reason"))
            at = time.time() * 1000
            until(lambda row=f"row-{made.id}": page.evaluate(f"window.seen['{row}']"))  # type: ignore[misc]
            took.append(page.evaluate(f"window.seen['row-{made.id}']") - at)
            # One at a time, so that each is in view.
            queue.withdraw_proposal(made.id)
            page.keyboard.press("Escape")
            page.keyboard.press("c")
            page.fill("#filter", "new-reason")
    say("commit of a proposal to its painted row", took)
    page.context.close()


def decided(browser: Browser, served: str) -> None:
    """From the click on Approve in the dialog to the waiter that returns, in the same process as the clock."""
    page = opened(browser, served)
    # The first look at what is asked has to last a moment; after that the click is what is measured.
    page.evaluate(
        "addEventListener('click', () => { window.clicked = performance.timeOrigin + performance.now() }, true)"
    )
    took = []
    for number in range(CLICKS):
        with QueueStore("waits") as queue:
            made = queue.write_proposal(Proposal.new("waits", "capability-block", f"wait {number}\n", "w"))
            returned: list[float] = []

            def wait(queue: QueueStore = queue, made: Proposal = made, returned: list[float] = returned) -> None:
                queue.wait_for_response(made.id, 60)
                returned.append(time.time() * 1000)

            thread = threading.Thread(target=wait)
            thread.start()
            page.fill("#filter", made.id)
            page.click(f"#row-{made.id}")
            page.wait_for_selector(f"#review[data-shown='{made.id}']")
            page.wait_for_timeout(300)
            page.click("#actions [data-key=a]")
            page.wait_for_selector("dialog")
            page.wait_for_timeout(300)
            page.click("dialog button.yes")
            thread.join()
            took.append(returned[0] - float(page.evaluate("window.clicked")))
    say("click on Approve to the waiter's return", took)
    page.context.close()


def memory(browser: Browser, served: str, broker: str, process: int) -> None:
    """Of `serve` with waits over the broker and open pages."""
    home = Path(os.environ["BOT_BOTTLE_ROOT"])
    pages = [opened(browser, served) for _ in range(PAGES)]
    waits, queues = [], []
    for at in range(WAITS // 100):
        slug = f"over{at}"
        BottleStore().register(slug, backend="docker")
        token = home / f"{slug}.token"
        token.touch(0o600)
        token.write_text(BottleStore().issue_token(slug))
        queue = QueueStore(slug, broker=Broker(broker, token))
        queues.append(queue)  # its waits end with it
        for number in range(100):
            made = queue.write_proposal(Proposal.new(slug, "capability-block", f"{number}\n" * 200, "why"))
            waits.append(queue.begin_wait(made.id, lambda _: None))
    with Inbox() as inbox:
        until(lambda: inbox.stats()["waiting"] >= WAITS)
    time.sleep(15)
    pages_held = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    mebibytes = pages_held * os.sysconf("SC_PAGE_SIZE") / 2**20
    print(f"memory of serve with {WAITS:,} broker waits and {PAGES} open pages: {mebibytes:.0f} MiB", flush=True)
    for wait in waits:
        wait.cancel()
    for page in pages:
        page.context.close()


def crowd(served: str) -> None:
    """Programs that together ask so often, each on a connection of its own."""
    at = urlsplit(served)
    headers = {"Authorization": f"Bearer {login.make_token('bench', 3600.0)}"}
    took: list[float] = []
    wrong: list[str] = []
    begin = time.monotonic() + 1

    def ask(number: int) -> None:
        connection = HTTPConnection(str(at.hostname), at.port, timeout=30)
        pace = CLIENTS / REQUESTS_A_SECOND
        for turn in range(int(SECONDS / pace)):
            time.sleep(max(0.0, begin + turn * pace + number / REQUESTS_A_SECOND - time.monotonic()))
            sent = time.monotonic()
            try:
                connection.request("GET", "/v1/proposals?state=pending&limit=20", headers=headers)
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    wrong.append(str(answer.status))
            except OSError as error:
                wrong.append(str(error))
            took.append((time.monotonic() - sent) * 1000)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say(f"{CLIENTS} programs, {REQUESTS_A_SECOND} requests a second together, {len(wrong)} of {len(took)} failed", took)


if __name__ == "__main__":
    main()
