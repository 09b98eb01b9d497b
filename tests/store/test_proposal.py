"""Do the value types keep their rules, and is what goes in what comes out?"""

from __future__ import annotations

import copy
import json
import pickle
import re
import unicodedata
import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bot_bottle import (
    MAX_JUSTIFICATION_BYTES,
    MAX_NOTES_BYTES,
    MAX_PAYLOAD_BYTES,
    AuditEntry,
    InvalidInputError,
    InvalidProposalError,
    Proposal,
    QueueStore,
    Response,
    new_id,
    render_diff,
    sha256_hex,
    visible,
)
from store_process import proposal

SECRET = "a payload that a repr must not show"
NOW = "2026-01-31T12:00:00.000000Z"
HASH = "a" * 64
ID = "0199d2c4-0000-7000-8000-000000000000"
VALUES = [
    Proposal(ID, "dev", "egress-allow", SECRET, SECRET, NOW, HASH, expires_at=NOW, fingerprint="f"),
    Response(ID, "modified", SECRET, SECRET, payload_sha256=HASH, decided_by="me", surface="tui", decided_at=NOW),
    AuditEntry(NOW, "dev", "egress-allow", "approved", SECRET, SECRET, SECRET, decided_by="me", seq=3, entry_hash=HASH),
]
each_value = pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)


@pytest.mark.parametrize(
    ("at", "written"),
    [
        (datetime(2026, 1, 31, 12, tzinfo=timezone.utc), NOW),
        (datetime(2026, 1, 31, 17, 30, tzinfo=timezone(timedelta(hours=5, minutes=30))), NOW),
        (datetime(2026, 1, 31, 12, 0, 0, 7, tzinfo=timezone.utc), "2026-01-31T12:00:00.000007Z"),
        (datetime(9999, 12, 30, tzinfo=timezone.utc), "9999-12-30T00:00:00.000000Z"),
    ],
)
def test_a_time_may_be_a_datetime(at: datetime, written: str) -> None:
    asked = Proposal(ID, "dev", "egress-allow", "x", "", at, expires_at=at)
    assert (asked.arrival_timestamp, asked.expires_at) == (written, written)
    answer = Response(ID, "approved", decided_at=at, applied_at=at)
    assert (answer.decided_at, answer.applied_at) == (written, written)
    assert AuditEntry(at, "dev", "egress-allow", "approved").timestamp == written


@pytest.mark.parametrize(
    ("at", "error", "says"),
    [
        (datetime(2026, 1, 31, 12), InvalidInputError, r"a datetime must say its time zone"),
        (datetime(1969, 12, 31, tzinfo=timezone.utc), InvalidInputError, "of 1970 or later, not"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))), InvalidInputError, "a datetime is out of range"),
        (timedelta(1), TypeError, "expected str or datetime, not timedelta"),
        (1.5, TypeError, "expected str or datetime, not float"),
    ],
)
def test_what_is_no_moment_is_refused(at: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        AuditEntry(at, "dev", "egress-allow", "approved")


def test_an_audit_entry_of_now() -> None:
    before = datetime.now(timezone.utc)
    entry = AuditEntry.new("dev", "egress-allow", "noted", "notes", "why", "diff", decided_by="me", surface="cli")
    assert before <= datetime.fromisoformat(entry.timestamp.replace("Z", "+00:00")) <= datetime.now(timezone.utc)
    at = entry.timestamp
    assert entry == AuditEntry(
        at, "dev", "egress-allow", "noted", "notes", "why", "diff", decided_by="me", surface="cli"
    )
    with pytest.raises(InvalidInputError, match="surface"):
        AuditEntry.new("dev", "egress-allow", "noted", surface="fax")  # type: ignore[arg-type]


@each_value
def test_values_are_frozen(value: Any) -> None:
    for name in ["bottle_slug", "proposal_id", "new_name"]:
        with pytest.raises(AttributeError):
            setattr(value, name, "x")
    with pytest.raises(TypeError):
        type("Sub", (type(value),), {})


@each_value
def test_values_survive_pickle_and_copy_whole(value: Any) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(value, protocol))
        assert again == value
        assert again.to_dict() == value.to_dict()
    assert copy.copy(value) == copy.deepcopy(value) == value
    assert len({value, copy.copy(value)}) == 1
    assert value != object()


@each_value
def test_a_repr_shows_no_payload(value: Any) -> None:
    assert SECRET not in repr(value)
    assert SECRET not in str(value)
    assert repr(value).startswith(type(value).__name__ + "(")


@each_value
def test_to_dict_has_every_field_and_is_json_ready(value: Any) -> None:
    told_by_others = {
        "payload_bytes",
        "final_bytes",
        "kind",
        "words",
    }  # sizes of texts that are there, part of the fingerprint
    fields = {name for name in dir(value) if not name.startswith("_")} - {"to_dict", "new"} - told_by_others
    assert set(value.to_dict()) == fields
    assert json.loads(json.dumps(value.to_dict())) == {name: getattr(value, name) for name in fields}


def test_equality_is_of_content() -> None:
    assert proposal("a") != proposal("a")  # other ids
    answer = Response(ID, "approved", "fine")
    assert answer == Response(ID, "approved", "fine", decided_by="somebody", surface="cli")
    assert hash(answer) == hash(Response(ID, "approved", "fine", decided_by="somebody", surface="cli"))
    assert answer != Response(ID, "approved", "other")
    entry = AuditEntry(NOW, "dev", "egress", "seen")
    assert entry == AuditEntry(NOW, "dev", "egress", "seen", seq=9, prev_hash=HASH, entry_hash=HASH)
    assert entry != AuditEntry(NOW, "dev", "egress", "seen", decided_by="me")


def test_a_new_proposal_arrives_now_with_a_new_id() -> None:
    made = Proposal.new("dev", "egress-allow", "x", expires_in=60)
    assert uuid.UUID(made.id).version == 7
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", made.arrival_timestamp)
    assert made.expires_at is not None
    assert made.arrival_timestamp < made.expires_at
    assert (made.justification, made.current_file_hash, made.fingerprint) == ("", None, None)
    assert made.payload_sha256 == sha256_hex("x")
    assert Proposal.new("dev", "egress-allow", "x").expires_at is None


def test_ids_sort_by_age() -> None:
    ids = [new_id() for _ in range(1000)]
    assert ids == sorted(set(ids))


def test_times_are_told_in_utc() -> None:
    made = Proposal(ID.upper(), "dev", "t", "x", "", "2026-01-31T13:00:00+01:00")
    assert (made.id, made.arrival_timestamp) == (ID, NOW)


def test_the_end_of_time_is_an_expiry() -> None:
    for seconds in (1e30, float("inf")):
        made = proposal(expires_in=seconds)
        assert made.expires_at is None or made.expires_at.startswith("9999-")


GOOD: dict[str, Any] = {
    "id": ID,
    "bottle_slug": "dev",
    "tool": "egress-allow",
    "proposed_file": "x",
    "justification": "",
    "arrival_timestamp": NOW,
}


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        *(
            (field, name, "a-z")
            for field in ("bottle_slug", "tool")
            for name in ("", "-a", ".a", "Dev", "a b", "a/b", "../a", "ä", "a\n", "a\0", "a" * 64, "DROP TABLE")
        ),
        ("id", "", "UUID"),
        ("id", "not-an-id", "UUID"),
        ("proposed_file", "", "empty"),
        ("proposed_file", b"", "empty"),
        ("proposed_file", "x" * (MAX_PAYLOAD_BYTES + 1), str(MAX_PAYLOAD_BYTES)),
        ("proposed_file", "ä" * (MAX_PAYLOAD_BYTES // 2) + "x", str(MAX_PAYLOAD_BYTES)),
        ("proposed_file", b"routes\xff", "offset 6"),
        ("proposed_file", "ab\udc80", "offset 2"),
        ("proposed_file", "ab\0", "offset 2"),
        ("justification", "x" * (MAX_JUSTIFICATION_BYTES + 1), str(MAX_JUSTIFICATION_BYTES)),
        ("justification", "a\0", "offset 1"),
        ("current_file_hash", "abc", "64"),
        ("current_file_hash", "A" * 64, "lower-case"),
        ("arrival_timestamp", "yesterday", "RFC 3339"),
        ("expires_at", "2026-01-31", "RFC 3339"),
        ("fingerprint", "x" * 513, "512"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_field_that_breaks_its_rule_is_named(field: str, value: Any, says: str) -> None:
    with pytest.raises(InvalidProposalError) as caught:
        Proposal(**GOOD | {field: value})
    assert caught.value.exit_code == 2
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).startswith(field)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 400


def test_the_largest_of_everything_is_accepted() -> None:
    Proposal(
        **GOOD
        | {
            "bottle_slug": "a" * 63,
            "proposed_file": "x" * MAX_PAYLOAD_BYTES,
            "justification": "x" * MAX_JUSTIFICATION_BYTES,
            "fingerprint": "x" * 512,
        }
    )
    Response(ID, "modified", "x" * MAX_NOTES_BYTES, b"x" * MAX_PAYLOAD_BYTES)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("-inf")])
def test_an_expiry_in_the_past_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidInputError, match="expires_in"):
        proposal(expires_in=seconds)


@pytest.mark.parametrize("value", [None, 3, bytearray(b"x"), ["x"]])
def test_a_payload_of_another_type_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        proposal(**{"payload": value} if value is not None else {"justification": None})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"status": "maybe"}, "status"),
        ({"status": "pending"}, "status"),
        ({"status": "modified"}, "final_file"),
        ({"status": "modified", "final_file": ""}, "final_file"),
        ({"status": "approved", "final_file": "x"}, "final_file"),
        ({"status": "modified", "final_file": b"ab\xff"}, "offset 2"),
        ({"status": "modified", "final_file": "a\0"}, "offset 1"),
        ({"status": "modified", "final_file": "x" * (MAX_PAYLOAD_BYTES + 1)}, str(MAX_PAYLOAD_BYTES)),
        ({"status": "rejected", "notes": "x" * (MAX_NOTES_BYTES + 1)}, "notes"),
        ({"status": "approved", "payload_sha256": "abc"}, "payload_sha256"),
        ({"status": "approved", "decided_at": "now"}, "decided_at"),
        ({"status": "approved", "surface": "telepathy"}, "surface"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_response_that_breaks_a_rule_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says) as caught:
        Response(ID, **fields)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"timestamp": "now"},
        {"bottle_slug": "Dev"},
        {"component": "egress proxy"},
        {"operator_action": "x" * 257},
        {"operator_notes": "a\0b"},
        {"decided_by": "x" * 257},
        {"surface": "telepathy"},
        {"final_sha256": "zz"},
    ],
    ids=repr,
)
def test_an_audit_entry_that_breaks_a_rule_is_refused(fields: dict[str, Any]) -> None:
    good = {"timestamp": NOW, "bottle_slug": "dev", "component": "egress", "operator_action": "seen"}
    with pytest.raises(InvalidInputError) as caught:
        AuditEntry(**good | fields)
    assert caught.value.exit_code == 2


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=400)


@given(payload=TEXT, words=TEXT)
@example(payload="\r\n\t\x1b[0m\u202e\ufeff", words="'; DROP TABLE proposals; --")
def test_any_text_round_trips(tmp_path_factory: pytest.TempPathFactory, payload: str, words: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any_text.db"
    with QueueStore("dev", path) as queue:
        written = queue.write_proposal(proposal(payload, words))
        read = queue.read_proposal(written.id)
        queue.archive_proposal(written.id)
    assert read == written
    assert read is not None
    assert (read.proposed_file, read.payload_sha256) == (payload, sha256_hex(payload.encode()))


@given(st.binary(min_size=1, max_size=64))
@example(b"\xed\xa0\x80")  # a surrogate
@example(b"\xc0\x80")  # an over-long NUL
@example(b"\xf4\x90\x80\x80")  # beyond Unicode
@example(b"\xef\xbb\xbfx")
def test_any_bytes_are_taken_or_refused_where_they_go_wrong(data: bytes) -> None:
    try:
        text = data.decode()
        wrong = data.index(b"\0") if b"\0" in data else None
    except UnicodeDecodeError as error:
        wrong = error.start
    if wrong is None:
        assert proposal(data).proposed_file == text
    else:
        with pytest.raises(InvalidProposalError, match=rf"offset {wrong}\b"):
            proposal(data)


def test_bytes_and_text_are_the_same_payload() -> None:
    assert sha256_hex("ä") == sha256_hex("ä".encode())
    assert proposal("ä").payload_sha256 == proposal("ä".encode()).payload_sha256


# Bidi_Control of Unicode's PropList.txt; most are in Cf, which the version of a Python may not know all of.
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@given(st.text(), st.booleans())
@example(BIDI, True)
def test_visible_leaves_nothing_that_deceives(text: str, multiline: bool) -> None:
    shown = visible(text, multiline=multiline)
    kept = "\n\t" if multiline else ""
    for character in shown:
        assert unicodedata.category(character) not in {"Cc", "Cf", "Zl", "Zp", "Cs"} or character in kept
        assert unicodedata.category(character) != "Zs" or character == " "
        assert character not in BIDI


@pytest.mark.parametrize("category", ["Cc", "Cf", "Zl", "Zp", "Zs", "Co"])
def test_visible_spells_out_every_character_of_a_category(category: str) -> None:
    for code in range(0x110000):
        character = chr(code)
        if unicodedata.category(character) == category and character != " ":
            assert visible(f"a{character}b", multiline=False) == f"a<U+{code:04X}>b"


# Default_Ignorable_Code_Point of Unicode's DerivedCoreProperties.txt, and letters whose glyph is blank.
IGNORABLE = "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b\u180e\u180f\u200b\u2060\u2065\u206f"
BLANK = "\u2800\u3164\ufe0f\ufeff\uffa0\ufff0\U0001d173\U000e0041\U000e01ef"


@pytest.mark.parametrize("character", IGNORABLE + BLANK)
def test_visible_spells_out_what_has_no_glyph(character: str) -> None:
    assert visible(f"a{character}b") == f"a<U+{ord(character):04X}>b"


def test_visible_leaves_honest_text_alone() -> None:
    honest = "Straße, 東京, naïve café 🍾\n\tand <U+0041>"
    assert visible(honest) == honest
    assert visible(f"עברית العربية\n{honest}") == f"עברית العربية <right-to-left>\n{honest}"
    assert visible("a\nb\tc", multiline=False) == "a<U+000A>b<U+0009>c"


def test_a_diff_is_unified_and_labelled() -> None:
    assert render_diff("same\n", "same\n") == ""
    assert render_diff("a\nb\n", "a\nc\n", label="etc/x") == "--- a/etc/x\n+++ b/etc/x\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
    assert "\\ No newline at end of file" in render_diff("a\n", "a")
    assert render_diff("", "x\n").startswith("--- a/file\n+++ b/file\n@@ -0,0 +1 @@\n")


@given(st.lists(st.sampled_from("abc"), max_size=30), st.lists(st.sampled_from("abc"), max_size=30))
def test_a_diff_says_how_one_becomes_the_other(before: list[str], after: list[str]) -> None:
    diff = render_diff("".join(f"{line}\n" for line in before), "".join(f"{line}\n" for line in after))
    made: list[str] = []
    at = 0
    for line in diff.splitlines()[2:]:
        if header := re.match(r"@@ -(\d+)(,0)?", line):
            start = int(header[1]) - (0 if header[2] else 1)
            made += before[at:start]
            at = start
        elif line[0] in " -":
            assert before[at] == line[1:]
            at += 1
        if line[0] in " +":
            made.append(line[1:])
    assert made + before[at:] == after


def test_the_field_that_is_wrong_is_the_one_that_is_named() -> None:
    entry, good = ("2026-01-31T12:00:00Z", "dev", "egress", "x"), "a" * 64
    for field in ("payload_sha256", "final_sha256"):
        with pytest.raises(InvalidProposalError, match=rf"^{field} must be a SHA-256"):
            AuditEntry(*entry, **{"payload_sha256": good, "final_sha256": good, field: "zz"})  # type: ignore[arg-type]
    for field in ("payload_sha256", "review_sha256", "final_sha256"):
        with pytest.raises(InvalidProposalError, match=rf"^{field} must be a SHA-256"):
            Response(new_id(), "approved", **{field: "zz"})  # type: ignore[arg-type]
    for field in ("decided_at", "applied_at"):
        with pytest.raises(InvalidProposalError, match=rf"^{field} must be RFC 3339"):
            Response(new_id(), "approved", **{field: "zz"})  # type: ignore[arg-type]
