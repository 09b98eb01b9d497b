"""Does the broker do over HTTP what the store does, for the bottle whose token is sent?"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import pytest

from bot_bottle import (
    MAX_PENDING_PER_BOTTLE,
    AuditEntry,
    AuditStore,
    GrantStore,
    Inbox,
    QueueStore,
    __version__,
    new_id,
    sha256_hex,
)
from broker_process import Broker, as_sent, client, decided, proposal, proposed, refused, token
from cli_process import Host
from store_process import decide, eventually

NOW = "2026-01-31T12:00:00.000000Z"


def items(speaks: httpx.Client) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = speaks.get("/v1/proposals").json()["items"]
    return listed


def test_who_am_i(demo: httpx.Client) -> None:
    answer = demo.get("/v1/bottle").json()
    assert (answer["slug"], answer["version"]) == ("demo", __version__)
    assert answer["time"].endswith("Z")


def test_health_and_the_document_need_no_token(broker: Broker) -> None:
    with client(broker) as nobody:
        assert nobody.get("/v1/health").json() == {"status": "ok", "version": __version__}
        document = nobody.get("/v1/openapi.json").json()
        assert document["openapi"] == "3.1.0" and "/v1/proposals/{id}/response" in document["paths"]


def test_a_proposal_arrives_whole(demo: httpx.Client) -> None:
    one = proposal('FROM débian\n\t"quoted"\n', expires_in=3600, fingerprint="a fingerprint")
    lying = one.to_dict() | {"arrival_timestamp": NOW, "expires_at": "2026-01-31T13:00:00.000000Z"}
    written = demo.post("/v1/proposals", json=lying).json()["proposal"]
    # The host's clock says when it arrived; it expires an hour after that, as was asked.
    assert written == one.to_dict() | {name: written[name] for name in ("arrival_timestamp", "expires_at")}
    assert one.arrival_timestamp <= written["arrival_timestamp"] < one.expires_at <= written["expires_at"]
    arrived, expires = (datetime.fromisoformat(written[n][:-1]) for n in ("arrival_timestamp", "expires_at"))
    assert expires - arrived == timedelta(hours=1)
    with QueueStore("demo") as queue:
        assert queue.read_proposal(one.id).to_dict() == written
    assert demo.post("/v1/proposals", json=lying).json()["proposal"] == written, "the same once more"
    (item,) = items(demo)
    assert demo.get("/v1/proposals", params={"pending": "true"}).json() == {"items": [item]}
    whole = demo.get(f"/v1/proposals/{one.id}").json()
    assert len(whole.pop("proposed_file").encode()) == item.pop("payload_bytes")
    assert item == whole
    assert (item["state"], item["waiting"], item["queue_key"]) == ("pending", False, "demo")


def test_proposing_again_after_a_lost_answer_queues_nothing_new(demo: httpx.Client) -> None:
    one = proposal()
    first, *again = [demo.post("/v1/proposals", json=one.to_dict()).json() for _ in range(3)]
    assert first["proposal"]["id"] == one.id and again == [first] * 2
    assert len(items(demo)) == 1


def test_an_id_stands_for_one_content(demo: httpx.Client) -> None:
    one = proposed(demo)
    other = {**proposal("FROM other\n").to_dict(), "id": one.id}
    assert one.id in refused(demo.post("/v1/proposals", json=other), 422, "InvalidProposalError")["detail"]


def test_the_same_question_joins_the_pending_one(demo: httpx.Client) -> None:
    first, second = proposed(demo), proposal()
    assert demo.post("/v1/proposals", json=second.to_dict()).json()["proposal"]["id"] == first.id
    assert demo.get(f"/v1/proposals/{second.id}").json()["id"] == first.id


def test_a_payload_that_changed_on_its_way_is_refused(demo: httpx.Client) -> None:
    damaged = {**proposal().to_dict(), "proposed_file": "FROM debian:13\n"}
    problem = refused(demo.post("/v1/proposals", json=damaged), 422, "InvalidProposalError")
    assert sha256_hex("FROM debian:13\n") in problem["detail"]
    assert items(demo) == []


def test_a_full_queue_is_said_to_be_full(demo: httpx.Client) -> None:
    with QueueStore("demo") as queue:
        for number in range(MAX_PENDING_PER_BOTTLE):
            queue.write_proposal(proposal(f"FROM debian:{number}\n"))
    answer = demo.post("/v1/proposals", json=proposal("FROM one:more\n").to_dict())
    assert "pending" in refused(answer, 429, "InvalidProposalError")["detail"]
    assert "retry-after" not in answer.headers  # a decision helps, time does not


def test_the_largest_payload_passes_however_it_is_escaped(demo: httpx.Client) -> None:
    for character in ('"', "\n", "ä"):
        payload = character * (2**20 // len(character.encode()))
        one = proposed(demo, payload)
        assert demo.get(f"/v1/proposals/{one.id}").json()["payload_sha256"] == one.payload_sha256


def wait(speaks: httpx.Client, proposal_id: str, seconds: float = 20) -> httpx.Response:
    return speaks.get(f"/v1/proposals/{proposal_id}/response", params={"wait": seconds})


def waiting(proposal_id: str, slug: str = "demo") -> bool:
    with QueueStore(slug) as queue:
        item = queue.inspect(proposal_id)
        return item is not None and item.waiting


class Waiter(threading.Thread):
    """A wait under way, once its lease is seen."""

    def __init__(self, speaks: httpx.Client, proposal_id: str, seconds: float = 30):
        super().__init__()
        self.speaks, self.proposal_id, self.seconds = speaks, proposal_id, seconds
        self.start()
        eventually(lambda: waiting(proposal_id))

    def run(self) -> None:
        self.answer = wait(self.speaks, self.proposal_id, self.seconds)

    def envelope(self) -> Any:
        self.join(30)
        assert self.answer.status_code == 200
        return self.answer.json()


@pytest.mark.parametrize(
    ("status", "more"),
    [
        ("approved", {}),
        ("rejected", {"notes": "no: “ä”"}),
        ("modified", {"final_file": "FROM debian:13\n", "notes": "newer"}),
    ],
)
def test_a_decision_wakes_the_waiter(demo: httpx.Client, status: str, more: dict[str, str]) -> None:
    one = proposed(demo)
    waiter = Waiter(demo, one.id)
    with Inbox() as inbox:
        response = decide(inbox, one, status, **more)
    envelope = waiter.envelope()
    assert envelope == {"response": response.to_dict()} and decided(envelope["response"]) == response
    assert wait(demo, one.id, 0).json() == envelope  # and for who asks again


def test_a_wait_ends_neither_early_nor_late(demo: httpx.Client) -> None:
    one = proposed(demo)
    begun = time.monotonic()
    assert wait(demo, one.id, 0.5).json() == {"pending": True}
    assert 0.5 <= time.monotonic() - begun < 5
    assert wait(demo, one.id, 0).json() == {"pending": True}
    eventually(lambda: not waiting(one.id))  # a client that has not asked again


def test_how_a_proposal_ended_instead_reaches_its_waiter(demo: httpx.Client) -> None:
    one = proposed(demo)
    waiter = Waiter(demo, one.id)
    assert demo.post(f"/v1/proposals/{one.id}/withdraw", json={"reason": "no need"}).status_code == 204
    problem = waiter.envelope()["problem"]
    assert (problem["title"], problem["status"]) == ("ProposalWithdrawnError", 409)
    assert problem["data"]["reason"] == "no need" and problem["data"]["proposal_id"] == one.id
    # What is known at once has a status of its own.
    assert refused(wait(demo, one.id), 409, "ProposalWithdrawnError") == problem


def test_a_wait_for_nothing_is_refused_at_once(demo: httpx.Client) -> None:
    refused(wait(demo, new_id()), 404, "NotFoundError")
    refused(wait(demo, "..%2fx"), 404, "NotFoundError")


def test_an_expired_proposal_says_so(demo: httpx.Client) -> None:
    one = proposed(demo, expires_in=0.3)
    envelope = wait(demo, one.id, 20).json()
    assert envelope["problem"]["title"] == "ProposalExpiredError"
    assert envelope["problem"]["data"] == {"proposal_id": one.id, "expires_at": one.expires_at}


def test_signs_of_life_come_while_nothing_else_does(serve: Callable[..., Broker]) -> None:
    broker = serve(limits={"sign_of_life_seconds": 0.05})
    with client(broker, token()) as demo:
        one = proposed(demo)
        with demo.stream("GET", f"/v1/proposals/{one.id}/response", params={"wait": 30}) as answer:
            assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
            parts = answer.iter_raw()
            assert [next(parts) for _ in range(3)] == [b" "] * 3
            with Inbox() as inbox:
                decide(inbox, one)
            assert json.loads(b"".join(parts))["response"]["status"] == "approved"


def test_a_dropped_connection_ends_the_wait_and_nothing_else(broker: Broker, demo: httpx.Client) -> None:
    one = proposed(demo)
    with demo.stream("GET", f"/v1/proposals/{one.id}/response", params={"wait": 50}):
        eventually(lambda: waiting(one.id))
    eventually(lambda: not waiting(one.id), 5)  # long before its lease would have lapsed
    assert demo.get(f"/v1/proposals/{one.id}").json()["state"] == "pending"
    eventually(lambda: any(line.get("outcome") == "gone" for line in broker.requests()))


def test_withdrawing_and_archiving(demo: httpx.Client) -> None:
    one, two = proposed(demo), proposed(demo, "FROM b\n")
    assert [demo.post(f"/v1/proposals/{one.id}/withdraw", json={}).status_code for _ in range(2)] == [204, 204]
    assert demo.get(f"/v1/proposals/{one.id}").json()["withdrawn_reason"] == "withdrawn by the requester"
    with Inbox() as inbox:
        decide(inbox, two)
    late = demo.post(f"/v1/proposals/{two.id}/withdraw", json={})
    assert refused(late, 409, "AlreadyDecidedError")["data"]["status"] == "approved"
    assert [demo.post(f"/v1/proposals/{two.id}/archive").status_code for _ in range(2)] == [204, 204]
    assert demo.get(f"/v1/proposals/{two.id}").json()["archived_at"]
    assert wait(demo, two.id, 0).json()["response"]["status"] == "approved"
    refused(demo.post(f"/v1/proposals/{new_id()}/archive"), 404, "NotFoundError")
    refused(demo.post(f"/v1/proposals/{new_id()}/withdraw", json={}), 404, "NotFoundError")


def test_lists_are_newest_first_and_bounded(demo: httpx.Client) -> None:
    ids = [proposed(demo, f"FROM debian:{number}\n").id for number in range(5)]
    assert [item["id"] for item in items(demo)] == ids[::-1]
    assert len(demo.get("/v1/proposals", params={"limit": 2}).json()["items"]) == 2
    assert [item["id"] for item in demo.get("/v1/proposals?pending=true").json()["items"]] == ids
    for query in ("limit=0", "limit=1001", "limit=1.5", "limit=x", "pending=yes", "page=2", "limit=1&limit=2"):
        refused(demo.get(f"/v1/proposals?{query}"), 422, "InvalidInputError")


def test_audit_entries_are_the_bottle_s_and_no_person_s(demo: httpx.Client) -> None:
    before = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    entry = AuditEntry(NOW, "other", "egress", "blocked", "a host", decided_by="alice", surface="cli").to_dict()
    policy = AuditEntry(NOW, "demo", "git-gate", "held", surface="policy", payload_sha256="a" * 64).to_dict()
    answer = demo.post("/v1/audit", json={"entries": [entry, policy]})
    with AuditStore() as audit:
        written = audit.read_audit_entries(bottle_slug="demo")
        audit.verify()
    assert answer.json() == {"entries": [each.to_dict() for each in written]}
    assert [(e.component, e.decided_by, e.surface) for e in written] == [
        ("egress", "egress", "api"),
        ("git-gate", "git-gate", "policy"),
    ]
    assert (written[0].operator_action, written[0].operator_notes) == ("blocked", "a host")
    assert before <= written[0].timestamp, "evidence has the host's time"
    assert demo.post("/v1/audit", json={"entries": []}).json() == {"entries": []}


def test_an_entry_about_a_decision_or_a_stranger_is_refused_with_all_the_others(demo: httpx.Client) -> None:
    good = {"timestamp": NOW, "component": "egress", "operator_action": "blocked"}
    for bad, status, title in (
        ({**good, "component": "egress-allow"}, 403, "AccessDeniedError"),
        ({**good, "proposal_id": new_id()}, 404, "NotFoundError"),
        *(
            ({**good, "operator_action": word}, 403, "AccessDeniedError")
            for word in ("approved", "rejected", "grant-used")
        ),
        ({**good, "operator_action": "x" * 257}, 422, "InvalidProposalError"),
        ({**good, "color": "red"}, 422, "InvalidInputError"),
        ({"component": "egress"}, 422, "InvalidInputError"),
        ([], 422, "InvalidInputError"),
    ):
        refused(demo.post("/v1/audit", json={"entries": [good, bad]}), status, title)
    refused(demo.post("/v1/audit", json={"entries": [good] * 101}), 422, "InvalidInputError")
    with AuditStore() as audit:
        assert audit.read_audit_entries() == []
    one = proposed(demo)
    assert demo.post("/v1/audit", json={"entries": [{**good, "proposal_id": one.id}]}).status_code == 200


def test_a_grant_is_spent_once(demo: httpx.Client) -> None:
    one = proposed(demo, "a key", tool="gitleaks-allow", fingerprint="rule:path")
    use = {"tool": "gitleaks-allow", "fingerprint": "rule:path"}
    refused(demo.post("/v1/grants/use", json=use), 404, "NotFoundError")
    with Inbox() as inbox:
        decide(inbox, one, notes="a test key", grant="once")
    grant = demo.post("/v1/grants/use", json=use).json()
    assert (grant["bottle_slug"], grant["uses_left"], grant["proposal_id"]) == ("demo", 0, one.id)
    assert [each.id for each in GrantStore().list_grants(live=False)] == [grant["id"]]
    refused(demo.post("/v1/grants/use", json=use), 404, "NotFoundError")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b'{"a": NaN}',
        b'{"reason": "a", "reason": "b"}',
        b"[" * 100_000,
        b'{"a": ' + b"1" * 10_000 + b"}",
        b"\xef\xbb\xbf{}",
    ],
    ids=["empty", "cut", "latin-1", "NaN", "key twice", "deep", "long number", "byte order mark"],
)
def test_a_body_that_is_no_json_is_refused(demo: httpx.Client, body: bytes) -> None:
    one = proposed(demo)
    refused(demo.post(f"/v1/proposals/{one.id}/withdraw", content=body), 400, "InvalidInputError")
    assert demo.get(f"/v1/proposals/{one.id}").json()["state"] == "pending"


@pytest.mark.parametrize(
    "change",
    [
        {"id": "no-uuid"},
        {"id": None},
        {"tool": 7},
        {"tool": "NO"},
        {"proposed_file": ""},
        {"proposed_file": "a\0b"},
        {"proposed_file": "x" * (2**20 + 1)},
        {"proposed_file": ["a"]},
        {"justification": "x" * (16 * 1024 + 1)},
        {"arrival_timestamp": "noon"},
        {"expires_at": "never"},
        {"current_file_hash": "abc"},
        {"payload_sha256": "0" * 64},
        {"status": "approved"},
        {"response": {"status": "approved"}},
    ],
    ids=lambda change: str(change)[:40],
)
def test_a_proposal_that_breaks_a_rule_is_refused(demo: httpx.Client, change: dict[str, Any]) -> None:
    answer = demo.post("/v1/proposals", json={**proposal().to_dict(), **change})
    assert answer.status_code == 422, answer.text
    assert answer.json()["title"] in ("InvalidInputError", "InvalidProposalError")
    assert items(demo) == []


def test_half_a_surrogate_pair_is_refused(demo: httpx.Client) -> None:
    body = json.dumps(proposal().to_dict()).replace("FROM", "\\ud800")
    refused(demo.post("/v1/proposals", content=body), 422, "InvalidInputError")


def test_the_log_says_who_did_what_and_quotes_nothing(broker: Broker, demo: httpx.Client) -> None:
    one = proposed(demo, "a very secret payload")
    secret = demo.headers["authorization"].removeprefix("Bearer ")
    demo.get(f"/v1/proposals/{one.id}")
    demo.get("/v1/bottle", params={"token": secret})
    demo.get(f"/v1/{secret}")
    demo.get(f"/v1/proposals/{secret}")
    demo.request("PROPFIND", "/v1/bottle")
    eventually(lambda: len(broker.requests()) == 6)
    asked = [(line.get("bottle"), line["method"], line.get("route"), line["status"]) for line in broker.requests()]
    assert asked == [
        ("demo", "POST", "/v1/proposals", 200),
        ("demo", "GET", "/v1/proposals/{id}", 200),
        ("demo", "GET", "/v1/bottle", 200),
        (None, "GET", None, 404),
        ("demo", "GET", "/v1/proposals/{id}", 404),
        (None, "other", "/v1/bottle", 405),
    ]
    assert broker.requests()[1]["proposal"] == one.id
    assert broker.requests()[4]["error"] == "NotFoundError"
    assert all({"at", "ms", "peer", "received", "sent"} <= line.keys() for line in broker.requests())
    assert broker.end() == 0
    said = json.dumps(broker.log) + broker.errors
    assert secret not in said and "very secret" not in said


def test_the_unix_socket_is_the_same_broker_for_its_owner_alone(broker: Broker, host: Host) -> None:
    for path in (broker.socket, str(host.root / "broker.sock")):
        with httpx.Client(transport=httpx.HTTPTransport(uds=path), base_url="http://broker") as local:
            local.headers["Authorization"] = f"Bearer {token()}"
            assert local.get("/v1/bottle").json()["slug"] == "demo"
    socket = host.root / "broker" / "broker.sock"
    assert str(socket) == broker.socket
    assert socket.stat().st_mode & 0o777 == 0o600
    assert socket.parent.stat().st_mode & 0o777 == host.root.stat().st_mode & 0o777 == 0o700


def test_a_proposal_survives_as_it_was_sent(demo: httpx.Client) -> None:
    """What a client rebuilds from an answer is what it proposed, hash and all."""
    one = proposed(demo)
    fields = demo.get(f"/v1/proposals/{one.id}").json()
    assert as_sent({name: fields[name] for name in one.to_dict()}) == one


def test_no_answer_is_kept_by_a_cache(demo: httpx.Client) -> None:
    one = proposed(demo)
    for path in (
        "/v1/bottle",
        "/v1/proposals",
        f"/v1/proposals/{one.id}",
        f"/v1/proposals/{one.id}/response",
        f"/v1/proposals/{one.id}/response?wait=0.01",
        f"/v1/proposals/{new_id()}",  # a problem
        "/nowhere",
    ):
        assert demo.get(path).headers["cache-control"] == "no-store", path
