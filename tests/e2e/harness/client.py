"""A client that keeps the exact bytes it got, when each piece came, and how it ended."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import h11

from tests.e2e.harness.http1 import Fields, Wire, raw, text
from tests.e2e.harness.provider import HEADER, Script


@dataclass(slots=True)
class Reply:
    """What the client saw. ``complete``: the message ended as HTTP says it must.

    ``times_s``: seconds from sending the request to each piece of the body.
    """

    status: int | None = None
    headers: Fields = field(default_factory=Fields)
    pieces: list[bytes] = field(default_factory=list[bytes])
    times_s: list[float] = field(default_factory=list[float])
    trailers: Fields = field(default_factory=Fields)
    complete: bool = False
    error: str | None = None

    @property
    def body(self) -> bytes:
        """All bytes of the body."""
        return b"".join(self.pieces)


async def fetch(
    port: int,
    path: str,
    body: bytes | Sequence[bytes] | None = None,
    script: Script | None = None,
    *,
    method: str | None = None,
    headers: Fields | None = None,
    trailers: Fields | None = None,
    leave_after: int | None = None,
    leave_after_bytes: int | None = None,
    timeout_s: float = 60.0,
) -> Reply:
    """One exchange with 127.0.0.1:``port`` on a connection of its own.

    ``body``: bytes go with a content-length, a sequence goes chunked, None is no body (GET).
    ``leave_after``: close the connection once so many pieces of the answer have come.
    ``leave_after_bytes``: the same by bytes of its body; 0 is once its headers have come.
    Endings are values, never exceptions; ``TimeoutError`` when it takes too long.
    """
    fields = [("host", "llm.test"), *_framing(body, trailers), *(headers or [])]
    if script is not None:
        fields.append((HEADER, script.header()))
    request = h11.Request(
        method=method or ("GET" if body is None else "POST"), target=path, headers=raw(fields)
    )
    reply = Reply()
    async with asyncio.timeout(timeout_s):
        wire = Wire(*await asyncio.open_connection("127.0.0.1", port), h11.Connection(h11.CLIENT))
        started = time.perf_counter()
        sending = asyncio.ensure_future(_send(wire, request, body, trailers or []))
        try:
            await _receive(wire, reply, started, leave_after, leave_after_bytes)
        except (h11.RemoteProtocolError, OSError) as error:
            reply.error = repr(error)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await wire.close()
    return reply


def _framing(body: bytes | Sequence[bytes] | None, trailers: Fields | None) -> Fields:
    """The headers that say how long the body is."""
    if body is None:
        return []
    kind = ("content-type", "application/json")
    if isinstance(body, bytes) and not trailers:
        return [kind, ("content-length", str(len(body)))]
    return [kind, ("transfer-encoding", "chunked")]


async def _send(
    wire: Wire, request: h11.Request, body: bytes | Sequence[bytes] | None, trailers: Fields
) -> None:
    await wire.send(request)
    for piece in [body] if isinstance(body, bytes) else body or []:
        await wire.send(h11.Data(data=piece))
    await wire.send(h11.EndOfMessage(headers=raw(trailers)))


async def _receive(
    wire: Wire, reply: Reply, started: float, leave_after: int | None, leave_after_bytes: int | None
) -> None:
    """Keep everything until the end, or until it is time to leave."""
    wanted = leave_after_bytes
    while (event := await wire.receive()) is not None:
        match event:
            case h11.Response():
                reply.status, reply.headers = event.status_code, text(event.headers)
            case h11.Data():
                reply.pieces.append(bytes(event.data))
                reply.times_s.append(time.perf_counter() - started)
                if leave_after is not None and len(reply.pieces) >= leave_after:
                    return
                wanted = None if wanted is None else wanted - len(event.data)
            case h11.EndOfMessage():
                reply.trailers, reply.complete = text(event.headers), True
                return
            case _:  # 1xx: not an answer yet
                continue
        if wanted is not None and wanted <= 0:
            return
