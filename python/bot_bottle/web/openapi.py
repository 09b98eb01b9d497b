"""In what words of OpenAPI do both APIs, the broker's and the operators', describe themselves?

Source: OpenAPI 3.1, https://spec.openapis.org/oas/v3.1.0.
"""

from __future__ import annotations

from typing import Any, Final

from bot_bottle import __version__
from bot_bottle.web.problems import MEDIA_TYPE

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
MAYBE_TEXT: Final[Schema] = {"type": ["string", "null"]}
NUMBER: Final[Schema] = {"type": "integer"}
FLAG: Final[Schema] = {"type": "boolean"}
HASH: Final[Schema] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}


def described(
    title: str, description: str, *, paths: dict[str, Any], schemas: dict[str, Schema], token: tuple[str, str]
) -> dict[str, Any]:
    """A whole document, JSON-ready. ``token`` is the name of the security scheme, and where a client gets one."""
    scheme, whence = token
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": __version__,
            "license": {"name": "MIT", "identifier": "MIT"},
            "description": description,
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                scheme: {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "43 characters of base64url",
                    "description": whence,
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
        "security": [{scheme: []}],
    }


def operation(
    name: str,
    summary: str,
    result: str | Schema | None,
    *,
    parameters: list[Schema] | None = None,
    body: str | None = None,
    errors: tuple[int, ...] = (422,),
    security: list[Any] | None = None,
) -> Schema:
    """What one method of one path takes and returns; ``security=[]``: without a token."""
    operation: Schema = {"operationId": name, "summary": summary}
    if parameters:
        operation["parameters"] = parameters
    if body:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": ref(body)}}}
    if result is None:
        responses: Schema = {"204": {"description": "Done."}}
    else:
        schema = ref(result) if isinstance(result, str) else result
        responses = {"200": {"description": "Done.", "content": {"application/json": {"schema": schema}}}}
    always = () if security == [] else (401, 429, 500, 503)
    for status in sorted((*errors, *always)):
        responses[str(status)] = {"$ref": "#/components/responses/Problem"}
    operation["responses"] = responses
    if security is not None:
        operation["security"] = security
    return operation


def shape(properties: Schema, *, optional: set[str] | None = None, closed: bool = False) -> Schema:
    """An object all of whose properties are there but for ``optional``; a ``closed`` one has no others."""
    schema: Schema = {"type": "object", "properties": properties}
    required = [name for name in properties if name not in (optional or set())]
    if required:
        schema["required"] = required
    if closed:
        schema["additionalProperties"] = False
    return schema


def many(name: str) -> Schema:
    """A list of what is called so."""
    return {"type": "array", "items": ref(name)}


def ref(name: str) -> Schema:
    """What is called so among the schemas."""
    return {"$ref": f"#/components/schemas/{name}"}
