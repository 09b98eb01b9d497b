"""Can a token do anything for another bottle than its own, or at all once it is none? A table of routes and tokens."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from bot_bottle import AuditStore, BottleStore, Database, GrantStore, Inbox, QueueStore, sha256_hex
from bot_bottle.web.broker import openapi
from bot_bottle.web.limits import Limits
from broker_process import Broker, client, proposal, refused, token
from store_process import decide

NOW = "2026-01-31T12:00:00.000000Z"
MESSAGE = "0199d2c4-0000-7000-8000-000000000001"
ENTRY = {"timestamp": NOW, "component": "egress", "operator_action": "blocked"}

# Every route that needs a token, with a request that its own bottle's token may make about the proposal `{id}`.
ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "/v1/bottle", None),
    ("GET", "/v1/proposals", None),
    ("GET", "/v1/proposals?pending=true", None),
    ("POST", "/v1/proposals", "proposal"),
    ("GET", "/v1/proposals/{id}", None),
    ("GET", "/v1/proposals/{id}/response", None),
    ("POST", "/v1/proposals/{id}/answer", {"id": MESSAGE, "text": "because"}),
    ("POST", "/v1/proposals/{id}/withdraw", {"reason": "mine"}),
    ("POST", "/v1/proposals/{id}/archive", None),
    ("POST", "/v1/audit", {"entries": [{**ENTRY, "proposal_id": "{id}"}]}),
    ("POST", "/v1/grants/find", {"tool": "gitleaks-allow", "fingerprint": "f"}),
    ("POST", "/v1/grants/use", {"tool": "gitleaks-allow", "fingerprint": "f"}),
]
route = pytest.mark.parametrize(
    ("method", "path", "body"), ROUTES, ids=[f"{method} {path}" for method, path, _ in ROUTES]
)


@dataclass
class Alice:
    """A bottle with a pending proposal and a grant, which nobody else may see, use or change."""

    secret: str
    proposal_id: str
    broker: Broker

    def ask(self, secret: str | None, method: str, path: str, body: Any) -> httpx.Response:
        """Sends a request of the table."""
        if body == "proposal":
            body = proposal("FROM another\n", slug="alice").to_dict()
        elif isinstance(body, dict) and "entries" in body:
            body = {"entries": [{**ENTRY, "proposal_id": self.proposal_id}]}
        with client(self.broker, secret) as speaks:
            return speaks.request(method, path.format(id=self.proposal_id), json=body)

    def state(self) -> dict[str, Any]:
        """Every row there is that a request could have changed."""
        database = Database()
        tables = ("proposals", "aliases", "responses", "messages", "changes", "audit_entries", "grants", "bottles")
        return {table: database.query(f"SELECT * FROM {table} ORDER BY 1") for table in tables}


@pytest.fixture
def alice(broker: Broker) -> Iterator[Alice]:
    secret = token("alice")
    with QueueStore("alice") as queue:
        granted = queue.write_proposal(proposal("a key", slug="alice", tool="gitleaks-allow", fingerprint="f"))
        with Inbox() as inbox:
            decide(inbox, granted, notes="a test key", grant="uses:2")
        pending = queue.write_proposal(proposal(slug="alice"))
        with Inbox() as inbox:
            inbox.ask(pending.id, "what for?")
    yield Alice(secret, pending.id, broker)


@route
def test_its_own_token_may(alice: Alice, method: str, path: str, body: Any) -> None:
    assert alice.ask(alice.secret, method, path, body).status_code in (200, 204)


def near_misses(secret: str) -> dict[str, str | None]:
    other = "A" if secret[0] != "A" else "B"
    return {
        "none": None,
        "one character differs": other + secret[1:],
        "cut": secret[:-1],
        "longer": secret + "A",
        "its hash": sha256_hex(secret),
        "another alphabet": base64.b64encode(base64.urlsafe_b64decode(secret + "=")).decode(),
        "a pattern": "%" * 43,
    }


@route
def test_no_token_and_a_wrong_one_may_not(alice: Alice, method: str, path: str, body: Any) -> None:
    before = alice.state()
    for wrong in near_misses(alice.secret).values():
        answer = alice.ask(wrong, method, path, body)
        refused(answer, 401, "AccessDeniedError")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert alice.state() == before


@route
def test_a_revoked_token_may_not(alice: Alice, method: str, path: str, body: Any) -> None:
    BottleStore().stop("alice")
    BottleStore().register("alice", backend="docker")
    before = alice.state()
    refused(alice.ask(alice.secret, method, path, body), 401, "AccessDeniedError")
    assert alice.state() == before
    with client(alice.broker, token("alice")) as again:
        assert again.get("/v1/bottle").json()["slug"] == "alice"


@route
def test_the_token_of_a_stopped_bottle_may_not(alice: Alice, method: str, path: str, body: Any) -> None:
    BottleStore().stop("alice")
    before = alice.state()
    refused(alice.ask(alice.secret, method, path, body), 401, "AccessDeniedError")
    assert alice.state() == before


@route
def test_another_bottle_s_token_sees_and_changes_nothing(alice: Alice, method: str, path: str, body: Any) -> None:
    mallory = token("mallory")
    before = alice.state()
    answer = alice.ask(mallory, method, path, body)
    if path == "/v1/bottle":
        assert answer.json()["slug"] == "mallory"
    elif method == "GET" and "{id}" not in path:
        assert list(answer.json().values()) == [[]]
    elif body == "proposal":
        assert "mallory" in refused(answer, 403, "AccessDeniedError")["detail"]
    else:
        # The same words as for an id that does not exist: not even that it does is told.
        problem = refused(answer, 404, "NotFoundError")
        nothing = alice.proposal_id[:-1] + ("0" if alice.proposal_id[-1] != "0" else "1")
        asked, alice.proposal_id = alice.proposal_id, nothing
        assert problem["detail"].replace(asked, nothing) == alice.ask(mallory, method, path, body).json()["detail"]
    assert alice.state() == before
    assert "alice" not in answer.text or body == "proposal"


def test_a_proposal_that_exists_elsewhere_gives_nothing_away(alice: Alice) -> None:
    """Reusing another bottle's id is refused like any id that is taken."""
    mine = {**proposal(slug="mallory").to_dict(), "id": alice.proposal_id}
    with client(alice.broker, token("mallory")) as mallory:
        answer = mallory.post("/v1/proposals", json=mine)
    assert "alice" not in refused(answer, 422, "InvalidProposalError")["detail"]
    with QueueStore("alice") as queue:
        kept = queue.read_proposal(alice.proposal_id)
        assert kept is not None and kept.bottle_slug == "alice"


def test_what_names_a_bottle_in_a_request_changes_nothing(alice: Alice) -> None:
    with client(alice.broker, token("mallory")) as mallory:
        for headers in ({"X-Bottle": "alice"}, {"Host": "alice"}, {"X-Forwarded-User": "alice"}, {"Cookie": "b=alice"}):
            assert mallory.get("/v1/bottle", headers=headers).json()["slug"] == "mallory"
        entry = {**ENTRY, "bottle_slug": "alice", "decided_by": "alice"}
        (written,) = mallory.post("/v1/audit", json={"entries": [entry]}).json()["entries"]
        assert (written["bottle_slug"], written["decided_by"]) == ("mallory", "egress")
    with AuditStore() as audit:
        assert all(entry.operator_action != "blocked" for entry in audit.read_audit_entries(bottle_slug="alice"))


@pytest.mark.parametrize(
    "line",
    [
        "Basic {token}",
        "{token}",
        "Bearer",
        "Bearer  {token}",
        "Bearer {token}, Bearer {other}",
        "Bearer {token} x",
        "Token {token}",
    ],
)
def test_a_token_is_read_in_one_way_only(broker: Broker, line: str) -> None:
    header = line.format(token=token(), other=token("other"))
    refused(httpx.get(f"{broker.url}/v1/bottle", headers={"Authorization": header}), 401, "AccessDeniedError")


def test_two_tokens_are_none(broker: Broker) -> None:
    headers = [("Authorization", f"Bearer {token()}"), ("Authorization", f"Bearer {token('other')}")]
    refused(httpx.get(f"{broker.url}/v1/bottle", headers=headers), 401, "AccessDeniedError")
    for query in (f"token={token()}", f"access_token={token()}"):
        refused(httpx.get(f"{broker.url}/v1/bottle?{query}"), 401, "AccessDeniedError")


def test_there_is_no_route_that_decides_or_lists_bottles(alice: Alice) -> None:
    document = openapi.document(Limits())
    documented = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    tabled = {(method, re.sub(r"\?.*", "", path)) for method, path, _ in ROUTES}
    assert documented == tabled | {("GET", "/v1/health"), ("GET", "/v1/openapi.json")}
    before = alice.state()
    with client(alice.broker, alice.secret) as speaks:
        for verb in ("response", "decide", "approve", "approved", "reject", "modify"):
            for method in ("POST", "PUT", "PATCH", "DELETE"):
                path = f"/v1/proposals/{alice.proposal_id}/{verb}"
                body = {"status": "approved", "proposal_id": alice.proposal_id}
                assert speaks.request(method, path, json=body).status_code in (404, 405)
        for path in ("bottles", "inbox", "db", "grants", "audit", "files", "../bottles", "proposals/"):
            assert speaks.get(f"/v1/{path}").status_code in (404, 405)
    assert alice.state() == before


def test_the_file_keeps_no_token(alice: Alice) -> None:
    assert [row["token_sha256"] for row in Database().query("SELECT * FROM bottle_tokens")] == [
        sha256_hex(alice.secret)
    ]
    directory = Path(Database().real_path).parent
    kept = [path for path in directory.iterdir() if path.is_file()]
    assert len(kept) > 1 and not any(alice.secret.encode() in path.read_bytes() for path in kept)


def test_the_grants_of_another_are_not_spent(alice: Alice) -> None:
    with client(alice.broker, token("mallory")) as mallory:
        refused(
            mallory.post("/v1/grants/use", json={"tool": "gitleaks-allow", "fingerprint": "f"}), 404, "NotFoundError"
        )
    (grant,) = GrantStore().list_grants("alice")
    assert grant.uses_left == 2
