"""Do the names and habits of today's users of ``bot_bottle.supervise`` still hold, and is a launch planned in full?"""

from __future__ import annotations

import inspect
import os
import threading
from pathlib import Path

import pytest

import bot_bottle
from bot_bottle import (
    AuditEntry,
    Inbox,
    InvalidInputError,
    InvalidProposalError,
    NotFoundError,
    ProposalWithdrawnError,
    QueueStore,
    Response,
    Supervise,
    WaitTimeoutError,
    audit_store,
    queue_store,
    supervise,
)
from cli_process import Host
from store_process import eventually, proposal

# --- the nine functions and the constants, as the system has them today


def test_the_nine_functions_take_what_they_always_took() -> None:
    taken = {
        "write_proposal": ["queue_key", "proposal"],
        "read_proposal": ["queue_key", "proposal_id"],
        "list_pending_proposals": ["queue_key"],
        "write_response": ["queue_key", "response"],
        "read_response": ["queue_key", "proposal_id"],
        "wait_for_response": ["queue_key", "proposal_id", "timeout"],
        "archive_proposal": ["queue_key", "proposal_id"],
        "write_audit_entry": ["entry"],
        "read_audit_entries": ["component", "slug"],
    }
    for name, parameters in taken.items():
        assert list(inspect.signature(getattr(supervise, name)).parameters) == parameters
    assert inspect.signature(supervise.wait_for_response).parameters["timeout"].kind is inspect.Parameter.KEYWORD_ONLY
    assert set(taken) <= set(supervise.__all__)


def test_the_constants_have_their_values() -> None:
    assert {name: getattr(supervise, name) for name in supervise.__all__ if name.isupper()} == {
        "DB_PATH_IN_CONTAINER": "/run/supervise/bot-bottle.db",
        "STATUS_APPROVED": "approved",
        "STATUS_MODIFIED": "modified",
        "STATUS_REJECTED": "rejected",
        "TOOL_CAPABILITY_BLOCK": "capability-block",
        "TOOL_EGRESS_ALLOW": "egress-allow",
        "TOOL_EGRESS_BLOCK": "egress-block",
        "TOOL_EGRESS_TOKEN_ALLOW": "egress-token-allow",
        "TOOL_GITLEAKS_ALLOW": "gitleaks-allow",
    }


def test_the_import_paths_lead_to_the_same_things() -> None:
    assert queue_store.QueueStore is bot_bottle.QueueStore
    assert audit_store.AuditStore is bot_bottle.AuditStore
    for name in supervise.__all__:
        assert hasattr(supervise, name)
        assert getattr(bot_bottle, name, getattr(supervise, name)) is getattr(supervise, name)
    for name in bot_bottle.__all__:
        assert getattr(bot_bottle, name) is not None
    with pytest.raises(AttributeError, match="nope"):
        bot_bottle.nope  # noqa: B018


def test_a_proposal_s_whole_life_by_the_nine_functions(host: Host) -> None:
    assert supervise.list_pending_proposals("dev") == []
    assert not host.root.exists()
    written = supervise.write_proposal("dev", proposal("a\n"))
    assert supervise.read_proposal("dev", written.id) == written
    assert supervise.list_pending_proposals("dev") == [written]
    assert supervise.list_pending_proposals("other") == []
    assert supervise.read_response("dev", written.id) is None
    with pytest.raises(WaitTimeoutError):
        supervise.wait_for_response("dev", written.id, timeout=0.01)
    answer = Response(written.id, supervise.STATUS_MODIFIED, "rather this", "b\n")

    def answer_the_waiter() -> None:
        eventually(lambda: Inbox().read(written.id).waiting)
        supervise.write_response("dev", answer)

    decider = threading.Thread(target=answer_the_waiter)
    decider.start()
    assert supervise.wait_for_response("dev", written.id, timeout=20) == answer
    decider.join()
    supervise.archive_proposal("dev", written.id)
    assert supervise.read_response("dev", written.id) == answer
    assert supervise.list_pending_proposals("dev") == []
    assert [item.proposal.id for item in Inbox().history()] == [written.id]
    with pytest.raises(NotFoundError):
        supervise.archive_proposal("dev", bot_bottle.new_id())
    with pytest.raises(InvalidProposalError):
        supervise.list_pending_proposals("Not A Key")


def test_audit_entries_by_component_and_slug(host: Host) -> None:
    assert supervise.read_audit_entries("egress", "dev") == []
    written = [
        supervise.write_audit_entry(AuditEntry("2026-01-31T12:00:00Z", slug, component, "seen"))
        for slug, component in (("dev", "egress"), ("dev", "git-gate"), ("other", "egress"))
    ]
    assert supervise.read_audit_entries("egress", "dev") == written[:1]
    assert supervise.read_audit_entries(component="egress") == [written[0], written[2]]
    assert supervise.read_audit_entries(slug="dev") == written[:2]
    assert supervise.read_audit_entries() == written


def test_the_functions_follow_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT_BOTTLE_ROOT", str(tmp_path / "one"))
    written = supervise.write_proposal("dev", proposal())
    monkeypatch.setenv("BOT_BOTTLE_ROOT", str(tmp_path / "two"))
    assert supervise.read_proposal("dev", written.id) is None
    monkeypatch.setenv("BOT_BOTTLE_ROOT", str(tmp_path / "one"))
    assert supervise.read_proposal("dev", written.id) == written


# --- Supervise: bottles and the plans for their sidecars


def test_a_plan_mounts_directories_never_the_file(host: Host) -> None:
    plan = Supervise().prepare("dev", files={"egress-allow": "routes.yaml"})
    assert plan.db_dir == str(host.root / "db")
    assert plan.mounts[:2] == (
        (str(host.root / "db"), "/run/supervise", "rw"),
        (str(host.root / "bottles" / "dev"), "/run/bottle", "ro"),
    )
    for source, target, mode in plan.mounts:
        assert Path(source).is_dir()
        assert Path(source).stat().st_mode & 0o777 == 0o700
        assert target.startswith("/")
        assert mode in ("rw", "ro")
    assert plan.environment["SUPERVISE_BOTTLE_SLUG"] == "dev"
    assert plan.environment["SUPERVISE_DB_PATH"] == supervise.DB_PATH_IN_CONTAINER
    assert plan.environment["SUPERVISE_OPERATOR_KEY_FILE"] == "/run/keys/keyring"
    assert (str(host.root / "keys" / "public"), "/run/keys", "ro") in plan.mounts
    assert [path.name for path in (host.root / "keys" / "public").iterdir()] == ["keyring"]
    assert plan.user == f"{os.getuid()}:{os.getgid()}"
    assert plan.ports["supervise"] == 9100
    assert (plan.slug, plan.backend) == ("dev", "docker")


def test_a_prepared_bottle_is_listed_until_it_stops(host: Host) -> None:
    launcher = Supervise()
    launcher.prepare("dev", files={"egress-allow": "routes.yaml"})
    launcher.prepare("other", backend="smolmachines")
    assert [bottle.slug for bottle in launcher.list()] == ["dev", "other"]
    with QueueStore("dev") as queue:
        written = queue.write_proposal(proposal())
        assert launcher.stop("dev") == 1
        with pytest.raises(ProposalWithdrawnError, match="bottle stopped"):
            queue.wait_for_response(written.id, 5)
    assert [bottle.slug for bottle in launcher.list()] == ["other"]
    assert [bottle.slug for bottle in launcher.list(running=False)] == ["dev", "other"]
    with pytest.raises(NotFoundError, match="nope"):
        launcher.stop("nope")


@pytest.mark.parametrize(
    ("slug", "files"),
    [("Dev", {}), ("../dev", {}), ("dev", {"a tool": "x"}), ("dev", {"egress-allow": "../../x"})],
)
def test_what_cannot_be_prepared_is_not_registered(host: Host, slug: str, files: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError):
        Supervise().prepare(slug, files=files)
    assert Supervise().list(running=False) == []


def test_a_sidecar_s_database_is_where_its_plan_says(tmp_path: Path, host: Host) -> None:
    """What the container sees at the mount point is the directory; the file in it works there by its real path."""
    plan = Supervise().prepare("dev")
    seen = QueueStore("dev", Path(plan.db_dir) / Path(plan.environment["SUPERVISE_DB_PATH"]).name)
    written = seen.write_proposal(proposal())
    assert [item.proposal.id for item in Inbox().pending()] == [written.id]
