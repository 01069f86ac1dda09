"""The event stream: server-sent events of one tenant, without bodies."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ingest.access import AccessError, UnauthenticatedError
from ingest.events import Hub, Listener
from ingest.reading import tenant_of
from ingest.store.rows import Event
from ingest.writing import service_of

_BEAT_S: Final = 15.0
"""A comment this often keeps proxies from closing a quiet stream."""
_ENCODER: Final = msgspec.json.Encoder()


async def stream_events(request: Request) -> Response:
    """Stream turn, run_update, step_update, finalize, delete and gap events from now on.

    The credential is looked up again before each event and beat: a key that is taken out ends the stream.
    """
    tenant = tenant_of(request)

    def allowed() -> bool:
        try:
            return tenant_of(request) == tenant
        except (UnauthenticatedError, AccessError):
            return False

    return StreamingResponse(
        event_lines(service_of(request).hub, tenant, allowed),
        media_type="text/event-stream",
        headers={"cache-control": "no-store"},
    )


async def event_lines(hub: Hub, tenant: str, allowed: Callable[[], bool]) -> AsyncGenerator[bytes]:
    """The stream of one tenant, until the service leaves or the listener is not ``allowed`` any more."""
    async with hub.listen(tenant) as listener:
        yield b": listening\n\n"
        while not hub.closed.is_set():
            event = await _next(hub, listener)
            if not allowed():
                yield b": the credential is not good for this any more\n\n"
                return
            yield sse(event) if event else b": beat\n\n"


async def _next(hub: Hub, listener: Listener) -> Event | None:
    """The next event; None after a while without one, and when the service leaves."""
    event = asyncio.ensure_future(listener.next())
    closed = asyncio.ensure_future(hub.closed.wait())
    try:
        await asyncio.wait((event, closed), timeout=_BEAT_S, return_when=asyncio.FIRST_COMPLETED)
        return event.result() if event.done() else None
    finally:  # also when the client goes away while we wait
        event.cancel()
        closed.cancel()


def sse(event: Event) -> bytes:
    """One event on the wire."""
    return b"event: %s\ndata: %s\n\n" % (event.kind.encode(), _ENCODER.encode(event))
