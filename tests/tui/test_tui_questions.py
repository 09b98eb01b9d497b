"""Does a question from the screen reach whoever waits, and does its answer come back to the screen?"""

from __future__ import annotations

from textual.pilot import Pilot
from textual.widgets import Input

from bot_bottle import Inbox, Proposal, QueueStore
from bot_bottle.tui.app import Seat
from cli_process import Host
from seat_screen import asked, on_screen, play, shown, told, until


def test_a_question_is_asked_marked_and_answered_in_view(host: Host) -> None:
    proposal = host.propose("FROM a\n", "for the build", tool="capability-block")

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        await shown(app, pilot, proposal)
        await pilot.press("w")
        dialog = await asked(app, pilot, "Ask back, or ask for changes? It stays pending.")
        await pilot.press("enter")
        assert app.screen is dialog  # not without a question
        dialog.query_one(Input).value = "Why not b?"
        await pilot.press("enter")
        await until(pilot, lambda: "it stays pending" in told(app))
        await until(pilot, lambda: "(tui) asked" in on_screen(app) and "Why not b?" in on_screen(app))
        await until(pilot, lambda: "asked, nobody" in on_screen(app))
        with QueueStore("demo") as queue:
            queue.answer(proposal.id, "b has no curl\x1b[2J")
        await until(pilot, lambda: "answered, nobody" in on_screen(app))
        await until(pilot, lambda: "b has no curl<U+001B>[2J" in on_screen(app))
        # What was read before the answer came is not read to its end any more.
        await shown(app, pilot, proposal)
        await pilot.press("a")
        await asked(app, pilot, "Approve this?")
        await pilot.press("y")
        await until(pilot, lambda: "approved" in told(app))

    play(story)
    with Inbox() as inbox:
        item = inbox.read(proposal.id)
    assert (item.state, [message.surface for message in item.thread]) == ("approved", ["tui", "api"])


def test_a_revision_shows_what_changed_since(host: Host) -> None:
    first = host.propose("FROM a\nRUN b\n", tool="capability-block")
    with Inbox() as inbox, QueueStore("demo") as queue:
        inbox.ask(first.id, "Without b?")
        revision = Proposal.new("demo", first.tool, "FROM a\n", "as you say", revises=first.id)
        queue.write_proposal(revision)

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        await shown(app, pilot, revision)
        for part in ("About the revision before", "Without b?", "Changed since the revision before", "-RUN b"):
            assert part in on_screen(app)

    play(story)


def test_what_nobody_can_answer_is_told(host: Host) -> None:
    held = host.propose("a finding", tool="egress-token-allow", fingerprint="f")

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        await shown(app, pilot, held)
        await pilot.press("w")
        dialog = await asked(app, pilot, "Ask back")
        dialog.query_one(Input).value = "why?"
        await pilot.press("enter")
        await until(pilot, lambda: "reads no words" in told(app))

    play(story)
