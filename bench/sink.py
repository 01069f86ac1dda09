"""An ingest that takes everything and keeps nothing: ``python -m bench.sink PORT``.

``GET`` answers how many turns came, alone or in batches. A process of its own, so that its CPU is nobody's.
"""

import asyncio
import sys
from typing import Final, cast

import uvloop

_ACCEPTED: Final = (
    b"HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: 21\r\n\r\n"
    b'{"status":"accepted"}'
)
_TURN: Final = b'"request_id":"'
"""Every turn's meta has one, and nothing else that the benches send."""


class Sink(asyncio.Protocol):
    """One connection."""

    turns = 0

    def __init__(self) -> None:
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end]).lower()
            _, _, rest = head.partition(b"content-length:")
            size = end + 4 + int(rest.split(b"\r\n", 1)[0] or 0)
            if len(self._buffer) < size:
                return
            Sink.turns += self._buffer.count(_TURN, end, size)
            del self._buffer[:size]
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        if head.startswith(b"post"):
            self._transport.write(_ACCEPTED)
            return
        count = str(Sink.turns).encode()
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(count), count))


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", port)
    print(f"listening on 127.0.0.1:{port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
