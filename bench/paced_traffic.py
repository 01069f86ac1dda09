"""Users and their provider around a real Envoy, cheap enough to leave it the machine.

``streams`` users take turns one after the other; the provider answers each with SSE frames at a
steady pace. The users begin spread over one turn, so that turns end all the time. The traffic is steady
from when the last has begun until the first has had all its turns.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from bench.turns import PATH, request_body

_END = b"0\r\n\r\n"
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Pace:
    """``streams`` users, ``turns`` turns each, a frame each ``interval_s``."""

    streams: int
    turns: int
    interval_s: float


@dataclass(slots=True)
class Sent:
    """How many frames providers have sent."""

    frames: int = 0


@dataclass(slots=True)
class Steady:
    """When all users are at it: from ``begun`` to ``ebbing``."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ebbing: asyncio.Event = field(default_factory=asyncio.Event)


class Provider(asyncio.Protocol):
    """One connection from Envoy: each request is answered with the frames, at the pace."""

    def __init__(self, frames: Sequence[bytes], interval_s: float, sent: Sent) -> None:
        self._sent = sent
        self._pieces = [b"%x\r\n%s\r\n" % (len(frame), frame) for frame in frames]
        self._interval_s = interval_s
        self._loop = asyncio.get_running_loop()
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        # STREAMED mode takes content-length away: the body is chunked then.
        chunked = b"\r\ntransfer-encoding: chunked" in head.lower()
        if found and (body.endswith(_END) if chunked else len(body) >= _length(head)):
            self._buffer = b""
            self._transport.write(_HEAD)
            self._next(0, self._loop.time())

    def _next(self, number: int, due: float) -> None:
        if self._transport.is_closing():
            return
        if number == len(self._pieces):
            self._transport.write(_END)
            return
        self._transport.write(self._pieces[number])
        self._sent.frames += 1
        due += self._interval_s
        self._loop.call_at(due, self._next, number + 1, due)


class User(asyncio.Protocol):
    """One user: asks, reads the whole answer, asks again."""

    def __init__(self, turns: int, done: asyncio.Future[None]) -> None:
        body = request_body()
        self._request = (
            b"POST %s HTTP/1.1\r\nhost: llm.test\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%s" % (PATH.encode(), len(body), body)
        )
        self._left = turns
        self._done = done
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._tail = self._tail[-len(_END) :] + data
        if not self._tail.endswith(_END):
            return
        self._tail = b""
        self._left -= 1
        if self._left:
            self._transport.write(self._request)
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._left:
            self._done.set_exception(RuntimeError(f"a user was left with {self._left} turns: {exc}"))
        else:
            self._done.set_result(None)


async def start_provider(frames: Sequence[bytes], interval_s: float, sent: Sent) -> asyncio.Server:
    """A provider on a free port of 127.0.0.1; it counts in ``sent``."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Provider(frames, interval_s, sent), "127.0.0.1", 0, backlog=1024)


async def run_users(port: int, pace: Pace, frames: int, steady: Steady) -> None:
    """Let every user have all turns."""
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Future[None]] = []
    for _ in range(pace.streams):
        done = loop.create_future()
        done.add_done_callback(lambda _: steady.ebbing.set())
        waiting.append(done)
        await loop.create_connection(partial(User, pace.turns, done), "127.0.0.1", port)
        await asyncio.sleep(frames * pace.interval_s / pace.streams)
    steady.begun.set()
    await asyncio.gather(*waiting)


def _length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"content-length:")
    return int(rest.split(b"\r\n", 1)[0] or 0)
