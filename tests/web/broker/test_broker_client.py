"""Does a sidecar's store keep its promises over the broker, whatever happens to the broker, the network or itself?

What the two transports promise alike is in the tests marked ``over_both``; here is what only the broker can do to one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bot_bottle import (
    AccessDeniedError,
    AuditEntry,
    AuditStore,
    BottleStore,
    Broker,
    ClosedError,
    DatabaseUnavailableError,
    GrantStore,
    Inbox,
    InvalidInputError,
    NotFoundError,
    QueueStore,
    Response,
    WaitTimeoutError,
    host_db_path,
    new_id,
)
from broker_process import Broker as Serving
from broker_process import token
from cli_process import PROGRAMS, Host
from relay import Relay
from store_process import Process, arrived, assert_sound, decide, eventually, proposal

SLUG = "dev"
LATE = 30.0
NOW = "2026-01-31T12:00:00.000000Z"
UNLIMITED = {"rate": 1e6, "burst": 1e6}


@pytest.fixture
def token_file(broker: Serving, tmp_path: Path) -> Path:
    """The bottle's token, as its launch hands it over."""
    path = tmp_path / "token"
    path.write_text(token(SLUG) + "\n")
    return path


@pytest.fixture
def way(broker: Serving, token_file: Path) -> dict[str, Any]:
    return {"broker": Broker(broker.url, token_file)}


@pytest.fixture
def inbox(broker: Serving) -> Iterator[Inbox]:
    with Inbox() as store:
        yield store


@pytest.fixture
def relay(broker: Serving) -> Iterator[Relay]:
    relay = Relay(broker.port)
    yield relay
    relay.close()


def wait_all(queue: QueueStore, ids: list[str]) -> list[list[Any]]:
    """Begins a wait for each; what each callback is given is added to its list."""
    got: list[list[Any]] = [[] for _ in ids]
    for known, into in zip(ids, got, strict=True):
        queue.begin_wait(known, into.append)
    return got


def threads(name: str = "bot-bottle-wait") -> int:
    return sum(path.read_text().strip() == name for path in Path("/proc/self/task").glob("*/comm"))


# --- the broker goes away and comes back


def test_waits_outlive_a_broker_that_is_killed(serve: Callable[..., Serving], tmp_path: Path, host: Host) -> None:
    first = serve(limits=UNLIMITED)
    (tmp_path / "token").write_text(token(SLUG))
    queue = QueueStore(SLUG, broker=Broker(first.url, tmp_path / "token"))
    written = [queue.write_proposal(proposal()) for _ in range(100)]
    before = threads()
    got = wait_all(queue, [known.id for known in written] * 2)
    with Inbox() as inbox:
        eventually(lambda: all(item.waiting for item in inbox.pending()), within=LATE)
        assert threads() == before + 1
        assert first.end(signal.SIGKILL) == -signal.SIGKILL
        for known in written[:50]:  # while nobody is there to tell
            decide(inbox, known, notes=known.id)
        serve(port=first.port, limits=UNLIMITED)
        for known in written[50:]:
            decide(inbox, known, notes=known.id)
        eventually(lambda: all(got), within=LATE)
    assert [[answer.notes for answer in each] for each in got] == [[known.id] for known in written] * 2
    queue.close()
    assert_sound(host_db_path())


def test_a_verb_finds_a_broker_that_is_being_restarted(
    serve: Callable[..., Serving], tmp_path: Path, host: Host
) -> None:
    first = serve()
    (tmp_path / "token").write_text(token(SLUG))
    with QueueStore(SLUG, broker=Broker(first.url, tmp_path / "token")) as queue:
        assert queue.list_items() == []
        first.end()
        with ThreadPoolExecutor(1) as pool:
            one = proposal()
            asked = pool.submit(queue.write_proposal, one)
            time.sleep(0.3)
            assert not asked.done()
            serve(port=first.port)
            stored = asked.result(LATE)
            assert stored == arrived(one, stored)
        assert queue.list_pending_proposals() == [stored]


def test_a_timeout_is_kept_while_the_broker_is_away(broker: Serving, queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal())
    with ThreadPoolExecutor(1) as pool:
        start = time.monotonic()
        waiting = pool.submit(queue.wait_for_response, written.id, 2.0)
        eventually(lambda: inbox.read(written.id).waiting)
        broker.end()
        with pytest.raises(WaitTimeoutError):
            waiting.result(LATE)
        assert 2.0 <= time.monotonic() - start < 2.0 + LATE


def test_a_broker_that_was_never_there_is_told_from_an_operator_who_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x" * 43)
    url = f"http+unix://{tmp_path}/broker.sock"
    queue = QueueStore(SLUG, broker=Broker(url, tmp_path / "token"))
    start = time.monotonic()
    with pytest.raises(DatabaseUnavailableError, match=r"bot-bottle serve.* on the host") as caught:
        queue.wait_for_response(new_id(), timeout=0)
    assert caught.value.path == url
    assert time.monotonic() - start >= 4.9  # it may just be starting
    with pytest.raises(DatabaseUnavailableError):
        Broker(url, tmp_path / "token").probe()


def test_close_ends_a_verb_that_finds_no_broker(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x" * 43)
    queue = QueueStore(SLUG, broker=Broker(f"http+unix://{tmp_path}/broker.sock", tmp_path / "token"))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(queue.list_items)
        time.sleep(0.1)
        queue.close()
        with pytest.raises(ClosedError):
            asked.result(LATE)


# --- the network


def test_a_proposal_whose_answer_was_lost_is_queued_once(relay: Relay, token_file: Path, inbox: Inbox) -> None:
    queue = QueueStore(SLUG, broker=Broker(relay.url, token_file))
    queue.list_items()  # on a connection that is kept
    one = proposal()
    relay.lose_answer(b"POST /v1/proposals ")
    stored = queue.write_proposal(one)
    assert stored == arrived(one, stored)
    assert relay.lost == 1
    (item,) = inbox.pending()
    assert (item.proposal.id, item.requests) == (stored.id, 1)


@pytest.mark.parametrize("verb", ["withdraw", "archive"])
def test_taking_back_whose_answer_was_lost_is_no_error(relay: Relay, token_file: Path, inbox: Inbox, verb: str) -> None:
    queue = QueueStore(SLUG, broker=Broker(relay.url, token_file))
    written = queue.write_proposal(proposal())
    relay.lose_answer(f"/{verb} ".encode())
    (queue.withdraw_proposal if verb == "withdraw" else queue.archive_proposal)(written.id)
    assert relay.lost == 1
    assert inbox.read(written.id).state == "withdrawn"


def test_an_audit_entry_whose_answer_was_lost_is_not(relay: Relay, token_file: Path) -> None:
    log = AuditStore(broker=Broker(relay.url, token_file))
    relay.lose_answer(b"POST /v1/audit ")
    log.write_audit_entry(AuditEntry(NOW, SLUG, "egress", "routes-reloaded"))
    found = [one.operator_action for one in AuditStore().read_audit_entries("egress")]
    assert set(found) == {"routes-reloaded"}


def test_a_lost_answer_never_makes_more_of_a_grant(relay: Relay, token_file: Path, inbox: Inbox) -> None:
    way: dict[str, Any] = {"broker": Broker(relay.url, token_file)}
    written = QueueStore(SLUG, **way).write_proposal(proposal(tool="egress-token-allow", fingerprint="f"))
    decide(inbox, written, notes="a test key", grant="uses:3")
    relay.lose_answer(b"POST /v1/grants/use ")
    used = sum(GrantStore(**way).use_grant(SLUG, "egress-token-allow", "f") is not None for _ in range(5))
    assert relay.lost == 1
    assert used == 2


def test_a_wait_outlives_its_connections(relay: Relay, token_file: Path, inbox: Inbox) -> None:
    queue = QueueStore(SLUG, broker=Broker(relay.url, token_file))
    written = queue.write_proposal(proposal())
    got = wait_all(queue, [written.id] * 5)
    for _ in range(3):
        eventually(lambda: inbox.read(written.id).waiting)
        seen = relay.connections
        relay.cut()
        eventually(lambda seen=seen: relay.connections >= seen + 5)  # type: ignore[misc]
    answer = decide(inbox, written)
    eventually(lambda: all(got), within=LATE)
    assert got == [[answer]] * 5


def test_an_answer_that_is_lost_on_its_way_is_asked_for_again(relay: Relay, token_file: Path, inbox: Inbox) -> None:
    queue = QueueStore(SLUG, broker=Broker(relay.url, token_file))
    written = queue.write_proposal(proposal())
    answer = decide(inbox, written)
    relay.lose_answer(b"/response?")
    assert queue.wait_for_response(written.id, LATE) == answer
    assert relay.lost == 1


# --- the sidecar itself


def wait_over(reach: dict[str, str], known: str) -> None:
    from bot_bottle import QueueStore
    from transports import opened

    queue = QueueStore("dev", **opened(reach))
    print("waiting")
    print(queue.wait_for_response(known).notes)


def test_a_sidecar_that_slept_hears_what_was_decided_meanwhile(
    broker: Serving, token_file: Path, queue: QueueStore, inbox: Inbox
) -> None:
    written = queue.write_proposal(proposal())
    with Process(wait_over, {"url": broker.url, "token_file": str(token_file)}, written.id) as sleeper:
        assert sleeper.says() == "waiting"
        eventually(lambda: inbox.read(written.id).waiting)
        sleeper.popen.send_signal(signal.SIGSTOP)
        decide(inbox, written, notes="good morning")
        broker.end()  # and its connection is gone too
        serving = Serving(Host(Path(os.environ["BOT_BOTTLE_ROOT"])), port=broker.port)
        sleeper.popen.send_signal(signal.SIGCONT)
        assert sleeper.ends() == "good morning\n"
        serving.end()


def test_a_signal_ends_a_verb_that_finds_no_broker(tmp_path: Path) -> None:
    def ask(reach: dict[str, str]) -> None:
        import time

        from bot_bottle import QueueStore
        from transports import opened

        print("asking")
        try:
            QueueStore("dev", **opened(reach)).list_items()
        except KeyboardInterrupt:
            print(time.monotonic())

    (tmp_path / "token").write_text("x" * 43)
    reach = {"url": f"http+unix://{tmp_path}/broker.sock", "token_file": str(tmp_path / "token")}
    with Process(ask, reach) as asker:
        assert asker.says() == "asking"
        time.sleep(0.2)
        sent = time.monotonic()
        asker.popen.send_signal(signal.SIGINT)
        assert 0 <= float(asker.ends()) - sent < 5.0  # of 30 s


def test_a_forked_child_makes_its_own_connections(broker: Serving, token_file: Path, inbox: Inbox) -> None:
    def fork(reach: dict[str, str], known: str) -> None:
        import os
        import warnings

        from bot_bottle import QueueStore
        from transports import opened

        # Python 3.12 and later say at each fork that other threads run, which is what this is about.
        warnings.simplefilter("ignore", DeprecationWarning)
        queue = QueueStore("dev", **opened(reach))
        got: list[object] = []
        queue.begin_wait(known, got.append)
        assert queue.read_proposal(known) is not None
        child = os.fork()
        if child == 0:
            ok = queue.read_proposal(known) is not None
            ok = ok and queue.wait_for_response(known).status == "approved"
            os._exit(0 if ok else 1)
        for _ in range(20):
            assert queue.read_proposal(known) is not None  # nobody else's answer
        print("asked")
        print(os.waitpid(child, 0)[1], queue.wait_for_response(known).status)

    with QueueStore(SLUG) as own:
        written = own.write_proposal(proposal())
    with Process(fork, {"url": broker.url, "token_file": str(token_file)}, written.id) as parent:
        assert parent.says() == "asked"
        decide(inbox, written)
        assert parent.ends() == "0 approved\n"


# --- who may


@pytest.mark.parametrize("text", ["", "not a token!", "x" * 43])
def test_a_token_that_is_none_is_refused_at_once(broker: Serving, tmp_path: Path, queue: QueueStore, text: str) -> None:
    (tmp_path / "bad").write_text(text)
    written = queue.write_proposal(proposal())
    store = QueueStore(SLUG, broker=Broker(broker.url, tmp_path / "bad"))
    for use in (lambda: store.list_items(), lambda: store.wait_for_response(written.id)):
        with pytest.raises(AccessDeniedError) as caught:
            use()
        assert (caught.value.exit_code, isinstance(caught.value, PermissionError)) == (10, True)


def test_a_token_that_is_revoked_ends_the_waits_it_began(broker: Serving, queue: QueueStore, inbox: Inbox) -> None:
    written = queue.write_proposal(proposal())
    got = wait_all(queue, [written.id])
    eventually(lambda: inbox.read(written.id).waiting)
    BottleStore().stop(SLUG)
    eventually(lambda: got[0], within=LATE)
    assert type(got[0][0]).__name__ in ("ProposalWithdrawnError", "AccessDeniedError")
    with pytest.raises(AccessDeniedError, match="revoked"):
        queue.list_items()


def test_a_new_token_in_the_file_counts_at_once(broker: Serving, queue: QueueStore, token_file: Path) -> None:
    queue.list_items()
    BottleStore().stop(SLUG)
    token_file.write_text(token(SLUG))
    assert queue.list_items() == []


def test_a_token_leads_to_its_own_bottle_whatever_the_key_says(way: dict[str, Any], queue: QueueStore) -> None:
    written = queue.write_proposal(proposal())
    other = QueueStore("other", **way)
    for use in (
        lambda: other.write_proposal(proposal(slug="other")),
        lambda: other.read_proposal(written.id),
        lambda: other.list_items(),
        lambda: other.withdraw_proposal(written.id),
        lambda: other.wait_for_response(written.id, 0),
        lambda: GrantStore(**way).use_grant("other", "egress-token-allow", "f"),
        lambda: AuditStore(**way).write_audit_entry(AuditEntry(NOW, "other", "egress", "x")),
    ):
        with pytest.raises(AccessDeniedError, match=SLUG):
            use()
    assert queue.list_pending_proposals() == [written]


def test_what_only_the_host_does_is_refused_without_asking(way: dict[str, Any], queue: QueueStore) -> None:
    written = queue.write_proposal(proposal())
    log, grants = AuditStore(**way), GrantStore(**way)
    for use in (
        lambda: queue.write_response(Response(written.id, "approved")),
        log.read_audit_entries,
        log.verify,
        log.head,
        grants.list_grants,
        lambda: grants.revoke_grant(new_id()),
    ):
        with pytest.raises(AccessDeniedError, match="on the host"):
            use()
    assert queue.list_pending_proposals() == [written]


@pytest.mark.parametrize("bad", ["", "x/../../bottle", "a b", "%2e", "x\r\ny", "ü", "x" * 65])
def test_what_cannot_be_an_id_is_nowhere_and_not_sent(queue: QueueStore, bad: str) -> None:
    assert queue.read_proposal(bad) is None
    for use in (queue.withdraw_proposal, queue.archive_proposal, lambda known: queue.wait_for_response(known, 0)):
        with pytest.raises(NotFoundError):
            use(bad)


def test_own_entries_come_back_with_their_place_in_the_log(way: dict[str, Any], queue: QueueStore) -> None:
    entries = [AuditEntry(NOW, SLUG, "git-gate", f"note {n}") for n in range(3)]
    log = AuditStore(**way)
    written = [log.write_audit_entry(entries[0]), *log.write_audit_entries(entries[1:])]
    assert written == AuditStore().read_audit_entries("git-gate")
    assert [one.seq for one in written] == [1, 2, 3]
    assert all(one.entry_hash for one in written)


# --- how it gets there


@pytest.mark.parametrize("tls", [False, True])
def test_it_works_through_every_listener(serve: Callable[..., Serving], tmp_path: Path, host: Host, tls: bool) -> None:
    serving = serve("--tls") if tls else serve()
    (tmp_path / "token").write_text(token(SLUG))
    certificate = host.root / "tls" / "cert.pem" if tls else None
    tcp = Broker(serving.url, tmp_path / "token", certificate)
    assert serving.url.startswith("https://" if tls else "http://")
    by_path = Broker(f"http+unix://{serving.socket}", tmp_path / "token")
    large = proposal("x" * (1 << 20))
    with QueueStore(SLUG, broker=tcp) as queue, Inbox() as inbox:
        stored = queue.write_proposal(large)
        assert stored == arrived(large, stored)
        got = wait_all(queue, [large.id] * 3)
        with QueueStore(SLUG, broker=by_path) as other:
            assert other.read_proposal(large.id) == stored
            got += wait_all(other, [large.id])
            eventually(lambda: inbox.read(large.id).waiting)
            answer = decide(inbox, large, "modified", final_file="y" * (1 << 20))
            eventually(lambda: all(got), within=LATE)
    assert got == [[answer]] * 4
    for each in (tcp, by_path):
        found = each.probe()
        assert (found["bottle"], found["url"]) == (SLUG, each.url)
        assert found["round_trip_ms"] > 0
        assert abs(found["clock_ahead_seconds"]) < LATE


def test_another_certificate_than_the_pinned_one_is_refused(
    serve: Callable[..., Serving], tmp_path: Path, host: Host
) -> None:
    import trustme

    serving = serve("--tls")
    (tmp_path / "token").write_text(token(SLUG))
    trustme.CA().issue_cert("127.0.0.1").cert_chain_pems[0].write_to_path(str(tmp_path / "other.pem"))
    store = QueueStore(SLUG, broker=Broker(serving.url, tmp_path / "token", tmp_path / "other.pem"))
    for use in (store.list_items, lambda: store.wait_for_response(new_id())):
        with pytest.raises(AccessDeniedError, match="certificate"):
            use()
    assert serving.requests() == []


@pytest.mark.parametrize(
    ("url", "certificate"),
    [("127.0.0.1:9101", None), ("ftp://x", None), ("http://user@x", None), ("https://x", None),
     ("https://x", "/nowhere.pem"), ("http+unix://relative", None)],
)  # fmt: skip
def test_a_url_that_is_none_is_refused(url: str, certificate: str | None) -> None:
    with pytest.raises(InvalidInputError, match="broker"):
        Broker(url, "/nowhere/token", certificate)


def test_what_is_no_broker_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x" * 43)
    command = [sys.executable, "-um", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path) as other:
        try:
            assert other.stdout is not None
            port = other.stdout.readline().split()[5]
            with pytest.raises(DatabaseUnavailableError, match="it is no broker"):
                QueueStore(SLUG, broker=Broker(f"http://127.0.0.1:{port}", tmp_path / "token")).list_items()
        finally:
            other.kill()


# --- the helper


def helper(broker: Serving, token_file: Path, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
    environment = {
        "SUPERVISE_DB_PATH": "/nowhere/bot-bottle.db",  # as an image sets it; the launch's URL goes first
        "SUPERVISE_URL": broker.url,
        "SUPERVISE_TOKEN_FILE": str(token_file),
        "SUPERVISE_BOTTLE_SLUG": SLUG,
        **more,
    }
    pipe = subprocess.PIPE
    command = [PROGRAMS / "bot-bottle-sidecar", *arguments]
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe)


def ends(process: subprocess.Popen[bytes], code: int, stdin: bytes = b"") -> tuple[str, str]:
    out, err = process.communicate(stdin, timeout=60)
    assert process.returncode == code, (out, err)
    return out.decode(), err.decode()


def test_the_helper_asks_and_is_answered(broker: Serving, token_file: Path, inbox: Inbox) -> None:
    process = helper(broker, token_file, "propose", "--tool", "capability-block", "--wait", "--json")
    decider = threading.Thread(
        target=lambda: (
            eventually(lambda: [item for item in inbox.pending() if item.waiting]),
            decide(inbox, inbox.pending()[0].proposal, "rejected", notes="no"),
        )
    )
    decider.start()
    out, _ = ends(process, 3, b"FROM debian:13\n")
    decider.join()
    assert '"notes":"no"' in out


def test_an_interrupted_helper_takes_its_proposal_back(broker: Serving, token_file: Path, inbox: Inbox) -> None:
    process = helper(broker, token_file, "propose", "--tool", "t", "--wait")
    assert process.stdin is not None
    process.stdin.write(b"x")
    process.stdin.close()
    process.stdin = None
    eventually(lambda: [item for item in inbox.pending() if item.waiting])
    process.send_signal(signal.SIGTERM)
    ends(process, 130)
    (item,) = inbox.history()
    assert (item.state, item.withdrawn_reason) == ("withdrawn", "the requester was interrupted")


def test_the_helper_s_doctor_says_which_way_it_went_and_how_long_it_took(broker: Serving, token_file: Path) -> None:
    out, _ = ends(helper(broker, token_file, "doctor"), 0)
    assert f"broker at {broker.url}" in out
    assert "round trip" in out
    out, err = ends(helper(broker, token_file, "doctor", SUPERVISE_URL="http+unix:///nowhere.sock"), 1)
    assert "broker at http+unix:///nowhere.sock" in out
    assert "cannot be reached" in err
    _, err = ends(helper(broker, token_file, "doctor", SUPERVISE_TOKEN_FILE="/nowhere/token"), 10)
    assert "/nowhere/token" in err
    _, err = ends(helper(broker, token_file, "doctor", SUPERVISE_TOKEN_FILE=""), 2)
    assert "SUPERVISE_TOKEN_FILE" in err
    out, _ = ends(helper(broker, token_file, "doctor", "--db", host_db_path()), 0)  # a flag goes before any variable
    assert "mounted file" in out
