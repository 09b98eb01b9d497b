"""Does ``import bot_bottle`` load what it needs and nothing that is slow?"""

from __future__ import annotations

import pytest

from store_process import Process

SLOW = [
    *[
        "asyncio",
        "click",
        "collections",
        "contextlib",
        "dataclasses",
        "enum",
        "functools",
        "importlib.metadata",
        "inspect",
    ],
    *["inspect", "json", "mcp", "re", "rich", "sqlite3", "typing", "yaml"],
]


def load(statement: str) -> None:
    import os
    import sys

    # What hands over the arguments imports much of it: a fresh interpreter.
    script = f"import sys; before = set(sys.modules); {statement}; print(*sorted(set(sys.modules) - before))"
    os.execv(sys.executable, [sys.executable, "-c", script])


@pytest.mark.parametrize(
    "statement",
    [
        "import bot_bottle",
        "from bot_bottle import QueueStore, AuditStore, Inbox, Database, Proposal, Response, AuditEntry",
        "from bot_bottle.queue_store import QueueStore",
        "from bot_bottle.audit_store import AuditStore",
    ],
)
def test_an_import_loads_nothing_that_is_slow(statement: str) -> None:
    with Process(load, statement) as process:
        loaded = process.ends().split()
    assert "bot_bottle._native" in loaded
    assert not [name for name in loaded if name in SLOW]
    assert len(loaded) < 8, loaded


def test_asyncio_is_loaded_by_who_asks_for_it() -> None:
    with Process(load, "from bot_bottle import AsyncQueueStore") as process:
        assert "asyncio" in process.ends().split()


def test_the_version_is_the_distribution_s() -> None:
    from importlib.metadata import version

    import bot_bottle

    assert bot_bottle.__version__ == version("bot-bottle")


def import_in_a_sub_interpreter(first: bool) -> None:
    import sys

    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    if first:
        import bot_bottle  # noqa: F401
    code = f"""
import sys
sys.path[:] = {sys.path!r}
try:
    import bot_bottle
except ImportError as error:
    print(error, flush=True)
"""
    for kind in ("isolated", "legacy"):
        try:
            one = interpreters.create(kind)
        except TypeError:  # before Python 3.13
            one = interpreters.create(isolated=kind == "isolated")
        interpreters.run_string(one, code)
        interpreters.destroy(one)


@pytest.mark.parametrize("first", [False, True], ids=["first", "after the main one"])
def test_a_sub_interpreter_is_refused(first: bool) -> None:
    with Process(import_in_a_sub_interpreter, first) as process:
        refusals = process.ends().splitlines()
    assert len(refusals) == 2
    assert all("subinterpreters" in said or "sub-interpreters" in said for said in refusals), refusals
