"""The table of contents: every route of the service, one row each.

The router, the OpenAPI document and the tests read this table and nothing else.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest import administering, condition, reading, streaming, views, writing
from ingest.replies import (
    Accepted,
    Alive,
    Batch,
    BatchAnswer,
    Deleted,
    NodeList,
    PostedTurn,
    Pulse,
    Readiness,
    Requeued,
    TranscriptAnswer,
    TranscriptPayload,
)

Handler = Callable[[Request], Awaitable[Response]]
_PARAMETER: Final = re.compile(r"\{(\w+)\}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One route.

    ``takes`` and ``gives`` are the types of the bodies (None: no body, or ``media_type``
    instead of JSON); ``status`` is that of success, ``refusals`` are the others, with
    ``Refusal`` as body unless ``refusal_types`` says otherwise. ``headers`` are those of the request that
    are understood, ``tells`` those of the answers, beside the ones that every refusal of a status has.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    takes: type[Struct] | None = None
    query: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    gives: type[Struct] | None
    media_type: str = "text/plain"
    status: int = 200
    refusals: tuple[int, ...] = ()
    refusal_types: Mapping[int, type[Struct]] = field(default_factory=dict[int, type[Struct]])
    tells: Mapping[int, tuple[str, ...]] = field(default_factory=dict[int, tuple[str, ...]])


READ: Final = (400, 401, 403, 503)
CONTRACT: Final = "/v1/ingest"
"""The routes of the contract and of v0.9, whose callers are not ours: there unknown parameters pass."""
PAGED: Final = ("limit", "cursor", "since", "until")

ROUTES: Final = (
    Row(
        method="POST",
        path="/v1/ingest",
        handler=writing.post_turn,
        summary="Store one turn.",
        takes=PostedTurn,
        headers=("idempotency-key",),
        gives=Accepted,
        status=202,
        tells={
            202: ("steno-turn-id", "steno-duplicate", "steno-request-id-reused"),
            422: ("steno-turn-id",),
        },
        refusals=(400, 401, 403, 408, 413, 422, 429, 500, 502, 503),
    ),
    Row(
        method="POST",
        path="/v1/ingest/batch",
        handler=writing.post_batch,
        summary="Store several turns; each is judged as if it had come alone.",
        takes=Batch,
        gives=BatchAnswer,
        status=202,
        tells={202: ("retry-after",)},
        refusals=(400, 401, 403, 408, 413, 422, 502, 503),
        refusal_types={422: BatchAnswer, 503: BatchAnswer},
    ),
    Row(
        method="POST",
        path="/v1/ingest/transcript",
        handler=writing.post_transcript,
        summary="Store a harness's own record of a session.",
        takes=TranscriptPayload,
        query=("tenant",),
        headers=("x-paper-auth-subject",),
        gives=TranscriptAnswer,
        status=202,
        tells={202: ("steno-turn-id",)},
        refusals=(400, 401, 403, 408, 413, 429, 500, 502, 503),
    ),
    Row(
        method="GET",
        path="/v1/ingest/nodes",
        handler=reading.list_nodes,
        summary="List nodes, newest first (the shape of v0.9).",
        query=("tenant", "agent"),
        gives=NodeList,
        refusals=READ,
    ),
    Row(
        method="GET",
        path="/v1/turns",
        handler=reading.list_turns,
        summary="List turns, newest first.",
        query=("tenant", *PAGED, "session", "agent", "model", "provider", "state", "request_id"),
        gives=views.TurnPage,
        refusals=READ,
    ),
    Row(
        method="GET",
        path="/v1/turns/{id}",
        handler=reading.get_turn,
        summary="Show a turn, by its id or by the request id it was posted under.",
        query=("tenant",),
        gives=views.TurnDetail,
        refusals=(*READ, 404),
    ),
    Row(
        method="GET",
        path="/v1/sessions",
        handler=reading.list_sessions,
        summary="List sessions, the last active first.",
        query=("tenant", *PAGED),
        gives=views.SessionPage,
        refusals=READ,
    ),
    Row(
        method="GET",
        path="/v1/sessions/{id}",
        handler=reading.get_session,
        summary="Show a session and a page of its runs.",
        query=("tenant", *PAGED),
        gives=views.SessionDetail,
        refusals=(*READ, 404),
    ),
    Row(
        method="GET",
        path="/v1/runs/{id}",
        handler=reading.get_run,
        summary="Show a run and a page of its steps.",
        query=("tenant", *PAGED),
        gives=views.RunView,
        refusals=(*READ, 404),
    ),
    Row(
        method="GET",
        path="/v1/nodes/{hash}",
        handler=reading.get_node,
        summary="Show a node and what came before it.",
        query=("tenant", "limit"),
        gives=views.NodeView,
        refusals=(*READ, 404),
    ),
    Row(
        method="GET",
        path="/v1/usage",
        handler=reading.get_usage,
        summary="Show token totals, by default of each day of the last thirty.",
        query=("tenant", "by", *PAGED),
        gives=views.UsageList,
        refusals=READ,
    ),
    Row(
        method="GET",
        path="/v1/events",
        handler=streaming.stream_events,
        summary="Stream what happens, without bodies, as server-sent events.",
        query=("tenant",),
        gives=None,
        media_type="text/event-stream",
        refusals=READ,
    ),
    Row(
        method="DELETE",
        path="/v1/turns",
        handler=administering.delete_turns,
        summary="Delete the turns of a tenant or session, received before a time.",
        query=("tenant", "session", "before"),
        required=("tenant",),
        gives=Deleted,
        refusals=READ,
    ),
    Row(
        method="GET",
        path="/v1/export",
        handler=administering.export,
        summary="Write out the turns of a tenant as JSON lines.",
        query=("tenant", "state"),
        required=("tenant",),
        gives=None,
        media_type="application/x-ndjson",
        refusals=READ,
    ),
    Row(
        method="POST",
        path="/v1/derive",
        handler=administering.derive_again,
        summary="Derive everything again from the stored turns.",
        gives=Requeued,
        status=202,
        refusals=READ,
    ),
    Row(
        method="GET",
        path="/ping",
        handler=condition.ping,
        summary="Answer a sidecar's heartbeat.",
        gives=Pulse,
        tells={200: ("accept-encoding",)},
    ),
    Row(
        method="GET",
        path="/healthz",
        handler=condition.healthy,
        summary="Say that the process answers.",
        gives=Alive,
    ),
    Row(
        method="GET",
        path="/readyz",
        handler=condition.ready,
        summary="Say whether turns can be stored now.",
        gives=Readiness,
        refusals=(503,),
        refusal_types={503: Readiness},
    ),
    Row(
        method="GET",
        path="/openapi",
        handler=condition.openapi,
        summary="Show this document.",
        gives=None,
        media_type="application/json",
    ),
    Row(method="GET", path="/metrics", handler=condition.metrics, summary="Show the metrics.", gives=None),
)


def router() -> list[Route]:
    """The table as Starlette routes, one for each path with its methods (HEAD is not a GET here).

    Turns are taken at ``//v1/ingest`` and ``/v1/ingest/``, too: a producer that joins its base
    URL and the path as strings meets the first (``contracts/wire.md`` §1).
    """
    handlers: dict[str, dict[str, Handler]] = {}
    for row in ROUTES:
        spellings = (row.path, f"/{row.path}", f"{row.path}/") if row.method == "POST" else (row.path,)
        for path in spellings:
            strict = READ[0] in row.refusals and not row.path.startswith(CONTRACT)
            handler = reading.knowing(row.handler, row.query) if strict else row.handler
            handlers.setdefault(path, {})[row.method] = handler
    return [_route(path, by_method) for path, by_method in handlers.items()]


def _route(path: str, by_method: Mapping[str, Handler]) -> Route:
    """One path. What stands at its end is any text: a producer's ids may have slashes, also as ``%2F``."""

    async def handle(request: Request) -> Response:
        return await by_method[request.method](request)

    route = Route(_PARAMETER.sub(r"{\1:path}", path), handle)
    route.methods = set(by_method)
    return route
