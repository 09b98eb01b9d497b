"""Does `bot-bottle watch` tell every event, at once, while other processes make them?"""

from __future__ import annotations

import json
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from bot_bottle import Inbox, QueueStore
from cli_process import PROGRAMS, ROUTES, Host

Watch = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def watch(host: Host) -> Iterator[Watch]:
    """Starts watches of events from the first on, so that none is missed while one starts."""
    with ExitStack() as stack:

        def start(*arguments: str) -> subprocess.Popen[str]:
            child = stack.enter_context(
                subprocess.Popen(
                    [PROGRAMS / "bot-bottle", "watch", "--since", "0", *arguments],
                    env=host.environment(),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(child.kill)
            return child

        yield start


def events(child: subprocess.Popen[str], count: int) -> list[dict[str, object]]:
    """The next ``count`` lines; the test's own time limit ends a wait for one that never comes."""
    assert child.stdout is not None
    return [json.loads(child.stdout.readline()) for _ in range(count)]


def stop(child: subprocess.Popen[str]) -> str:
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=10)
    assert child.returncode == 130
    return errors


def test_a_life_is_told_as_other_processes_live_it(host: Host, watch: Watch) -> None:
    host.routes_file()
    child = watch("--json")
    proposal = host.propose(against=ROUTES)
    (proposed,) = events(child, 1)
    assert (proposed["kind"], proposed["proposal_id"], proposed["bottle_slug"], proposed["tool"]) == (
        "proposed",
        proposal.id,
        "demo",
        "egress-allow",
    )
    host.run("approve", proposal.id, "--yes")
    assert [event["kind"] for event in events(child, 2)] == ["approved", "applied"]
    taken_back = host.propose("other: 1\n")
    with QueueStore("demo") as queue:
        queue.withdraw_proposal(taken_back.id)
    told = events(child, 2)
    assert [(event["kind"], event["proposal_id"]) for event in told] == [
        ("proposed", taken_back.id),
        ("withdrawn", taken_back.id),
    ]
    stop(child)
    with Inbox() as inbox:
        assert told[-1] == inbox.changes()[-1].to_dict()


def test_however_many_events_each_is_told_once_and_in_order(host: Host, watch: Watch) -> None:
    early = [host.propose(f"a: {number}\n").id for number in range(12)]
    child = watch("--json", "--since", "0")
    assert [event["proposal_id"] for event in events(child, 12)] == early
    later = [host.propose(f"b: {number}\n").id for number in range(12)]
    assert [event["proposal_id"] for event in events(child, 12)] == later


def test_since_goes_on_where_another_watch_ended(host: Host, watch: Watch) -> None:
    host.propose("a: 1\n")
    child = watch("--json")
    (first,) = events(child, 1)
    stop(child)
    second = host.propose("a: 2\n")
    (event,) = events(watch("--json", "--since", str(first["seq"])), 1)
    assert event["proposal_id"] == second.id


def test_without_since_only_what_is_new_is_told(host: Host) -> None:
    host.propose("old: 1\n")
    with subprocess.Popen(
        [PROGRAMS / "bot-bottle", "watch", "--json"], env=host.environment(), stdout=subprocess.PIPE, text=True
    ) as child:
        # Until the watch has begun nothing is told; from then on all of it.
        new = {host.propose("new: 0\n").id}
        while not select.select([child.stdout], [], [], 0.02)[0]:
            new.add(host.propose(f"new: {len(new)}\n", slug=f"b{len(new)}").id)
        (event,) = events(child, 1)
        child.kill()
    assert event["proposal_id"] in new


def test_one_bottle_can_be_watched(host: Host, watch: Watch) -> None:
    host.propose()
    other = host.propose(slug="other")
    child = watch("--json", "--bottle", "other")
    (event,) = events(child, 1)
    assert event["proposal_id"] == other.id


def test_people_read_a_line_per_event(host: Host, watch: Watch) -> None:
    proposal = host.propose()
    child = watch()
    assert child.stdout is not None
    words = child.stdout.readline().split()
    assert words[2:] == ["proposed", proposal.id[:13], "demo", "egress-allow"]
    stop(child)


def test_people_are_first_told_what_waits_already(host: Host) -> None:
    waits, decided = host.propose("a: 1\n"), host.propose("a: 2\n")
    host.run("reject", decided.id)
    with subprocess.Popen(
        [PROGRAMS / "bot-bottle", "watch"], env=host.environment(), stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline().split()[2:] == ["waiting", waits.id[:13], "demo", "egress-allow"]
            host.run("approve", waits.id, "--yes")
            assert child.stdout.readline().split()[2:4] == ["approved", waits.id[:13]]
        finally:
            child.kill()


def test_exec_gets_the_event_in_the_environment_and_on_its_input(host: Host, watch: Watch) -> None:
    child = watch("--exec", 'printf "%s\\n" "$BOT_BOTTLE_EVENT"; cat')
    proposal = host.propose()
    assert child.stdout is not None
    child.stdout.readline()  # the line for people
    from_environment, from_input = events(child, 2)
    assert from_environment == from_input
    assert from_input["proposal_id"] == proposal.id
    stop(child)


def test_exec_may_decide(host: Host, watch: Watch) -> None:
    read = "import json, sys; e = json.load(sys.stdin); print(e['kind'], e['proposal_id'])"
    child = watch("--exec", f'python3 -c "{read}" | grep ^proposed | cut -c10- | xargs -r -n1 bot-bottle reject')
    proposal = host.propose()
    with QueueStore("demo") as queue:
        assert queue.wait_for_response(proposal.id, timeout=60).status == "rejected"
    stop(child)


def test_a_failing_command_is_told_and_the_watch_goes_on(host: Host, watch: Watch) -> None:
    child = watch("--json", "--exec", "exit 3")
    host.propose("a: 1\n")
    host.propose("a: 2\n")
    first, second = events(child, 2)
    assert child.stderr is not None
    for event in (first, second):
        line = child.stderr.readline()
        assert line == f"bot-bottle: --exec ended with exit code 3 for event {event['seq']}; watching on\n"
    stop(child)


def test_a_command_that_ignores_its_input_is_no_failure(host: Host, watch: Watch) -> None:
    child = watch("--json", "--exec", "exec <&-; true")
    host.propose("a: 1\n")
    host.propose("a: 2\n")
    events(child, 2)
    assert stop(child) == ""


def test_a_reader_that_goes_away_ends_the_watch(host: Host) -> None:
    host.propose("a: 1\n")
    host.propose("a: 2\n")
    done = subprocess.run(
        ["bash", "-c", "set -o pipefail; bot-bottle watch --since 0 --json | true"],
        env=host.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
