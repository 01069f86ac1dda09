"""The OpenAPI 3.1 document, made from the table of routes and the types it names."""

import re
from typing import Final

import msgspec
from msgspec import Struct

from ingest.access import TENANT
from ingest.reading import CURSOR
from ingest.replies import Readiness, Refusal
from ingest.routes import ROUTES, Row

JsonObject = dict[str, object]
_PATH_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_TEXT: Final[JsonObject] = {"type": "string"}
_TIME: Final[JsonObject] = _TEXT | {"anyOf": [{"format": "date-time"}, {"format": "date"}]}
_PARAMETERS: Final[dict[str, tuple[JsonObject, str]]] = {
    "tenant": (
        _TEXT | {"pattern": f"^{TENANT}$"},
        "The credential's own if left out.",
    ),
    "limit": ({"type": "integer", "minimum": 1, "maximum": 100}, "Rows of a page."),
    "cursor": (_TEXT | {"pattern": f"^{CURSOR}$"}, "The next of the page before."),
    "since": (_TIME, "From this time on."),
    "until": (_TIME, "Before this time."),
    "before": (_TIME, "Received before this time, which must not lie in the future; now if left out."),
    "session": (_TEXT, "The id of a session."),
    "agent": (_TEXT, "The name of an agent."),
    "model": (_TEXT, "The name of a model."),
    "provider": (_TEXT, "The name of a provider."),
    "state": (_TEXT | {"enum": ["accepted", "rejected"]}, "Acknowledged, or kept although refused."),
    "request_id": (_TEXT, "The id that the producer posted it under."),
    "by": (_TEXT, "Keys to group by: day, provider, model, agent_name, session_id."),
}
_REQUEST_HEADERS: Final = {
    "idempotency-key": "One key is one turn of the tenant, for good; without it meta.request_id is the key,"
    " under which another body is another turn.",
    "x-paper-auth-subject": "Who it is of; it counts before session.auth_subject.",
}
_COUNT: Final[JsonObject] = {"type": "integer", "minimum": 1}
_TRUE: Final[JsonObject] = _TEXT | {"const": "true"}
_ANSWER_HEADERS: Final[dict[str, tuple[JsonObject, str]]] = {
    "steno-turn-id": (_TEXT, "The id of the stored turn."),
    "steno-duplicate": (_TRUE, "The turn was stored already."),
    "steno-request-id-reused": (_TRUE, "Its request id was another turn's before; both are kept."),
    "accept-encoding": (_TEXT, "The content codings that bodies may have."),
    "retry-after": (_COUNT, "Seconds after which it is worth another try."),
    "www-authenticate": (_TEXT, "The scheme of the credential."),
}
_OF_STATUS: Final = {401: "www-authenticate", 429: "retry-after", 502: "retry-after", 503: "retry-after"}
"""What every refusal of a status has."""
_REASONS: Final = {
    400: "What was sent cannot be read.",
    401: "No credential, or an unknown one.",
    403: "The credential is not good for this.",
    404: "There is no such thing here.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    422: "The turn cannot be processed; it was kept as rejected.",
    429: "The tenant is over a limit; Retry-After says when to come again.",
    500: "A turn met a bug here; nothing was stored.",
    502: "Too much is waiting; send it again later.",
    503: "The store is away; send it again later.",
}


def document(version: str) -> JsonObject:
    """The document for this version of the service."""
    types = {kind for row in ROUTES for kind in (row.takes, row.gives) if kind is not None}
    names = sorted(types | {Refusal}, key=lambda kind: kind.__name__)
    schemas, components = msgspec.json.schema_components(
        names, schema_hook=_anything, ref_template="#/components/schemas/{name}"
    )
    by_type = dict(zip(names, schemas, strict=True))
    paths: dict[str, JsonObject] = {}
    for row in ROUTES:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row, by_type)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Steno ingest", "version": version, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _anything(kind: type) -> JsonObject:
    """The schema of ``object``, by which our types say: any JSON value."""
    if kind is object:
        return {"description": "any JSON value"}
    raise NotImplementedError


def _operation(row: Row, schemas: dict[type[Struct], JsonObject]) -> JsonObject:
    operation: JsonObject = {
        "summary": row.summary,
        "operationId": row.handler.__name__,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": _TEXT}
            for name in _PATH_PARAMETER.findall(row.path)
        ]
        + [_parameter(name, required=name in row.required) for name in row.query]
        + [
            {"name": name, "in": "header", "schema": _TEXT, "description": _REQUEST_HEADERS[name]}
            for name in row.headers
        ],
        "responses": _responses(row, schemas),
    }
    if row.takes is not None:
        content = {"application/json": {"schema": schemas[row.takes]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameter(name: str, *, required: bool) -> JsonObject:
    schema, description = _PARAMETERS[name]
    return {"name": name, "in": "query", "required": required, "schema": schema, "description": description}


def _responses(row: Row, schemas: dict[type[Struct], JsonObject]) -> JsonObject:
    good: JsonObject = {"description": row.summary}
    if row.gives is not None:
        good["content"] = {"application/json": {"schema": schemas[row.gives]}}
    else:
        schema: JsonObject = {"type": "object"} if row.media_type == "application/json" else _TEXT
        good["content"] = {row.media_type: {"schema": schema}}
    responses: dict[str, JsonObject] = {str(row.status): good}
    for status in row.refusals:
        kind = row.refusal_types.get(status, Refusal)
        content = {"application/json": {"schema": schemas[kind]}}
        responses[str(status)] = {"description": _REASONS[status], "content": content}
    for known, response in responses.items():
        if names := _headers(row, int(known)):
            response["headers"] = {
                name: {"schema": schema, "description": description}
                for name, (schema, description) in _ANSWER_HEADERS.items()
                if name in names
            }
    return dict(responses)


def _headers(row: Row, status: int) -> tuple[str, ...]:
    """The names of the headers that an answer of this status may have."""
    told = row.tells.get(status, ())
    if row.takes is not None:
        told += ("accept-encoding",)
    is_refusal = status in row.refusals and row.refusal_types.get(status) is not Readiness
    return (*told, _OF_STATUS[status]) if is_refusal and status in _OF_STATUS else told
