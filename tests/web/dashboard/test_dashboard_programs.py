"""Can a program decide for an operator, once and in their name, and do the routes keep to their document?"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bot_bottle import AuditStore, BottleStore, Database, GrantStore, Inbox, Proposal, QueueStore, new_id
from bot_bottle.web.dashboard import login, openapi
from broker_process import refused
from checkout import CHECKOUT
from cli_process import MORE_ROUTES, ROUTES, Host
from dashboard_process import Served
from store_process import eventually


class Program(httpx.Client):
    """A program with a token of its own."""

    def __init__(self, served: Served, name: str = "ann") -> None:
        super().__init__(base_url=f"{served.origin}/v1", timeout=60, trust_env=False)
        self.headers["Authorization"] = f"Bearer {login.make_token(name, 3600.0)}"

    def told(self, path: str, **asked: Any) -> Any:
        answer = self.get(path, params=asked)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def decide(self, proposal: Proposal, status: str = "approved", key: str = "", **more: str) -> httpx.Response:
        review = self.told(f"proposals/{proposal.id}/review")["review_sha256"]
        headers = {"Idempotency-Key": key} if key else {}
        body = {"status": status, "review_sha256": review, **more}
        return self.post(f"proposals/{proposal.id}/decision", json=body, headers=headers)


@pytest.fixture
def program(dashboard: Served) -> Iterator[Program]:
    with Program(dashboard) as made:
        yield made


def test_a_program_asks_back_once_in_that_name(host: Host, program: Program) -> None:
    proposal = host.propose()
    body = {"text": "Only for GET?", "id": new_id(), "surface": "cli"}
    told = [program.post(f"proposals/{proposal.id}/questions", json=body) for _ in range(2)]
    assert [each.status_code for each in told] == [200, 200], told[1].text
    assert told[0].json() == told[1].json()
    with Inbox() as inbox:
        [message] = inbox.read(proposal.id).thread
    assert (message.text, message.written_by, message.surface) == ("Only for GET?", "ann", "cli")
    refusal = program.post(f"proposals/{proposal.id}/questions", json={"text": " "})
    assert (refusal.status_code, refusal.json()["title"]) == (422, "InvalidInputError")


def test_a_program_decides_in_the_name_that_its_token_was_made_for(host: Host, program: Program) -> None:
    routes = host.routes_file()
    proposal = host.propose(MORE_ROUTES, against=ROUTES)
    assert program.told("me")["name"] == "ann"
    answer = program.decide(proposal, notes="fine")
    assert answer.status_code == 200, answer.text
    assert answer.json()["decided_by"] == "ann" and answer.json()["surface"] == "api"
    assert routes.read_text() == MORE_ROUTES
    with AuditStore() as audit:
        (entry,) = [each for each in audit.read_audit_entries() if each.operator_action == "approved"]
        audit.verify()
    assert (entry.decided_by, entry.surface) == ("ann", "api")


def test_the_same_decision_is_answered_alike_and_another_is_refused(
    host: Host, program: Program, dashboard: Served
) -> None:
    one, two = host.propose("a: 1\n"), host.propose("b: 1\n")
    first = program.decide(one, key="k")
    again = program.decide(one, key="k")
    assert first.status_code == again.status_code == 200 and first.json() == again.json()
    refused(program.decide(one, "rejected", key="k"), 422, "InvalidInputError")
    refused(program.decide(two, key="k"), 422, "InvalidInputError")
    refused(program.decide(one, "rejected", key="other"), 409, "AlreadyDecidedError")
    with Program(dashboard, "ben") as ben:
        # A key is its owner's, and what ann decided was not decided by ben.
        refused(ben.decide(one, key="k"), 409, "AlreadyDecidedError")
        assert ben.decide(two, key="k").status_code == 200
    # Who asks again after the server was started again gets the answer that the store knows.
    assert program.decide(one).json() == first.json()
    with AuditStore() as audit:
        assert sum(each.operator_action == "approved" for each in audit.read_audit_entries()) == 2
    refused(program.decide(two, surface="web"), 422, "InvalidInputError")
    refused(program.decide(two, key="x" * 256), 422, "InvalidInputError")


def test_a_key_that_is_used_twice_at_once_decides_once(host: Host, program: Program, dashboard: Served) -> None:
    proposal = host.propose("a: 1\n")
    answers: list[httpx.Response] = []
    token = program.headers["Authorization"]

    def send() -> None:
        with Program(dashboard) as other:
            other.headers["Authorization"] = token
            answers.append(other.decide(proposal, key="k", notes="n"))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each.status_code for each in answers} == {200}
    assert len({json.dumps(each.json()) for each in answers}) == 1


def test_lists_are_paged(host: Host, program: Program) -> None:
    written = [host.propose(f"a: {number}\n").id for number in range(7)]

    def pages(leads: str, **asked: Any) -> Iterator[str]:
        following: dict[str, str] = {}
        while True:
            told = program.told("proposals", limit=3, **asked, **following)
            assert len(told["proposals"]) <= 3
            yield from (each["id"] for each in told["proposals"])
            if told["next"] is None:
                return
            following = {leads: told["next"]}

    assert list(pages("after", state="pending")) == written
    assert list(pages("before")) == written[::-1]
    assert list(pages("after", state="failed")) == []
    refused(program.get("proposals", params={"limit": 0}), 422, "InvalidInputError")
    refused(program.get("proposals", params={"state": "pending", "before": "x"}), 422, "InvalidInputError")
    refused(program.get("proposals/0199d2c4-1a2b"), 404, "NotFoundError")


def test_a_long_poll_ends_with_the_change_and_neither_early_nor_late(host: Host, program: Program) -> None:
    at = program.told("changes")["last"]
    begun = time.monotonic()
    assert program.told("changes", since=at, wait=0.5)["changes"] == []
    assert time.monotonic() - begun >= 0.5
    asked = threading.Event()
    found: list[Any] = []

    def wait() -> None:
        asked.set()
        while not found:
            found.extend(program.told("changes", since=at, wait=20)["changes"])

    thread = threading.Thread(target=wait)
    thread.start()
    asked.wait()
    proposal = host.propose("a: 1\n")
    thread.join(60)
    assert [(each["kind"], each["proposal_id"]) for each in found] == [("proposed", proposal.id)]
    # A file that was set back says so.
    assert program.told("changes", since=at + 1000, wait=20)["last"] < at + 1000


def test_events_go_on_after_the_last_one_that_was_seen(host: Host, program: Program) -> None:
    first, second = host.propose("a: 1\n"), host.propose("b: 1\n")
    with program.stream("GET", "events", params={"since": 0}) as answer:
        lines = answer.iter_lines()
        seen = [next(lines) for _ in range(4)]
        assert seen[0] == ": connected" and seen[2].startswith("id: ") and seen[3] == "event: change"
        assert json.loads(next(lines).removeprefix("data: "))["proposal_id"] == first.id
        last = seen[2].removeprefix("id: ")
    with program.stream("GET", "events", headers={"Last-Event-ID": last}) as answer:
        told = next(line for line in answer.iter_lines() if line.startswith("data: "))
        assert json.loads(told.removeprefix("data: "))["proposal_id"] == second.id


def test_the_other_routes_say_what_the_stores_do(host: Host, program: Program) -> None:
    host.routes_file()
    proposal = host.propose("FROM a\n", "why", tool="capability-block", fingerprint="f")
    assert program.decide(proposal, grant="bottle").status_code == 200
    (grant,) = program.told("grants")["grants"]
    with AuditStore() as audit:
        assert program.told("audit")["entries"] == [each.to_dict() for each in audit.read_audit_entries()]
    assert program.post(f"grants/{grant['id']}/revoke", json={}).json()["revoked_by"] == "ann"
    assert program.told("grants") == {"grants": []} and len(program.told("grants", live="false")["grants"]) == 1
    (bottle,) = program.told("bottles")["bottles"]
    assert {**bottle, "sidecars": None} == {**BottleStore().list_bottles()[0].to_dict(), "sidecars": None}
    stats = program.told("stats")
    assert stats["oversight"]["total"]["approved"] == 1
    review = program.told(f"proposals/{proposal.id}/review")
    view = {"proposal_id": proposal.id, "review_sha256": review["review_sha256"], "surface": "tui"}
    assert program.post("views", json={**view, "shown_at": "2026-01-01T00:00:00.000000Z"}).status_code == 200
    with Database() as database:
        assert database.query("SELECT surface FROM operator_views") == [{"surface": "tui"}]
    assert program.post(f"proposals/{proposal.id}/archive", json={}).json()["archived_at"]
    refused(program.post(f"proposals/{host.propose('x').id}/archive", json={}), 422, "InvalidInputError")


def test_the_document_has_the_fields_that_the_types_have(host: Host, program: Program) -> None:
    host.routes_file()
    proposal = host.propose("FROM a\n", "why", tool="capability-block", fingerprint="f")
    schemas = openapi.document()["components"]["schemas"]
    with Inbox() as inbox, AuditStore() as audit:
        values: dict[str, Any] = {
            "Review": inbox.review(proposal.id).to_dict(),
            "InboxItem": inbox.read(proposal.id).to_dict(),
            "InboxSummary": inbox.summary(proposal.id).to_dict(),
            "Change": inbox.changes()[0].to_dict(),
            "Bottle": program.told("bottles")["bottles"][0],
            "Response": program.decide(proposal, grant="bottle").json(),
            "Grant": GrantStore().list_grants()[0].to_dict(),
            "AuditEntry": audit.read_audit_entries()[0].to_dict(),
        }
        values["ResponseSummary"] = inbox.summary(proposal.id).to_dict()["response"]
    for name, value in values.items():
        assert set(schemas[name]["properties"]) == set(value), name


@pytest.mark.timeout(600)
def test_the_routes_answer_as_the_document_says(
    host: Host, dashboard: Served, program: Program, tmp_path: Path
) -> None:
    host.routes_file()
    with QueueStore("demo") as queue:
        for number in range(3):
            queue.write_proposal(Proposal.new("demo", "egress-allow", f"a: {number}\n", "why"))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{dashboard.origin}/v1/openapi.json"),
            *("--header", f"Authorization: {program.headers['Authorization']}"),
            *("--max-examples", "20", "--seed", "1", "--no-color"),
            # Streams and waits have their own tests; it would wait for as long as it says.
            *("--exclude-path", "/v1/events", "--exclude-path", "/v1/changes"),
            # Not every rule can be written down there: a NUL, bytes that are no text.
            *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,  # where it leaves its notes
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with AuditStore() as audit:
        audit.verify()
    eventually(lambda: program.get("me").status_code == 200)


def test_the_example_decides_what_it_has_shown(host: Host, dashboard: Served, tmp_path: Path) -> None:
    host.routes_file()
    first = host.propose(MORE_ROUTES, "to read \x1b[31mreleases", against=ROUTES)
    token = tmp_path / "token"
    host.run("operator", "token", "chatbot", "--out", str(token))
    example = CHECKOUT / "examples" / "operator_client.py"
    with subprocess.Popen(
        [sys.executable, "-u", str(example), dashboard.origin, str(token)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as client:
        assert client.stdin is not None and client.stdout is not None
        client.stdin.write("a\n")
        client.stdin.flush()
        told = ""
        while "approved by chatbot" not in told:
            told += client.stdout.readline()
        assert "+  - host: api.github.com" in told and "to read <U+001B>[31mreleases" in told
        second = host.propose("FROM a\n", tool="capability-block")
        client.stdin.write("r not today\n")
        client.stdin.close()
        while "rejected by chatbot" not in told:
            told += client.stdout.readline()
        client.terminate()
    with Inbox() as inbox:
        answers = [inbox.read(each.id).response for each in (first, second)]
    assert [(each.status, each.notes) for each in answers if each] == [("approved", ""), ("rejected", "not today")]
