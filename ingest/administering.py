"""The handlers of the administrator: deletion, export, deriving again."""

import logging
import time
from collections.abc import AsyncGenerator
from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ingest import portable, views
from ingest.access import Role
from ingest.reading import QueryError, time_of
from ingest.replies import Deleted, Requeued, reply
from ingest.service import Service
from ingest.store import deletion
from ingest.store import portable as portable_rows
from ingest.writing import principal_of, service_of

_log = logging.getLogger("steno.ingest")
_SETTLE_S: Final = 5.0


def _tenant(request: Request) -> str:
    """The tenant named in the query: here it must be named."""
    wanted = request.query_params.get("tenant", "")
    if not wanted:
        raise QueryError("name the tenant: ?tenant=")
    return principal_of(request, Role.ADMIN).tenant(wanted)


async def delete_turns(request: Request) -> Response:
    """Delete the turns of a tenant, or of one of its sessions, received before a time (default: now).

    The answer names the time. Ask again with ``before`` set to it, and what came later stays.
    """
    tenant = _tenant(request)
    service = service_of(request)
    before_us = time_of(request.query_params.get("before", "")) or time.time_ns() // 1000
    scope = deletion.Scope(
        tenant=tenant, before_us=before_us, session_id=request.query_params.get("session", "")
    )
    await service.deriver.settled(_SETTLE_S)  # what is not derived has no session yet
    count = await service.retention.delete(scope, principal_of(request, Role.ADMIN).name)
    service.deriver.wake()
    return reply(Deleted(count, views.moment(before_us)))


async def derive_again(request: Request) -> Response:
    """Forget everything derived, of every tenant, and derive it again from the stored turns."""
    principal_of(request, Role.ADMIN).require_all()
    service = service_of(request)
    count = await service.store.write(deletion.requeue_all)
    service.deriver.wake()
    return reply(Requeued(count), 202)


async def export(request: Request) -> Response:
    """Write out the turns of a tenant as JSON lines, oldest first, with their bodies."""
    choice = portable_rows.Choice(tenant=_tenant(request), state=request.query_params.get("state", ""))
    return StreamingResponse(_lines(service_of(request), choice), media_type="application/x-ndjson")


async def _lines(service: Service, choice: portable_rows.Choice) -> AsyncGenerator[bytes]:
    after = 0
    while True:
        found = await service.store.read(partial(portable_rows.page, choice=choice, after=after))
        for one in found:
            if isinstance(one, portable_rows.Unreadable):
                _log.error("turn %s cannot be exported: %s", one.turn.id, one.reason)
            else:
                yield portable.encode(one)
        if not found:
            return
        after = found[-1].turn.seq
