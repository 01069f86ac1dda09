"""The handlers that give back, and those that tell how the service is."""

from typing import Final

from prometheus_client import generate_latest
from starlette.requests import Request
from starlette.responses import Response

from ingest.access import Role
from ingest.replies import Alive, Node, NodeList, reply
from ingest.store import derived
from ingest.writing import principal_of, service_of

_NODES: Final = 1000
_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_CATCH_UP_S: Final = 1.0


async def ping(_: Request) -> Response:
    """Say that the process answers."""
    return reply(Alive())


async def metrics(request: Request) -> Response:
    """Show the metrics."""
    service = service_of(request)
    service.metrics.queue_depth.set(service.store.waiting)
    return Response(generate_latest(service.metrics.registry), media_type=_METRICS_TYPE)


async def list_nodes(request: Request) -> Response:
    """List nodes, newest first, of one agent if ``agent`` is given.

    Waits a moment for the derivation of what was stored before: a canary that posts and
    then asks sees its own nodes.
    """
    service = service_of(request)
    agent = request.query_params.get("agent", "")
    tenant = principal_of(request, Role.READ).tenant(request.query_params.get("tenant", ""))
    await service.deriver.settled(_CATCH_UP_S)
    rows = await service.store.read(
        lambda connection: derived.newest_nodes(connection, tenant, agent, _NODES)
    )
    nodes = [Node(row.hash, row.role, row.provider, row.model, row.agent_name) for row in rows]
    return reply(NodeList(len(nodes), nodes))
