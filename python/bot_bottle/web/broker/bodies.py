"""What may the body and the query of a request say? JSON and fields, read strictly: unknown ones are refused."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from bot_bottle import AccessDeniedError, AuditEntry, InvalidInputError, InvalidProposalError, Proposal, visible
from bot_bottle.states import Surface
from bot_bottle.web.problems import Refusal

# The daemons of a bundle: what a bottle's own entries in the audit log may be about. Decisions have their tool there.
COMPONENTS: Final = ("egress", "git-gate", "supervise")
# The log's words for decisions and their effects; in a sidecar's entry they would look like a decision.
DECISION_WORDS: Final = frozenset(
    (
        *("approved", "modified", "rejected", "expired", "withdrawn", "archived", "applied", "apply-failed"),
        *("apply_failed", "asked", "answered", "damaged", "restored", "rolled-back", "pruned", "policy", "bypass"),
    )
)
MAX_ENTRIES: Final = 100
MAX_ITEMS: Final = 1000

_PROPOSAL: Final = ("id", "bottle_slug", "tool", "proposed_file", "arrival_timestamp")
_PROPOSAL_MAY: Final = ("justification", "current_file_hash", "expires_at", "fingerprint", "revises", "payload_sha256")
_ENTRY: Final = ("timestamp", "component", "operator_action")
_ENTRY_MAY: Final = ("operator_notes", "justification", "diff", "proposal_id", "payload_sha256", "final_sha256")
# The broker or the log fills these in; they may be present, because `AuditEntry.to_dict()` has them.
_ENTRY_IGNORED: Final = ("bottle_slug", "decided_by", "prev_hash", "entry_hash")


def parse(body: bytes) -> Any:
    """The JSON value in ``body``.

    Raises:
        Refusal: 400, it is invalid, or has a duplicate key or NaN.
    """
    try:
        return json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:
        reason = str(error)
    raise Refusal(400, InvalidInputError(f"the body is not JSON: {visible(reason, multiline=False)}"))


def proposal(body: Any, slug: str, now: datetime) -> Proposal:
    """The proposal that a body is, arriving ``now``.

    A clock in the bottle may be wrong or lie: the time of arrival is the host's, and it expires as long after that as
    the requester wanted.

    Raises:
        InvalidInputError, InvalidProposalError: the body is invalid.
        AccessDeniedError: it is another bottle's.
    """
    fields = _texts(body, _PROPOSAL, _PROPOSAL_MAY)
    if fields["bottle_slug"] != slug:
        raise AccessDeniedError(f"this token speaks for bottle {slug}; a proposal of another one is refused")
    claimed = fields.pop("payload_sha256", None)
    fields["justification"] = fields.get("justification") or ""
    asked = Proposal(**fields)
    fields["arrival_timestamp"] = timestamp(now)
    if asked.expires_at is not None:
        lasts = _moment(asked.expires_at) - _moment(asked.arrival_timestamp)
        try:
            fields["expires_at"] = timestamp(now + max(lasts, timedelta()))
        except OverflowError:
            raise InvalidProposalError("expires_at is past the year 9999; leave it out where nothing expires") from None
    made = Proposal(**fields)
    if claimed not in (None, made.payload_sha256):
        raise InvalidProposalError(
            f"payload_sha256 does not fit: proposed_file has {made.payload_sha256}; it was changed on its way here"
        )
    return made


def entries(body: Any, slug: str, now: datetime) -> list[AuditEntry]:
    """The audit entries of a body, as the bottle's own: whose they are, when they came, and that no person wrote them,
    is fixed here.

    Raises:
        InvalidInputError: there are none, or too many, or a field breaks its rule.
        AccessDeniedError: one is about something else than a sidecar.
    """
    given = _keys(body, ("entries",)).get("entries")
    if not isinstance(given, list) or len(given) > MAX_ENTRIES:
        raise InvalidInputError(f"entries must be a list of at most {MAX_ENTRIES}")
    return [_entry(each, slug, timestamp(now)) for each in given]


def _entry(body: Any, slug: str, now: str) -> AuditEntry:
    if isinstance(body, dict) and type(body.pop("seq", None)) not in (int, type(None)):
        raise InvalidInputError("seq must be a whole number")
    fields = _texts(body, _ENTRY, (*_ENTRY_MAY, *_ENTRY_IGNORED, "surface"))
    component = fields["component"]
    if component not in COMPONENTS:
        raise AccessDeniedError(
            f"a bottle writes entries about {', '.join(COMPONENTS)} only; decisions are written here"
        )
    if fields["operator_action"] in DECISION_WORDS or fields["operator_action"].startswith(("grant-", "host-")):
        word = visible(fields["operator_action"], multiline=False)
        raise AccessDeniedError(
            f"operator_action {word} is the host's word for what an operator does; use one of your own"
        )
    # This tells a policy's yes from a sidecar's entry; neither ever looks like a person's.
    surface: Surface = "policy" if fields.pop("surface", None) == "policy" else "api"
    given = {name: value for name, value in fields.items() if value is not None and name not in _ENTRY_IGNORED}
    # First as it was sent, so that an invalid time is refused; then with the host's time.
    AuditEntry(bottle_slug=slug, decided_by=component, surface=surface, **given)
    return AuditEntry(bottle_slug=slug, decided_by=component, surface=surface, **given | {"timestamp": now})


def timestamp(at: datetime) -> str:
    """A moment in UTC as the store writes it."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)


def texts(body: Any, must: Iterable[str], may: Iterable[str] = ()) -> dict[str, str]:
    """The fields of a body all of which are text; one that is null counts as left out.

    Raises:
        InvalidInputError: one is missing, unknown or not text.
    """
    return {name: value for name, value in _texts(body, must, may).items() if value is not None}


def query(given: Iterable[tuple[str, str]], known: Iterable[str]) -> dict[str, str]:
    """The parameters of a query, each at most once.

    Raises:
        InvalidInputError: one is unknown, or comes twice.
    """
    pairs = list(given)
    found = dict(pairs)
    if len(found) != len(pairs) or not found.keys() <= set(known):
        raise InvalidInputError(f"the query may have {', '.join(known)}, each once")
    return found


def _texts(body: Any, must: Iterable[str], may: Iterable[str]) -> dict[str, Any]:
    fields = _keys(body, (*must, *may))
    found = {name: fields.get(name) for name in (*must, *may) if name in fields or name in must}
    for name, value in found.items():
        if value is None and name not in must:
            continue
        if not isinstance(value, str):
            raise InvalidInputError(f"{name} must be a text" + ("" if name in fields else "; it is missing"))
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidInputError(f"{name} has half a surrogate pair at offset {error.start}") from None
    return found


def _keys(body: Any, known: Iterable[str]) -> Mapping[str, Any]:
    if not isinstance(body, dict):
        raise InvalidInputError("the body must be a JSON object")
    unknown = sorted(set(body) - set(known))
    if unknown:
        raise InvalidInputError(f"{visible(repr(unknown[0])[:80], multiline=False)} is not a field of this request")
    return body


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
