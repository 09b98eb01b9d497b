"""Is the operator told of what waits, once, through every channel, whatever one of them does?"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bot_bottle import GrantStore, InvalidInputError, QueueStore
from bot_bottle.notify import channels, message, settings
from bot_bottle.notify.ending import Ending
from bot_bottle.notify.ladder import Ladder
from bot_bottle.notify.settings import Channel
from bot_bottle.operator.live import Row
from cli_process import PROGRAMS, Host
from hostile import EVERYTHING, assert_harmless
from store_process import eventually

NOON = datetime(2026, 1, 31, 12, 0)


def row(
    number: int = 1,
    *,
    waiting: bool = True,
    gone: bool = False,
    state: str = "pending",
    why: str = "to build",
    last_word: str | None = None,
) -> Row:
    until = "2026-01-31T00:00:00.000000Z" if gone else None
    return Row(
        f"id{number}",
        "dev",
        "egress-allow",
        str(number),
        None,
        waiting and not gone,
        until,
        1,
        9,
        False,
        state,
        why,
        last_word=last_word,
    )


class Clock:
    """The age of every proposal."""

    now = 0.0

    def age(self, arrived: str) -> float:
        return self.now - float(arrived)


def test_a_proposal_is_told_at_once_and_then_more_and_more_seldom() -> None:
    clock = Clock()
    ladder = Ladder(age=clock.age)
    ladder.merge([row(0)])
    told = []
    for second in range(0, 3 * 3600 + 10):
        clock.now = float(second)
        new, again = ladder.due(NOON)
        told += [(second, "new") for _ in new] + [(second, "again") for _ in again]
    assert told == [(1, "new"), *((at, "again") for at in (60, 300, 900, 3600, 7200, 10800))]
    ladder.merge([row(0, state="approved")])
    clock.now = 20_000
    assert ladder.due(NOON) == ([], [])


def test_what_waits_already_is_one_message_and_not_a_ladder_of_them() -> None:
    clock = Clock()
    clock.now = 500.0
    ladder = Ladder(age=clock.age)
    ladder.merge([row(number) for number in range(50)])
    new, again = ladder.due(NOON)
    assert (len(new), again) == (50, [])
    assert ladder.due(NOON) == ([], [])
    told = message.about(new, reminder=False)
    assert (told.title, told.body, told.waiting, len(told.proposals)) == ("50 proposals wait", "dev (50)", 50, 20)


def test_nobody_is_reminded_while_an_agent_is_asked_and_its_answer_is_told_as_news() -> None:
    clock = Clock()
    clock.now = 100.0
    ladder = Ladder(age=clock.age)
    ladder.merge([row(0)])
    assert len(ladder.due(NOON)[0]) == 1
    ladder.merge([row(0, last_word="operator")])
    for clock.now in (301.0, 901.0, 3601.0):
        assert ladder.due(NOON) == ([], [])
    ladder.merge([row(0, last_word="requester")])
    (answered,), reminded = ladder.due(NOON)
    assert reminded == []
    said = message.about([answered], reminder=False)
    assert (said.event, said.title) == ("answered", "dev answered your question: egress-allow")
    ladder.merge([row(0, last_word="requester")])  # it changed in another way
    assert ladder.due(NOON) == ([], [])
    clock.now = 7201.0
    (reminded,) = ladder.due(NOON)[1]
    assert message.about([reminded], reminder=True).event == "reminder"


def test_nobody_is_told_of_the_dead_until_they_are_back() -> None:
    clock = Clock()
    clock.now = 100.0
    ladder = Ladder(age=clock.age)
    ladder.merge([row(gone=True)])
    assert ladder.due(NOON) == ([], [])
    assert ladder.looked_at() == ["id1"]
    ladder.merge([row()])
    assert [each.id for each in ladder.due(NOON)[0]] == ["id1"]


def test_a_grant_is_told_of_once_in_the_last_quarter_of_its_life(host: Host) -> None:
    for fingerprint, scope in (("a", "for:1h"), ("b", "uses:2"), ("c", "once"), ("d", "bottle")):
        asked = host.propose(fingerprint, tool="gitleaks-allow", fingerprint=fingerprint)
        host.run("approve", asked.id, "--yes", "--notes", "n", "--grant", scope)
    with closing(GrantStore()) as store:
        ending = Ending()
        assert ending.due(store.list_grants()) == []
        assert store.use_grant("demo", "gitleaks-allow", "b")
        (told,) = ending.due(store.list_grants())
        assert told.fingerprint == "b"
        assert ending.due(store.list_grants()) == []
        said = message.ending(told)
        assert (said.event, said.command) == ("grant-ending", f"bot-bottle grants show {told.id}")
        assert (said.title, said.body[:20]) == ("a grant of demo ends: gitleaks-allow", "in force 1 more use;")


@pytest.mark.parametrize(
    ("life", "left", "told"),
    [(3600, 599, True), (3600, 660, False), (120, 29, True), (120, 45, False), (28800, 599, True), (28800, 700, False)],
)
def test_a_grant_ends_soon_by_the_length_of_its_life(life: int, left: int, told: bool) -> None:
    def at(seconds: float) -> str:
        return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    class Given:
        id, live, uses, uses_left = "g", True, None, None
        created_at, expires_at = at(left - life), at(left)

    assert bool(Ending().due([Given()])) is told  # type: ignore[list-item]


def test_quiet_hours_tell_nothing_and_everything_after_them() -> None:
    clock = Clock()
    clock.now = 100.0
    ladder = Ladder((22 * 60, 7 * 60), age=clock.age)
    ladder.merge([row(1), row(2)])
    for hour in (22, 0, 6):
        assert ladder.due(NOON.replace(hour=hour)) == ([], [])
    assert len(ladder.due(NOON.replace(hour=7))[0]) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[notify", "cannot be read"),
        ("notify = " + "[" * 5000, "cannot be read"),
        ("[notify]\nloud = true", "loud in [notify] is not known"),
        ("[notify]\nquiet = '25:00-7:00'", "22:00-07:00"),
        ("[notify.channels.a]\nkind = 'pigeon'", "needs kind = one of bell"),
        ("[notify.channels.a]\nkind = 'exec'", "needs command"),
        ("[notify.channels.a]\nkind = 'webhook'\nurl = 'file:///etc/passwd'", "neither https:// nor"),
        ("[notify.channels.a]\nkind = 'bell'\nurl = 'https://x'", "url in [notify.channels.a] is not known"),
        ("[notify.channels.a]\nkind = 'bell'\nafter = '10'", 'such as "10m"'),
        ("[notify.channels.a]\nkind = 'bell'\nafter = 10", "after in [notify.channels.a] is not text"),
        ("[notify.channels.a]\nkind = 'bell'\nafter = '2d'", "a day at most"),
        (
            "[notify.channels.a]\nkind = 'ntfy'\nurl = 'https://x'\ntopic = 3",
            "topic in [notify.channels.a] is not text",
        ),
    ],
)
def test_a_setting_that_is_not_understood_is_named(host: Host, text: str, said: str) -> None:
    configure(host, text)
    with pytest.raises(InvalidInputError) as raised:
        settings.read()
    assert said in str(raised.value)
    assert "config.toml" in str(raised.value)


def configure(host: Host, text: str) -> None:
    host.root.mkdir(exist_ok=True)
    (host.root / "config.toml").write_text(text)


def test_a_program_gets_the_message_clean_and_no_word_of_it_as_a_command(tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = message.about([row(why=f"$(touch owned)'; touch owned; ' {EVERYTHING}")], reminder=False)
    command = f"cd {tmp_path}; env | grep -a ^BOT_BOTTLE_ > env; cat > out"
    channels.deliver(Channel("a", "exec", command=command), told)
    environment = (tmp_path / "env").read_text()
    assert_harmless(environment)
    assert "BOT_BOTTLE_IDS=id1" in environment and "BOT_BOTTLE_EVENT=waiting" in environment
    sent = json.loads(out.read_text())
    assert (sent["version"], sent["waiting"], sent["command"]) == (1, 1, "bot-bottle show id1")
    assert_harmless(sent["title"] + sent["body"] + sent["proposals"][0]["reason"])
    assert not (tmp_path / "owned").exists()


def test_a_program_that_fails_or_never_ends_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(channels.DeliveryError, match=r"^it ended with exit code 3: no line$"):
        channels.deliver(Channel("a", "exec", command="echo no line >&2; exit 3"), message.trial())
    monkeypatch.setattr(channels, "_SECONDS", 0.2)
    with pytest.raises(channels.DeliveryError, match="did not end within"):
        channels.deliver(Channel("a", "exec", command="sleep 600 & sleep 600"), message.trial())


class Hook(ThreadingHTTPServer):
    """A webhook's other end: what it was sent, and what it answers next."""

    def __init__(self) -> None:
        self.got: list[tuple[str, str | None, Any]] = []
        self.answers: list[int] = []
        super().__init__(("127.0.0.1", 0), _Answer)
        self.url = f"http://127.0.0.1:{self.server_port}/in"


class _Answer(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.got.append((self.path, self.headers["Authorization"], body))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_webhook_gets_json_with_its_token_and_is_followed_nowhere(
    hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "s3cret")
    channel = Channel("a", "webhook", url=hook.url, token_env="MY_TOKEN")
    channels.deliver(channel, message.about([row()], reminder=True))
    ((path, token, body),) = hook.got
    assert (path, token, body["event"], body["title"]) == (
        "/in",
        "Bearer s3cret",
        "reminder",
        "dev still asks: egress-allow",
    )
    hook.answers = [302]
    with pytest.raises(channels.DeliveryError, match="answered 302"):
        channels.deliver(channel, message.trial())
    assert [path for path, _, _ in hook.got] == ["/in", "/in"]
    monkeypatch.delenv("MY_TOKEN")
    with pytest.raises(channels.DeliveryError, match="MY_TOKEN is not set"):
        channels.deliver(channel, message.trial())


def test_ntfy_gets_its_topic(hook: Hook) -> None:
    channels.deliver(Channel("a", "ntfy", url=hook.url, topic="agents"), message.about([row()], reminder=False))
    ((_, _, body),) = hook.got
    assert body == {"topic": "agents", "title": "dev asks: egress-allow", "message": "to build\nbot-bottle show id1"}


def test_what_waits_is_told_through_all_channels_though_one_fails(host: Host, hook: Hook, tmp_path: Path) -> None:
    out = tmp_path / "told"
    hook.answers = [500]
    configure(
        host,
        f"[notify.channels.program]\nkind = 'exec'\ncommand = 'cat >> {out}'\n"
        f"[notify.channels.hook]\nkind = 'webhook'\nurl = '{hook.url}'\n"
        "[notify.channels.broken]\nkind = 'exec'\ncommand = 'exit 9'\n",
    )
    first = host.propose("x: 1\n")
    with subprocess.Popen(
        [PROGRAMS / "bot-bottle", "notify", "run"],
        env=host.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as teller:
        try:
            eventually(lambda: first.id in told(out), 60)
            assert "at work on this host already" in host.run("notify", "run", code=2).stderr
            second = host.propose("x: 2\n")
            eventually(lambda: second.id in told(out), 60)
            # The webhook's first message was refused, and came again.
            eventually(
                lambda: [body["proposals"][0]["id"] for _, _, body in hook.got] == [first.id, first.id, second.id]
            )
            eventually(lambda: state(host, "hook").get("failures") == 0 and state(host, "broken").get("failures"), 60)
            assert state(host, "hook")["error"].endswith("answered 500")
            assert host.json("notify", "status")["running"] is True
            host.run("approve", first.id, "--yes")
            asked = host.propose("a key", tool="gitleaks-allow", fingerprint="f")
            host.run("approve", asked.id, "--yes", "--notes", "n", "--grant", "uses:2")
            with closing(GrantStore()) as grants:
                assert grants.use_grant("demo", "gitleaks-allow", "f")
            eventually(lambda: "a grant of demo ends" in out.read_text(), 60)
        finally:
            teller.kill()
    shown = host.run("notify", "status").stdout
    assert "is not at work" in shown and "exit code 9" in shown


def test_whoever_is_next_is_told_of_what_nobody_has_answered_for_so_long(host: Host, tmp_path: Path) -> None:
    configure(
        host,
        "".join(
            f"[notify.channels.{name}]\nkind = 'exec'\ncommand = 'cat >> {tmp_path / name}'\n{after}"
            for name, after in (("me", ""), ("colleague", "after = '3s'\n"), ("boss", "after = '1h'\n"))
        ),
    )
    asked = host.propose("x: 1\n")
    command = [PROGRAMS / "bot-bottle", "notify", "run"]
    with subprocess.Popen(command, env=host.environment(), stdout=subprocess.PIPE, text=True) as teller:
        try:
            eventually(lambda: asked.id in told(tmp_path / "colleague"), 60)
        finally:
            teller.kill()
        assert teller.stdout is not None
        said = teller.stdout.read().splitlines()
    assert told(tmp_path / "me")[0] == asked.id
    assert ["(after 3 s)" in line for line in said][:2] == [False, True]
    assert "demo still asks" in said[1]
    assert not (tmp_path / "boss").exists()


def test_the_answer_to_a_question_is_told_by_a_program_that_runs(host: Host, tmp_path: Path) -> None:
    out = tmp_path / "told"
    configure(host, f"[notify.channels.me]\nkind = 'exec'\ncommand = 'cat >> {out}'\n")

    def said() -> list[tuple[str, str]]:
        lines = out.read_text().splitlines() if out.exists() else []
        return [(each["event"], each["title"]) for each in map(json.loads, lines) if each["event"] != "reminder"]

    asks = ("waiting", "demo asks: egress-allow")
    proposed = host.propose("x: 1\n")
    command = [PROGRAMS / "bot-bottle", "notify", "run"]
    with subprocess.Popen(command, env=host.environment(), stdout=subprocess.DEVNULL) as teller:
        try:
            eventually(lambda: said() == [asks], 60)
            host.run("ask", proposed.id, "what for?")
            # It has taken the question in once it has told of what came after it.
            host.propose("x: 2\n")
            eventually(lambda: said() == [asks, asks], 60)
            with closing(QueueStore("demo")) as queue:
                queue.answer(proposed.id, "for the tests")
            eventually(lambda: said() == [asks, asks, ("answered", "demo answered your question: egress-allow")], 60)
        finally:
            teller.kill()


def told(out: Path) -> list[str]:
    lines = out.read_text().splitlines() if out.exists() else []
    return [each["id"] for line in lines for each in json.loads(line)["proposals"]]


def state(host: Host, name: str) -> dict[str, Any]:
    return next(each for each in host.json("notify", "status")["channels"] if each["name"] == name)


def test_a_trial_says_of_each_channel_whether_it_works(host: Host, tmp_path: Path) -> None:
    host.root.mkdir()
    assert "no channel" in host.run("notify", "test", code=2).stderr
    configure(host, "[notify.channels.good]\nkind = 'exec'\ncommand = 'true'\n[notify.channels.bad]\nkind = 'bell'\n")
    done = host.run("notify", "test", code=1)
    assert "good: delivered" in done.stdout and "bad: standard output is no terminal" in done.stdout
    assert host.json("notify", "test", "--channel", "good") == [{"name": "good", "kind": "exec", "error": None}]
    assert os.listdir(host.root) == ["config.toml"]
