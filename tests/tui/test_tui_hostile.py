"""Can anything an agent writes deceive the operator who reads it on the screen that stays open?"""

from __future__ import annotations

import pytest
from textual.pilot import Pilot

from bot_bottle import AuditEntry, AuditStore
from bot_bottle.tui.app import Seat
from cli_process import ROUTES, Host
from hostile import EVERYTHING, HOSTILE, assert_harmless
from seat_screen import asked, on_screen, play, press, shown, terminal, told, until

FINGERPRINT = EVERYTHING[:100]


def harmless(app: Seat, surface: str) -> str:
    """All that is drawn, after a look at each of its cells."""
    for strip in app.screen._compositor.render_strips():
        for segment in strip:
            assert not segment.control, surface
            assert segment.style is None or segment.style.link is None, surface
    drawn = on_screen(app)
    assert_harmless(drawn)
    assert_harmless(f"{app.title}{app.sub_title}")
    return drawn


def test_nothing_hostile_is_drawn_on_any_page_or_in_any_question(host: Host) -> None:
    host.routes_file()
    granted = host.propose("x", tool="gitleaks-allow", fingerprint=FINGERPRINT)
    host.run("approve", granted.id, "--yes", "--grant", "bottle", "--notes", "\u202eoffered again")
    with AuditStore() as store:
        at = "2026-01-01T00:00:00.000000Z"
        store.write_audit_entry(
            AuditEntry(at, "demo", "egress", EVERYTHING[:60], EVERYTHING, EVERYTHING, decided_by=EVERYTHING[:60])
        )
    change = host.propose(f"{ROUTES}# {EVERYTHING}\n", EVERYTHING, against=ROUTES)
    finding = host.propose(EVERYTHING, EVERYTHING, tool="gitleaks-allow", fingerprint=FINGERPRINT)

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        await shown(app, pilot, change)
        drawn = harmless(app, "review")
        assert "<U+001B>" in drawn and "!egress-allow" in drawn
        await pilot.press("x", "down")
        await shown(app, pilot, finding)
        await pilot.press("x")
        for key, question in (("a", "Approve this?"), ("r", "Reject this?"), ("b", "Approve these 2?")):
            await pilot.press(key)
            await asked(app, pilot, question)
            assert "<U+" in harmless(app, question).partition(question)[2]
            await pilot.press("escape")
            await until(pilot, lambda: len(app.screen_stack) == 1)
        for key, part in (("2", "<U+"), ("3", "running"), ("4", "<U+")):
            await pilot.press(key)
            await until(pilot, lambda part=part: part in on_screen(app))
            harmless(app, f"page {key}")
        await pilot.press("1")
        app.tell(EVERYTHING)
        await until(pilot, lambda: "<U+" in told(app))
        harmless(app, "what is told")

    play(story, size=(120, 60))


@pytest.mark.parametrize("language", ["C.UTF-8", "C"])
def test_nothing_hostile_reaches_the_terminal(host: Host, language: str) -> None:
    host.propose(EVERYTHING, EVERYTHING, tool="capability-block", slug="one")
    host.propose("x: 1\n", EVERYTHING, tool="capability-block", slug="two")
    with terminal(host, "supervise", LANG=language) as screen:
        screen.expect_exact("capability-block of one")
        drawn = screen.before
        press(screen, "r", "Reject this?")
        drawn += screen.before
    for what, attack in HOSTILE.items():
        if not attack.isprintable():
            assert attack not in drawn, what
    if language == "C":
        assert drawn.isascii()
