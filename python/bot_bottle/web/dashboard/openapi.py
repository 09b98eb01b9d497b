"""What may a program do for an operator, in OpenAPI's words? The document at ``/v1/openapi.json``.

Source: OpenAPI 3.1, https://spec.openapis.org/oas/v3.1.0. The tests hold the routes to it, and it to the types.
"""

from __future__ import annotations

from typing import Any, Final

from bot_bottle import __version__
from bot_bottle.web.broker.openapi import many, operation, ref, schemas, shape
from bot_bottle.web.problems import MEDIA_TYPE

_Schema = dict[str, Any]

_TEXT: Final[_Schema] = {"type": "string"}
_MAYBE_TEXT: Final[_Schema] = {"type": ["string", "null"]}
_NUMBER: Final[_Schema] = {"type": "integer"}
_FLAG: Final[_Schema] = {"type": "boolean"}
_HASH: Final[_Schema] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_ID: Final[_Schema] = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": _TEXT,
    "description": "An id, or as much of its beginning as is unique.",
}
_READS: Final = (422, 429)
_FINDS: Final = (404, 422, 429)
_DOES: Final = (400, 403, 404, 408, 409, 413, 415, 422, 429)


def document() -> dict[str, Any]:
    """The document, JSON-ready."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "bot-bottle for operators",
            "version": __version__,
            "license": {"name": "MIT", "identifier": "MIT"},
            "description": "What a program may do that acts for an operator: see what waits, look at one, decide. The "
            "token says in whose name. An error is a problem document (RFC 9457) whose `title` is the class that a "
            "client raises. Texts are as an agent wrote them: show them with care.",
        },
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "operator": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "43 characters of base64url",
                    "description": "From the file that `bot-bottle operator token` wrote.",
                }
            },
            "responses": {
                "Problem": {
                    "description": "Refused; `title` names the class, `detail` says why and what to do.",
                    "headers": {
                        "Retry-After": {
                            "description": "Seconds; there if the same request may succeed later (429 and 503).",
                            "schema": {"type": "integer", "minimum": 0},
                        }
                    },
                    "content": {MEDIA_TYPE: {"schema": ref("Problem")}},
                }
            },
        },
        "security": [{"operator": []}],
    }


def _paths() -> dict[str, Any]:
    return {
        "/v1/openapi.json": {"get": operation("openapi", "This document.", {"type": "object"}, errors=())},
        "/v1/me": {"get": operation("me", "Whose token is this, and what time is it there?", "Me", errors=())},
        "/v1/proposals": {
            "get": operation(
                "listProposals",
                "What waits (`pending`, oldest first), what is decided but not in effect (`failed`), or all, newest "
                "first (`any`). `next` is the id that leads to the next page, as `after`, or as `before` of `any`.",
                shape({"proposals": many("InboxSummary"), "next": _MAYBE_TEXT}),
                parameters=[
                    _asked("state", {"enum": ["pending", "failed", "any"], "default": "any"}),
                    _asked("bottle", _TEXT),
                    _asked("after", _TEXT),
                    _asked("before", _TEXT),
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
                shape({"changes": many("Change"), "last": _NUMBER}),
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
                    "200": {"description": "It goes on.", "content": {"text/event-stream": {"schema": _TEXT}}},
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
                parameters=[_asked("bottle", _TEXT), _asked("live", {"enum": ["true", "false"], "default": "true"})],
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
                    *(_asked(name, _TEXT) for name in ("component", "bottle", "since")),
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
                parameters=[_asked("since", _TEXT), _asked("bottle", _TEXT)],
            )
        },
        "/v1/views": {
            "post": operation(
                "noteView", "Notes that a review was shown, for the stats.", "Nothing", body="View", errors=_DOES
            )
        },
    }


def _asked(name: str, schema: _Schema) -> _Schema:
    return {"name": name, "in": "query", "schema": schema}


def _bounded(least: int, most: int, default: int | None = None) -> _Schema:
    schema: _Schema = {"type": "integer", "minimum": least, "maximum": most}
    return schema if default is None else {**schema, "default": default}


def _schemas() -> dict[str, _Schema]:
    known = schemas()
    item = known["InboxItem"]["properties"]
    part = shape(
        {
            "kind": {"enum": ["same", "removed", "added"]},
            "text": _TEXT,
            "changed": {"type": "array", "items": {"type": "array", "items": _NUMBER}},
        }
    )
    lines = {name: _NUMBER for name in ("before_line", "before_lines", "after_line", "after_lines")}
    hunk = shape({**lines, "parts": {"type": "array", "items": part}})
    return {
        **{
            name: known[name]
            for name in ("Problem", "Response", "ResponseSummary", "InboxSummary", "Message", "AuditEntry", "Grant")
        },
        "Me": shape({"name": _TEXT, "version": _TEXT, "time": _TEXT}),
        "Nothing": shape({}, closed=True),
        "InboxItem": shape(item),
        "Review": shape(
            {
                **item,
                **dict.fromkeys(("current_file", "current_sha256", "current_problem"), _MAYBE_TEXT),
                "hunks": {
                    "type": ["array", "null"],
                    "items": hunk,
                },
                "revised": {
                    "oneOf": [
                        shape({"id": _TEXT, "thread": many("Message"), "hunks": {"type": "array", "items": hunk}}),
                        {"type": "null"},
                    ]
                },
                "odd": {"type": "array", "items": shape({"kind": _TEXT, "message": _TEXT})},
                "review_sha256": _HASH,
            }
        ),
        "Question": shape(
            {
                "text": {**_TEXT, "description": "The agent reads it."},
                "surface": {"enum": ["api", "cli", "tui"], "default": "api"},
                "id": {**_TEXT, "format": "uuid", "description": "The same question under the same id is asked once."},
            },
            optional={"surface", "id"},
            closed=True,
        ),
        "Decision": shape(
            {
                "status": {"enum": ["approved", "modified", "rejected"]},
                "review_sha256": _HASH,
                "notes": {**_TEXT, "description": "The agent reads it."},
                "final_file": {**_TEXT, "description": "What shall run instead; with `modified`."},
                "grant": {**_TEXT, "description": "`once`, `uses:N`, `until:<RFC 3339>`, `for:<seconds>` or `bottle`."},
                "surface": {"enum": ["api", "cli", "tui"], "default": "api"},
            },
            optional={"notes", "final_file", "grant", "surface"},
            closed=True,
        ),
        "View": shape(
            {
                "proposal_id": _TEXT,
                "review_sha256": _HASH,
                "surface": {"enum": ["api", "cli", "tui"]},
                "shown_at": _TEXT,
                "whole_at": _MAYBE_TEXT,
            },
            optional={"whole_at"},
            closed=True,
        ),
        "Change": shape({"seq": _NUMBER, **dict.fromkeys(("kind", "proposal_id", "bottle_slug", "tool", "at"), _TEXT)}),
        "Bottle": shape(
            {
                **dict.fromkeys(("slug", "backend", "started_at"), _TEXT),
                **dict.fromkeys(("stopped_at", "damaged"), _MAYBE_TEXT),
                "files": {"type": "object", "additionalProperties": _TEXT},
                "pending": _NUMBER,
                "sidecars": shape({"state": _TEXT, "since": _MAYBE_TEXT, "detail": _TEXT}),
            }
        ),
    }
