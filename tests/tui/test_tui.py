"""Does the operator's screen show what is there, decide what was shown, and nothing else?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from textual.events import Key
from textual.pilot import Pilot
from textual.widgets import Input, Label

from bot_bottle import Database, GrantStore, Inbox, InvalidInputError, Proposal
from bot_bottle.operator import remote, seat
from bot_bottle.tui.app import Seat
from bot_bottle.tui.dialogs import Help
from cli_process import MORE_ROUTES, ROUTES, Host
from dashboard_process import Served
from seat_screen import asked, on_screen, play, shown, text, told, until
from store_process import Process

LONG = "FROM debian:12\n" + "".join(f"RUN echo {number}\n" for number in range(200))


def type_ahead(app: Seat, *keys: str) -> None:
    """All keys at once, before the screen can answer to any of them."""
    for key in keys:
        app.post_message(Key(key, key if len(key) == 1 else None))


def state(proposal: Proposal) -> str:
    with Inbox() as inbox:
        return inbox.read(proposal.id).state


def views_of(proposal: Proposal) -> list[Any]:
    """Which views of it are written down."""
    database = Database()
    try:
        return database.query("SELECT surface, whole_at FROM operator_views WHERE proposal_id = ?", [proposal.id])
    except InvalidInputError:  # none yet
        return []
    finally:
        database.close()


def test_a_key_and_a_yes_approve_what_is_shown(host: Host) -> None:
    path = host.routes_file()
    proposal = host.propose(justification="to open the pull request", against=ROUTES)

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        await shown(app, pilot, proposal)
        assert "+  - host: api.github.com" in on_screen(app)
        assert "to open the pull request" in on_screen(app)
        await pilot.press("a")
        await asked(app, pilot, "Approve this?")
        lines = on_screen(app).partition("Approve this?")[2].splitlines()
        # A long path is folded; beside the question's frame is what it covers.
        question = "".join(line.split("│")[1].strip() for line in lines if line.count("│") > 1)
        for part in ("Bottle     demo", "egress-allow", str(path), proposal.payload_sha256):
            assert part in question
        assert path.read_text() == ROUTES
        await pilot.press("y")
        await until(pilot, lambda: "is in effect" in told(app))

    play(story)
    assert path.read_text() == MORE_ROUTES
    with Inbox() as inbox:
        answer = inbox.read(proposal.id).response
    assert answer is not None
    assert (answer.status, answer.surface) == ("approved", "tui")


def test_no_is_no(host: Host) -> None:
    proposal = host.propose(tool="capability-block", payload="FROM a\n")

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        await shown(app, pilot, proposal)
        for answer in ("escape", "n"):
            await pilot.press("a")
            await asked(app, pilot, "Approve this?")
            await pilot.press(answer)
            await until(pilot, lambda: len(app.screen_stack) == 1)

    play(story)
    assert state(proposal) == "pending"


def test_keys_typed_ahead_decide_nothing(host: Host) -> None:
    proposal = host.propose(tool="capability-block", payload="FROM a\n")

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        type_ahead(app, "a", "y", "a", "enter", "b", "y", "r", "enter")
        await shown(app, pilot, proposal)
        assert len(app.screen_stack) == 1
        # A double press is answered by the first dialog alone, and that only once it can be read.
        type_ahead(app, "a", "a", "y", "enter")
        await asked(app, pilot, "Approve this?")
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1)

    play(story)
    assert state(proposal) == "pending"


def test_what_was_not_read_to_its_end_asks_once_more(host: Host) -> None:
    proposal = host.propose(LONG, tool="capability-block")

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        await shown(app, pilot, proposal)
        await pilot.press("x")
        assert "Read it to its end" in told(app)
        await pilot.press("a")
        await asked(app, pilot, "Approve without reading to the end?")
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1)
        await pilot.press("end")
        await until(pilot, lambda: app.view.read_to_end)
        await pilot.press("a")
        await asked(app, pilot, "Approve this?")
        await pilot.press("y")
        await until(pilot, lambda: "approved" in told(app))

    play(story)
    assert state(proposal) == "approved"


def test_a_rejection_carries_its_reason_and_offers_it_again(host: Host) -> None:
    first, second = (host.propose(f"FROM {name}\n", tool="capability-block") for name in "ab")

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        await shown(app, pilot, first)
        await pilot.press("r")
        await asked(app, pilot, "Reject this?")
        await pilot.press(*"not today", "enter")
        await until(pilot, lambda: "rejected" in told(app))
        await pilot.press("n")
        await shown(app, pilot, second)
        await pilot.press("r")
        dialog = await asked(app, pilot, "Reject this?")
        await pilot.press("down")
        await until(pilot, lambda: dialog.query_one(Input).value == "not today")
        await pilot.press("enter")
        await until(pilot, lambda: second.id in told(app))

    play(story)
    with Inbox() as inbox:
        assert [item.response.notes for item in inbox.history() if item.response] == ["not today", "not today"]


def test_an_approval_with_a_scope_makes_a_grant(host: Host) -> None:
    proposal = host.propose("a key", tool="gitleaks-allow", fingerprint="rule:path:abc")

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        await shown(app, pilot, proposal)
        await pilot.press("A")
        await asked(app, pilot, "Approve this?")
        await pilot.press("down")
        assert "> such requests for 1 hour" in text(app, "#scopes")
        await pilot.press("enter")
        assert "It needs a reason" in text(app, "#hint")
        await pilot.press(*"a test key", "enter")
        await until(pilot, lambda: "approved" in told(app))
        await pilot.press("4")
        await until(pilot, lambda: "gitleaks-allow" in on_screen(app))
        await pilot.press("d")
        await asked(app, pilot, "Revoke this grant?")
        (grant,) = GrantStore().list_grants()
        assert (grant.scope, grant.tool) == ("until", "gitleaks-allow")
        await pilot.press("y")
        await until(pilot, lambda: "revoked" in told(app))

    play(story)
    assert GrantStore().list_grants() == []


def test_a_prefix_is_typed_after_its_scope_is_chosen(host: Host) -> None:
    fingerprint = "run-command:00ff | codex Bash: git status --short"
    proposal = host.propose("git status --short", tool="run-command", fingerprint=fingerprint)

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        await shown(app, pilot, proposal)
        await pilot.press("a")
        await asked(app, pilot, "Approve this?")
        await pilot.press("up")
        assert "> commands that begin with words you type, for 1 hour" in text(app, "#scopes")
        await pilot.press("enter")
        await asked(app, pilot, "The first words of the commands, at most: git status --short")
        await pilot.press(*"git status", "enter")
        await until(pilot, lambda: "approved" in told(app))

    play(story)
    assert [grant.fingerprint for grant in GrantStore().list_grants()] == ["codex Bash: git status"]


def test_marked_ones_are_approved_after_one_question_that_lists_them(host: Host) -> None:
    proposals = [host.propose(f"FROM {name}\n", tool="capability-block") for name in "abc"]

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        for each in proposals[:2]:
            await shown(app, pilot, each)
            await until(pilot, lambda: app.view.read_to_end)
            await pilot.press("x", "down")
        await shown(app, pilot, proposals[2])
        await pilot.press("b")
        await asked(app, pilot, "Approve these 2?")
        listed = on_screen(app)
        assert all(each.id in listed for each in proposals[:2])
        await pilot.press("y")
        await until(pilot, lambda: "approved 2 of 2" in told(app))

    play(story)
    assert [state(each) for each in proposals] == ["approved", "approved", "pending"]


def test_a_group_is_approved_after_one_question_that_shows_each(host: Host) -> None:
    kind = "h.example:00{} | any GitHub token in the body of requests to h.example"
    tool = "egress-token-allow"
    proposals = [host.propose(f"request {each}\n", tool=tool, fingerprint=kind.format(each)) for each in "012"]
    other = host.propose("request 3\n", tool=tool, fingerprint="h.example:003")

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        await shown(app, pilot, proposals[0])
        await pilot.press("g")
        await asked(app, pilot, "Approve these 3, each of them once?")
        listed = on_screen(app)
        assert all(f"request {each}" in listed for each in "012") and "request 3" not in listed
        await pilot.press(*"tests", "enter")
        await until(pilot, lambda: "approved 3 of 3" in told(app))
        await pilot.press("down", "down", "down")
        await shown(app, pilot, other)
        await pilot.press("g")
        await until(pilot, lambda: "is in no group" in told(app))

    play(story)
    assert [state(each) for each in (*proposals, other)] == ["approved"] * 3 + ["pending"]


def test_a_question_that_does_not_fit_is_answered_only_at_its_end(host: Host) -> None:
    proposals = [host.propose(f"FROM a:{number}\n", tool="capability-block") for number in range(12)]

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        for each in proposals:
            await shown(app, pilot, each)
            await until(pilot, lambda: app.view.read_to_end)
            await pilot.press("x", "down")
        await pilot.press("b")
        dialog = await asked(app, pilot, "Approve these 12?")
        await until(pilot, lambda: "PgDn reads on" in text(app, "#hint"))
        assert proposals[-1].id not in on_screen(app)
        await pilot.press("y", "enter")
        assert app.screen is dialog
        await pilot.press("end")
        await until(pilot, lambda: text(app, "#hint").startswith("Enter or y yes"))
        assert proposals[-1].id in on_screen(app)
        await pilot.press("y")
        await until(pilot, lambda: "approved 12 of 12" in told(app))

    play(story, size=(80, 24))


def test_the_reading_keys_read_while_the_list_has_more_rows_than_fit(host: Host) -> None:
    for number in range(20):
        host.propose(LONG.replace("debian", f"debian{number}"), tool="capability-block", slug=f"b{number}")

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: len(app.listed.rows) == 20 and app.view.painted_at is not None)
        selected, top = app.listed.selected, app.listed.scroll_offset.y
        for key, first in (("pagedown", 14), ("space", 27), ("pageup", 14), ("home", 1)):
            await pilot.press(key)
            await until(pilot, lambda first=first: app.view.rows[0] == first)
        await pilot.press("end")
        await until(pilot, lambda: app.view.rows[1] == app.view.rows[2])
        assert (app.listed.selected, app.listed.scroll_offset.y) == (selected, top)

    play(story, size=(80, 24))


def test_reasons_given_on_another_day_are_offered(host: Host) -> None:
    for number, reason in enumerate(("Use the mirror", "two\nlines", "Use the mirror", "Not this week")):
        host.run("reject", host.propose(f"FROM x:{number}\n", tool="capability-block").id, "--notes", reason)
    proposal = host.propose("FROM y\n", tool="capability-block")

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        await shown(app, pilot, proposal)
        await pilot.press("r")
        dialog = await asked(app, pilot, "Reject this?")
        offered = [str(label.content).strip() for label in dialog.query(".recent").results(Label)]
        assert offered == ["Not this week", "Use the mirror"]

    play(story)


def propose_many(count: int) -> None:
    from bot_bottle import Proposal, QueueStore

    for number in range(count):
        with QueueStore(f"a{number % 60}") as queue:
            queue.write_proposal(Proposal.new(f"a{number % 60}", "capability-block", f"FROM a:{number}\n"))
    print("done")


def decide_all(ids: list[str]) -> None:
    from bot_bottle import Inbox

    with Inbox() as inbox:
        for each in ids:
            item = inbox.read(each)
            inbox.decide(each, "rejected", payload_sha256=item.proposal.payload_sha256, notes="no", decided_by="ann")
    print("done")


def test_arrivals_never_move_the_selection(host: Host) -> None:
    first, second = (host.propose(f"FROM {name}\n", tool="capability-block", slug="m") for name in "ab")

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        await shown(app, pilot, first)
        await pilot.press("down")
        await shown(app, pilot, second)
        with Process(propose_many, 300) as other:
            other.says()
            await until(pilot, lambda: len(app.listed.rows) == 302)
        assert app.listed.selected == second.id
        assert app.view.item is not None
        assert app.view.item.proposal.id == second.id
        await pilot.press("a")
        await asked(app, pilot, "Approve this?")
        await pilot.press("y")
        await until(pilot, lambda: "approved" in told(app))

    play(story)
    assert (state(first), state(second)) == ("pending", "approved")


def test_what_was_decided_elsewhere_stays_with_who_and_what(host: Host) -> None:
    first, second = (host.propose(f"FROM {name}\n", tool="capability-block") for name in "ab")

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        await shown(app, pilot, first)
        with Process(decide_all, [first.id]) as other:
            other.says()
        await until(pilot, lambda: app.listed.rows[first.id].ended)
        assert app.listed.selected == first.id
        assert " by ann (api): no" in app.listed.rows[first.id].ended
        await until(pilot, lambda: "Decided " in on_screen(app))
        await shown(app, pilot, first)
        await pilot.press("a")
        await until(pilot, lambda: "was rejected" in told(app))
        await pilot.press("c")
        await shown(app, pilot, second)
        assert list(app.listed.rows) == [second.id]

    play(story)


def test_a_decision_elsewhere_while_the_question_is_open_is_told(host: Host) -> None:
    proposal = host.propose("FROM a\n", tool="capability-block")

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        await shown(app, pilot, proposal)
        await pilot.press("a")
        await asked(app, pilot, "Approve this?")
        with Process(decide_all, [proposal.id]) as other:
            other.says()
        await pilot.press("y")
        await until(pilot, lambda: "ann" in told(app))

    play(story)
    assert state(proposal) == "rejected"


def test_a_rejection_can_be_remembered_for_an_hour(host: Host) -> None:
    proposal = host.propose("FROM a\n", tool="capability-block")

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        await shown(app, pilot, proposal)
        await pilot.press("R")
        await asked(app, pilot, "Reject this, and the same again for 60 min?")
        await pilot.press(*"no", "enter")
        await until(pilot, lambda: "and the same until" in told(app))
        assert "which it is not" in told(app)

    play(story)
    assert state(proposal) == "rejected"
    (rule,) = host.json("policy", "check")["rules"]
    assert (rule["verdict"], rule["sha256"], rule["reason"]) == ("reject", [proposal.payload_sha256], "no")


def test_filter_and_search_find(host: Host) -> None:
    host.propose("FROM a\n", tool="capability-block", slug="one")
    wanted = host.propose(LONG, tool="capability-block", slug="two")

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: len(app.listed.rows) == 2)
        await pilot.press("f", *"two")
        await until(pilot, lambda: "one (1)" not in on_screen(app))
        await pilot.press("enter", "j")
        await shown(app, pilot, wanted)
        await pilot.press("slash", *"echo 150", "enter")
        await until(pilot, lambda: "RUN echo 150" in on_screen(app))
        await pilot.press("escape")

    play(story)


def test_what_was_shown_and_read_to_its_end_is_in_the_figures_of_the_history(host: Host) -> None:
    proposal = host.propose(LONG, tool="capability-block")

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        await shown(app, pilot, proposal)
        await until(pilot, lambda: [row["whole_at"] for row in views_of(proposal)] == [None])
        await pilot.press("end")
        await until(pilot, lambda: all(row["whole_at"] for row in views_of(proposal)))
        await pilot.press("a")
        await asked(app, pilot, "Approve this?")
        await pilot.press("y")
        await until(pilot, lambda: "approved" in told(app))
        await pilot.press("2")
        await until(pilot, lambda: "Last 14 days: 1 decided (0 rejected" in on_screen(app))
        figures = " ".join(on_screen(app).split())
        assert "not read to the end 0 (0%)" in figures and "█" in figures

    play(story)


def test_the_rules_are_a_page_and_a_file_that_is_none_is_told(host: Host) -> None:
    host.root.mkdir()
    path = host.root / "policy.toml"
    path.touch(0o600)
    path.write_text("[[rule]]\nname = 'no images'\nverdict = 'reject'\nreason = 'no'\ntool = 'capability-block'\n")

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        await pilot.press("5")
        await until(pilot, lambda: "no images" in on_screen(app) and "not applied" in on_screen(app))
        path.write_text("[[")
        await pilot.press("4", "5")
        await until(pilot, lambda: "No rule counts" in on_screen(app))
        assert "no images" not in on_screen(app)
        await pilot.press("1")
        await until(pilot, lambda: "No rule counts" not in on_screen(app))

    play(story)


@pytest.mark.parametrize("size", [(80, 24), (200, 50), (40, 12)])
def test_every_page_draws_in_every_size(host: Host, size: tuple[int, int]) -> None:
    host.routes_file()
    host.run("approve", host.propose("FROM z\n", tool="capability-block").id, "--yes")
    proposal = host.propose(against=ROUTES)

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        await shown(app, pilot, proposal)
        for key, part in (
            ("2", "capability-block"),
            ("3", "running"),
            ("4", "In force"),
            ("5", "Matches"),
            ("1", "egress-allow"),
        ):
            await pilot.press(key)
            await until(pilot, lambda part=part: part[: size[0] // 5] in on_screen(app))
        await pilot.press("question_mark")
        await until(pilot, lambda: "Inbox, History" in on_screen(app))
        await pilot.press("escape")
        await pilot.resize_terminal(60, 20)
        await until(pilot, lambda: app.size.width == 60)
        assert app.listed.selected == proposal.id

    play(story, size)


def test_a_database_that_breaks_is_told_and_followed_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    proposal = host.propose("FROM a\n", tool="capability-block")
    database = Path(host.root, "db", "bot-bottle.db")

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        await shown(app, pilot, proposal)
        await until(pilot, lambda: views_of(proposal))  # what is written while it is away would make a new one
        moved = database.rename(database.with_name("away"))
        for each in ("-wal", "-shm"):
            Path(f"{database}{each}").unlink(missing_ok=True)
        await until(pilot, lambda: told(app) or app.listed.rows[proposal.id].ended)
        moved.rename(database)
        later = host.propose("FROM b\n", tool="capability-block")
        await until(pilot, lambda: later.id in app.listed.rows)

    play(story)


def test_the_screen_works_on_another_host_s_inbox(
    host: Host, dashboard: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = host.routes_file()
    proposal = host.propose(MORE_ROUTES, "to read releases", against=ROUTES)
    host.run("operator", "token", "ann", "--out", str(tmp_path / "token"))
    here = tmp_path / "elsewhere"
    monkeypatch.setenv("BOT_BOTTLE_ROOT", str(here))
    seat.look_at(remote.Host(dashboard.where, str(tmp_path / "token")))
    second: list[Proposal] = []

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        await shown(app, pilot, proposal)
        assert "api.github.com" in on_screen(app)
        await pilot.press("end", "a")
        await asked(app, pilot, "Approve this?")
        await pilot.press("y")
        await until(pilot, lambda: "is in effect" in told(app))
        for key, sign in (("2", "ann"), ("3", "docker"), ("4", "In force"), ("5", "policy check")):
            await pilot.press(key)
            await until(pilot, lambda sign=sign: sign in on_screen(app))  # type: ignore[misc]
        await pilot.press("1")
        monkeypatch.setenv("BOT_BOTTLE_ROOT", str(host.root))
        second.append(host.propose("a: 1\n", slug="other"))
        monkeypatch.setenv("BOT_BOTTLE_ROOT", str(here))
        await until(pilot, lambda: second[0].id in app.listed.rows)

    try:
        play(story)
    finally:
        seat.look_at(None)
    assert routes.read_text() == MORE_ROUTES
    assert not here.exists()
    monkeypatch.setenv("BOT_BOTTLE_ROOT", str(host.root))
    with Inbox() as inbox:
        answer = inbox.read(proposal.id).response
    assert answer is not None and (answer.decided_by, answer.surface) == ("ann", "tui")


def test_the_page_of_keys_has_every_key_that_decides() -> None:
    told_of = re.findall(r"^(\w) |  (\w)  ", Help.TEXT, re.MULTILINE)
    assert {key for key in Seat.DECIDING if len(key) == 1} <= {one or other for one, other in told_of}
