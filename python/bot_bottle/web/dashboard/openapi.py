"""What may a program do for an operator, in OpenAPI's words? The document at ``/v1/openapi.json``.

Source: OpenAPI 3.1, https://spec.openapis.org/oas/v3.1.0. The tests hold the routes to it, and it to the types.
"""

from __future__ import annotations

from typing import Any, Final

from bot_bottle.web.broker.openapi import schemas
from bot_bottle.web.openapi import HASH, MAYBE_TEXT, NUMBER, TEXT, Schema, described, many, operation, ref, shape

_ID: Final[Schema] = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": TEXT,
    "description": "An id, or as much of its beginning as is unique.",
}
_READS: Final = (422, 429)
_FINDS: Final = (404, 422, 429)
_DOES: Final = (400, 403, 404, 408, 409, 413, 415, 422, 429)


def document() -> dict[str, Any]:
    """The document, JSON-ready."""
    return described(
        "bot-bottle for operators",
        "What a program may do that acts for an operator: see what waits, look at one, decide. The token says in whose "
        "name. An error is a problem document (RFC 9457) whose `title` is the class that a client raises. Texts are as "
        "an agent wrote them: show them with care.",
        paths=_paths(),
        schemas=_schemas(),
        token=("operator", "From the file that `bot-bottle operator token` wrote."),
    )


def _paths() -> dict[str, Any]:
    return {
        "/v1/openapi.json": {"get": operation("openapi", "This document.", {"type": "object"}, errors=())},
        "/v1/me": {"get": operation("me", "Whose token is this, and what time is it there?", "Me", errors=())},
        "/v1/proposals": {
            "get": operation(
                "listProposals",
                "What waits (`pending`, oldest first), what is decided but not in effect (`failed`), or all, newest "
                "first (`any`). `next` is the id that leads to the next page, as `after`, or as `before` of `any`.",
                shape({"proposals": many("InboxSummary"), "next": MAYBE_TEXT}),
                parameters=[
                    _asked("state", {"enum": ["pending", "failed", "any"], "default": "any"}),
                    _asked("bottle", TEXT),
                    _asked("after", TEXT),
                    _asked("before", TEXT),
                    _asked("limit", _bounded(1, 500, 100)),
                ],
                errors=_FINDS,
            )
        },
        "/v1/proposals/{id}": {
            "get": operation(
                "showProposal",
                "Where it stands; with `payload=false` as a list has it.",
                {"oneOf": [ref("InboxItem"), ref("InboxSummary")]},
                parameters=[_ID, _asked("payload", {"enum": ["true", "false"], "default": "true"})],
                errors=_FINDS,
            )
        },
        "/v1/proposals/{id}/review": {
            "get": operation(
                "reviewProposal",
                "All that must be seen before a decision, and the hash that a decision names.",
                "Review",
                parameters=[_ID],
                errors=_FINDS,
            )
        },
        "/v1/proposals/{id}/decision": {
            "post": operation(
                "decide",
                "Decides. The same again gets the same answer, by its Idempotency-Key or because it is what was "
                "decided; anything else about a decided proposal is 409.",
                "Response",
                parameters=[
                    _ID,
                    {
                        "name": "Idempotency-Key",
                        "in": "header",
                        "description": "Any text of yours. With another decision it is refused.",
                        "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
                    },
                ],
                body="Decision",
                errors=_DOES,
            )
        },
        "/v1/proposals/{id}/questions": {
            "post": operation(
                "ask",
                "Asks back about a pending proposal, or asks for changes; whoever waits for it is told.",
                "Message",
                parameters=[_ID],
                body="Question",
                errors=_DOES,
            )
        },
        "/v1/proposals/{id}/archive": {
            "post": operation(
                "archiveProposal",
                "Puts away what is decided or over.",
                "InboxSummary",
                parameters=[_ID],
                body="Nothing",
                errors=_DOES,
            )
        },
        "/v1/changes": {
            "get": operation(
                "changes",
                "The changes after `since`, by default the last one there is, oldest first. Without any it waits up to "
                "`wait` seconds, at most 25. A `last` that is less than `since` says that the database was set back.",
                shape({"changes": many("Change"), "last": NUMBER}),
                parameters=[
                    _asked("since", _bounded(0, 2**63 - 1)),
                    _asked("limit", _bounded(1, 1000, 1000)),
                    _asked("wait", {"type": "number", "minimum": 0, "maximum": 86400, "default": 0}),
                ],
                errors=_READS,
            )
        },
        "/v1/events": {
            "get": {
                "operationId": "events",
                "summary": "The same as server-sent events: `change`, and `reload` if the database was set back. The "
                "id of an event is the number of its change; sent as `Last-Event-ID` it goes on from there.",
                "parameters": [_asked("since", _bounded(0, 2**63 - 1))],
                "responses": {
                    "200": {"description": "It goes on.", "content": {"text/event-stream": {"schema": TEXT}}},
                    **{str(each): {"$ref": "#/components/responses/Problem"} for each in (401, 422, 429, 500, 503)},
                },
            }
        },
        "/v1/grants": {
            "get": operation(
                "listGrants",
                "Grants, newest first; with `live=false` those too that have ended.",
                shape({"grants": many("Grant")}),
                errors=_FINDS,
                parameters=[_asked("bottle", TEXT), _asked("live", {"enum": ["true", "false"], "default": "true"})],
            )
        },
        "/v1/grants/{id}/revoke": {
            "post": operation(
                "revokeGrant", "Ends a grant now.", "Grant", parameters=[_ID], body="Nothing", errors=_DOES
            )
        },
        "/v1/bottles": {
            "get": operation(
                "listBottles",
                "Bottles, and what the engine says of their sidecars.",
                shape({"bottles": many("Bottle")}),
                parameters=[_asked("running", {"enum": ["true", "false"], "default": "false"})],
            )
        },
        "/v1/audit": {
            "get": operation(
                "listEntries",
                "The newest entries of the audit log, oldest of them first.",
                shape({"entries": many("AuditEntry")}),
                errors=_FINDS,
                parameters=[
                    *(_asked(name, TEXT) for name in ("component", "bottle", "since")),
                    _asked("limit", _bounded(1, 1000, 100)),
                ],
            )
        },
        "/v1/stats": {
            "get": operation(
                "stats",
                "How much waits and was decided, and how people decide; docs/oversight.md says what it answers.",
                {"type": "object"},
                errors=_FINDS,
                parameters=[_asked("since", TEXT), _asked("bottle", TEXT)],
            )
        },
        "/v1/views": {
            "post": operation(
                "noteView", "Notes that a review was shown, for the stats.", "Nothing", body="View", errors=_DOES
            )
        },
    }


def _asked(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "schema": schema}


def _bounded(least: int, most: int, default: int | None = None) -> Schema:
    schema: Schema = {"type": "integer", "minimum": least, "maximum": most}
    return schema if default is None else {**schema, "default": default}


def _schemas() -> dict[str, Schema]:
    known = schemas()
    item = known["InboxItem"]["properties"]
    part = shape(
        {
            "kind": {"enum": ["same", "removed", "added"]},
            "text": TEXT,
            "changed": {"type": "array", "items": {"type": "array", "items": NUMBER}},
        }
    )
    lines = {name: NUMBER for name in ("before_line", "before_lines", "after_line", "after_lines")}
    hunk = shape({**lines, "parts": {"type": "array", "items": part}})
    return {
        **{
            name: known[name]
            for name in ("Problem", "Response", "ResponseSummary", "InboxSummary", "Message", "AuditEntry", "Grant")
        },
        "Me": shape({"name": TEXT, "version": TEXT, "time": TEXT}),
        "Nothing": shape({}, closed=True),
        "InboxItem": shape(item),
        "Review": shape(
            {
                **item,
                **dict.fromkeys(("current_file", "current_sha256", "current_problem"), MAYBE_TEXT),
                "hunks": {
                    "type": ["array", "null"],
                    "items": hunk,
                },
                "revised": {
                    "oneOf": [
                        shape({"id": TEXT, "thread": many("Message"), "hunks": {"type": "array", "items": hunk}}),
                        {"type": "null"},
                    ]
                },
                "odd": {"type": "array", "items": shape({"kind": TEXT, "message": TEXT})},
                "review_sha256": HASH,
            }
        ),
        "Question": shape(
            {
                "text": {**TEXT, "description": "The agent reads it."},
                "surface": {"enum": ["api", "cli", "tui"], "default": "api"},
                "id": {**TEXT, "format": "uuid", "description": "The same question under the same id is asked once."},
            },
            optional={"surface", "id"},
            closed=True,
        ),
        "Decision": shape(
            {
                "status": {"enum": ["approved", "modified", "rejected"]},
                "review_sha256": HASH,
                "notes": {**TEXT, "description": "The agent reads it."},
                "final_file": {**TEXT, "description": "What shall run instead; with `modified`."},
                "grant": {
                    **TEXT,
                    "description": "`once`, `uses:N`, `until:<RFC 3339>`, `for:<seconds>` or `bottle`; after `kind:` "
                    "for all of the kind; `prefix:for:<seconds> git status` for commands that begin with these words.",
                },
                "surface": {"enum": ["api", "cli", "tui"], "default": "api"},
            },
            optional={"notes", "final_file", "grant", "surface"},
            closed=True,
        ),
        "View": shape(
            {
                "proposal_id": TEXT,
                "review_sha256": HASH,
                "surface": {"enum": ["api", "cli", "tui"]},
                "shown_at": TEXT,
                "whole_at": MAYBE_TEXT,
            },
            optional={"whole_at"},
            closed=True,
        ),
        "Change": shape({"seq": NUMBER, **dict.fromkeys(("kind", "proposal_id", "bottle_slug", "tool", "at"), TEXT)}),
        "Bottle": shape(
            {
                **dict.fromkeys(("slug", "backend", "started_at"), TEXT),
                **dict.fromkeys(("stopped_at", "damaged"), MAYBE_TEXT),
                "files": {"type": "object", "additionalProperties": TEXT},
                "pending": NUMBER,
                "sidecars": shape({"state": TEXT, "since": MAYBE_TEXT, "detail": TEXT}),
            }
        ),
    }
