"""Is every error what the documentation says it is: class, second base, exit code, attributes, one helpful sentence?"""

from __future__ import annotations

import ast
import pickle
import re
from pathlib import Path

import pytest

import bot_bottle
from bot_bottle import errors
from bot_bottle.errors import BotBottleError
from checkout import CHECKOUT

# The contract: class, the built-in it also is, exit code.
TABLE: list[tuple[str, type[Exception] | None, int]] = [
    ("InvalidInputError", ValueError, 2),
    ("InvalidProposalError", ValueError, 2),
    ("NotFoundError", LookupError, 4),
    ("AlreadyDecidedError", None, 5),
    ("ProposalExpiredError", None, 5),
    ("ProposalWithdrawnError", None, 5),
    ("StaleReviewError", None, 5),
    ("WaitTimeoutError", TimeoutError, 6),
    ("AuditIntegrityError", None, 7),
    ("SchemaTooNewError", None, 8),
    ("MigrationError", None, 8),
    ("DatabaseCorruptError", None, 8),
    ("UnsafeMountError", None, 8),
    ("DatabaseBusyError", None, 9),
    ("WriteLostError", None, 9),
    ("AccessDeniedError", PermissionError, 10),
    ("DatabaseUnavailableError", OSError, 1),
    ("ManagedFileError", OSError, 1),
    ("KeyUnusableError", OSError, 1),
    ("ClosedError", None, 1),
    ("BotBottleError", None, 1),
]
BUILT_IN = (ValueError, LookupError, OSError, RuntimeError)
CLASSES = {
    name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, BotBottleError)
}
CORE = (CHECKOUT / "rust" / "store" / "src" / "error.rs").read_text()
BINDING = (CHECKOUT / "rust" / "python" / "src" / "error.rs").read_text()


def test_the_table_has_every_class_and_every_class_is_public() -> None:
    assert set(CLASSES) == {name for name, _, _ in TABLE}
    for name, value in CLASSES.items():
        assert getattr(bot_bottle, name) is value
        assert name in bot_bottle.__all__


@pytest.mark.parametrize(("name", "also", "code"), TABLE, ids=[name for name, _, _ in TABLE])
def test_a_class_is_what_the_table_says(name: str, also: type[Exception] | None, code: int) -> None:
    error = CLASSES[name]
    assert error.exit_code == code
    assert issubclass(error, BotBottleError)
    if also is None:
        assert not issubclass(error, BUILT_IN)
    else:
        assert issubclass(error, also)
    assert error.__doc__
    assert error.__doc__ != BotBottleError.__doc__ or error is BotBottleError


def declared(error: type[BotBottleError]) -> set[str]:
    own = {name for base in error.__mro__ for name in vars(base).get("__annotations__", ())}
    return own - {"exit_code"}


@pytest.mark.parametrize("name", CLASSES)
def test_an_error_pickles_with_all_it_carries(name: str) -> None:
    data = {attribute: f"a {attribute}" for attribute in declared(CLASSES[name])} | {"more": ["x", None]}
    error = CLASSES[name]("what happened, and what to do", **data)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))
        assert type(again) is type(error)
        assert str(again) == str(error) == error.message == "what happened, and what to do"
        assert {attribute: getattr(again, attribute) for attribute in data} == data
        assert again.exit_code == error.exit_code


# --- the core's side: read from its source, so that a new variant cannot be forgotten here


def variants() -> dict[str, set[str]]:
    """Name of each variant of the core's ``Error`` to its fields."""
    body = re.search(r"pub enum Error \{\n(.*?)\n\}", CORE, re.DOTALL)
    assert body is not None
    found = re.findall(r"^    ([A-Z]\w+)(?: \{ (.*?) \})?,$", body[1], re.MULTILINE)
    return {name: set(re.findall(r"(\w+): ", fields)) for name, fields in found}


def classes_of_variants() -> dict[str, str]:
    """What ``Error::class`` says of each variant."""
    body = re.search(r"pub fn class\(.*?\{\n(.*?)\n    \}\n", CORE, re.DOTALL)
    assert body is not None
    return {
        variant: class_name
        for arm, class_name in re.findall(r'((?:\s*\|?\s*Error::\w+(?: \{ \.\. \})?)+)\s*=>\s*"(\w+)"', body[1])
        for variant in re.findall(r"Error::(\w+)", arm)
    }


def test_every_variant_of_the_core_has_its_class_here() -> None:
    assert len(variants()) > 20
    # What a broker answers bears the class of the error there.
    assert set(classes_of_variants()) == set(variants()) - {"Problem"}
    for variant, class_name in classes_of_variants().items():
        assert class_name in CLASSES or class_name == "KeyboardInterrupt", variant


def test_the_core_s_exit_codes_are_the_table_s() -> None:
    body = re.search(r"pub fn exit_code\(.*?\{\n(.*?)\n    \}\n", CORE, re.DOTALL)
    assert body is not None
    codes = {
        class_name: int(code)
        for arm, code in re.findall(r'((?:\s*\|?\s*"\w+")+)\s*=>\s*(\d+)', body[1])
        for class_name in re.findall(r'"(\w+)"', arm)
    }
    assert codes.pop("KeyboardInterrupt") == 130
    assert re.search(r"_ => 1,", body[1])
    for class_name in set(classes_of_variants().values()) - {"KeyboardInterrupt"}:
        assert codes.pop(class_name, 1) == CLASSES[class_name].exit_code, class_name
    # What the helper is told of by the broker, not by the store.
    assert set(codes) <= {"AccessDeniedError"}


def always_set(error: type[BotBottleError]) -> set[str]:
    """Those without a default."""
    return {name for name in declared(error) if not hasattr(error, name)}


def test_the_binding_sets_what_a_class_declares_and_nothing_else() -> None:
    handed: dict[str, set[str]] = {}
    arm = r"((?:\s*\|?\s*Error::\w+(?: \{[^}]*\})?)+) =>(.*?)(?=\n        (?:Error::|\}))"
    for variants_of_arm, block in re.findall(arm, BINDING[BINDING.index("fn attributes") :], re.DOTALL):
        for variant in re.findall(r"Error::(\w+)", variants_of_arm):
            handed[variant] = set(re.findall(r'set_item\("(\w+)"', block))
    for variant, class_name in classes_of_variants().items():
        if class_name in CLASSES:
            error, attributes = CLASSES[class_name], handed.get(variant, set())
            assert always_set(error) <= attributes <= declared(error), variant


def test_python_sets_what_a_class_declares_and_nothing_else() -> None:
    found = 0
    for path in Path(bot_bottle.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CLASSES:
                error, attributes = CLASSES[node.func.id], {keyword.arg for keyword in node.keywords}
                assert always_set(error) <= attributes <= declared(error), f"{path}:{node.lineno}"
                found += 1
    assert found > 100


def test_every_message_is_one_sentence_that_names_the_thing() -> None:
    messages = re.findall(r'#\[error\(\s*"(.*?)"(?:,|\s*\))', CORE, re.DOTALL)
    assert len(messages) == len(variants())
    for message in messages:
        assert "\n" not in message
        assert not message.endswith((".", "!", " "))
        if message not in ("the store was closed", "interrupted"):
            assert "{" in message, message


def test_no_error_is_a_bare_built_in() -> None:
    for path in Path(bot_bottle.__file__).parent.rglob("*.py"):
        assert not re.search(r"raise (RuntimeError|Exception)\b", path.read_text()), path
