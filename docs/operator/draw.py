"""How are the pictures of docs/operator.md made? By the real app, over a database made for it.

.venv/bin/python docs/operator/draw.py
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from bot_bottle import BottleStore, Proposal, QueueStore, sha256_hex

HERE = Path(__file__).parent
BEFORE = "routes:\n  - host: pypi.org\n"
AFTER = "routes:\n  - host: pypi.org\n  - host: api.github.com\n    matches: [{methods: [GET]}]\n"


def ask(slug: str, tool: str, payload: str, why: str, base: str | None = None) -> None:
    """Queues a proposal as a sidecar does."""
    with QueueStore(slug) as queue:
        queue.write_proposal(Proposal.new(slug, tool, payload, why, base))


def fill(root: Path) -> None:
    """Two bottles, in each of which something waits."""
    for slug in ("dev", "docs"):
        routes = root / "bottles" / slug / "routes.yaml"
        routes.parent.mkdir(parents=True)
        routes.write_text(BEFORE)
        BottleStore().register(slug, backend="docker", files={"egress-allow": "routes.yaml"})
    ask("dev", "egress-allow", AFTER, "to read the issue I am to fix", sha256_hex(BEFORE))
    ask("docs", "capability-block", "FROM debian:13\nRUN apt-get install -y pandoc\n", "pandoc builds the manual")


async def draw() -> None:
    """Presses the keys and saves what is on the screen."""
    from bot_bottle.tui.app import Seat

    app = Seat()
    async with app.run_test(size=(110, 30)) as pilot:
        while app.view.painted_at is None:
            await pilot.pause(0.05)
        await pilot.pause(0.5)
        app.save_screenshot(str(HERE / "inbox.svg"))
        await pilot.press("a")
        await pilot.pause(1)
        app.save_screenshot(str(HERE / "question.svg"))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as root:
        os.environ.update(BOT_BOTTLE_ROOT=root, LANG="C.UTF-8")
        fill(Path(root))
        asyncio.run(draw())
