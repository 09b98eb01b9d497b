"""Does the check of the core's rooms find what it is there to find?"""

from pathlib import Path

from rust_rooms import complaints


def _tree(root: Path, **files: str) -> Path:
    for name, source in files.items():
        path = root / (name.replace("__", "/") + ".rs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return root


def test_arrows_that_run_down_are_fine(tmp_path: Path) -> None:
    tree = _tree(
        tmp_path,
        error="",
        file__mod="mod turn;\nuse turn::Turn;",
        file__turn="use super::Other;\nuse crate::error::Error;\n\n"
        "#[cfg(test)]\nmod tests {\n    use crate::stores::x;\n}\n",
        stores__mod="pub(crate) mod inbox;",
        stores__inbox="use crate::file::{self, turn::Turn as Order};",
    )
    assert complaints(tree) == []


def test_an_arrow_upwards_is_named(tmp_path: Path) -> None:
    tree = _tree(tmp_path, file__bell="use crate::error::Error;\nfn f() { crate::stores::inbox::read(); }", error="")
    tree = _tree(tree, stores__inbox="")
    assert complaints(tree) == ["file::bell uses stores::inbox, which is above it"]


def test_a_circle_in_a_room_is_named(tmp_path: Path) -> None:
    tree = _tree(tmp_path, file__a="use super::b::{B, C};", file__b="use crate::file::{a::A, c};", file__c="")
    assert complaints(tree) == ["a circle: file::a → file::b → file::a"]


def test_a_file_without_a_floor_is_named(tmp_path: Path) -> None:
    assert complaints(_tree(tmp_path, helpers="")) == ["helpers has no floor; give it one in rust_rooms.py"]
