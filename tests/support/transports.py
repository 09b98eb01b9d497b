"""Over which of its two transports does a test's sidecar reach the rows?

The contract is one: a test marked ``over_both`` runs on the mounted file and over a real broker. ``way`` is what it
opens stores with; ``reach`` says the same in JSON to another process, which opens them with ``opened``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bot_bottle import BottleStore, Broker
from broker_process import Broker as Serving
from cli_process import Host

SLUG = "dev"
over_both = pytest.mark.parametrize("transport", ["file", "broker"], indirect=True)

# A test's loops ask more often than any sidecar.
_LIMITS = {"rate": 1e6, "burst": 1e6}


@pytest.fixture
def transport(request: pytest.FixtureRequest) -> str:
    """``file``, or ``broker`` if the test is marked."""
    return str(getattr(request, "param", "file"))


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One broker for all tests of a file."""
    broker = Serving(Host(tmp_path_factory.mktemp("host") / "root"), limits=_LIMITS)
    yield broker
    assert broker.end() == 0
    assert "Traceback" not in broker.errors


@pytest.fixture
def served_db(serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The host's database, new for each test, with the token of its one bottle in ``tmp_path``."""
    root = Path(serving.socket).parents[1]
    # Under the running broker, which must notice: another file is another database.
    shutil.rmtree(root / "db", ignore_errors=True)
    monkeypatch.setenv("BOT_BOTTLE_ROOT", str(root))
    bottles = BottleStore()
    bottles.register(SLUG, backend="docker")
    (tmp_path / "token").write_text(bottles.issue_token(SLUG))
    return root / "db" / "bot-bottle.db"


@pytest.fixture
def reach(transport: str, db: Path, tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, str]:
    """How a sidecar is told of the rows by its launch."""
    if transport == "file":
        return {"db_path": str(db)}
    return {"url": request.getfixturevalue("serving").url, "token_file": str(tmp_path / "token")}


@pytest.fixture
def way(reach: dict[str, str]) -> dict[str, Any]:
    return opened(reach)


def opened(reach: dict[str, str]) -> dict[str, Any]:
    """The arguments of a store that ``reach`` leads to."""
    return {"broker": Broker(**reach)} if "url" in reach else dict(reach)
