"""Is it known which bottles run, and which host files their decisions may write?"""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest

from bot_bottle import (
    BottleStore,
    ClosedError,
    Inbox,
    InvalidInputError,
    NotFoundError,
    ProposalWithdrawnError,
    QueueStore,
)
from cli_process import Host
from store_process import decide, eventually, proposal


@pytest.fixture
def bottles(db: Path, host: Host) -> BottleStore:
    return BottleStore(db)


def test_nothing_runs_where_nothing_was_started(db: Path, bottles: BottleStore) -> None:
    assert bottles.list_bottles() == []
    assert bottles.read_bottle("dev") is None
    with pytest.raises(NotFoundError, match="dev"):
        bottles.stop("dev")
    assert list(db.parent.iterdir()) == []


def test_a_started_bottle_is_listed_until_it_stops(bottles: BottleStore) -> None:
    started = bottles.register("dev", backend="docker")
    assert (started.slug, started.backend, started.stopped_at, started.files) == ("dev", "docker", None, {})
    bottles.register("another", backend="smolmachines")
    assert [bottle.slug for bottle in bottles.list_bottles()] == ["another", "dev"]
    bottles.stop("dev")
    assert [bottle.slug for bottle in bottles.list_bottles(running=True)] == ["another"]
    stopped = bottles.read_bottle("dev")
    assert stopped is not None
    assert stopped.stopped_at is not None
    assert stopped.stopped_at >= started.started_at
    bottles.stop("dev")
    again = bottles.read_bottle("dev")
    assert again is not None
    assert again.stopped_at == stopped.stopped_at  # the first end counts


def test_a_bottle_can_be_started_again_with_other_files(host: Host, bottles: BottleStore) -> None:
    bottles.register("dev", backend="docker", files={"egress-allow": "a.yaml", "egress-block": "a.yaml"})
    bottles.stop("dev")
    again = bottles.register("dev", backend="macos-container", files={"capability-block": "Dockerfile"})
    assert (again.backend, again.stopped_at) == ("macos-container", None)
    assert again.files == {"capability-block": str(host.root / "bottles" / "dev" / "Dockerfile")}


def test_stopping_a_bottle_withdraws_what_it_has_pending(
    db: Path, bottles: BottleStore, queue: QueueStore, inbox: Inbox
) -> None:
    bottles.register("dev", backend="docker")
    written = [queue.write_proposal(proposal()) for _ in range(3)]
    other = QueueStore("other", db).write_proposal(proposal(slug="other"))
    decide(inbox, written[0])
    gone = queue.write_proposal(proposal(expires_in=0.01))
    eventually(lambda: inbox.read(gone.id).state == "expired")
    bottle = bottles.read_bottle("dev")
    assert bottle is not None
    assert bottle.pending == 2
    assert bottles.stop("dev") == 2
    for known in written[1:]:
        item = inbox.read(known.id)
        assert (item.state, item.withdrawn_reason) == ("withdrawn", "bottle stopped")
    assert [item.proposal.id for item in inbox.pending()] == [other.id]
    assert inbox.read(gone.id).state == "expired"


def test_stopping_a_bottle_ends_its_waits(db: Path, bottles: BottleStore, queue: QueueStore) -> None:
    bottles.register("dev", backend="docker")
    got: list[object] = []
    for store in (queue, QueueStore("dev", db)):
        store.begin_wait(store.write_proposal(proposal()).id, got.append)
    bottles.stop("dev", reason="out of tokens")
    eventually(lambda: len(got) == 2)
    assert all(isinstance(error, ProposalWithdrawnError) and "out of tokens" in str(error) for error in got)


@pytest.mark.parametrize("slug", ["", "Dev", "../dev", "a" * 64, "de v"])
def test_a_slug_keeps_its_rule(host: Host, bottles: BottleStore, slug: str) -> None:
    with pytest.raises(InvalidInputError, match="slug"):
        bottles.register(slug, backend="docker")
    assert not host.root.exists()


# --- managed files


def test_managed_files_are_kept_by_tool(tmp_path: Path, host: Host, bottles: BottleStore) -> None:
    elsewhere = tmp_path / "project" / "Dockerfile"
    elsewhere.parent.mkdir()
    elsewhere.write_text("FROM debian\n")
    own = host.root / "bottles" / "dev"
    bottle = bottles.register(
        "dev", backend="docker", files={"egress-allow": "routes.yaml", "capability-block": elsewhere}
    )
    assert bottle.files == {"egress-allow": str(own / "routes.yaml"), "capability-block": str(elsewhere)}
    assert own.stat().st_mode & 0o777 == 0o700
    assert not (own / "routes.yaml").exists()  # absent is fine: an approval creates it


def test_an_absolute_path_is_kept_with_its_symlinks_resolved(tmp_path: Path, bottles: BottleStore) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    bottle = bottles.register("dev", backend="docker", files={"egress-allow": tmp_path / "link" / "routes.yaml"})
    assert bottle.files == {"egress-allow": str(tmp_path / "real" / "routes.yaml")}


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("../other/routes.yaml", "leaves its directory"),
        ("sub/../../x", "leaves its directory"),
        ("/etc/../etc/passwd", r"\.\."),
        ("out/routes.yaml", "symlink"),
        ("link.yaml", "symlink"),
        ("dir", "not a regular file"),
        ("fifo", "not a regular file"),
        ("nowhere/routes.yaml", "directory"),
        ("", "managed file"),
        ("/", "managed file"),
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(host: Host, bottles: BottleStore, path: str, says: str) -> None:
    own = host.root / "bottles" / "dev"
    own.mkdir(parents=True)
    (own / "out").symlink_to(host.root.parent)
    (own / "link.yaml").symlink_to("/etc/passwd")
    (own / "dir").mkdir()
    os.mkfifo(own / "fifo")
    with pytest.raises(InvalidInputError, match=says) as caught:
        bottles.register("dev", backend="docker", files={"egress-allow": path})
    assert caught.value.exit_code == 2
    assert bottles.read_bottle("dev") is None


def test_a_tool_keeps_its_rule(bottles: BottleStore) -> None:
    with pytest.raises(InvalidInputError, match="tool"):
        bottles.register("dev", backend="docker", files={"egress allow": "x"})


def test_bottles_are_values(bottles: BottleStore) -> None:
    bottle = bottles.register("dev", backend="docker", files={"egress-allow": "routes.yaml"})
    assert json.loads(json.dumps(bottle.to_dict())) == bottle.to_dict()
    assert bottle.to_dict()["files"] == bottle.files
    assert "dev" in repr(bottle)
    assert pickle.loads(pickle.dumps(bottle)).to_dict() == bottle.to_dict()
    with pytest.raises(AttributeError):
        bottle.slug = "other"  # type: ignore[misc]


def test_a_closed_store_says_so(bottles: BottleStore) -> None:
    bottles.close()
    with pytest.raises(ClosedError):
        bottles.list_bottles()
