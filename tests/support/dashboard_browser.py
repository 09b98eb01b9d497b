"""How do the dashboard's tests use a real browser, and see what its pages do that they should not?"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from bot_bottle import Proposal
from bot_bottle.web.dashboard import login
from dashboard_process import Served
from needs import cannot

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# Longer than a key has to come after what it decides was painted; that it is too long by any amount does no harm.
A_LOOK = 400


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        cannot("chromium is not installed (apt install chromium)")
    from playwright.sync_api import sync_playwright  # by who needs it alone: it takes long

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"], timeout=120_000)
        yield started
        started.close()


class Seat:
    """A browser profile that is logged in, and all that its page did which it should not have."""

    def __init__(self, browser: Browser, served: Served, width: int = 1280, height: int = 800) -> None:
        self.origin = served.where
        self.context = browser.new_context(viewport={"width": width, "height": height})
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.wrong: list[str] = []
        self.page.add_init_script(
            "addEventListener('securitypolicyviolation', (event) => console.error(`CSP ${event.violatedDirective}`))"
        )
        self.page.on("console", lambda message: self.wrong.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.wrong.append(dialog.message), dialog.dismiss()))
        self.page.on("request", self._request)
        self.page.goto(login.make_link(self.origin))
        self.page.wait_for_selector("html[data-live=true]")

    def _request(self, request: Any) -> None:
        if not request.url.startswith(f"{self.origin}/"):
            self.wrong.append(f"a request to {request.url}")

    def look_at(self, proposal: Proposal) -> None:
        """Selects it, and looks at it for a moment."""
        self.page.click(f"#row-{proposal.id}")
        self.page.wait_for_selector(f"#review[data-shown='{proposal.id}']")
        self.page.wait_for_timeout(A_LOOK)

    def press(self, key: str, asks: str) -> None:
        """A key that opens a question, which is looked at for a moment."""
        self.page.keyboard.press(key)
        self.page.wait_for_selector(f"dialog h2:has-text('{asks}')")
        self.page.wait_for_timeout(A_LOOK)

    def told(self, text: str) -> None:
        self.page.wait_for_selector(f"#told:has-text('{text}')")


@pytest.fixture
def seat(browser: Browser, dashboard: Served) -> Iterator[Seat]:
    opened = Seat(browser, dashboard)
    yield opened
    opened.context.close()
