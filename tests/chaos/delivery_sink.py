"""An ingest that only answers 202, light enough to measure delivery beside it in one process."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, cast

_ANSWER: Final = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
_IDS: Final = re.compile(rb'"request_id":"([^"]+)"')


class Sink:
    """When each turn arrived first, by turn id (loop time). Little enough to be no part of what is measured."""

    def __init__(self, latency_s: float) -> None:
        self.latency_s = latency_s
        self.arrived_s: dict[str, float] = {}
        self.url = ""
        self.open: set[asyncio.Transport] = set()

    def take(self, body: bytes) -> None:
        now_s = asyncio.get_running_loop().time()
        for found in _IDS.findall(body):
            self.arrived_s.setdefault(found.decode(), now_s)


class _Connection(asyncio.Protocol):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._transport: asyncio.Transport | None = None
        self._pending = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._sink.open.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        assert self._transport is not None
        self._sink.open.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._pending += data
        end = self._pending.find(b"\r\n\r\n")
        if end < 0:
            return
        length = re.search(rb"(?i)content-length: (\d+)", self._pending[:end])
        wanted = end + 4 + (int(length[1]) if length else 0)
        if len(self._pending) >= wanted:
            self._sink.take(bytes(self._pending[end + 4 : wanted]))
            del self._pending[:wanted]
            asyncio.get_running_loop().call_later(self._sink.latency_s, self._answer)

    def _answer(self) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(_ANSWER)


@asynccontextmanager
async def sink(latency_s: float = 0.0, port: int = 0) -> AsyncGenerator[Sink, None]:
    """A listening sink on loopback, gone afterwards with all its connections."""
    found = Sink(latency_s)
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(found), "127.0.0.1", port)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()
        for transport in found.open:
            transport.abort()
        await asyncio.sleep(0)  # aborted transports let their sockets go
