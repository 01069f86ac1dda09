"""A provider on loopback that answers each request as its ``Script`` says, and keeps both sides."""

import asyncio
import contextlib
import json
import zlib
from dataclasses import dataclass, field

import h11

from tests.e2e.harness.http1 import Fields, Wire, raw, text
from tests.e2e.harness.provider import HEADER, Script, frames, whole


@dataclass(slots=True)
class Served:
    """One request as it reached the provider, and the body bytes it was answered with."""

    method: str
    path: str
    headers: Fields
    body: bytes = b""
    trailers: Fields = field(default_factory=Fields)
    sent: bytes = b""
    complete: bool = False

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        return next((value for key, value in self.headers if key == name), None)


class Upstream:
    """The stub. ``served`` has its exchanges in the order in which they began."""

    def __init__(self) -> None:
        self.served: list[Served] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1024)

    async def stop(self) -> None:
        """Close everything, exchanges in progress included."""
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._connection(Wire(reader, writer, h11.Connection(h11.SERVER))))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connection(self, wire: Wire) -> None:
        """Serve one connection's requests until somebody has had enough."""
        try:
            with contextlib.suppress(h11.ProtocolError, OSError):
                while await self._exchange(wire):
                    pass
        finally:
            await wire.close()

    async def _exchange(self, wire: Wire) -> bool:
        """Serve one request; whether another may follow."""
        request = await wire.receive()
        if not isinstance(request, h11.Request):
            return False
        served = Served(request.method.decode(), request.target.decode(), text(request.headers))
        self.served.append(served)
        script = Script.of(served.header(HEADER))
        if not script.early:
            await _read_body(wire, served)
        await _answer(wire, served, script)
        if not served.complete:
            return False
        if script.early:
            await _read_body(wire, served)
        return wire.next_cycle()


async def _read_body(wire: Wire, served: Served) -> None:
    """Take the request's body and trailers."""
    pieces: list[bytes] = []
    while isinstance(event := await wire.receive(), h11.Data):
        pieces.append(bytes(event.data))
        served.body = b"".join(pieces)
    if isinstance(event, h11.EndOfMessage):
        served.trailers = text(event.headers)


def _streams(served: Served) -> bool:
    """Whether the request asks for a streamed answer."""
    try:
        return bool(json.loads(served.body).get("stream"))
    except (ValueError, AttributeError):
        return False


async def _answer(wire: Wire, served: Served, script: Script) -> None:
    """Answer as told, rude endings included."""
    streamed = script.status == 200 and _streams(served)
    pieces = frames(served.path, script) if streamed else [whole(served.path, script)]
    headers = [("content-type", "text/event-stream" if streamed else "application/json")]
    if script.gzip:
        headers.append(("content-encoding", "gzip"))
    bodiless = served.method == "HEAD" or script.status in {204, 304}
    if not bodiless and not streamed and not script.gzip and not script.trailers:
        headers.append(("content-length", str(len(pieces[0]))))
    if script.trailers:
        headers.append(("trailer", "x-stub-end"))
    await wire.send(h11.Response(status_code=script.status, headers=raw(headers)))
    if not bodiless and not await _body(wire, served, script, pieces):
        return
    trailers = raw([("x-stub-end", "yes")] if script.trailers else [])
    await wire.send(h11.EndOfMessage(headers=trailers))
    served.complete = True


async def _body(wire: Wire, served: Served, script: Script, pieces: list[bytes]) -> bool:
    """Send the pieces, each in a write of its own; whether the end may follow."""
    compressor = zlib.compressobj(wbits=31) if script.gzip else None
    for number, piece in enumerate(pieces):
        if number == script.reset_after:
            wire.reset()
            return False
        if number == script.close_after:
            return False
        await asyncio.sleep(script.pause_s if number == script.pause_at else script.delay_s)
        last = number == len(pieces) - 1
        data = _compressed(compressor, piece, last=last) if compressor else piece
        await wire.send(h11.Data(data=data))
        served.sent += data
    if script.pause_at == len(pieces):
        await asyncio.sleep(script.pause_s)
    return True


def _compressed(compressor: "zlib._Compress", piece: bytes, *, last: bool) -> bytes:
    """A piece, compressed and flushed, as a provider must do for its readers to see it."""
    return compressor.compress(piece) + compressor.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)
