"""Is a bypass for one bottle, for a while and in the log, and does it leave to a person what a person has to see?"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import pytest
from textual.pilot import Pilot

from bot_bottle import AuditStore, Inbox, InvalidInputError
from bot_bottle.policy import bypass, rules, watching
from bot_bottle.tui.app import Seat
from cli_process import Host
from policy_process import at_work, state, write
from seat_screen import on_screen, play, until
from store_process import eventually

START = ("bypass", "start", "demo", "--reason", "a migration", "--yes")


@pytest.fixture
def demo(host: Host) -> Host:
    host.routes_file()
    return host


def considered(*asked: str, later: float = 0.0) -> list[str]:
    """What became of each, if `policy run` looked now, or so many seconds later."""
    now = datetime.now(timezone.utc) + timedelta(seconds=later)
    policy = rules.read()
    policy = policy._replace(rules=(*policy.rules, *(each.rule for each in bypass.read())))
    with Inbox() as inbox:
        return [each.did for one in asked for each in watching.consider(inbox, policy, one, now)]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("bypass", "start", "demo", "--yes"), 2, "--reason"),
        ((*START, "--for", "9h"), 2, "8 h at most"),
        ((*START, "--for", "0s"), 2, "longer than no time"),
        (("bypass", "start", "demo", "--reason", " ", "--yes"), 2, "needs a reason"),
        (("bypass", "start", "demo", "--reason", "x"), 2, "needs --yes"),
        (("bypass", "start", "deno", "--reason", "x", "--yes"), 4, "did you mean 'demo'?"),
        (("bypass", "end", "demo"), 4, "no bypass of 'demo'"),
        (("bypass", "start", "--reason", "x", "--yes"), 2, "SLUG"),
    ],
)
def test_one_that_is_not_bounded_named_and_meant_is_refused(
    demo: Host, arguments: tuple[str, ...], code: int, says: str
) -> None:
    assert says in demo.run(*arguments, code=code).stderr
    assert demo.json("bypass", "list") == []


def test_while_it_is_on_each_call_is_approved_signed_and_recorded_and_then_asked_again(demo: Host) -> None:
    first = demo.propose("FROM a\n", tool="capability-block")
    other = demo.propose("FROM a\n", tool="capability-block", slug="other")
    said = demo.run(*START).stdout
    assert "is approved until" in said and "which it is not" in said
    with at_work(demo):
        eventually(lambda: state(first) == "approved")
        second = demo.propose("FROM b\n", tool="capability-block")
        eventually(lambda: state(second) == "approved")
        (listed,) = demo.json("bypass", "list")
        assert (listed["bottle"], listed["calls"], listed["reason"]) == ("demo", 2, "a migration")
        assert "2 calls approved" in demo.run("bypass", "end").stdout
        third = demo.propose("FROM c\n", tool="capability-block")
        # `policy run` answers what comes after it, so it has seen the third by then.
        write(demo, "[[rule]]\nname = 'd'\nverdict = 'reject'\nreason = 'no'\ntool = 'd'\n")
        last = demo.propose("FROM d\n", tool="d")
        eventually(lambda: state(last) == "rejected")
    assert state(third) == state(other) == "pending"
    answer = demo.json("show", first.id)["response"]
    assert (answer["decided_by"], answer["surface"]) == ("policy: bypass demo", "policy")
    assert answer["notes"].startswith("a migration ['bypass demo', until ")
    with AuditStore() as store:
        told = [each for each in store.read_audit_entries("policy", "demo")]
    assert [each.operator_action for each in told] == ["bypass-started", "bypass-ended"]
    assert told[0].operator_notes.startswith("until 2") and "2 calls were approved" in told[1].operator_notes
    demo.run("audit", "verify")


def test_what_is_odd_or_lets_a_secret_pass_or_a_rule_forbids_is_left_to_a_person(demo: Host) -> None:
    demo.run(*START)
    odd = demo.propose("FROM a\u202e\n", tool="capability-block")
    secret = demo.propose("a key", tool="gitleaks-allow")
    plain = demo.propose("FROM a\n", tool="capability-block")
    assert considered(odd.id) == ["left"]
    assert considered(secret.id) == []
    write(demo, "[[rule]]\nname = 'a'\nverdict = 'ask'\ntool = 'capability-block'\n")
    assert considered(plain.id) == []
    write(demo, "")
    assert considered(plain.id, later=3599) == ["approved"]
    demo.run("bypass", "end", "demo")
    demo.run(*START, "--tool", "gitleaks-allow", "--for", "20m")
    assert considered(secret.id) == ["approved"]
    assert considered(demo.propose("FROM b\n", tool="capability-block").id) == []


def test_it_ends_by_itself_which_is_in_the_log_once(demo: Host) -> None:
    demo.run(*START)
    asked = demo.propose("FROM a\n", tool="capability-block")
    assert considered(asked.id, later=3601) == []
    demo.run("bypass", "end", "demo")
    demo.run(*START, "--for", "0.2s")
    with at_work(demo):
        eventually(lambda: len(_log()) == 4)
    assert demo.json("bypass", "list") == []
    assert [each.partition(",")[0] for each in _log()[1::2]] == ["by the operator", "by itself"]


def _log() -> list[str]:
    with AuditStore() as store:
        return [each.operator_notes for each in store.read_audit_entries("policy", "demo")]


def test_a_clock_that_was_set_back_makes_none_longer(demo: Host) -> None:
    demo.run(*START)
    file = demo.root / "bypass.json"
    (known,) = json.loads(file.read_text())
    started = datetime.now(timezone.utc) + timedelta(hours=1)
    known |= {"started": f"{started:%Y-%m-%dT%H:%M:%S.000000Z}"}
    known |= {"until": f"{started + timedelta(hours=1):%Y-%m-%dT%H:%M:%S.000000Z}"}
    file.write_text(json.dumps([known]))
    assert bypass.active() == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.chmod(0o666),
        lambda file: file.write_text("[{}]"),
        lambda file: file.write_text("[" * 100_000),
        lambda file: file.write_text(file.read_text().replace('"until": "2', '"until": "9')),
        lambda file: file.write_text(file.read_text().replace('"demo"', "7")),
    ],
)
def test_a_file_that_it_did_not_write_bypasses_nothing(demo: Host, spoil: Callable[..., object]) -> None:
    demo.run(*START)
    spoil(demo.root / "bypass.json")
    with pytest.raises(InvalidInputError, match=r"bypass\.json"):
        bypass.read()
    assert bypass.active() == []
    assert "bypass.json" in demo.run("bypass", "list", code=2).stderr
    assert "BYPASS" not in demo.run("pending").stdout


def test_every_face_shows_it_while_it_is_on(demo: Host) -> None:
    demo.run(*START)
    for line in ("pending", "bottles", "policy check"):
        assert "BYPASS: what demo asks for is approved unasked for another 60 min" in demo.run(*line.split()).stdout

    async def story(app: Seat, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "BYPASS demo 60 min" in on_screen(app))
        demo.run("bypass", "end", "demo")
        await until(pilot, lambda: "BYPASS" not in on_screen(app))

    play(story)
    assert "BYPASS" not in demo.run("pending").stdout


def test_a_bottle_that_stops_takes_its_bypass_with_it(demo: Host) -> None:
    demo.run(*START)
    demo.run("bottle", "stop", "demo", "--yes")
    assert demo.json("bypass", "list") == []
    assert "by the operator" in _log()[-1]
