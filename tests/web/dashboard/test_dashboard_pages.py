"""Can everybody use every page, however much waits, on any screen, whoever else looks, and whatever is served anew?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from bot_bottle import BottleStore, Inbox, Proposal, QueueStore
from bot_bottle.web.dashboard import login
from checkout import CHECKOUT
from cli_process import MORE_ROUTES, PROGRAMS, ROUTES, Host
from dashboard_browser import Seat
from dashboard_process import Served
from hostile import HOSTILE
from store_process import eventually

pytestmark = pytest.mark.timeout(300)

PAGES = ["Inbox", "History", "Bottles", "Grants", "Policies", "Oversight", "Status"]
MARKUP = [
    "<img src=//evil.example/x onerror=alert(1)>",
    "<svg onload=alert(1)><script>alert(1)</script><style>@import '//evil.example'</style>",
    "</pre></figure><button class=yes>Approve</button><iframe src=//evil.example>",
]


def open_page(page: Page, name: str) -> None:
    page.click(f"#to-{name.lower()}")
    page.wait_for_selector(f"h1:has-text('{name}')" if name != "Inbox" else "#inbox")


def holds(page: Page, expression: str) -> None:
    """Returns as soon as the page says yes; its policy lets nobody wait inside of it."""
    try:
        eventually(lambda: page.evaluate(expression), 60)
    except AssertionError:
        raise AssertionError(f"{expression}\n{page.inner_text('body')}") from None


def rule(host: Host, text: str) -> None:
    path = host.root / "policy.toml"
    path.touch(0o600)
    path.write_text(text)


def fill(host: Host) -> None:
    """Something on every page, of hostile texts where texts can be."""
    host.routes_file()
    texts = [*HOSTILE.values(), *MARKUP]
    for number, text in enumerate(texts):
        host.propose(f"{number}: {text}\n", text, tool="capability-block", fingerprint=f"{number}{text}"[:60])
    with Inbox() as inbox:
        for number, item in enumerate(inbox.pending()):
            status = ("approved", "rejected")[number % 2]
            review = inbox.review(item.proposal.id).review_sha256
            if number < len(texts) - 3:
                grant = "bottle" if status == "approved" else None
                notes = item.proposal.justification
                inbox.decide(item.proposal.id, status, review_sha256=review, notes=notes, grant=grant, decided_by=notes)
    rule(
        host,
        '[[rule]]\nname = "no images"\nverdict = "reject"\ntool = "capability-block"\nreason = "<b>not</b> here"\n',
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 3840])
def test_every_page_is_inert_fits_the_screen_and_is_for_everybody(
    browser: Browser, host: Host, dashboard: Served, width: int, scheme: Any
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    fill(host)
    seat = Seat(browser, dashboard, width, 900)
    try:
        page = seat.page
        page.emulate_media(color_scheme=scheme)
        for name in PAGES:
            open_page(page, name)
            assert page.evaluate("document.documentElement.scrollWidth") == width, name
            assert page.locator("main").locator("script, img, iframe, style, a").count() == 0, name
            found = [
                (each["id"], [node["target"] for node in each["nodes"]], each["help"])
                for each in axe.Axe().run(page).response["violations"]
            ]
            assert found == [], (name, found)
        open_page(page, "Inbox")
        with Inbox() as inbox:
            waits = inbox.pending()[0].proposal
        seat.look_at(waits)
        if width > 500:
            # By keys alone: the list, then the text, then what decides.
            page.focus("#list")
            order = []
            for _ in range(12):
                page.keyboard.press("Tab")
                order.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
            assert [each for each in order if each.startswith(("review", "Approve", "Reject"))][:3] == [
                "review",
                "Approve (a)",
                "Reject (r)",
            ]
        found = [each["id"] for each in axe.Axe().run(page).response["violations"]]
        assert found == []
        assert seat.wrong == []
    finally:
        seat.context.close()


def test_history_is_searched_and_paged(host: Host, seat: Seat) -> None:
    for number in range(130):
        host.propose(f"needle{number:03} %_\n", "why", tool="capability-block", slug=("demo", "other")[number % 2])
    rejected = host.propose("a: 1\n", "for the haystack")
    with Inbox() as inbox:
        inbox.decide(
            rejected.id, "rejected", payload_sha256=rejected.payload_sha256, notes="no Straw", decided_by="ann"
        )
    page = seat.page
    open_page(page, "History")
    rows = page.locator("tbody tr")
    assert rows.count() == 100
    page.click("text=Older")
    holds(page, "document.querySelectorAll('tbody tr').length === 131")
    page.select_option("[aria-label='Any state']", "rejected")
    holds(page, "document.querySelectorAll('tbody tr').length === 1")
    page.select_option("[aria-label='Any state']", "")
    page.select_option("[aria-label='Any bottle']", "other")
    holds(page, "document.querySelectorAll('tbody tr').length === 65")
    page.select_option("[aria-label='Any tool']", "egress-allow")
    page.wait_for_selector("text=Nothing fits.")
    page.select_option("[aria-label='Any bottle']", "")
    page.select_option("[aria-label='Any tool']", "")
    for text, count in (("needle007 %_", 1), ("straw", 1), ("HAYSTACK", 1), (rejected.id[:20], 1), ("%", 100)):
        page.fill("#filter", text)
        holds(page, f"document.querySelectorAll('tbody tr').length === {count}")
    assert seat.wrong == []


def test_the_proof_that_the_page_downloads_verifies_elsewhere(host: Host, seat: Seat, tmp_path: Path) -> None:
    asked = host.propose("FROM a\u202e\n", "<b>why</b>", tool="capability-block")
    host.propose("FROM b\n", tool="capability-block")
    host.run("reject", asked.id, "--notes", "no")
    open_page(seat.page, "History")
    with seat.page.expect_download() as download:
        seat.page.click(f"[aria-label='Download the proof of {asked.id}']")
    assert download.value.suggested_filename == f"proof-{asked.id}.json"
    proof, keyring = tmp_path / "proof.json", host.root / "keys" / "public" / "keyring"
    download.value.save_as(proof)
    assert json.loads(proof.read_text()) == json.loads(host.run("audit", "proof", asked.id).stdout)
    assert seat.page.locator("tbody button:has-text('Proof')").count() == 1  # none of what is pending
    head = json.loads(proof.read_text())["head"]["entry_hash"]
    assert seat.page.inner_text("main").endswith(f"ends with entry 1, whose hash is {head}.")

    def verified() -> subprocess.CompletedProcess[str]:
        verifier = CHECKOUT / "examples" / "verify_statements.py"
        return subprocess.run([sys.executable, verifier, proof, keyring], capture_output=True, text=True, timeout=60)

    assert verified().returncode == 0
    proof.write_text(proof.read_text().replace("FROM a", "FROM e"))
    assert "the signature does not fit" in verified().stdout and verified().returncode == 1
    assert seat.wrong == []


def test_ten_thousand_wait_and_one_is_found(browser: Browser, host: Host, dashboard: Served) -> None:
    for bottle in range(50):
        with QueueStore(f"b{bottle:02}") as queue:
            for number in range(200):
                queue.write_proposal(Proposal.new(f"b{bottle:02}", "capability-block", f"{bottle} {number}\n", "why"))
    seat = Seat(browser, dashboard)
    try:
        page = seat.page
        holds(page, "document.title.startsWith('(10000)')")
        assert page.locator(".row").count() < 100
        page.keyboard.press("End")
        page.evaluate("document.getElementById('list').scrollTop = 1e9")
        with Inbox() as inbox:
            last = inbox.pending("b49")[-1].proposal
        page.wait_for_selector(f"#row-{last.id}")
        seat.look_at(last)
        # What arrives is there, and moves nothing.
        before = page.locator(f"#row-{last.id}").bounding_box()
        new = host.propose("new\n", slug="b00x")
        holds(page, "document.title.startsWith('(10001)')")
        assert page.locator(f"#row-{last.id}").bounding_box() == before
        page.fill("#filter", new.id)
        page.wait_for_selector(f"#row-{new.id}")
        assert page.locator(".row").count() == 1
        assert seat.wrong == []
    finally:
        seat.context.close()


def named(browser: Browser, served: Served, name: str) -> Seat:
    """A browser whose decisions are in this name."""
    real = login.make_link
    login.make_link = lambda url: real(url, name)  # type: ignore[assignment,misc]
    try:
        return Seat(browser, served)
    finally:
        login.make_link = real


def test_who_looks_at_the_same_is_shown_and_goes(browser: Browser, host: Host, dashboard: Served) -> None:
    first, second = host.propose("a: 1\n"), host.propose("b: 1\n")
    ann, ben = named(browser, dashboard, "ann"), named(browser, dashboard, "ben")
    try:
        ann.look_at(first)
        ben.look_at(first)
        ann.page.wait_for_selector("#others:has-text('ben is viewing this too')")
        ben.page.wait_for_selector("#others:has-text('ann is viewing this too')")
        ben.look_at(second)
        ann.page.wait_for_selector("#others", state="hidden")
        ben.look_at(first)
        ann.page.wait_for_selector("#others:has-text('ben')")
        ben.context.close()
        ann.page.wait_for_selector("#others", state="hidden")
        # A decision is in the name of who made it.
        ann.press("r", "Reject")
        ann.page.keyboard.press("Enter")
        ann.told("rejected")
        with Inbox() as inbox:
            answer = inbox.read(first.id).response
        assert answer is not None and (answer.decided_by, answer.surface) == ("ann", "web")
        assert ann.wrong == [] and ben.wrong == []
    finally:
        ann.context.close()


def test_of_two_browsers_a_terminal_and_a_command_one_decides(browser: Browser, host: Host, dashboard: Served) -> None:
    routes = host.routes_file()
    ann, ben = named(browser, dashboard, "ann"), named(browser, dashboard, "ben")
    pages = (ann, ben)
    token = host.root.parent / "token"
    host.run("operator", "token", "cli", "--out", str(token))
    try:
        for number in range(3):
            routes.write_text(ROUTES)
            proposal = host.propose(f"{MORE_ROUTES}# {number}\n", against=ROUTES)
            for seat in pages:
                seat.look_at(proposal)
                seat.page.keyboard.press("End")
                seat.press("a", "Approve egress-allow")
            command = [PROGRAMS / "bot-bottle", "approve", proposal.id, "--yes"]
            elsewhere = [command[0], "--url", dashboard.where, "--token-file", str(token), "reject", proposal.id]
            others = [
                subprocess.Popen(
                    words, env=host.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
                )
                for words in (command, elsewhere)
            ]
            for seat in pages:
                seat.page.keyboard.press("Enter")
            told = [(other.communicate(timeout=60)[0], other.returncode) for other in others]
            outcomes = [code == 0 for _, code in told]
            for seat in pages:
                said = "document.getElementById('told').textContent"
                holds(seat.page, f"/approved|decided|rejected|changed after/.test({said})")
                outcomes.append("tone-good" in (seat.page.get_attribute("#told", "class") or ""))
                seat.page.evaluate("document.getElementById('told').textContent = ''")
            assert sum(outcomes) == 1, (outcomes, told)
            assert all(code in (0, 5) for _, code in told), told
    finally:
        for seat in pages:
            seat.context.close()


def test_open_pages_outlive_the_server(host: Host, dashboard: Served, seat: Seat) -> None:
    first = host.propose("a: 1\n")
    seat.look_at(first)
    dashboard.process.kill()
    dashboard.process.wait()
    seat.page.wait_for_selector("html[data-live=false]")
    second = host.propose("b: 1\n")
    again = Served(host, "--operator-listen", f"127.0.0.1:{dashboard.port}")
    dashboard.process = again.process  # the fixture ends it
    seat.page.wait_for_selector("html[data-live=true]")
    seat.page.wait_for_selector(f"#row-{second.id}")
    assert seat.page.get_attribute("#review", "data-shown") == first.id
    seat.press("r", "Reject")
    seat.page.keyboard.press("Enter")
    seat.told("rejected")


def test_the_clock_and_the_zone_of_a_page_left_open_decide_nothing(
    browser: Browser, host: Host, dashboard: Served
) -> None:
    soon = host.propose("a: 1\n", expires_in=3600.0)
    other = host.propose("b: 1\n")
    context = browser.new_context(timezone_id="Asia/Kathmandu")
    try:
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.clock.install()
        page.goto(login.make_link(dashboard.where))
        page.wait_for_selector("html[data-live=true]")
        page.wait_for_selector(f"#row-{soon.id}")
        holds(page, "document.title.startsWith('(2)')")
        page.clock.fast_forward("08:00:00")  # a night
        third = host.propose("c: 1\n")
        page.wait_for_selector(f"#row-{third.id}")
        # What has lapsed by the page's clock is not counted; the host's own clock says what can be decided.
        holds(page, "document.title.startsWith('(2)')")
        with Inbox() as inbox:
            assert {item.state for item in inbox.pending()} == {"pending"}
            assert len(inbox.pending()) == 3
        page.click("#to-history")
        page.wait_for_selector("time")
        shown = page.evaluate(
            "[...document.querySelectorAll('time')].map((each) => [each.dateTime, each.textContent, "
            "new Date(each.dateTime).toLocaleString([], { dateStyle: 'short', timeStyle: 'medium' })])"
        )
        assert len(shown) == 3 and all(text == expected for _, text, expected in shown)
        assert other.id
    finally:
        context.close()


def test_the_page_for_being_told_registers_its_worker_and_nothing_else(
    browser: Browser, host: Host, dashboard: Served
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    seat = Seat(browser, dashboard, 360, 740)
    try:
        page = seat.page
        seat.context.grant_permissions(["notifications"], origin=dashboard.origin)
        open_page(page, "Status")
        page.click("text=Be told on this device")
        page.wait_for_selector("h1:has-text('Being told')")
        assert axe.Axe().run(page).response["violations"] == []
        page.click("#begin")
        # No test reaches the service of the browser's maker; all before it is ours.
        page.wait_for_selector("#said:not(:empty)")
        worker = "navigator.serviceWorker.getRegistration('/').then((found) => found.active?.scriptURL)"
        assert page.evaluate(worker) == f"{dashboard.where}/worker.js"
        assert page.evaluate("caches.keys()") == []
        page.click("#end")
        page.wait_for_selector("#said:has-text('not told any more')")
        for wrong in ("other", "default"):
            with pytest.raises(Exception, match=r"(?i)policy"):
                page.evaluate(f"trustedTypes.createPolicy('{wrong}', {{ createScriptURL: (url) => url }})")
        page.click("text=Back to the inbox")
        page.wait_for_selector("html[data-live=true]")
        assert page.evaluate("document.querySelector('link[rel=manifest]').href").endswith(".webmanifest")
        # What is said of the two policies, and of a profile that Chromium gives no pushes.
        expected = ("trusted", "push api")
        assert [each for each in seat.wrong if not any(word in each.lower() for word in expected)] == []
    finally:
        seat.context.close()


def test_the_card_of_a_bottle_says_how_it_is(host: Host, seat: Seat) -> None:
    host.routes_file()
    asked = host.propose("FROM a\n", tool="capability-block")
    with Inbox() as inbox:
        inbox.decide(asked.id, "rejected", payload_sha256=asked.payload_sha256, notes="no", decided_by="ann")
    host.propose("FROM b\n", tool="capability-block")
    BottleStore().register("idle", backend="smolmachines")
    open_page(seat.page, "Bottles")
    card = seat.page.inner_text("[aria-label='Bottle demo']")
    assert "Scan today\nnothing found" in card
    assert "rejected capability-block, by ann" in card and "1, 0 of them waited for" in card
    assert "never" in seat.page.inner_text("[aria-label='Bottle idle']")
    assert "unknown" in seat.page.inner_text("[aria-label='Bottle idle']")
    open_page(seat.page, "Status")
    assert "MiB of memory" in seat.page.inner_text("main")
    assert seat.wrong == []


def test_rules_and_oversight_are_those_of_the_command_line(host: Host, seat: Seat) -> None:
    host.routes_file()
    for number in range(4):
        asked = host.propose(f"FROM debian:{number}\n", tool="capability-block")
        with Inbox() as inbox:
            review = inbox.review(asked.id).review_sha256
            inbox.decide(asked.id, "approved", review_sha256=review, notes="fine", decided_by="ann")
    rule(host, '[[rule]]\nname = "no images"\nverdict = "reject"\ntool = "capability-block"\nreason = "why"\n')
    (replayed,) = host.json("policy", "test")["rules"]
    open_page(seat.page, "Policies")
    cells = seat.page.locator("tbody").first.locator("td").all_inner_texts()
    assert cells[0] == "no images" and cells[-2:] == ["4 of 4", str(len(replayed["otherwise"]))]
    open_page(seat.page, "Oversight")
    assert "4 decisions in 30 days" in seat.page.inner_text("figcaption")
    total = host.json("stats")["oversight"]["total"]
    assert seat.page.locator("tbody td").nth(2).inner_text() == str(total["decided"])
    rule(host, "nonsense")
    open_page(seat.page, "Policies")
    assert "No rule counts" in seat.page.inner_text("main")
    assert seat.wrong == []
