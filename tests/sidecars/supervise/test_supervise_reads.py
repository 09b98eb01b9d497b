"""What an agent can read of its bottle through the MCP sidecar, and that it is nothing more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bot_bottle import Proposal, QueueStore, sha256_hex
from mcp_sidecar import Sidecar, decide, error, items, outcome, routes, text


@pytest.fixture(scope="module")
def brisk(root: Path) -> Iterator[Sidecar]:
    """A sidecar that waits for a moment only, of a bottle without files."""
    with Sidecar(root, "brisk", wait_seconds="0.3") as sidecar:
        yield sidecar


@pytest.fixture(scope="module")
def files(root: Path) -> Iterator[Sidecar]:
    """The sidecar of a bottle that has files."""
    with Sidecar(root, "files") as sidecar:
        yield sidecar


def test_files_are_read_as_they_are_now(files: Sidecar) -> None:
    (files.files / "routes.yaml").write_text(routes("now.example"))
    now = outcome(files.call("read-current-file", name="routes.yaml"))
    assert now == {
        "name": "routes.yaml",
        "exists": True,
        "content": routes("now.example"),
        "sha256": sha256_hex(routes("now.example")),
    }


def test_a_bottle_without_files_is_told_so(brisk: Sidecar) -> None:
    missing = brisk.call("read-current-file", name="Dockerfile")
    assert outcome(missing)["sha256"] is None
    assert "There is no Dockerfile yet" in text(missing)
    assert outcome(brisk.call("list-egress-routes"))["routes"] == []
    assert "everything is denied" in text(brisk.call("list-egress-routes"))


def test_routes_name_tokens_and_never_show_them(root: Path) -> None:
    sidecar = Sidecar(root, "tokens")
    sidecar.environment["GITHUB_TOKEN"] = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
    (sidecar.files / "routes.yaml").write_text(
        "routes:\n- host: api.github.com\n  auth: {scheme: Bearer, token_ref: GITHUB_TOKEN}\n"
        "  matches: [{methods: [GET]}]\n"
    )
    with sidecar:
        listed = sidecar.call("list-egress-routes")
    assert outcome(listed)["routes"][0]["auth"] == {"scheme": "Bearer", "token_ref": "GITHUB_TOKEN"}
    assert text(listed) == "api.github.com: 1 kinds of request, the proxy adds GITHUB_TOKEN"
    assert "ghp_" not in listed.model_dump_json()


def test_a_change_made_against_an_older_file_is_sent_back(files: Sidecar) -> None:
    (files.files / "routes.yaml").write_text(routes("second.example"))
    name, message = error(
        files.call(
            "allow",
            proposed_file=routes("mine.example"),
            justification="x",
            current_file_hash=sha256_hex(routes("first.example")),
        )
    )
    assert name == "StaleReviewError"
    assert "read-current-file again" in message


def test_an_agent_sees_its_own_bottle_only(root: Path, brisk: Sidecar) -> None:
    with QueueStore("neighbour") as queue:
        foreign = queue.write_proposal(Proposal.new("neighbour", "egress-allow", routes("secret.example"), "x"))
    for tool in ("check-proposal", "withdraw-proposal"):
        assert error(brisk.call(tool, proposal_id=foreign.id))[0] == "NotFoundError"
    listed = brisk.call("list-proposals", limit=100)
    assert foreign.id not in listed.model_dump_json()
    mine = {item.proposal.id for item in items("brisk")}
    assert {row["proposal_id"] for row in outcome(listed)["proposals"]} == mine


def test_what_other_sidecars_asked_can_be_watched_but_not_withdrawn(brisk: Sidecar) -> None:
    with QueueStore("brisk") as queue:
        held = queue.write_proposal(Proposal.new("brisk", "egress-token-allow", "host: a.example\n", "held"))
    assert outcome(brisk.call("check-proposal", proposal_id=held.id))["status"] == "pending"
    name, message = error(brisk.call("withdraw-proposal", proposal_id=held.id))
    assert (name, "made for you by another sidecar" in message) == ("InvalidInputError", True)
    decide(held.id, "approved", notes="test token")
    assert outcome(brisk.call("check-proposal", proposal_id=held.id))["next_step"] == "Try again what was held."
