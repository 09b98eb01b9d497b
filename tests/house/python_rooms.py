"""Do the arrows of the Python package run down? ``make lint`` asks; each arrow that does not is a line of the output.

A file may import from the rooms below its own, never from those above. A package and its own parts may know each other;
any other circle is an error, as is a library that a room has no business with: what three faces share must not know
how one of them draws.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "python"
PACKAGE = "bot_bottle"

# From the ground up. `bot_bottle` itself is the facade: what stands below it imports from the modules, not from it.
FLOORS: list[set[str]] = [
    {"errors", "states"},
    {"_native"},
    {"aio", "queue_store", "audit_store", "documents", "agents"},
    {"launch"},
    {"supervise"},
    {"bot_bottle"},
    {"operator"},
    {"policy", "notify"},
    {"sidecars", "web", "tui"},
    {"cli"},
]

# What a room may import that is neither ours nor Python's.
LIBRARIES: dict[str, set[str]] = {
    "documents": {"yaml"},
    "web": {"starlette", "uvicorn", "uvloop", "cryptography"},
    "sidecars": {"mcp", "mcp_types", "starlette", "uvicorn", "anyio", "pydantic", "yaml"},
    "tui": {"textual", "rich", "pygments"},
    "notify": {"cryptography", "pywebpush"},
    "cli": {"click", "rich"},
}
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else PACKAGE


def modules() -> dict[str, Path]:
    """Dotted name → file, the extension's stub included."""
    found = {}
    for path in [*SOURCE.joinpath(PACKAGE).rglob("*.py"), SOURCE / PACKAGE / "_native.pyi"]:
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(tree: ast.Module, known: dict[str, Path]) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each import; of ``from package import part`` the part, where it is a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                part = f"{node.module}.{alias.name}"
                yield node.lineno, part if part in known else node.module


def check(known: dict[str, Path]) -> list[str]:
    """The arrows and libraries that are not as they should be."""
    wrong = []
    arrows: dict[str, set[str]] = {module: set() for module in known}
    for module, path in sorted(known.items()):
        here = room(module)
        if here not in FLOOR_OF:
            wrong.append(f"{path}:1: the room {here} stands on no floor of FLOORS in {Path(__file__).name}")
            continue
        for line, name in imports(ast.parse(path.read_text()), known):
            if name.split(".")[0] != PACKAGE:
                library = name.split(".")[0]
                if library not in sys.stdlib_module_names and library not in LIBRARIES.get(here, set()):
                    wrong.append(f"{path}:{line}: {here} knows no {library}")
                continue
            if module == PACKAGE:
                continue  # the facade names what it offers, and imports half of it only when asked
            arrows[module].add(name)
            there = room(name)
            if there != here and FLOOR_OF.get(there, 99) >= FLOOR_OF[here]:
                wrong.append(f"{path}:{line}: {module} imports {name}, which is not below it")
    return wrong + [f"{known[circle[0]]}:1: a circle: {' → '.join(circle)}" for circle in circles(arrows)]


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Each circle of imports once, but for those of a package and its own parts."""
    found: list[list[str]] = []
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> None:
        if module in path:
            found.append([*path[path.index(module) :], module])
        elif module not in done:
            for other in sorted(arrows.get(module, ())):
                if not module.startswith(f"{other}."):  # a part that asks its package
                    walk(other, [*path, module])
            done.add(module)

    for module in sorted(arrows):
        walk(module, [])
    return found


if __name__ == "__main__":
    findings = check(modules())
    print(*findings, sep="\n", end="\n" if findings else "")
    sys.exit(bool(findings))
