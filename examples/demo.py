"""What does a day with bot-bottle look like? A bottle, its agent and its operator, played with real processes.

`make demo` builds everything and runs this. It works in a throw-away root (kept, and named at the end), prints the
commands an operator would type with what they print, and ends with a timeline of how soon the agent went on.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import demo_sidecars

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks import harness, waking

from bot_bottle import Inbox, Supervise, bot_bottle_root, host_db_path

BIN = Path(sys.executable).parent
BOTTLE = "demo"
ROUTES = "routes:\n  - host: docs.python.org\n"


def title(text: str) -> None:
    print(f"\n\033[1m── {text}\033[0m" if sys.stdout.isatty() else f"\n── {text}", flush=True)


def operator(*arguments: str, expect: int = 0) -> str:
    """Runs `bot-bottle`, shows the command and what it prints, and returns that."""
    print(f"operator $ bot-bottle {shlex.join(arguments)}", flush=True)
    ran = subprocess.run([BIN / "bot-bottle", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    print("".join(f"    {line}\n" for line in (ran.stdout + ran.stderr).splitlines()), end="", flush=True)
    if ran.returncode != expect:
        sys.exit(f"demo: bot-bottle {arguments[0]} ended with {ran.returncode} instead of {expect}")
    return ran.stdout


class Agent:
    """A sidecar's process that asks for a file and blocks, as the sidecars of a bottle do for their agent."""

    def __init__(self, name: str, tool: str, content: str, why: str, *options: str) -> None:
        self.name = name
        command = [
            BIN / "bot-bottle-sidecar", "propose", "--db", host_db_path(), "--bottle", BOTTLE, "--tool", tool,
            "--file", "-", "--justification", why, "--wait", "--json", *options,
        ]  # fmt: skip
        print(f"agent    $ bot-bottle-sidecar propose --tool {tool} --justification {why!r} --wait …", flush=True)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        self._process.stdin.write(content)
        self._process.stdin.close()
        self._went_on = 0.0
        self._said = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self._said = self._process.stdout.readline()
        self._went_on = time.time()

    def answer(self) -> dict[str, str | None]:
        """What it was told, once it has been."""
        self._reader.join(30)
        self._process.wait(30)
        code = self._process.returncode
        answer: dict[str, str | None] = json.loads(self._said)
        print(f"agent      went on: {answer['status']} (exit code {code})", flush=True)
        moment = answer.get("applied_at") or answer.get("decided_at")
        if moment:
            decided = datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
            timeline.append((moment, f"{self.name}: {answer['status']}", (self._went_on - decided) * 1e3))
        return answer


timeline: list[tuple[str, str, float]] = []


def newest(inbox: Inbox) -> str:
    """The id of the one proposal that is pending, once somebody waits for it."""
    for _change in changes(inbox):
        waiting = [item for item in inbox.pending() if item.waiting]
        if waiting:
            return waiting[0].proposal.id[:13]
    raise AssertionError("changes() does not end")


def changes(inbox: Inbox) -> Iterator[None]:
    # A lease is renewed without a bell, so that it wakes nobody; who wants to see one looks.
    end = time.monotonic() + 30
    while time.monotonic() < end:
        yield
        time.sleep(0.02)
    sys.exit("demo: nobody waited for an answer within 30 s")


def main_job(inbox: Inbox, routes: Path) -> None:
    title("An agent asks for a host; the operator looks and approves")
    agent = Agent("approve", "egress-allow", ROUTES + "  - host: pypi.org\n", "pip needs it")
    proposal = newest(inbox)
    operator("pending")
    operator("show", proposal)
    operator("approve", proposal, "--yes", "--notes", "fine for this task")
    agent.answer()
    print(f"host     $ cat {routes}\n    " + routes.read_text().replace("\n", "\n    ").rstrip())

    title("It asks for too much; the operator changes it before it runs")
    asked = ROUTES + "  - host: pypi.org\n  - host: files.example\n  - host: paste.example\n"
    agent = Agent("modify", "egress-allow", asked, "downloads, and sharing a log")
    changed = routes.with_name("reviewed.yaml")
    changed.write_text(ROUTES + "  - host: pypi.org\n  - host: files.example\n")
    operator("modify", newest(inbox), "--file", str(changed), "--notes", "no paste sites")
    print("agent      is told:\n    " + str(agent.answer()["diff"]).replace("\n", "\n    ").rstrip())

    title("It asks for everything; the operator says no, and why")
    agent = Agent("reject", "egress-allow", ROUTES + "  - host: any.example\n", "to be safe")
    operator("reject", newest(inbox), "--notes", "name the host you need")
    print(f"agent      is told: {agent.answer()['notes']}")

    title("Nobody decides: the proposal expires by itself")
    Agent("expire", "egress-block", "routes: []\n", "nothing is needed any more", "--expires-in", "1").answer()


def wake_ups(root: Path) -> None:
    """As `make bench` measures it: from the sync of a decision until the line its helper prints is read."""
    if sys.platform != "linux":
        return  # the clock stands in a preloaded library
    title("50 more, decided as soon as somebody waits")
    harness.prepare_clock()
    took = waking.wake_helpers(
        harness.Lab(root, full=False), root / "bot-bottle.db", {"SUPERVISE_DB_PATH": host_db_path()}
    )
    median, slowest = took["median_ms"], took["worst_ms"]
    print(f"    decision on the disk → the agent's line read: median {median:.2f} ms, slowest {slowest:.2f} ms")


def epilogue(inbox: Inbox, root: Path, routes: Path) -> None:
    title("What is left: the file, and a log that cannot be changed unnoticed")
    print(f"host     $ cat {routes}\n    " + routes.read_text().replace("\n", "\n    ").rstrip())
    operator("audit", "list")
    operator("audit", "verify")
    title("Timeline: from the moment recorded with the decision (not yet synced) to the agent's next line")
    for moment, what, milliseconds in sorted(timeline):
        print(f"    {moment[11:23]}  {what:<28} {milliseconds:8.2f} ms")
    wake_ups(root)
    bot_bottle, helper = BIN / "bot-bottle", BIN / "bot-bottle-sidecar"
    print(f"""
Try next, in this root:
    export BOT_BOTTLE_ROOT={root}
    {bot_bottle} history
    {bot_bottle} audit list --full
    {bot_bottle} watch &        # then propose something:
    echo 'routes: []' | {helper} propose --wait --db {host_db_path()} --bottle {BOTTLE} --tool egress-allow
Remove it with: rm -r {root}""")


def main() -> None:
    started = time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="bot-bottle-demo-"))
    os.environ["BOT_BOTTLE_ROOT"] = str(root)
    routes = Path(bot_bottle_root(), "bottles", BOTTLE, "routes.yaml")
    routes.parent.mkdir(parents=True, mode=0o700)
    routes.write_text(ROUTES)
    print(f"Root {root}, {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC")
    Supervise().prepare(BOTTLE, files={"egress-allow": routes, "egress-block": routes})
    with Inbox() as inbox:
        main_job(inbox, routes)
        title("The sidecars: an agent is refused a host, asks for it over MCP, and gets through the proxy")
        demo_sidecars.network(BOTTLE, inbox, newest, operator)
        title("The git gate holds a push with a token in it until the operator says why it may pass")
        demo_sidecars.push(BOTTLE, root, inbox, newest, operator)
        epilogue(inbox, root, routes)
    print(f"\nThe demo took {time.monotonic() - started:.0f} s.")


if __name__ == "__main__":
    main()
