"""One HTTP/1.1 connection: one exchange at a time, an answer read to its bound and no further.

An answer may come before the request was written (413): then writing stops and the
answer counts. A connection is used again only after an exchange that left nothing open.
"""

import asyncio
from asyncio import BufferedProtocol
from dataclasses import dataclass
from typing import Final, cast

from ingest_client.delivery.answer import Answer, AnswerReader, MalformedAnswer
from ingest_client.delivery.classify import Reason

_READ_BYTES: Final = 16 * 1024
_SLICE_BYTES: Final = 256 * 1024
"""Larger bodies are written in slices, as fast as the peer takes them."""


class ExchangeFailed(Exception):  # noqa: N818 - past tense for what happened
    """No status arrived. ``reason`` says why in the closed set, the message in words."""

    def __init__(self, reason: Reason, text: str) -> None:
        """Keep both."""
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as far as it came; ``shortfall`` is why it is not complete, None if it is."""

    answer: Answer
    shortfall: Reason | None


class Connection(BufferedProtocol):
    """See the module. Made by the event loop, pooled by ``http``."""

    def __init__(self, max_answer_bytes: int, generation: int, born_s: float) -> None:
        """``generation`` is that of the credentials it was made with; times are the loop's."""
        self._max_answer_bytes = max_answer_bytes
        self._malformed = ""
        self.generation = generation
        self.born_s = born_s
        self.idle_since_s = born_s
        self._buffer = bytearray(_READ_BYTES)
        self._transport: asyncio.Transport | None = None
        self._reader: AnswerReader | None = None
        self._ended: asyncio.Future[Reason | None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self.usable = True

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands, TLS included."""
        # uvloop's transports are no subclass of asyncio's, so nothing to check by type.
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Room for the next bytes: never more than the answer may still have."""
        wanted = _READ_BYTES if self._reader is None else self._reader.wanted
        return memoryview(self._buffer)[: max(1, min(_READ_BYTES, wanted))]

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes of the answer arrived."""
        reader = self._reader
        if reader is None or self._ended is None or self._ended.done():
            self.abort()  # nobody asked for these bytes
            return
        try:
            if reader.feed(bytes(self._buffer[:nbytes])):
                answer = reader.answer()
                self._end(None if answer is not None and answer.complete else Reason.ANSWER_TOO_LARGE)
        except MalformedAnswer as error:
            self._malformed = str(error)
            self._end(Reason.ANSWER_MALFORMED)

    def eof_received(self) -> bool:
        """The peer closed its side; that may be how its answer ends."""
        self.usable = False
        if self._reader is not None:
            self._reader.eof()
            answer = self._reader.answer()
            self._end(None if answer is not None and answer.complete else Reason.CONNECTION_LOST)
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The connection is gone, and with it what was missing of an answer."""
        self.usable = False
        self._end(Reason.CONNECTION_LOST)

    def pause_writing(self) -> None:
        """The peer takes no more for now."""
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """It does again."""
        self._let_write()

    # What the pool calls.

    async def exchange(self, head: bytes, body: bytes, timeout_s: float) -> Reply:
        """Send one request and read its answer. Raises :class:`ExchangeFailed`."""
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        reader = self._reader = AnswerReader(self._max_answer_bytes)
        ended = self._ended = loop.create_future()
        timer = loop.call_later(timeout_s, self._end, Reason.TIMED_OUT)
        written = False
        try:
            if len(body) <= _SLICE_BYTES:
                self._transport.write(head + body)
                written = True
            else:
                written = await self._write_slices(head, body)
            shortfall = await ended
        finally:
            timer.cancel()
            if not ended.done():
                ended.cancel()
            self._reader = None
            answer = reader.answer()
            if answer is None or not answer.reusable or not written or self._unsent:
                self.abort()
        if answer is None:
            reason = shortfall or Reason.CONNECTION_LOST
            raise ExchangeFailed(reason, self._malformed or _WORDS.get(reason, reason.value))
        return Reply(answer, shortfall)

    async def _write_slices(self, head: bytes, body: bytes) -> bool:
        """Write as fast as the peer reads; stop when the answer is already there. Says if all was written."""
        assert self._transport is not None
        self._transport.write(head)
        view = memoryview(body)
        for start in range(0, len(body), _SLICE_BYTES):
            if self._writable is not None:
                await self._writable
            if self._ended is None or self._ended.done() or self._transport.is_closing():
                return False
            self._transport.write(view[start : start + _SLICE_BYTES])
        return True

    @property
    def _unsent(self) -> bool:
        """Whether part of the request still waits to be sent."""
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    def abort(self) -> None:
        """Drop the connection now, whatever it still had to say."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def _end(self, shortfall: Reason | None) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(shortfall)
        self._let_write()

    def _let_write(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)


_WORDS: Final = {
    Reason.CONNECTION_LOST: "the connection was closed before a status arrived",
    Reason.TIMED_OUT: "no complete head of an answer within the time allowed",
    Reason.ANSWER_TOO_LARGE: "the head of the answer exceeds the bound",
}
