"""HTTP/1.1 over asyncio streams, by h11: small, with trailers, and with rude endings."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterable
from typing import TypeAlias

import h11

Fields: TypeAlias = list[tuple[str, str]]


class Wire:
    """One connection; ``state`` says which side of it is ours."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: h11.Connection
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._state = state

    async def receive(self) -> h11.Event | None:
        """The next event; None at the end of the connection. Raises ``h11.RemoteProtocolError`` or
        ``OSError`` when the peer broke off.
        """
        while True:
            event = self._state.next_event()
            if event is h11.NEED_DATA:
                self._state.receive_data(await self._reader.read(65536))
            elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                return None
            elif isinstance(event, h11.Event):
                return event

    async def send(self, event: h11.Event) -> None:
        """Write one event and wait until the kernel has room again."""
        data = self._state.send(event)
        if data:
            self._writer.write(data)
            await self._writer.drain()

    def next_cycle(self) -> bool:
        """Get ready for another exchange on the connection, where both sides allow it."""
        if self._state.our_state is h11.DONE and self._state.their_state is h11.DONE:
            self._state.start_next_cycle()
            return True
        return False

    def reset(self) -> None:
        """Break the connection off with RST."""
        handle = self._writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def close(self) -> None:
        """End the connection with FIN."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def raw(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Header fields as h11 takes them."""
    return [(name.encode("ascii"), value.encode("utf-8")) for name, value in fields]


def text(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """Header fields as people read them, names in lower case."""
    return [(name.decode("ascii").lower(), value.decode("utf-8")) for name, value in fields]
