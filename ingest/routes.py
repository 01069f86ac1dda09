"""The table of contents: every route of the service, one row each.

The router, the OpenAPI document and the tests read this table and nothing else.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest import reading, writing
from ingest.replies import Accepted, Alive, BatchAnswer, NodeList, TranscriptAnswer

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One route. ``answers`` maps each status to the type of its body (None: not JSON)."""

    method: str
    path: str
    handler: Handler
    summary: str
    takes: type | None = None
    query: tuple[str, ...] = ()
    gives: type | None
    status: int = 200
    refusals: tuple[int, ...] = ()


ROUTES: Final = (
    Row(
        method="POST",
        path="/v1/ingest",
        handler=writing.post_turn,
        summary="Store one turn.",
        takes=object,
        gives=Accepted,
        status=202,
        refusals=(400, 401, 403, 413, 422, 502, 503),
    ),
    Row(
        method="POST",
        path="/v1/ingest/batch",
        handler=writing.post_batch,
        summary="Store several turns; each is judged as if it had come alone.",
        takes=object,
        gives=BatchAnswer,
        status=202,
        refusals=(400, 401, 403, 413, 502),
    ),
    Row(
        method="POST",
        path="/v1/ingest/transcript",
        handler=writing.post_transcript,
        summary="Store a harness's own record of a session.",
        takes=object,
        gives=TranscriptAnswer,
        status=202,
        refusals=(400, 401, 403, 413, 502, 503),
    ),
    Row(
        method="GET",
        path="/v1/ingest/nodes",
        handler=reading.list_nodes,
        summary="List nodes, newest first.",
        query=("agent", "tenant"),
        gives=NodeList,
        refusals=(503,),
    ),
    Row(
        method="GET",
        path="/ping",
        handler=reading.ping,
        summary="Say that the process answers.",
        gives=Alive,
    ),
    Row(method="GET", path="/metrics", handler=reading.metrics, summary="Show the metrics.", gives=None),
)


def router() -> list[Route]:
    """The table as Starlette routes, each with its one method (HEAD is not a GET here)."""
    routes: list[Route] = []
    for row in ROUTES:
        route = Route(row.path, row.handler, methods=[row.method])
        route.methods = {row.method}
        routes.append(route)
    return routes
