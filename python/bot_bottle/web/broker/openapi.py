"""What does the broker offer, in OpenAPI's words? The document at ``/v1/openapi.json``.

Source: OpenAPI 3.1, https://spec.openapis.org/oas/v3.1.0. The tests hold the broker to it.
"""

from __future__ import annotations

from typing import Any, Final

from bot_bottle import MAX_JUSTIFICATION_BYTES, MAX_MESSAGE_BYTES, MAX_NOTES_BYTES, MAX_PAYLOAD_BYTES
from bot_bottle.web.broker import bodies
from bot_bottle.web.limits import Limits
from bot_bottle.web.openapi import FLAG, HASH, MAYBE_TEXT, NUMBER, TEXT, Schema, described, many, operation, ref, shape

MAX_WAIT_SECONDS: Final = 86400

_MAYBE_NUMBER: Final[Schema] = {"type": ["integer", "null"]}
_NAME: Final[Schema] = {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,62}$"}
_ID: Final[Schema] = {"type": "string", "format": "uuid", "description": "UUIDv7 (RFC 9562)"}
_TIME: Final[Schema] = {
    "type": "string",
    "format": "date-time",
    "description": "RFC 3339; the broker's own are UTC with microseconds and `Z`",
}


def document(limits: Limits) -> dict[str, Any]:
    """The document, JSON-ready, for a broker with these limits."""
    return described(
        "bot-bottle broker",
        "What the sidecars of one bottle may do on its host. The token says which bottle; nothing here decides, lists "
        "other bottles or reaches a file. An error is a problem document (RFC 9457) whose `title` is the class that a "
        "client raises.",
        paths=_paths(limits),
        schemas=schemas(),
        token=("bottle", "The bottle's token, from the file that `Supervise.prepare` wrote."),
    )


def _paths(limits: Limits) -> dict[str, Any]:
    proposal_id = {"name": "id", "in": "path", "required": True, "schema": TEXT, "description": "A proposal's id."}
    return {
        "/v1/health": {
            "get": operation("health", "Is the broker there? Needs no token.", "Health", errors=(), security=[])
        },
        "/v1/openapi.json": {
            "get": operation("openapi", "This document. Needs no token.", {"type": "object"}, errors=(), security=[])
        },
        "/v1/bottle": {"get": operation("bottle", "Whose token is this, and what time is it here?", "Bottle")},
        "/v1/proposals": {
            "get": operation(
                "listProposals",
                "The pending proposals, oldest first (`pending=true`), or the newest of any state, newest first.",
                shape({"items": many("InboxSummary")}),
                parameters=[
                    {"name": "pending", "in": "query", "schema": {"type": "string", "enum": ["true", "false"]}},
                    {
                        "name": "limit",
                        "in": "query",
                        "description": "Not together with `pending=true`.",
                        "schema": {"type": "integer", "minimum": 1, "maximum": bodies.MAX_ITEMS, "default": 100},
                    },
                ],
            ),
            "post": operation(
                "propose",
                "Queues a proposal of this bottle. The same again, after a lost answer say, changes nothing; one that "
                "asks what a pending one asks joins it, and the answer has that one's id.",
                shape({"proposal": ref("Proposal")}),
                body="NewProposal",
                errors=(400, 403, 404, 408, 409, 413, 422),
            ),
        },
        "/v1/proposals/{id}": {
            "get": operation(
                "showProposal", "A proposal and where it stands.", "InboxItem", parameters=[proposal_id], errors=(404,)
            )
        },
        "/v1/proposals/{id}/response": {
            "get": operation(
                "awaitResponse",
                "Waits for the answer. What is known at once has its own status. Otherwise status 200 comes at once, a "
                f"space every {limits.sign_of_life_seconds:g} s as a sign of life, then one envelope: `response`, a "
                "`question` of the operator's, a `problem` (how the proposal ended instead), or `pending`, after "
                "which the client asks again.",
                {
                    "oneOf": [
                        shape({"response": ref("Response")}),
                        shape({"question": ref("Message")}),
                        shape({"problem": ref("Problem")}),
                        shape({"pending": {"const": True}}),
                    ]
                },
                parameters=[
                    proposal_id,
                    {
                        "name": "wait",
                        "in": "query",
                        "description": f"Seconds; more than {limits.wait_seconds:g} is as good as that. 0 only looks.",
                        "schema": {"type": "number", "minimum": 0, "maximum": MAX_WAIT_SECONDS, "default": 0},
                    },
                    {
                        "name": "questions_after",
                        "in": "query",
                        "description": "Given, the first question that is not answered ends the wait too, of those "
                        "that came after the message with this id; empty: of all.",
                        "schema": {"type": "string", "pattern": "^([0-9a-fA-F-]{32,36})?$"},
                    },
                ],
                errors=(404, 409, 422),
            )
        },
        "/v1/proposals/{id}/answer": {
            "post": operation(
                "answerQuestion",
                "Answers what the operator asked about a proposal. The same message again, after a lost answer say, "
                "changes nothing.",
                "Message",
                parameters=[proposal_id],
                body="NewAnswer",
                errors=(400, 404, 408, 409, 413, 422),
            )
        },
        "/v1/proposals/{id}/withdraw": {
            "post": operation(
                "withdrawProposal",
                "Takes a proposal back; those who wait for it are told. Twice is no error.",
                None,
                parameters=[proposal_id],
                body="Withdrawal",
                errors=(400, 404, 408, 409, 413, 422),
            )
        },
        "/v1/proposals/{id}/archive": {
            "post": operation(
                "archiveProposal",
                "Puts a proposal away; a pending one is withdrawn first. Twice is no error.",
                None,
                parameters=[proposal_id],
                errors=(404,),
            )
        },
        "/v1/audit": {
            "post": operation(
                "audit",
                "Appends entries to the audit log, all or none. They are this bottle's, and no person's: "
                "`bottle_slug` and `decided_by` (the component) are set here, `surface` is `api` or `policy`.",
                shape({"entries": many("AuditEntry")}),
                body="NewEntries",
                errors=(400, 403, 404, 408, 413, 422),
            )
        },
        "/v1/grants/find": {
            "post": operation(
                "findGrant",
                "The live grant for this tool and fingerprint whose use would be spent next. Spends nothing.",
                "Grant",
                body="GrantUse",
                errors=(400, 404, 408, 413, 422),
            )
        },
        "/v1/grants/use": {
            "post": operation(
                "useGrant",
                "Spends one use of a live grant for this tool and fingerprint.",
                "Grant",
                body="GrantUse",
                errors=(400, 404, 408, 413, 422),
            )
        },
    }


def schemas() -> dict[str, Schema]:
    """What the values of the store are in JSON; the broker and the operators' API have the same."""
    asked = {
        "id": _ID,
        "bottle_slug": _NAME,
        "tool": _NAME,
        "proposed_file": {
            "type": "string",
            "minLength": 1,
            "description": f"At most {MAX_PAYLOAD_BYTES} bytes of UTF-8.",
        },
        "justification": {"type": "string", "description": f"At most {MAX_JUSTIFICATION_BYTES} bytes of UTF-8."},
        "arrival_timestamp": _TIME,
        "current_file_hash": {"type": ["string", "null"], "pattern": "^([0-9a-f]{64})?$"},
        "expires_at": {**_TIME, "type": ["string", "null"]},
        "fingerprint": {"type": ["string", "null"], "maxLength": 512},
        "revises": {**_ID, "type": ["string", "null"], "description": "The pending proposal in whose place it is put."},
    }
    proposal = {**asked, "payload_sha256": HASH}
    may_be_left_out = {"justification", "current_file_hash", "expires_at", "fingerprint", "revises", "payload_sha256"}
    answered = {
        "proposal_id": _ID,
        "status": {"enum": ["approved", "modified", "rejected"]},
        "notes": TEXT,
        **dict.fromkeys(
            (
                "payload_sha256",
                "review_sha256",
                "final_sha256",
                "decided_by",
                "surface",
                "decided_at",
                "applied_at",
            ),
            MAYBE_TEXT,
        ),
        "signed": {
            "oneOf": [
                shape(
                    {
                        **dict.fromkeys(("bottle_slug", "tool", "key_id", "signature"), TEXT),
                        "scope": MAYBE_TEXT,
                    }
                ),
                {"type": "null"},
            ]
        },
    }
    standing = {
        "queue_key": _NAME,
        "state": {"enum": ["pending", "approved", "modified", "rejected", "expired", "withdrawn"]},
        "waiting": FLAG,
        "requests": NUMBER,
        "revision": NUMBER,
        "last_word": {"enum": ["operator", "requester", None]},
        "thread": {**many("Message"), "description": "In a list it is empty."},
        **dict.fromkeys(
            (
                "waiting_until",
                "withdrawn_at",
                "withdrawn_reason",
                "archived_at",
                "managed_file",
                "apply_state",
                "apply_error",
                "base_sha256",
                "damaged",
            ),
            MAYBE_TEXT,
        ),
    }
    noted = {
        "timestamp": _TIME,
        "component": {"enum": list(bodies.COMPONENTS)},
        "operator_action": {"type": "string", "maxLength": 256},
        "operator_notes": {**MAYBE_TEXT, "description": f"At most {MAX_NOTES_BYTES} bytes of UTF-8."},
        "justification": MAYBE_TEXT,
        "diff": MAYBE_TEXT,
        "surface": {**MAYBE_TEXT, "description": "`policy` stays, anything else becomes `api`."},
        "proposal_id": {**MAYBE_TEXT, "description": "One of this bottle's."},
        "payload_sha256": {**HASH, "type": ["string", "null"]},
        "final_sha256": {**HASH, "type": ["string", "null"]},
    }
    ignored = {
        **{name: {**MAYBE_TEXT, "description": "Set by the broker."} for name in ("bottle_slug", "decided_by")},
        "seq": {**_MAYBE_NUMBER, "description": "Set by the log."},
        **{name: {**MAYBE_TEXT, "description": "Set by the log."} for name in ("prev_hash", "entry_hash")},
    }
    return {
        "Health": shape({"status": {"const": "ok"}, "version": TEXT}),
        "Bottle": shape({"slug": _NAME, "version": TEXT, "time": _TIME}),
        "Problem": shape(
            {
                "type": {"type": "string", "pattern": "^urn:bot-bottle:error:[A-Za-z]+$"},
                "title": {"type": "string", "description": "The error's class; see docs/cli.md for its exit code."},
                "status": NUMBER,
                "detail": {"type": "string", "description": "One sentence."},
                "data": {"type": "object", "description": "The attributes of the class."},
            }
        ),
        "NewProposal": shape(
            {**proposal, **{name: {**proposal[name], "type": ["string", "null"]} for name in may_be_left_out}},
            optional=may_be_left_out,
            closed=True,
        ),
        "Proposal": shape(proposal),
        "Response": shape(answered | dict.fromkeys(("final_file", "diff"), MAYBE_TEXT)),
        "ResponseSummary": shape(answered | {"final_bytes": _MAYBE_NUMBER}),
        "InboxItem": shape(proposal | standing | {"response": {"oneOf": [ref("Response"), {"type": "null"}]}}),
        "InboxSummary": shape(
            {**{name: schema for name, schema in proposal.items() if name != "proposed_file"}, "payload_bytes": NUMBER}
            | standing
            | {"response": {"oneOf": [ref("ResponseSummary"), {"type": "null"}]}}
        ),
        "Message": shape(
            {
                "id": _ID,
                "proposal_id": _ID,
                "sender": {"enum": ["operator", "requester"]},
                "text": {"type": "string", "description": f"At most {MAX_MESSAGE_BYTES} bytes of UTF-8."},
                **dict.fromkeys(("written_by", "surface", "written_at"), TEXT),
                "signed": {
                    "oneOf": [
                        shape(dict.fromkeys(("bottle_slug", "tool", "payload_sha256", "key_id", "signature"), TEXT)),
                        {"type": "null"},
                    ]
                },
                "damaged": MAYBE_TEXT,
            }
        ),
        "NewAnswer": shape(
            {"id": _ID, "text": {"type": "string", "description": f"At most {MAX_MESSAGE_BYTES} bytes of UTF-8."}},
            closed=True,
        ),
        "Withdrawal": shape({"reason": MAYBE_TEXT}, optional={"reason"}, closed=True),
        "NewEntries": shape(
            {
                "entries": {
                    "type": "array",
                    "maxItems": bodies.MAX_ENTRIES,
                    "items": shape(
                        {**noted, **ignored},
                        optional={*noted, *ignored} - {"timestamp", "component", "operator_action"},
                        closed=True,
                    ),
                }
            },
            closed=True,
        ),
        "AuditEntry": shape(
            {
                **dict.fromkeys(
                    (
                        "timestamp",
                        "bottle_slug",
                        "component",
                        "operator_action",
                        "operator_notes",
                        "justification",
                        "diff",
                        "decided_by",
                        "surface",
                        "prev_hash",
                        "entry_hash",
                    ),
                    TEXT,
                ),
                **dict.fromkeys(("proposal_id", "payload_sha256", "final_sha256"), MAYBE_TEXT),
                "seq": NUMBER,
            }
        ),
        "GrantUse": shape({"tool": _NAME, "fingerprint": {"type": "string", "maxLength": 512}}, closed=True),
        "Grant": shape(
            {
                **dict.fromkeys(
                    (
                        *("id", "bottle_slug", "tool", "fingerprint", "scope", "created_at", "created_by"),
                        *("key_id", "signature"),
                    ),
                    TEXT,
                ),
                **dict.fromkeys(
                    ("expires_at", "proposal_id", "last_used_at", "revoked_at", "revoked_by", "damaged"), MAYBE_TEXT
                ),
                "uses": _MAYBE_NUMBER,
                "uses_left": _MAYBE_NUMBER,
                "live": FLAG,
            }
        ),
    }
