"""Do the broker and the operator's API go on with the rows beside one that another program wrote whatever into?

Each hostile value is in each column of each table, in a row of its own, some values at a time. What a sound bottle's
token and an operator are told of that bottle must be the same as without them all, by every route that reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from bot_bottle import AuditEntry
from broker_process import Broker, client
from cli_process import Host
from dashboard_process import Operator, Served
from hostile_host import GOOD, GROUPS, VICTIMS, two_hosts
from store_process import proposal

BROKER = [
    "/v1/bottle",
    "/v1/proposals",
    "/v1/proposals?pending=true",
    "/v1/proposals/{pending}",
    "/v1/proposals/{pending}/response",
    "/v1/proposals/{decided}/response",
]
OPERATOR = [
    "/v1/me",
    "/v1/proposals?limit=500",
    "/v1/proposals?state=pending",
    "/v1/proposals?state=failed",
    f"/v1/proposals?bottle={GOOD}",
    "/v1/proposals/{pending}",
    "/v1/proposals/{pending}/review",
    "/v1/proposals/{decided}/review",
    "/v1/changes?since=0",
    "/v1/grants?live=false",
    f"/v1/grants?bottle={GOOD}",
    "/v1/bottles",
    "/v1/audit?limit=1000",
    f"/v1/audit?bottle={GOOD}",
    "/v1/stats",
]
# What the pages ask for.
PAGES = [
    "/api/v1/inbox",
    "/api/v1/rows?ids={pending}",
    "/api/v1/proposals/{pending}",
    "/api/v1/history?limit=500",
    f"/api/v1/history?bottle={GOOD}",
    "/api/v1/history?text=debian",
    "/api/v1/bottles",
    "/api/v1/grants?all=true",
    "/api/v1/policies",
    "/api/v1/oversight",
    "/api/v1/status",
    "/api/v1/push",
]
# Neither a list nor a row.
OTHERS = {"/v1/openapi.json", "/v1/health", "/v1/events"}
# What depends on the moment, or counts the others' rows.
MOMENTS = {"age", "at", "now", "time", "left", "seq"}


def of_the_good(document: Any) -> Iterator[object]:
    """All that a document says of the good bottle."""
    if isinstance(document, list):
        for each in document:
            yield from of_the_good(each)
    elif isinstance(document, dict):
        if GOOD in (document.get("bottle_slug"), document.get("slug"), document.get("bottle")):
            yield {name: value for name, value in document.items() if name not in MOMENTS}
        else:
            for each in document.values():
                yield from of_the_good(each)


def read_routes(speaks: httpx.Client) -> set[str]:
    """The routes of an API that read."""
    paths = speaks.get("/v1/openapi.json").json()["paths"]
    return {path for path, verbs in paths.items() if "get" in verbs} - OTHERS


def without_names(paths: list[str]) -> set[str]:
    return {path.partition("?")[0].replace("{pending}", "{id}").replace("{decided}", "{id}") for path in paths}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("values", GROUPS, ids=", ".join)
def test_every_route_that_reads_says_the_same_of_the_rest(
    made: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, str]
) -> None:
    base, ids = made
    wrong: list[str] = []

    def ended_well(broker: Broker) -> None:
        if broker.end() != 0 or "Traceback" in broker.errors:
            wrong.append(broker.errors[-2000:])

    with ExitStack() as last:

        def served(host: Host) -> tuple[Broker, httpx.Client, Operator]:
            monkeypatch.setenv("BOT_BOTTLE_ROOT", str(host.root))
            broker, dashboard = Broker(host), Served(host)
            last.callback(dashboard.end)
            last.callback(ended_well, broker)
            bottle, operator = client(broker, ids[GOOD]), Operator(dashboard)
            last.callback(bottle.close)
            last.callback(operator.close)
            return broker, bottle, operator

        sound, hostile = (served(host) for host in two_hosts(base, tmp_path, values))
        assert read_routes(hostile[1]) == without_names(BROKER)
        assert read_routes(hostile[2]) == without_names(OPERATOR)

        for number, paths in ((1, BROKER), (2, OPERATOR + PAGES)):
            for path in paths:
                given, expected = (each[number].get(path.format(**ids)) for each in (hostile, sound))  # type: ignore[index, union-attr]
                if given.status_code != 200 or expected.status_code != 200:
                    wrong.append(f"{path}: {given.status_code} {expected.status_code} {given.text[:200]}")
                    continue
                said, should = (list(of_the_good(each.json())) for each in (given, expected))
                if said != should:
                    wrong.append(
                        f"{path}: {len(said)} and {len(should)} rows of the good bottle, {said[:1]} {should[:1]}"
                    )
        with client(hostile[0]) as speaks:
            for victim in (f"v{number:02}" for number in range(VICTIMS)):
                for path in BROKER[:3]:
                    answer = speaks.get(path, headers={"Authorization": f"Bearer {ids[victim]}"})
                    if answer.status_code >= 500:
                        wrong.append(f"{path} as {victim}: {answer.status_code} {answer.text[:200]}")
        entry = AuditEntry("2026-01-31T12:00:00Z", GOOD, "egress", "blocked").to_dict()
        for path, body in {
            "/v1/proposals": proposal("FROM another\n", slug=GOOD).to_dict(),
            "/v1/audit": {"entries": [entry]},
            "/v1/grants/use": {"tool": ids["tool"], "fingerprint": "host:1"},
        }.items():
            if (answer := hostile[1].post(path, json=body)).status_code != 200:
                wrong.append(f"POST {path}: {answer.status_code} {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)
