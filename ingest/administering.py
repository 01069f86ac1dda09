"""The handlers of the administrator: deletion, export, deriving again."""

import logging
import time
from collections.abc import AsyncGenerator
from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ingest import audit, views
from ingest.access import AccessError, Role, UnauthenticatedError
from ingest.archive import lines_after
from ingest.reading import QueryError, state_of, time_of
from ingest.replies import Deleted, Requeued, refuse, reply
from ingest.service import Service
from ingest.store import deletion
from ingest.store.portable import Choice
from ingest.writing import principal_of, service_of

_log = logging.getLogger("steno.ingest")
_SETTLE_S: Final = 5.0


def _tenant(request: Request, *parameters: str) -> str:
    """The tenant named in the query: here it must be named.

    Nothing else may stand there but ``parameters``, each once and with a value: a misspelt
    or forgotten limit to a deletion must not make it a deletion of everything.
    """
    principal = principal_of(request, Role.ADMIN)
    query = request.query_params
    for name, value in query.multi_items():
        if name not in ("tenant", *parameters) or len(query.getlist(name)) > 1:
            raise QueryError(f"only tenant, {', '.join(parameters)} may be given, each once: not {name!a}")
        if not value or "\0" in value:
            raise QueryError(f"{name} must have a value, without NUL")
    if not query.get("tenant"):
        raise QueryError("name the tenant: ?tenant=")
    return principal.tenant(query["tenant"])


async def delete_turns(request: Request) -> Response:
    """Delete the turns of a tenant, or of one of its sessions, received before a time (default: now).

    The answer names the time. Ask again with ``before`` set to it, and what came later stays. A time
    to come is refused: asked for again, it would take what came since.
    """
    tenant = _tenant(request, "session", "before")
    service = service_of(request)
    now_us = time.time_ns() // 1000
    before_us = time_of(request.query_params.get("before", ""))
    if before_us is None:
        before_us = now_us
    if before_us > now_us:
        raise QueryError(f"before must not lie in the future: here it is {views.exact_moment(now_us)}")
    scope = deletion.Scope(
        tenant=tenant, before_us=before_us, session_id=request.query_params.get("session", "")
    )
    if waiting := await _undecided(service, scope):
        before = views.exact_moment(before_us)
        wait = f"{waiting} turns that may be of this session wait for derivation"
        return refuse(503, f"{wait}: ask again, with before={before}")
    count = await service.retention.delete(scope, principal_of(request, Role.ADMIN).name)
    service.deriver.wake()
    return reply(Deleted(count, views.exact_moment(before_us)))


async def _undecided(service: Service, scope: deletion.Scope) -> int:
    """How many turns may be of the session to delete, once the deriver, whosever it is, had a moment."""
    count = partial(deletion.undecided, scope=scope)
    if await service.store.read(count):
        await service.deriver.settled(_SETTLE_S)
        return await service.store.read(count)
    return 0


async def derive_again(request: Request) -> Response:
    """Forget everything derived, of every tenant, and derive it again from the stored turns."""
    principal_of(request, Role.ADMIN).require_all()
    service = service_of(request)
    count = await service.store.write(deletion.requeue_all)
    service.deriver.wake()
    return reply(Requeued(count), 202)


async def export(request: Request) -> Response:
    """Write out the turns of a tenant as JSON lines, oldest first, with their bodies.

    The status is sent before the first turn is read: a turn that cannot be read is a line that says
    so, and where the store goes away, or the credential is taken out, the answer breaks off.
    """
    tenant = _tenant(request, "state")
    choice = Choice(tenant=tenant, state=state_of(request.query_params.get("state", "")))
    audit.read_of(principal_of(request, Role.ADMIN).name, "export", tenant)
    return StreamingResponse(_lines(request, choice), media_type="application/x-ndjson")


async def _lines(request: Request, choice: Choice) -> AsyncGenerator[bytes]:
    """The lines, page by page; the credential is looked up again for each, and breaks the answer off."""
    service, after = service_of(request), 0
    while True:
        try:
            _tenant(request, "state")
        except (UnauthenticatedError, AccessError) as error:
            _log.warning("an export of tenant %s breaks off: %s", choice.tenant, error)
            raise
        page = await service.store.read(partial(lines_after, choice=choice, after=after))
        for reason in page.lost:
            _log.error("%s", reason)
        for line in page.lines:
            yield line
        if page.last is None:
            return
        after = page.last
