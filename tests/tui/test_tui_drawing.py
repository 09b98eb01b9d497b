"""Do the rows of a document hold all of a text, and its lines what they replace, however large it is?"""

from __future__ import annotations

import tracemalloc
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from bot_bottle import visible
from bot_bottle.operator.review import Section
from bot_bottle.tui.drawing import Quoted, document
from large import LARGE


@pytest.mark.parametrize("kind", LARGE)
def test_the_rows_hold_all_of_a_large_text_and_none_is_too_wide(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    tracemalloc.start()
    try:
        shown = document([Section("Payload", text=LARGE[kind])])
        shown.wrap(78)
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 64 * 1024 * 1024
    (text,) = shown.quoted
    assert len(text) == visible(LARGE[kind]).removesuffix("\n").count("\n") + 1
    # Its rows: from the first on, and up to the last.
    drawn = ["".join(part.text for part in shown.draw(y)) for y in range(1, min(shown.height, 3000))]
    assert max(map(cell_len, drawn)) <= 78
    lines = visible(LARGE[kind]).expandtabs().removesuffix("\n")
    whole = "".join(("\n" if row[0] == "│" else "") + row[2:] for row in drawn)
    assert lines.startswith(whole.removeprefix("\n")), kind
    last = "".join(part.text for part in shown.draw(shown.height - 1))[2:]
    assert lines.endswith(last)
    assert shown.draw(shown.height) == []


def paired(signs: str) -> list[str | None]:
    """As many removed lines as added ones directly below are partners, one by one; the plain way."""
    partners: list[str | None] = [None] * len(signs)
    runs, at = [(sign, len(list(each))) for sign, each in groupby(signs)], 0
    for (sign, size), (following, many) in zip(runs, [*runs[1:], ("", 0)], strict=False):
        if (sign, following) == ("-", "+") and size == many:
            for number in range(size):
                partners[at + number] = f"+{at + size + number}"
                partners[at + size + number] = f"-{at + number}"
        at += size
    return partners


@given(st.text("+- ", max_size=30))
def test_a_line_of_a_diff_knows_the_one_that_it_replaces(signs: str) -> None:
    lines = "".join(f"{sign}{at}\n" for at, sign in enumerate(signs))
    text = Quoted(f"--- a/x\n+++ b/x\n@@ -1 +1 @@\n{lines}", diff=True)
    assert [text[at].kind for at in range(3)] == ["h", "h", "@"]
    assert [text[at + 3].partner for at in range(len(signs))] == paired(signs)
    assert [text[at + 3].kind for at in range(len(signs))] == list(signs)


def test_a_run_that_nobody_looks_through_is_not_paired() -> None:
    text = Quoted("@@ @@\n" + "-a\n" * 100_000 + "+b\n" * 100_000, diff=True)
    assert text[1].partner is None and text[200_000].partner is None
    assert [text[at].kind for at in (0, 1, 100_000, 100_001)] == ["@", "-", "-", "+"]


def test_a_search_finds_the_row_of_a_line_and_goes_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    shown = document([Section("Payload", text="".join(f"line {at} {'x' * 100}\n" for at in range(1000)))])
    shown.wrap(60)
    found = shown.find("LINE 500 ", 0)
    assert found is not None and "│ line 500 xx" in "".join(part.text for part in shown.draw(found))
    assert shown.find("line 500 ", found) == found
    assert shown.find("nowhere", 0) is None


def test_a_search_in_a_large_change_looks_for_no_lines_that_replace_others(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = document([Section("Change", text="@@ -0 +1 @@\n" + "+\n" * 500_000 + "+last\n", diff=True)])
    shown.wrap(60)
    # For each of so many lines that would take minutes.
    monkeypatch.setattr(Quoted, "_partner", lambda *_: pytest.fail("it looked for one"))
    assert shown.find("last", 0) == shown.height - 1
    assert shown.find("nowhere", 0) is None
