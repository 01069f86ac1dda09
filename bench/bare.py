"""Servers that only take in: ``python -m bench.bare {http2,grpcio,drain} PORT``.

``http2`` and ``grpcio`` are our transports with a handler that appends and lets pass; ``drain``
reads a socket and throws away what comes: the limit that no server can pass.
"""

import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence

import uvloop

from extproc.events import Body, Headers, StreamEnd, Trailers
from extproc.transport.address import TcpAddress
from extproc.transport.base import Command, Transport
from extproc.transport.grpcio import GrpcioTransport
from extproc.transport.http2.server import Http2Transport
from extproc.transport.stream import PassThrough


class Appending:
    """Keeps the bytes of one stream until it ends."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._pass = PassThrough()

    def receive(self, event: Headers | Body | Trailers) -> Sequence[Command]:
        if isinstance(event, Body):
            self._chunks.append(event.data)
        return self._pass.receive(event)

    def ended(self, end: StreamEnd) -> None:
        self._pass.ended(end)


class Acceptor:
    """Makes such a handler for each stream."""

    def open(self, initial_metadata: Mapping[str, str]) -> Appending:  # noqa: ARG002 -- the seam's
        return Appending()


class Drain(asyncio.Protocol):
    """Reads, and forgets."""

    def data_received(self, data: bytes) -> None:
        pass


async def _serve(kind: str, port: int) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    if kind == "drain":
        await loop.create_server(Drain, "127.0.0.1", port)
        print(f"listening on 127.0.0.1:{port}", flush=True)
        await stopping.wait()
        return
    address = TcpAddress("127.0.0.1", port)
    transport: Transport = (
        Http2Transport(address, Acceptor()) if kind == "http2" else GrpcioTransport(address, Acceptor())
    )
    await transport.start()
    print(f"listening on {transport.address}", flush=True)
    await stopping.wait()
    await transport.stop(1.0)


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], int(sys.argv[2])))
