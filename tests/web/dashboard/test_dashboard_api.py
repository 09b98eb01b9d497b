"""Does the operators' API say what there is, and decide what was looked at, once?"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from bot_bottle import AuditEntry, AuditStore, BottleStore, Database, GrantStore, Inbox, Proposal, QueueStore
from bot_bottle.operator.overview import OVERVIEW_SQL, SCANNED_SQL, overview
from broker_process import refused
from checkout import CHECKOUT
from cli_process import MORE_ROUTES, ROUTES, Host
from dashboard_process import Operator, Served
from store_process import eventually, witness

HOSTILE = "\x1b[31m<img src=x onerror=alert(1)>\u202egpj.exe"


def approval(proposal: Proposal, **other: Any) -> dict[str, Any]:
    """What a page sends that showed the proposal as it is now."""
    with Inbox() as inbox:
        return {"status": "approved", "review_sha256": inbox.review(proposal.id).review_sha256, **other}


def test_the_inbox_lists_what_waits_with_its_bottles(host: Host, operator: Operator) -> None:
    assert operator.told("inbox") == {"at": 0, "rows": [], "bottles": [], "bypasses": []}
    host.routes_file()
    first, second = host.propose("a: 1\n", "why"), host.propose("b: 1\n", slug="other")
    told = operator.told("inbox")
    assert [row["id"] for row in told["rows"]] == [first.id, second.id]
    assert (told["rows"][0]["why"], told["rows"][0]["pending"]) == ("why", True)
    with Inbox() as inbox:
        assert told["at"] == inbox.last_change()
    assert [(each["slug"], each["backend"], each["pending"]) for each in told["bottles"]] == [
        ("demo", "docker", 1),
        ("other", None, 1),
    ]


def test_the_inbox_says_whose_requests_are_approved_unasked(host: Host, operator: Operator) -> None:
    host.routes_file()
    host.run("bypass", "start", "demo", "--reason", HOSTILE, "--yes")
    for path in ("inbox", "rows?ids="):
        (said,) = operator.told(path)["bypasses"]
        assert said.startswith("BYPASS: what demo asks for is approved unasked for another 60 min (<U+001B>[31m<img")
    host.run("bypass", "end")
    assert operator.told("inbox")["bypasses"] == []


def test_a_review_is_whole_and_spelled_out(host: Host, operator: Operator) -> None:
    host.routes_file()
    proposal = host.propose(MORE_ROUTES, HOSTILE, against=ROUTES)
    told = operator.told(f"proposals/{proposal.id}")
    assert told["payload_sha256"] == proposal.payload_sha256
    with Inbox() as inbox:
        assert told["review_sha256"] == inbox.review(proposal.id).review_sha256
    assert told["row"]["odd"] is True
    identity, why, hosts, change, odd = told["sections"]
    assert hosts["remarks"][0]["text"] == "api.github.com is new to this bottle."
    assert [each["text"] for each in odd["remarks"]] == [
        "WARNING: The justification has characters that cannot be seen."
    ]
    assert {"name": "Bottle", "text": "demo", "tone": "plain"} in identity["fields"]
    assert why["text"] == "<U+001B>[31m<img src=x onerror=alert(1)><U+202E>gpj.exe"
    assert why["quoted"] and change["quoted"] and change["diff"]
    assert "+  - host: api.github.com" in change["text"]
    # What is for an editor is as it was written.
    assert operator.post(f"/api/v1/proposals/{proposal.id}/draft", json={}).json() == {"text": MORE_ROUTES}


def test_an_approval_writes_the_file_and_names_the_face(host: Host, operator: Operator) -> None:
    routes = host.routes_file()
    proposal = host.propose(MORE_ROUTES, against=ROUTES)
    answer = operator.decide(proposal.id, **approval(proposal))
    assert answer.status_code == 200, answer.text
    assert answer.json()["row"]["state"] == "approved"
    assert routes.read_text() == MORE_ROUTES
    with Inbox() as inbox:
        response = inbox.read(proposal.id).response
    assert response is not None and response.surface == "web"


def test_a_decision_that_is_sent_again_is_answered_again(host: Host, operator: Operator) -> None:
    proposal = host.propose("x: 1\n", fingerprint="f")
    decision = approval(proposal, notes="yes", scope="uses:2")
    first, second = operator.decide(proposal.id, **decision), operator.decide(proposal.id, **decision)
    assert first.status_code == second.status_code == 200
    assert first.json()["told"] == second.json()["told"]
    assert len(GrantStore().list_grants()) == 1
    for other in ({"notes": "no"}, {"scope": "uses:3"}, {"status": "rejected", "scope": None}):
        refused(operator.decide(proposal.id, **decision | other), 409, "AlreadyDecidedError")


def test_of_many_that_decide_at_once_one_is_told_yes(host: Host, operator: Operator) -> None:
    proposal = host.propose("x: 1\n")
    with ThreadPoolExecutor(6) as threads:
        answers = list(
            threads.map(lambda at: operator.decide(proposal.id, **approval(proposal, notes=str(at))), range(6))
        )
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409, 409]


def test_what_was_not_reviewed_is_not_decided(host: Host, operator: Operator) -> None:
    routes = host.routes_file()
    proposal = host.propose(MORE_ROUTES, against=ROUTES)
    stale = {"status": "approved", "review_sha256": "0" * 64}
    refused(operator.decide(proposal.id, **stale), 409, "StaleReviewError")
    refused(operator.decide(proposal.id, **stale | {"review_sha256": "ab"}), 422, "InvalidInputError")
    routes.write_text("routes: [] # by hand\n")
    refused(operator.decide(proposal.id, **approval(proposal)), 409, "StaleReviewError")
    with Inbox() as inbox:
        assert inbox.read(proposal.id).state == "pending"


@pytest.mark.parametrize(
    ("decision", "status", "title"),
    [
        ({"status": "perhaps"}, 422, "InvalidProposalError"),
        ({"status": "modified"}, 422, "InvalidProposalError"),
        ({"scope": "forever"}, 422, "InvalidInputError"),
        ({"decided_by": "root"}, 422, "InvalidInputError"),
        ({"notes": 1}, 422, "InvalidInputError"),
        ({"notes": "\ud800"}, 422, "InvalidInputError"),
    ],
)
def test_a_decision_that_is_none_is_refused_by_type(
    host: Host, operator: Operator, decision: dict[str, Any], status: int, title: str
) -> None:
    proposal = host.propose("x: 1\n", fingerprint="f")
    body = json.dumps(approval(proposal) | decision)
    answer = operator.post(
        f"/api/v1/proposals/{proposal.id}/decision", content=body, headers={"Content-Type": "application/json"}
    )
    problem = answer.json()
    assert (answer.status_code, problem["title"]) == (status, title), problem
    assert answer.headers["content-type"] == "application/problem+json"
    with Inbox() as inbox:
        assert inbox.read(proposal.id).state == "pending"


def test_a_modification_is_shown_before_it_is_sent(host: Host, operator: Operator) -> None:
    routes = host.routes_file()
    proposal = host.propose(MORE_ROUTES, against=ROUTES)
    mine = "routes:\n  - host: pypi.org\n  - host: files.pythonhosted.org\n"
    diff = operator.post(f"/api/v1/proposals/{proposal.id}/diff", json={"final_file": mine}).json()["diff"]
    assert "-  - host: api.github.com\n+  - host: files.pythonhosted.org\n" in diff
    decision = approval(proposal, status="modified", final_file=mine, notes="narrower")
    assert operator.decide(proposal.id, **decision).json()["row"]["state"] == "modified"
    assert routes.read_text() == mine
    allow = host.propose("a key", tool="gitleaks-allow", fingerprint="f")
    refused(operator.post(f"/api/v1/proposals/{allow.id}/draft", json={}), 422, "InvalidInputError")


def test_history_is_paged_and_grants_can_be_revoked(host: Host, operator: Operator) -> None:
    written = [host.propose(f"x: {number}\n", fingerprint="f") for number in range(3)]
    operator.decide(written[0].id, **approval(written[0], scope="bottle"))
    newest = operator.told("history?limit=2")["rows"]
    assert [row["id"] for row in newest] == [written[2].id, written[1].id]
    (oldest,) = operator.told(f"history?limit=2&before={written[1].id}")["rows"]
    assert "was approved" in oldest["ended"] and "(web)" in oldest["ended"]
    (grant,) = operator.told("grants")["grants"]
    revoked = operator.post(f"/api/v1/grants/{grant['id']}/revoke", json={})
    assert revoked.json()["grant"]["reach"]["text"].startswith("revoked")
    assert operator.told("grants") == {"grants": []}
    refused(operator.get("/api/v1/history?limit=0"), 422, "InvalidInputError")
    refused(operator.get("/api/v1/history?page=2"), 422, "InvalidInputError")


def test_bottles_and_status_are_told(host: Host, operator: Operator) -> None:
    path = host.routes_file()
    (bottle,) = operator.told("bottles")["bottles"]
    assert (bottle["slug"], bottle["files"]) == ("demo", {"egress-allow": str(path)})
    told = operator.told("status?check=true")
    assert told["findings"] == [] and told["database"]["exists"] is True
    assert operator.told("status")["findings"] is None


def test_what_the_scan_let_through_and_refused_today_is_counted(host: Host, operator: Operator) -> None:
    host.routes_file()
    host.routes_file("other")
    db = host.root / "db" / "bot-bottle.db"
    yesterday = "2026-01-31T12:00:00Z"
    logged = [("egress", "scan-refused")] * 2 + [("egress", "answer-masked"), ("egress", "routes-loaded")]
    logged += [
        ("egress-token-allow", each) for each in ("approved", "grant-given", "grant-used", "approved", "rejected")
    ]
    with AuditStore() as log:
        log.write_audit_entry(AuditEntry(yesterday, "demo", "egress", "request-cut"))
        log.write_audit_entries([AuditEntry.new("demo", *each) for each in logged])
        log.write_audit_entry(AuditEntry("9999-01-31T12:00:00Z", "demo", "egress", "scan-refused"))
        log.write_audit_entries([AuditEntry.new("other", "egress", "secret-blocked")] * 150)

    def traffic(query: str = "") -> dict[str, list[int]]:
        return {each["slug"]: list(each["traffic"].values()) for each in operator.told(f"bottles{query}")["bottles"]}

    assert traffic() == {"demo": [2, 1, 3, 0], "other": [0, 0, 100, 1]}
    assert traffic("?since=0")["demo"] == [2, 1, 4, 0]
    assert traffic(f"?since={2**37}")["demo"] == [0, 0, 0, 0]
    # Whoever can write the file can store there what is not valid text.
    now, zeros = "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-1 minute')", "'" + "0" * 64 + "'"
    for slug, action in (("'demo'", "CAST(x'ff' AS TEXT)"), ("CAST(x'ff' AS TEXT)", "'scan-refused'")):
        witness(
            db,
            "INSERT INTO audit_entries (timestamp, bottle_slug, component, operator_action, operator_notes, "
            "justification, decided_by, surface, prev_hash, entry_hash, diff) "
            f"VALUES ({now}, {slug}, 'egress', {action}, '', '', '', 'api', {zeros}, {zeros}, '')",
        )
    assert traffic() == {"demo": [2, 1, 3, 0], "other": [0, 0, 100, 1]}


def test_no_page_reads_the_log_from_its_beginning(host: Host) -> None:
    host.routes_file()
    plan = witness(
        host.root / "db" / "bot-bottle.db",
        re.sub(
            r":\w+",
            lambda name: {":slugs": "'[]'", ":since": "''", ":most": "9"}[name[0]],
            f"EXPLAIN QUERY PLAN {SCANNED_SQL}",
        ),
    )
    steps = [step for *_, step in plan]
    assert [each for each in steps if each.startswith("SCAN") and "entr" in each] == []
    assert len([each for each in steps if re.search(r"audit_entries_by_bottle_and_component .*rowid>", each)]) == 2


def events(answer: httpx.Response) -> Any:
    """The events of a stream: id, name and data of each."""
    fields: dict[str, str] = {}
    for line in answer.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "event" in fields:
            yield int(fields["id"]), fields["event"], json.loads(fields["data"])
            fields = {}
        else:
            fields = {}


def test_a_stream_goes_on_after_the_last_event_that_was_seen(host: Host, operator: Operator) -> None:
    first = host.propose("x: 1\n")
    at = operator.told("inbox")["at"]
    second = host.propose("x: 2\n")
    with operator.stream("GET", "/api/v1/events", headers={"Last-Event-ID": str(at)}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        told = events(answer)
        seq, name, rows = next(told)
        assert (name, [row["id"] for row in rows], seq) == ("rows", [second.id], at + 1)
        # While it is open: what comes is told as it comes.
        operator.decide(first.id, **approval(first))
        seq, name, rows = next(told)
        assert (name, [(row["id"], row["state"]) for row in rows]) == ("rows", [(first.id, "approved")])
    with operator.stream("GET", "/api/v1/events", headers={"Last-Event-ID": str(seq + 100)}) as answer:
        assert next(events(answer))[1] == "reload"
    refused(operator.get("/api/v1/events", headers={"Last-Event-ID": "x"}), 422, "InvalidInputError")


def test_the_server_ends_under_open_streams(host: Host, operator: Operator, dashboard: Served) -> None:
    with operator.stream("GET", "/api/v1/events") as answer:
        lines = answer.iter_lines()
        assert next(lines) == ": connected"
        assert dashboard.end() == 0
        list(lines)  # the stream comes to its end
    again = Served(host)
    dashboard.process = again.process  # the fixture ends it


def test_the_overview_joins_bottles_proposals_leases_and_grants(host: Host) -> None:
    host.routes_file()
    host.routes_file("idle")
    allowed = host.propose("x: 1\n", fingerprint="f")
    with Inbox() as inbox, QueueStore("demo") as queue:
        inbox.decide(allowed.id, "approved", payload_sha256=allowed.payload_sha256, grant="bottle")
        waited = host.propose("x: 2\n")
        host.propose("x: 3\n")
        host.propose("x: 4\n", slug="stranger")
        BottleStore().stop("idle")
        wait = queue.begin_wait(waited.id, lambda _: None)
        try:
            with Database() as database:
                # The lease is written beside the wait, not before it.
                eventually(lambda: overview(database)[0]["waiting"])
                found = overview(database)
        finally:
            wait.cancel()
    assert [(each["slug"], each["pending"], each["waiting"], each["grants"]) for each in found] == [
        ("demo", 2, 1, 1),
        ("stranger", 1, 0, 0),
        ("idle", 0, 0, 0),
    ]
    assert found[2]["stopped_at"] and found[1]["started_at"] is None


def test_the_document_s_query_is_the_one_that_the_page_runs(host: Host) -> None:
    document = (CHECKOUT / "docs" / "dashboard.md").read_text()
    shown = re.search(r"^```sql\n(.*?)\n?```$", document, re.DOTALL | re.MULTILINE)
    assert shown is not None and shown[1] == OVERVIEW_SQL
    host.propose("x: 1\n")
    (row,) = host.json("db", "query", shown[1])
    assert (row["slug"], row["pending"]) == ("demo", 1)
    # Another program than ours reads the same.
    assert witness(host.root / "db" / "bot-bottle.db", OVERVIEW_SQL)[0][0] == "demo"


def test_the_assets_are_small_and_our_own() -> None:
    assets = Path(CHECKOUT, "python", "bot_bottle", "web", "dashboard", "assets")
    assert sum(path.stat().st_size for path in assets.iterdir()) < 150 * 1024
    content = {path.name: path.read_text() for path in assets.iterdir() if path.suffix != ".png"}
    for name, text in content.items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text), name
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|style=", text) or name.endswith(".js"), name
