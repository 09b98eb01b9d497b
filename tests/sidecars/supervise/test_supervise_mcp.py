"""What an agent can ask through the MCP sidecar, and that it always hears what became of it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client

from bot_bottle import BottleStore, Inbox, ManagedFileError, sha256_hex
from checkout import CHECKOUT
from mcp_sidecar import (
    Sidecar,
    ask,
    call,
    decide,
    items,
    operator,
    outcome,
    routes,
    text,
    until_waited_for,
)


@pytest.fixture(scope="module")
def brisk(root: Path) -> Iterator[Sidecar]:
    """A sidecar that waits for a moment only, of a bottle without files."""
    with Sidecar(root, "brisk", wait_seconds="0.3") as sidecar:
        yield sidecar


@pytest.fixture(scope="module")
def patient(root: Path) -> Iterator[Sidecar]:
    """The sidecar of a bottle whose routes.yaml and Dockerfile are managed; it waits long enough for any operator."""
    sidecar = Sidecar(root, "patient", wait_seconds="60")
    (sidecar.files / "routes.yaml").write_text(routes("old.example"))
    (sidecar.files / "Dockerfile").write_text("FROM debian:12\n")
    managed = {"egress-allow": "routes.yaml", "egress-block": "routes.yaml", "capability-block": "Dockerfile"}
    BottleStore().register("patient", backend="docker", files=managed)
    with sidecar:
        yield sidecar


# ---------------------------------------------------------------------------------------------- what there is


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_tools_are_those_and_none_decides_or_takes_a_slug(brisk: Sidecar, mode: str) -> None:
    async def tools() -> dict[str, tuple[set[str], bool]]:
        async with Client(brisk.url, mode=mode) as client:
            listed = (await client.list_tools()).tools
            assert all(tool.output_schema and tool.description for tool in listed)
            return {
                tool.name: (set(tool.input_schema["properties"]), tool.input_schema["additionalProperties"])
                for tool in listed
            }

    found = asyncio.run(tools())
    ask_arguments = {"proposed_file", "justification", "current_file_hash", "revises"}
    assert found == {
        "allow": (ask_arguments, False),
        "egress-block": (ask_arguments, False),
        "capability-block": (ask_arguments, False),
        "check-proposal": ({"proposal_id", "wait_seconds"}, False),
        "answer-question": ({"proposal_id", "text"}, False),
        "withdraw-proposal": ({"proposal_id", "reason"}, False),
        "list-proposals": ({"limit"}, False),
        "list-egress-routes": (set(), False),
        "read-current-file": ({"name"}, False),
    }


# ---------------------------------------------------------------------------------------------- how it can end


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_an_approved_file_is_in_effect_when_the_agent_hears_of_it(patient: Sidecar, mode: str) -> None:
    file = routes("old.example", f"approved-{mode}.example")
    with operator(f"approved-{mode}", status="approved", notes="fine"):
        result = patient.call("allow", mode, proposed_file=file, justification="for the build")
        assert (patient.files / "routes.yaml").read_text() == file
    told = outcome(result)
    assert (told["status"], told["in_effect"], told["notes"]) == ("approved", True, "fine")
    assert "It is in effect: try again what was blocked." in text(result)
    assert "fine" in text(result)
    item = items("patient")[0]
    assert (item.proposal.tool, item.proposal.justification) == ("egress-allow", "for the build")
    listed = outcome(patient.call("list-egress-routes"))
    assert [route["host"] for route in listed["routes"]] == ["old.example", f"approved-{mode}.example"]


def test_each_tool_files_its_proposals_under_its_own_name(patient: Sidecar) -> None:
    with operator("block.example", status="approved"):
        assert ask(patient, routes("block.example"), "egress-block")["status"] == "approved"
    assert items("patient")[0].proposal.tool == "egress-block"
    with operator("apk add git", status="approved"):
        told = ask(patient, "FROM alpine\nRUN apk add git\n", "capability-block")
    assert items("patient")[0].proposal.tool == "capability-block"
    assert items("patient")[0].proposal.current_file_hash == sha256_hex("FROM debian:12\n")
    assert (told["status"], told["in_effect"]) == ("approved", True)
    assert "rebuilt" in told["next_step"]


def test_a_modification_carries_the_diff_and_the_final_file(patient: Sidecar) -> None:
    with operator("wide.example", status="modified", notes="only the API", final_file=["wide.", "api.wide."]):
        result = patient.call("allow", proposed_file=routes("wide.example"), justification="all of it")
    told = outcome(result)
    assert (told["status"], told["in_effect"], told["notes"]) == ("modified", True, "only the API")
    assert told["final_file"] == routes("api.wide.example") == (patient.files / "routes.yaml").read_text()
    assert "-  - host: wide.example\n+  - host: api.wide.example\n" in told["diff"]
    assert "+  - host: api.wide.example" in text(result)
    assert "Work with the operator's version" in text(result)


def test_a_rejection_carries_the_reason_and_is_not_put_before_anybody_again(patient: Sidecar) -> None:
    with operator("pastebin", status="rejected", notes="use the internal mirror"):
        result = patient.call("allow", proposed_file=routes("pastebin.example"), justification="please")
    told = outcome(result)
    assert (told["status"], told["in_effect"], told["repeated"]) == ("rejected", False, False)
    assert "use the internal mirror" in text(result)
    assert "Do not propose the same content again." in text(result)

    before = len(items("patient"))
    again = ask(patient, routes("pastebin.example"), mode="legacy")
    assert (again["status"], again["repeated"], again["notes"]) == ("rejected", True, "use the internal mirror")
    assert again["proposal_id"] == told["proposal_id"]
    assert 0 < again["retry_after_seconds"] <= 600
    assert len(items("patient")) == before


def test_after_the_cool_down_the_operator_is_asked_again(root: Path) -> None:
    with Sidecar(root, "cooldown", wait_seconds="30", rejection_cooldown_seconds="0") as sidecar:
        with operator("once.example", status="rejected"):
            first = ask(sidecar, routes("once.example"))
        assert "gave no reason" in first["message"]
        with operator("once.example", status="approved"):
            second = ask(sidecar, routes("once.example"))
    assert second["status"] == "approved"
    assert second["proposal_id"] != first["proposal_id"]


def test_an_approval_nobody_heard_of_answers_the_same_question(root: Path) -> None:
    with Sidecar(root, "unheard", wait_seconds="0.3") as sidecar:
        asked = ask(sidecar, routes("unheard.example"))
        decide(asked["proposal_id"], "approved")
        told = ask(sidecar, routes("unheard.example"))
        assert (told["status"], told["repeated"], told["proposal_id"]) == ("approved", True, asked["proposal_id"])
        assert "by hand" in told["next_step"]
        # Once the file is another one, it is a new question.
        (sidecar.files / "routes.yaml").write_text(routes("other.example"))
        assert ask(sidecar, routes("unheard.example"))["status"] == "pending"


@contextmanager
def approved_but_not_written(root: Path, slug: str) -> Iterator[tuple[Sidecar, str]]:
    """A sidecar and a proposal for new.example: its file was a mount point, which no rename can replace."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file, which makes replacing it fail")
    sidecar = Sidecar(root, slug, wait_seconds="0.3")
    current = sidecar.files / "routes.yaml"
    current.write_text(routes("old.example"))
    BottleStore().register(slug, backend="docker", files={"egress-allow": "routes.yaml"})
    with sidecar:
        proposal_id = ask(sidecar, routes("new.example"))["proposal_id"]
        subprocess.run(["mount", "--bind", current, current], check=True)
        try:
            with pytest.raises(ManagedFileError):
                decide(proposal_id, "approved")
        finally:
            subprocess.run(["umount", current], check=True)
        yield sidecar, proposal_id


def test_an_approval_is_not_heard_of_before_its_file_is_written(root: Path) -> None:
    with approved_but_not_written(root, "unwritten") as (sidecar, proposal_id):
        checked = outcome(sidecar.call("check-proposal", proposal_id=proposal_id))
        for told in (checked, ask(sidecar, routes("new.example"))):
            assert (told["status"], told["proposal_id"]) == ("pending", proposal_id)
            assert "is approved, but its file has not been written yet" in told["message"]
        Inbox().close()  # an operator looks again
        checked = outcome(sidecar.call("check-proposal", proposal_id=proposal_id))
        assert (checked["status"], checked["in_effect"]) == ("approved", True)


def test_an_approval_whose_file_changed_meanwhile_is_not_applied(root: Path) -> None:
    with approved_but_not_written(root, "changed") as (sidecar, proposal_id):
        (sidecar.files / "routes.yaml").write_text(routes("byhand.example"))
        Inbox().close()
        checked = outcome(sidecar.call("check-proposal", proposal_id=proposal_id))
        assert (checked["status"], checked["in_effect"]) == ("not-applied", False)
        assert "read-current-file" in checked["next_step"]
        assert str(root) not in str(checked)
        assert ask(sidecar, routes("new.example"))["status"] == "pending"


def test_what_is_there_already_bothers_nobody(patient: Sidecar) -> None:
    before = len(items("patient"))
    current = outcome(patient.call("read-current-file", name="routes.yaml"))
    told = ask(patient, current["content"])
    assert (told["status"], told["in_effect"], told["proposal_id"]) == ("unchanged", True, None)
    assert len(items("patient")) == before


def test_an_expired_proposal_is_not_a_rejection(root: Path) -> None:
    with Sidecar(root, "expiring", wait_seconds="30", expires_seconds="0.5") as sidecar:
        told = ask(sidecar, routes("late.example"))
        assert told["status"] == "expired"
        assert "propose it again" in told["next_step"]
        assert ask(sidecar, routes("late.example"))["proposal_id"] != told["proposal_id"]


def test_withdrawing_ends_the_wait_of_the_call_that_asked(patient: Sidecar) -> None:
    async def both() -> tuple[dict[str, Any], dict[str, Any]]:
        arguments = {"proposed_file": routes("regretted.example"), "justification": "maybe"}
        waiting = asyncio.ensure_future(call(patient.url, "allow", **arguments))
        proposal = await until_waited_for("regretted")
        taken = await call(patient.url, "withdraw-proposal", proposal_id=proposal.id, reason="found another way")
        return outcome(await waiting), outcome(taken)

    asked, taken = asyncio.run(both())
    assert (asked["status"], taken["status"]) == ("withdrawn", "withdrawn")
    assert "found another way" in asked["message"]
    assert items("patient")[0].withdrawn_reason == "the agent: found another way"


def test_withdrawing_what_was_decided_says_how(brisk: Sidecar) -> None:
    asked = ask(brisk, routes("toolate.example"))
    decide(asked["proposal_id"], "approved")
    assert outcome(brisk.call("withdraw-proposal", proposal_id=asked["proposal_id"]))["status"] == "approved"


def test_a_stopped_bottle_ends_the_wait(root: Path) -> None:
    async def ask_and_stop(url: str) -> dict[str, Any]:
        arguments = {"proposed_file": routes("stopped.example"), "justification": "soon"}
        waiting = asyncio.ensure_future(call(url, "allow", **arguments))
        await until_waited_for("stopped.example")
        BottleStore().stop("stopping")
        return outcome(await waiting)

    BottleStore().register("stopping", backend="docker")
    with Sidecar(root, "stopping", wait_seconds="60") as sidecar:
        told = asyncio.run(ask_and_stop(sidecar.url))
    assert told["status"] == "withdrawn"
    assert "bottle stopped" in told["message"]


# ------------------------------------------------------------------------------------- nothing is lost by waiting


def test_an_undecided_call_returns_within_its_bound_and_can_be_taken_up(brisk: Sidecar) -> None:
    result = brisk.call("allow", proposed_file=routes("slow.example"), justification="x")
    asked = outcome(result)
    assert asked["status"] == "pending"
    assert f"check-proposal with proposal_id {asked['proposal_id']}" in text(result)
    assert "Nothing has been denied" in text(result)

    assert ask(brisk, routes("slow.example"))["proposal_id"] == asked["proposal_id"]
    looked = outcome(brisk.call("check-proposal", proposal_id=asked["proposal_id"], wait_seconds=0))
    assert looked["status"] == "pending"
    assert (
        outcome(brisk.call("check-proposal", proposal_id=asked["proposal_id"], wait_seconds=9999))["status"]
        == "pending"
    )
    decide(asked["proposal_id"], "rejected", notes="too slow")
    answered = outcome(brisk.call("check-proposal", proposal_id=asked["proposal_id"]))
    assert (answered["status"], answered["notes"]) == ("rejected", "too slow")


def test_asked_twice_it_is_one_proposal_and_one_withdrawal_ends_it(brisk: Sidecar) -> None:
    first = ask(brisk, routes("twice.example"))
    assert ask(brisk, routes("twice.example"), mode="legacy")["proposal_id"] == first["proposal_id"]
    assert items("brisk")[0].requests == 1
    assert outcome(brisk.call("withdraw-proposal", proposal_id=first["proposal_id"]))["status"] == "withdrawn"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_progress_arrives_while_it_waits(patient: Sidecar, mode: str) -> None:
    seen: list[tuple[float, float | None, str | None]] = []

    async def ask_with_progress() -> str:
        enough = asyncio.Event()

        async def progress(done: float, total: float | None, message: str | None) -> None:
            seen.append((done, total, message))
            if len(seen) >= 3:
                enough.set()

        async with Client(patient.url, mode=mode) as client:
            waiting = asyncio.ensure_future(
                client.call_tool(
                    "allow",
                    {"proposed_file": routes(f"progress-{mode}.example"), "justification": "x"},
                    progress_callback=progress,
                )
            )
            await asyncio.wait_for(enough.wait(), 30)
            decide(items("patient")[0].proposal.id, "rejected")
            return str(outcome(await waiting)["status"])

    assert asyncio.run(ask_with_progress()) == "rejected"
    assert [done for done, _, _ in seen] == sorted({done for done, _, _ in seen})
    assert all(total == 60 and message and "Waiting for the operator" in message for _, total, message in seen)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_that_goes_away_leaves_its_proposal_pending(patient: Sidecar, mode: str) -> None:
    file = routes(f"dropped-{mode}.example")

    async def ask_and_leave() -> str:
        waiting = asyncio.ensure_future(call(patient.url, "allow", mode, proposed_file=file, justification="x"))
        proposal = await until_waited_for(f"dropped-{mode}")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return proposal.id

    proposal_id = asyncio.run(ask_and_leave())
    assert items("patient")[0].state == "pending"
    with operator(f"dropped-{mode}", status="approved"):
        told = ask(patient, file)
    assert (told["status"], told["proposal_id"]) == ("approved", proposal_id)


def test_a_sidecar_told_to_stop_answers_its_callers_first(root: Path) -> None:
    async def ask_during_stop(sidecar: Sidecar, mode: str) -> dict[str, Any]:
        async with Client(sidecar.url, mode=mode) as client:
            await client.list_tools()  # the client looks at the output schemas, which it cannot ask for later
            arguments = {"proposed_file": routes(f"{mode}.example"), "justification": "x"}
            waiting = asyncio.ensure_future(client.call_tool("allow", arguments))
            await until_waited_for(f"{mode}.example")
            sidecar.signal(signal.SIGTERM)
            return outcome(await waiting)

    for mode in ("auto", "legacy"):
        with Sidecar(root, "restarted", wait_seconds="60") as sidecar:
            assert asyncio.run(ask_during_stop(sidecar, mode))["status"] == "pending"
            code, log = sidecar.ended()
            assert (code, "Traceback" in log) == (0, False)
    assert {item.state for item in items("restarted")} == {"pending"}


def test_a_killed_sidecar_loses_nothing(root: Path) -> None:
    file = routes("killed.example")

    async def ask_until_killed(sidecar: Sidecar) -> str:
        waiting = asyncio.ensure_future(call(sidecar.url, "allow", proposed_file=file, justification="x"))
        proposal = await until_waited_for("killed.example")
        sidecar.signal(signal.SIGKILL)
        await asyncio.wait([waiting])
        assert waiting.exception() is not None or waiting.result().is_error
        return proposal.id

    with Sidecar(root, "killed", wait_seconds="60") as sidecar:
        proposal_id = asyncio.run(ask_until_killed(sidecar))
    with Sidecar(root, "killed", wait_seconds="60") as sidecar:
        with operator("killed.example", status="approved"):
            told = ask(sidecar, file)
        assert (told["status"], told["proposal_id"]) == ("approved", proposal_id)
        assert outcome(sidecar.call("check-proposal", proposal_id=proposal_id))["status"] == "approved"
    assert [item.proposal.id for item in items("killed")] == [proposal_id]


def test_the_documentation_lists_every_tool_status_and_setting(brisk: Sidecar) -> None:
    async def listed() -> tuple[list[str], list[str]]:
        async with Client(brisk.url) as client:
            tools = (await client.list_tools()).tools
        schema = tools[0].output_schema
        assert schema
        return [tool.name for tool in tools], schema["properties"]["status"]["enum"]

    repository = CHECKOUT
    page = (repository / "docs" / "supervise.md").read_text()
    tools, statuses = asyncio.run(listed())
    assert set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)) == {*tools, *statuses}
    sidecars = repository / "python" / "bot_bottle" / "sidecars"
    own, shared = ((sidecars / name).read_text() for name in ("supervise/__main__.py", "stores.py"))
    read = {f"SUPERVISE_{name}" for name in re.findall(r'(?:text|seconds)\("([A-Z_]+)"', own)}
    read |= set(re.findall(r'environment.get\("(SUPERVISE_\w+)"\)', shared))
    assert set(re.findall(r"^\| `(SUPERVISE_\w+)` \|", page, re.MULTILINE)) == read


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_that_takes_no_progress_is_answered_sooner_if_asked_to(root: Path, mode: str) -> None:
    told: list[str] = []

    async def progress(waited: float, most: float | None, message: str | None) -> None:
        told.append(message or "")

    async def talk(url: str) -> list[str]:
        async with Client(url, mode=mode) as client:
            arguments = {"proposed_file": routes(f"silent-{mode}.example"), "justification": "x"}
            silent = outcome(await client.call_tool("allow", arguments))
            check = {"proposal_id": silent["proposal_id"]}
            shown = client.call_tool("check-proposal", check, progress_callback=progress)
            return [silent["status"], outcome(await shown)["status"]]

    with Sidecar(root, "silent", wait_seconds="120", silent_wait_seconds="0", progress_seconds="5") as sidecar:
        waiting = threading.Thread(target=lambda: told.append(",".join(asyncio.run(talk(sidecar.url)))))
        waiting.start()
        while not any("Waiting for the operator" in each for each in told):
            assert waiting.is_alive()
            time.sleep(0.01)
        decide(items("silent")[0].proposal.id, "approved")
        waiting.join(60)
    assert told[-1] == "pending,approved"
