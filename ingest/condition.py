"""The handlers that tell how the service is."""

import asyncio
import logging
import os
import time
from typing import Final

from prometheus_client import generate_latest
from starlette.requests import Request
from starlette.responses import Response

from ingest.bodies import ACCEPTED_CODINGS
from ingest.replies import Alive, Preferred, Pulse, Readiness, reply, told
from ingest.store.connection import StoreError
from ingest.store.derived import backlog
from ingest.store.store import Store
from ingest.writing import service_of

_log = logging.getLogger("steno.ingest")
_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
FREE_BYTES: Final = 256 * 1024 * 1024
"""Less free disk than this, and the service says it is not ready: commits will fail soon."""
_PROBE_S: Final = 2.0
"""A store that has not answered by then takes no turns in time either."""
_BACKLOG_S: Final = 1.0
"""The metrics are wanted most when the store is slow: they do not wait for it."""
_BATCH_TURNS: Final = 64
"""What one commit and one hand-over to a thread are worth; larger batches gain nothing more."""
_BATCH_BYTES: Final = 1024 * 1024
"""The same in bytes."""


async def healthy(_: Request) -> Response:
    """Say that the process answers."""
    return reply(Alive())


async def ping(request: Request) -> Response:
    """Answer a sidecar's heartbeat: whether to send here, in what batches, and how coded."""
    service = service_of(request)
    batch = Preferred(_BATCH_TURNS, min(_BATCH_BYTES, service.settings.max_body_bytes))
    pulse = Pulse("draining" if service.hub.closed.is_set() else "ok", batch)
    return reply(pulse, headers=ACCEPTED_CODINGS)


async def ready(request: Request) -> Response:
    """Say whether turns can be stored: the store answers and takes them, the disk has room, nobody leaves.

    Anybody may ask. What a database says of itself (hosts, users) is for the log only.
    """
    service = service_of(request)
    problems: list[str] = []
    if service.deriver.stopping:
        problems.append("draining")
    trouble = await _trouble(service.store)
    if not trouble and not problems and service.intake.trouble:
        trouble = "it did not take the last turn"  # it answers, and takes nothing: a full disk does that
    if trouble:
        problems.append(f"store: {trouble}")
    directory = service.store.directory
    if directory is not None:
        disk = os.statvfs(directory)
        if disk.f_bavail * disk.f_frsize < FREE_BYTES:
            problems.append("disk: almost full")
    return reply(Readiness(not problems, problems), 503 if problems else 200)


async def _trouble(store: Store) -> str:
    """Why turns cannot go to the store now, in words for everybody; empty when they can."""
    try:
        async with asyncio.timeout(_PROBE_S):
            await store.probe()
    except TimeoutError:
        return f"it does not answer within {_PROBE_S:g} s"
    except StoreError as error:
        _log.warning("the store is not ready: %a", str(error))
        return told(error)
    return ""


async def metrics(request: Request) -> Response:
    """Show the metrics; what waits to be derived as it was last known, unless the store says it at once."""
    service = service_of(request)
    service.metrics.queue_depth.set(service.store.waiting)
    try:
        async with asyncio.timeout(_BACKLOG_S):
            count, oldest = await service.store.read(backlog)
    except (StoreError, TimeoutError) as error:
        _log.warning("what waits to be derived is not known: %a", str(error) or "the store is slow")
    else:
        service.metrics.derive_lag.set(count)
        service.metrics.derive_lag_seconds.set(max(0.0, time.time() - oldest / 1e6) if oldest else 0)
    return Response(generate_latest(service.metrics.registry), media_type=_METRICS_TYPE)


async def openapi(request: Request) -> Response:
    """Show the OpenAPI document."""
    return reply(service_of(request).openapi)
