"""Bodies that are too big to keep: made piece by piece, compared by digest, silences measured.

Both sides speak just enough HTTP/1.1, lengths declared. The provider reads a whole request, then
answers with as many bytes of an Anthropic stream as ``x-bulk`` says. Nobody asks for the connection
to be closed: Envoy would cut an answer short whose reader rests for a second (delayed_close_timeout).
"""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from tests.e2e.harness.provider import Script, frames

PATH = "/v1/messages"
_PIECE_BYTES = 256 << 10
_DELTA_BYTES = 1 << 10


@dataclass(frozen=True)
class Body:
    """``before``, then ``unit`` so many times, then ``after``."""

    before: bytes
    unit: bytes
    count: int
    after: bytes

    @cached_property
    def size(self) -> int:
        return len(self.before) + len(self.unit) * self.count + len(self.after)

    @cached_property
    def digest(self) -> str:
        made = hashlib.sha256()
        for piece in self.pieces():
            made.update(piece)
        return made.hexdigest()

    def pieces(self) -> Iterator[bytes]:
        yield self.before
        at_once = max(1, _PIECE_BYTES // len(self.unit))
        many = self.unit * at_once
        for _ in range(self.count // at_once):
            yield many
        yield self.unit * (self.count % at_once) + self.after


def request_of(size_bytes: int, question: str = "") -> Body:
    """A request for a stream that has one long message."""
    before = b'{"model":"claude-test","max_tokens":64,"stream":true,"messages":[{"role":"user","content":"'
    before += question.encode() + b" "
    after = b'"}]}'
    return Body(before, b"q", max(0, size_bytes - len(before) - len(after)), after)


def answer_of(size_bytes: int) -> Body:
    """An Anthropic stream of about that size, in frames of a kibibyte or so."""
    first, second, delta, *end = frames(PATH, Script(chunks=1, padding=_DELTA_BYTES))
    return _filled(first + second, delta, b"".join(end), size_bytes)


def pings_of(size_bytes: int) -> Body:
    """The same of an answer that says little: its frames are pings, so that reducing it costs little."""
    first, second, delta, *end = frames(PATH, Script(chunks=1))
    ping = b'event: ping\ndata: {"type":"ping","padding":"%b"}\n\n' % (b"x" * _DELTA_BYTES)
    return _filled(first + second + delta, ping, b"".join(end), size_bytes)


def _filled(before: bytes, unit: bytes, after: bytes, size_bytes: int) -> Body:
    return Body(before, unit, max(1, (size_bytes - len(before) - len(after)) // len(unit)), after)


@dataclass(slots=True)
class Received:
    """A body as it came. ``longest_silence_s``: between two pieces of it, or before the first."""

    size: int = 0
    digest: str = ""
    longest_silence_s: float = 0.0

    def is_(self, body: Body) -> bool:
        """Whether it is that body, byte by byte."""
        return (self.size, self.digest) == (body.size, body.digest)


async def _receive(reader: asyncio.StreamReader, size: int) -> Received:
    """Take in a body of a declared length, or what comes of it."""
    received, digest, last_s = Received(), hashlib.sha256(), time.monotonic()
    while received.size < size and (data := await reader.read(min(_PIECE_BYTES, size - received.size))):
        now_s = time.monotonic()
        received.longest_silence_s = max(received.longest_silence_s, now_s - last_s)
        received.size, last_s = received.size + len(data), now_s
        digest.update(data)
    received.digest = digest.hexdigest()
    return received


async def _head(reader: asyncio.StreamReader) -> dict[str, str]:
    """The headers of a message; the start line is under the empty name."""
    start, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {**fields, "": start}


async def _send(writer: asyncio.StreamWriter, head: str, body: Body) -> None:
    writer.write(f"{head}content-length: {body.size}\r\n\r\n".encode())
    for piece in body.pieces():
        writer.write(piece)
        await writer.drain()


class BulkProvider:
    """The provider. ``received`` has its requests' bodies in the order in which they ended;
    ``make`` makes an answer of a size.
    """

    def __init__(self, make: Callable[[int], Body] = answer_of) -> None:
        self._make = make
        self.received: list[Received] = []
        self._answers: dict[int, Body] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def answer(self, size_bytes: int) -> Body:
        """What it says when asked for so many bytes."""
        if size_bytes not in self._answers:
            self._answers[size_bytes] = self._make(size_bytes)
        return self._answers[size_bytes]

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=1 << 20, backlog=1024)

    async def stop(self) -> None:
        """Close everything."""
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._exchange(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await _head(reader)
                self.received.append(await _receive(reader, int(head["content-length"])))
                answer = self.answer(int(head["x-bulk"]))
                await _send(writer, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n", answer)
        writer.close()


async def exchange(port: int, request: Body, answer_bytes: int, timeout_s: float) -> Received:
    """Send a request to 127.0.0.1:``port``; the answer's body. Raises ``TimeoutError`` or ``OSError``."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        head = (
            f"POST {PATH} HTTP/1.1\r\nhost: llm.test\r\ncontent-type: application/json\r\n"
            f"x-bulk: {answer_bytes}\r\n"
        )
        try:
            await _send(writer, head, request)
            began_s = time.monotonic()
            found = await _head(reader)
            waited_s = time.monotonic() - began_s
            assert found[""].startswith("HTTP/1.1 200"), found
            received = await _receive(reader, int(found["content-length"]))
            received.longest_silence_s = max(received.longest_silence_s, waited_s)
            return received
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
