"""Does everything public say what it does, at run time and in the editor, in the same words?"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator

import pytest

import bot_bottle
from stub_docs import STUB, with_docs

# What programs import; the rest of the package is the command line, the screens and the sidecars.
MODULES = ["", ".aio", ".audit_store", ".errors", ".queue_store", ".states", ".supervise"]
KINDS = (
    property,
    classmethod,
    staticmethod,
    type(bot_bottle.Proposal.to_dict),
    type(bot_bottle.Proposal.__dict__["id"]),
)


def public() -> Iterator[tuple[str, object]]:
    """Each public class, its public members, and each public function."""
    for module in MODULES:
        found = importlib.import_module(f"bot_bottle{module}")
        yield found.__name__, found
        for name in getattr(found, "__all__", [name for name in vars(found) if not name.startswith("_")]):
            value = getattr(found, name)
            if not getattr(value, "__module__", "").startswith("bot_bottle") or not (
                inspect.isclass(value) or inspect.isroutine(value)
            ):
                continue
            yield f"{found.__name__}.{name}", value
            for member, one in vars(value).items() if inspect.isclass(value) else ():
                if not member.startswith("_") and (inspect.isroutine(one) or isinstance(one, KINDS)):
                    yield f"{found.__name__}.{name}.{member}", one


@pytest.mark.parametrize("name", [name for name, _ in public()])
def test_everything_public_says_what_it_does(name: str) -> None:
    doc = dict(public())[name].__doc__
    assert doc, name
    assert doc.strip(), name


def test_everything_public_is_looked_at() -> None:
    names = {name for name, _ in public()}
    assert {
        "bot_bottle.QueueStore",
        "bot_bottle.QueueStore.wait_for_response",
        "bot_bottle.Proposal.new",
        "bot_bottle.Proposal.id",
        "bot_bottle.AsyncInbox.watch",
        "bot_bottle.visible",
        "bot_bottle.errors.StaleReviewError",
        "bot_bottle.supervise.write_proposal",
    } <= names
    modules = [module.name for module in pkgutil.iter_modules(bot_bottle.__path__) if not module.ispkg]
    assert {f".{name}" for name in modules if not name.startswith("_")} == set(MODULES) - {""}


def test_help_shows_it() -> None:
    shown = inspect.getdoc(bot_bottle.QueueStore.wait_for_response) or ""
    assert "timeout: seconds; ``None`` waits for ever" in shown
    assert re.search(r"WaitTimeoutError: undecided after", shown)
    signature = "(self, /, proposal_id, timeout=None, *, wake_on_question=False, after_question=None)"
    assert str(inspect.signature(bot_bottle.QueueStore.wait_for_response)) == signature


def test_editors_show_the_same_words() -> None:
    assert STUB.read_text() == with_docs(STUB.read_text()), "python tests/house/stub_docs.py --write"
