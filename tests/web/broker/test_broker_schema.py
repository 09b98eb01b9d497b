"""Does the broker keep to its own OpenAPI document, whatever schemathesis makes of it?"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bot_bottle import AuditStore, BottleStore, QueueStore
from broker_process import Broker, client, proposal, token
from store_process import arrived

Serve = Callable[..., Broker]


@pytest.mark.timeout(300)
def test_it_answers_everything_as_it_says(serve: Serve, tmp_path: Path) -> None:
    broker = serve(limits={"rate": 1e9, "burst": 1e9})
    secret = token()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{broker.url}/v1/openapi.json"),
            *("--header", f"Authorization: Bearer {secret}"),
            *("--max-examples", "40", "--seed", "1", "--no-color"),
            # Not every rule can be written down there: an id that is taken, a NUL, bytes instead of characters.
            *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,  # where it leaves its notes
    )
    assert done.returncode == 0, done.stdout + done.stderr
    asked = broker.requests()
    assert len(asked) > 500
    # It got beyond the door of most routes, and nowhere else than to its own bottle.
    answered = {(line["method"], line["route"]) for line in asked if line["status"] in (200, 204)}
    assert len(answered) > 6, answered  # of ten; the others need an id that is there
    assert not [line for line in asked if line["status"] >= 500]
    assert [bottle.slug for bottle in BottleStore().list_bottles()] == ["demo"]
    with AuditStore() as audit:
        audit.verify()
        assert {entry.bottle_slug for entry in audit.read_audit_entries()} <= {"demo"}


def test_the_document_is_of_its_kind(broker: Broker) -> None:
    """Every reference leads somewhere, every operation has an answer for who has no token, and for who is too fast."""
    with client(broker) as nobody:
        document = nobody.get("/v1/openapi.json").json()
    for reference in references(document):
        part = document
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["summary"] and operation["operationId"]
            if "security" not in operation:
                assert {"401", "429", "503"} <= operation["responses"].keys(), path
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(set(names)) == len(names)


def references(value: object) -> list[str]:
    """All references in a document."""
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [each for inner in value.values() for each in references(inner)]
    if isinstance(value, list):
        return [each for inner in value for each in references(inner)]
    return []


def test_what_a_proposal_is_in_the_document_is_what_it_is_in_python(broker: Broker) -> None:
    one = proposal()
    with client(broker, token()) as demo:
        document = demo.get("/v1/openapi.json").json()
        new = document["components"]["schemas"]["NewProposal"]["properties"]
        assert set(one.to_dict()) == set(new)
        assert demo.post("/v1/proposals", json=one.to_dict()).status_code == 200
    with QueueStore("demo") as queue:
        (stored,) = queue.list_pending_proposals()
    assert stored == arrived(one, stored)
