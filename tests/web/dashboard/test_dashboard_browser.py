"""Does a person with a real browser see what there is and decide it, and does nothing an agent wrote come alive?"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from playwright.sync_api import Browser

from bot_bottle import GrantStore, Inbox, Message, QueueStore
from bot_bottle.web.dashboard import login
from cli_process import MORE_ROUTES, ROUTES, Host
from dashboard_browser import A_LOOK, Seat
from dashboard_process import Served

pytestmark = pytest.mark.timeout(300)


def test_decisions_in_the_browser_reach_those_who_wait(host: Host, seat: Seat) -> None:
    routes = host.routes_file()
    with QueueStore("demo") as queue, ThreadPoolExecutor(3) as threads:
        # They come while the page is open, and are on it without a word from it.
        written = [
            host.propose(MORE_ROUTES, "to read releases", against=ROUTES),
            host.propose("FROM debian:12\n", tool="capability-block"),
            host.propose("FROM scratch\n", tool="capability-block"),
        ]
        waits = [threads.submit(queue.wait_for_response, each.id, 120) for each in written]
        allowed, modified, rejected = written

        seat.look_at(allowed)
        assert "+  - host: api.github.com" in seat.page.inner_text("#review")
        seat.press("a", f"Approve egress-allow of demo: {routes} (+1 -0)?")
        seat.page.keyboard.press("Enter")
        assert waits[0].result(120).status == "approved"
        assert routes.read_text() == MORE_ROUTES
        seat.told("is in effect")

        seat.look_at(modified)
        seat.press("m", "Your version of capability-block")
        seat.page.fill("dialog textarea", "FROM debian:13\n")
        seat.page.click("dialog button.yes")
        seat.page.wait_for_selector("dialog h2:has-text('Send your version instead?')")
        assert "-FROM debian:12\n+FROM debian:13" in seat.page.inner_text("dialog pre")
        seat.page.wait_for_timeout(A_LOOK)
        seat.page.fill("dialog .line input", "the newer one")
        seat.page.keyboard.press("Enter")
        answer = waits[1].result(120)
        assert (answer.status, answer.final_file, answer.notes) == ("modified", "FROM debian:13\n", "the newer one")

        seat.look_at(rejected)
        seat.press("r", "Reject capability-block of demo?")
        seat.page.fill("dialog .line input", "not empty")
        seat.page.keyboard.press("Enter")
        answer = waits[2].result(120)
        assert (answer.status, answer.notes, answer.surface) == ("rejected", "not empty", "web")
    assert seat.wrong == []


def test_a_prefix_is_typed_beside_its_scope(host: Host, seat: Seat) -> None:
    fingerprint = "run-command:00ff | codex Bash: git status --short"
    asked = host.propose("git status --short", tool="run-command", fingerprint=fingerprint)
    seat.look_at(asked)
    seat.press("a", "Approve run-command of demo")
    seat.page.get_by_label("commands that begin with words you type, for 1 hour").check()
    seat.page.keyboard.type("git status")
    seat.page.keyboard.press("Enter")
    seat.told("approved")
    assert [grant.fingerprint for grant in GrantStore().list_grants()] == ["codex Bash: git status"]
    assert seat.wrong == []


def test_a_group_is_approved_after_one_question_that_shows_each(host: Host, seat: Seat) -> None:
    tool, kind = "egress-token-allow", "any GitHub token in the URL query of downloads from h.example"
    alike = [host.propose(f"request {each}\n", tool=tool, fingerprint=f"h.example:{each} | {kind}") for each in "012"]
    other = host.propose("request 3\n", tool=tool, fingerprint="h.example:3")
    with Inbox() as inbox:
        seat.look_at(alike[1])
        seat.press("g", "Approve these 3, each of them once?")
        shown = seat.page.inner_text("dialog")
        assert all(f"request {each}" in shown for each in "012") and "request 3" not in shown
        seat.page.fill("dialog .line input", "a release")
        seat.page.keyboard.press("Enter")
        seat.told("approved 3 of 3")
        assert [inbox.read(each.id).state for each in (*alike, other)] == ["approved"] * 3 + ["pending"]
    assert seat.wrong == []


def test_a_question_in_the_browser_is_answered_under_ones_eyes(host: Host, seat: Seat) -> None:
    asked = host.propose("FROM debian:12\n", tool="capability-block")
    with QueueStore("demo") as queue, ThreadPoolExecutor(1) as threads:
        waits = threads.submit(queue.wait_for_response, asked.id, 120, wake_on_question=True)
        seat.look_at(asked)
        seat.press("w", "Ask back about capability-block of demo? It stays pending.")
        seat.page.fill("dialog .line input", "Why not 13?")
        seat.page.keyboard.press("Enter")
        question = waits.result(120)
        assert isinstance(question, Message)
        assert (question.text, question.surface) == ("Why not 13?", "web")
        seat.told("it stays pending")
        queue.answer(asked.id, "<b>13</b> has no\x1b[2J curl")
        # As quoted text of the agent's, without a word from the page.
        seat.page.wait_for_selector("#review figure.quoted pre:has-text('<b>13</b> has no<U+001B>[2J curl')")
        seat.page.wait_for_timeout(A_LOOK)
        seat.press("a", "Approve capability-block of demo (changes nothing on this host)?")
        seat.page.keyboard.press("Enter")
        assert queue.wait_for_response(asked.id, 120).status == "approved"
    assert seat.wrong == []


HOSTILE = [
    "<script>document.title='ran'</script>",
    "<img src=//evil.example/x onerror=alert(1)>",
    "<svg onload=alert(1)><style>@import '//evil.example'</style>",
    "javascript:alert(1) [x](javascript:alert(1))",
    "</pre></figure><button class=yes>Approve</button><iframe src=//evil.example>",
    "\x1b[31mred \u202egpj.exe \u200bhidden \u0430pple",
    "{{constructor.constructor('alert(1)')()}} ${alert(1)}",
]


def test_hostile_text_is_inert_on_every_page(host: Host, seat: Seat) -> None:
    host.routes_file()
    for number, text in enumerate(HOSTILE):
        host.propose(f"{number}: {text}\n", text, fingerprint=text.replace("\x1b", "")[:60])
    last = host.propose("\n".join(HOSTILE), "\n".join(HOSTILE), tool="capability-block", fingerprint=HOSTILE[0])
    seat.look_at(last)
    assert seat.page.locator("#review .quoted").count() == 2
    assert seat.page.locator("#review").locator("script, img, svg, iframe, button, a, style").count() == 0
    assert "<U+001B>[31mred <U+202E>gpj.exe <U+200B>hidden" in seat.page.inner_text("#review")
    seat.page.keyboard.press("End")
    seat.page.wait_for_timeout(A_LOOK)
    seat.press("A", "Approve capability-block of demo")
    seat.page.keyboard.press("Enter")
    seat.told("approved")
    for key, heading in (
        ("2", "History"),
        ("3", "Bottles"),
        ("4", "Grants"),
        ("5", "Policies"),
        ("6", "Oversight"),
        ("7", "Status"),
    ):
        seat.page.keyboard.press(key)
        seat.page.wait_for_selector(f"h1:has-text('{heading}')")
        assert seat.page.locator("main").locator("script, img, iframe, a, style").count() == 0
    assert "<script>" in HOSTILE[0] and seat.page.title().endswith("bot-bottle")
    assert seat.wrong == []
    # The witness can see: what a page is not to do is refused, and heard of.
    seat.page.evaluate("() => { const made = document.createElement('img'); made.src = '//evil.example/x'; }")
    seat.page.wait_for_timeout(A_LOOK)
    assert any("CSP img-src" in each for each in seat.wrong)
    with pytest.raises(Exception, match="TrustedHTML"):
        seat.page.evaluate("() => { document.body.innerHTML = '<p>' }")


def test_nothing_is_decided_unseen_and_the_selection_stays(browser: Browser, host: Host, dashboard: Served) -> None:
    long = host.propose("".join(f"RUN echo {number}\n" for number in range(400)), tool="capability-block")
    other = host.propose("FROM a\n", tool="capability-block", slug="other")
    seat = Seat(browser, dashboard, 360, 740)
    try:
        page = seat.page
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        seat.look_at(long)
        # What another face decides is told, and moves nothing.
        with Inbox() as inbox:
            inbox.decide(other.id, "rejected", payload_sha256=other.payload_sha256, notes="no", surface="cli")
        page.wait_for_selector(f"#row-{other.id} .why:has-text('was rejected')", state="attached")
        assert page.get_attribute("#review", "data-shown") == long.id
        # It was not read to its end, so that Enter alone does not do.
        seat.press("a", "Approve capability-block of demo")
        page.keyboard.press("Enter")
        page.wait_for_selector("dialog [role=alert]:has-text('Tick the box')")
        page.keyboard.press("Escape")
        page.wait_for_selector("dialog", state="detached")
        # Both keys in one moment: the second one's proposal was not on the screen when it was pressed.
        page.evaluate(
            """() => {
                for (const key of ['ArrowDown', 'a'])
                    document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
            }"""
        )
        seat.told("nothing was decided")
        assert page.locator("dialog").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        with Inbox() as inbox:
            assert inbox.read(long.id).state == "pending"
        assert seat.wrong == []
    finally:
        seat.context.close()


def test_another_profile_and_a_used_link_get_the_login_page(browser: Browser, dashboard: Served, seat: Seat) -> None:
    context = browser.new_context()
    try:
        page = context.new_page()
        page.set_default_timeout(60_000)
        answer = page.goto(dashboard.where)
        assert answer is not None and answer.status == 401
        page.wait_for_selector("text=bot-bottle dashboard")
        link = login.make_link(dashboard.where)
        page.goto(link)
        page.wait_for_selector("html[data-live=true]")
        assert "#inbox" in page.url or page.url == f"{dashboard.where}/"
        fresh = browser.new_context()
        again = fresh.new_page()
        again.set_default_timeout(60_000)
        again.goto(link)
        again.wait_for_selector("text=this link was used already")
        assert again.url == f"{dashboard.where}/login"
        fresh.close()
        # Logging out ends it for this profile alone.
        page.keyboard.press("7")
        page.click("text=Log out")
        page.wait_for_url("**/login")
        answer = page.goto(dashboard.where)
        assert answer is not None and answer.status == 401
        seat.page.reload()
        seat.page.wait_for_selector("html[data-live=true]")
    finally:
        context.close()


def test_a_bypass_is_told_on_every_page(browser: Browser, host: Host, dashboard: Served) -> None:
    host.routes_file()
    host.run("bypass", "start", "demo", "--reason", HOSTILE[0], "--yes")
    seat = Seat(browser, dashboard)
    try:
        for page in ("1", "2", "3"):
            seat.page.keyboard.press(page)
            seat.page.wait_for_selector("#bypasses:visible")
            assert seat.page.inner_text("#bypasses").startswith("BYPASS: what demo asks for is approved unasked")
        assert HOSTILE[0] in seat.page.inner_text("#bypasses")
        assert seat.wrong == []
    finally:
        seat.context.close()
