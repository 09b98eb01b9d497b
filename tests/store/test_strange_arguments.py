"""Is text that UTF-8 cannot hold, or a number past all bounds, an error of ours that names the argument?

The cases are made from the stub: each argument of every function, constructor and method of the extension.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import bot_bottle
from bot_bottle import _native
from bot_bottle.errors import BotBottleError, InvalidInputError
from checkout import CHECKOUT

HALF = "ab\ud800"  # half of a character
HUGE = 10**400
# They take text as the bytes that it is made of, and judge those.
TAKE_ANY = {"sha256_hex", "visible", "scan(data)", "Routes", "Routes.find", "Routes.allows"}
AT = "2026-01-31T12:00:00.000000Z"


class Argument(NamedTuple):
    name: str
    kind: str
    """Its annotation."""
    keyword: bool
    required: bool


class Case(NamedTuple):
    what: str
    """``Class.method``, ``Class`` or a function."""
    others: tuple[Argument, ...]
    """What comes before it, and what must be given."""
    argument: Argument

    def __str__(self) -> str:
        return f"{self.what}({self.argument.name})"


def cases() -> Iterator[Case]:
    tree = ast.parse((CHECKOUT / "python/bot_bottle/_native.pyi").read_text())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield from of_function(node.name, node, 0)
        elif isinstance(node, ast.ClassDef):
            for each in node.body:
                if isinstance(each, ast.FunctionDef):
                    name = node.name if each.name == "__new__" else f"{node.name}.{each.name}"
                    static = any(isinstance(by, ast.Name) and by.id == "staticmethod" for by in each.decorator_list)
                    yield from of_function(name, each, 0 if static else 1)


def of_function(what: str, node: ast.FunctionDef, skipped: int) -> Iterator[Case]:
    if what.rpartition(".")[2].startswith("_"):
        return
    spec = node.args
    optional = len(spec.args) - len(spec.defaults)
    places = [(each, False, at < optional) for at, each in enumerate(spec.args)][skipped:]
    names = [(each, True, by is None) for each, by in zip(spec.kwonlyargs, spec.kw_defaults, strict=True)]
    given = [
        Argument(each.arg, ast.unparse(each.annotation), keyword, required)
        for each, keyword, required in [*places, *names]
        if each.annotation
    ]
    for argument in given:
        if strange(argument.kind) is not None and not {what, f"{what}({argument.name})"} & TAKE_ANY:
            yield Case(what, tuple(each for each in given if each.required and each != argument), argument)


def strange(kind: str) -> Any:
    parts = kind.replace("|", " ").split()
    if "Sequence" in kind or "Mapping" in kind:
        return None  # what is in it: see below
    if {"str", "Surface", "Status", "Transport"} & set(parts):
        return HALF
    return HUGE if {"int", "float"} & set(parts) else None


def ordinary(argument: Argument) -> Any:
    """Something that may be given for it, so that what is refused is the other one."""
    named = {"id": bot_bottle.new_id(), "proposal_id": bot_bottle.new_id(), "status": "approved", "tool": "note"}
    if argument.name in named:
        return named[argument.name]
    kind = argument.kind
    if "None" in kind:
        return None
    if "datetime" in kind:
        return AT
    if "Callable" in kind:
        return print
    if "Sequence[tuple" in kind:
        return []
    if "Mapping" in kind or "dict" in kind:
        return {}
    if "str" in kind:
        return "x"
    return {"Surface": "api", "Transport": "mount", "int": 1, "float": 1.0, "bool": False}[kind]


@pytest.fixture
def owners(tmp_path: Path) -> dict[str, Any]:
    db = tmp_path / "bot-bottle.db"
    database = bot_bottle.Database(db)
    database.migrate_all()
    return {
        "QueueStore": bot_bottle.QueueStore("dev", db),
        "Inbox": bot_bottle.Inbox(db),
        "AuditStore": bot_bottle.AuditStore(db),
        "GrantStore": bot_bottle.GrantStore(db),
        "BottleStore": bot_bottle.BottleStore(db),
        "Keys": bot_bottle.Keys(db),
        "Database": database,
        "Routes": _native.Routes("routes: []\n"),
        "Proposal": bot_bottle.Proposal,
        "AuditEntry": bot_bottle.AuditEntry,
    }


@pytest.mark.parametrize("case", [pytest.param(case, id=str(case)) for case in cases()])
def test_a_strange_argument_is_refused_by_name(case: Case, owners: dict[str, Any]) -> None:
    owner, _, name = case.what.rpartition(".")
    if owner == "Transaction":
        with owners["Database"].transaction() as transaction:
            refused(getattr(transaction, name), case)
        return
    refused(getattr(owners[owner] if owner else _native, name), case)


def refused(function: Any, case: Case) -> None:
    given = {each.name: ordinary(each) for each in case.others} | {case.argument.name: strange(case.argument.kind)}
    if case.what == "Inbox.decide" and "sha256" not in case.argument.name:
        given["payload_sha256"] = "0" * 64
    with pytest.raises(BotBottleError) as caught:
        function(**given)
    assert isinstance(caught.value, InvalidInputError)
    assert str(caught.value).startswith(f"{case.argument.name} "), str(caught.value)
    assert caught.value.exit_code == 2


def test_there_are_cases_of_each_kind() -> None:
    found = [str(case) for case in cases()]
    assert len(found) > 100
    assert {"Inbox.read(proposal_id)", "Inbox.history(limit)", "Proposal.new(expires_in)", "Keys(db_path)"} <= set(
        found
    )


@pytest.mark.parametrize(
    "params", [[HALF], [2**63], {"a": HALF}, {HALF: 1}], ids=["text", "number", "named text", "a name"]
)
def test_a_strange_parameter_of_a_statement_is_refused(owners: dict[str, Any], params: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^params "):
        owners["Database"].query("SELECT :a", params)


def test_strange_text_inside_of_an_argument_is_refused(owners: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"^files "):
        owners["BottleStore"].register("dev", backend="docker", files={HALF: "routes.yaml"})
    with pytest.raises(InvalidInputError, match=r"^steps "):
        owners["Database"].migrate("mine", [("CREATE TABLE x (y)", HALF)])
    with pytest.raises(InvalidInputError, match=r"^known "):
        _native.scan("x", known={HALF: "y"})
