"""Do the types that a user's checker reads have the words that the schema and the core accept, no more and no fewer?"""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest

from bot_bottle import AuditEntry, InvalidInputError, Response, new_id, states
from checkout import CHECKOUT


def in_schema(constraint: str) -> set[str]:
    schema = "".join(path.read_text() for path in sorted(CHECKOUT.glob("migrations/*/*.up.sql")))
    [check] = re.findall(rf"CONSTRAINT {constraint}\s+CHECK \((.*?)\),?\n  \S", schema, re.DOTALL)
    return set(re.findall(r"'(\w+)'", check))


@pytest.mark.parametrize(
    ("words", "constraint"),
    [
        (states.State, "proposal_state_is_known"),
        (states.Status, "response_status_is_known"),
        (states.ApplyState, "apply_state_is_known"),
        (states.Surface, "response_surface_is_known"),
        (states.Surface, "audit_surface_is_known"),
        (states.ChangeKind, "change_kind_is_known"),
        (states.Scope, "grant_scope_is_known"),
    ],
)
def test_the_types_have_the_words_of_the_schema(words: Any, constraint: str) -> None:
    assert set(get_args(words)) == in_schema(constraint)


def test_the_core_accepts_each_word_and_no_other() -> None:
    for status in get_args(states.Status):
        assert Response(new_id(), status, final_file="x" if status == "modified" else None).status == status
    for surface in get_args(states.Surface):
        assert AuditEntry("2026-01-31T12:00:00Z", "dev", "egress", "seen", surface=surface).surface == surface
    with pytest.raises(InvalidInputError, match="status"):
        Response(new_id(), "aproved")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="cli, tui, web, api, policy"):
        AuditEntry("2026-01-31T12:00:00Z", "dev", "egress", "seen", surface="gui")  # type: ignore[arg-type]
