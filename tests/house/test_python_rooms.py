"""Does the check of the package's rooms find what it looks for, and is there nothing to find?"""

from __future__ import annotations

from pathlib import Path

from python_rooms import LIBRARIES, check, modules


def found(path: Path, module: str, source: str) -> list[str]:
    """What is wrong with the package if ``module`` read so."""
    path.write_text(source)
    return [finding.removeprefix(f"{path}:") for finding in check(modules() | {module: path})]


def test_the_imports_of_the_package_run_down() -> None:
    assert check(modules()) == []


def test_the_operators_layer_may_know_no_library_that_draws() -> None:
    assert "operator" not in LIBRARIES


def test_a_library_out_of_place_and_an_import_that_runs_up_are_found(tmp_path: Path) -> None:
    source = "def shown():\n    import rich.console\n    from bot_bottle.web import limits\n"
    assert found(tmp_path / "words.py", "bot_bottle.operator.words", source) == [
        "2: operator knows no rich",
        "3: bot_bottle.operator.words imports bot_bottle.web.limits, which is not below it",
    ]


def test_a_sidecar_that_imports_the_command_line_is_found(tmp_path: Path) -> None:
    source = "from bot_bottle.cli import screen\n"
    assert found(tmp_path / "stores.py", "bot_bottle.sidecars.stores", source) == [
        "1: bot_bottle.sidecars.stores imports bot_bottle.cli.screen, which is not below it"
    ]


def test_a_circle_in_a_room_is_found(tmp_path: Path) -> None:
    source = "from bot_bottle.operator import review\n"
    circle = "1: a circle: bot_bottle.operator.words → bot_bottle.operator.review → bot_bottle.operator.words"
    assert circle in found(tmp_path / "words.py", "bot_bottle.operator.words", source)
