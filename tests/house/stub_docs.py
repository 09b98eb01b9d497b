"""Does the stub, which editors read, say what ``help()`` says? ``python tests/house/stub_docs.py --write`` makes it so.

Docstrings are written in the Rust source; the extension has them at run time and the stub a copy. What begins with an
underscore needs none.
"""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

import bot_bottle._native

STUB = Path(bot_bottle._native.__file__).with_name("_native.pyi")


def with_docs(stub: str) -> str:
    """The text of the stub with each docstring as it is at run time."""
    lines = stub.splitlines(keepends=True)
    edits: list[tuple[int, int, int, int, str]] = []

    def give(node: ast.Module | ast.ClassDef | ast.FunctionDef, doc: str | None, indent: int) -> None:
        body = node.body[0]
        at = body.lineno - 1, body.col_offset, (body.end_lineno or 0) - 1, body.end_col_offset or 0
        if ast.get_docstring(node) is not None or isinstance(node, ast.FunctionDef):
            if not doc:
                edits.append((*at, "..."))
            elif isinstance(node, ast.Module) or lines[at[0]][: at[1]].isspace():
                edits.append((*at, quoted(doc, indent)))
            else:  # on the line of its `def`
                edits.append((*at, f"\n{' ' * indent}{quoted(doc, indent)}"))
        elif doc:
            decorated = getattr(body, "decorator_list", None)
            first = decorated[0].lineno - 1 if decorated else at[0]
            edits.append((first, 0, first, 0, f"{' ' * indent}{quoted(doc, indent)}\n\n"))

    tree = ast.parse(stub)
    give(tree, inspect.getdoc(bot_bottle._native), 0)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            give(node, inspect.getdoc(getattr(bot_bottle._native, node.name)), 4)
        elif isinstance(node, ast.ClassDef):
            found = getattr(bot_bottle._native, node.name)
            give(node, inspect.getdoc(found), 4)
            for member in node.body:
                if isinstance(member, ast.FunctionDef):
                    public = not member.name.startswith("_")
                    give(member, inspect.getdoc(getattr(found, member.name)) if public else None, 8)
    for first, start, last, end, text in sorted(edits, reverse=True):
        # Columns of `ast` count bytes.
        before, after = lines[first].encode()[:start].decode(), lines[last].encode()[end:].decode()
        if text == "..." and before.isspace():
            before, first = lines[first - 1].rstrip("\n") + " ", first - 1
        lines[first : last + 1] = [(before.rstrip(" ") if text.startswith("\n") else before) + text + after]
    return "".join(lines)


def quoted(doc: str, indent: int) -> str:
    margin = " " * indent
    text = "".join(f"{margin}{line}".rstrip() + "\n" for line in doc.splitlines()).strip()
    return f'"""{text}\n{margin}"""' if "\n" in text else f'"""{text}"""'


if __name__ == "__main__":
    given = STUB.read_text()
    wanted = with_docs(given)
    if sys.argv[1:] == ["--write"]:
        STUB.write_text(wanted)
    elif wanted != given:
        sys.exit("_native.pyi says something else than the Rust source: python tests/house/stub_docs.py --write")
