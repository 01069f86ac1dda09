"""Header blocks: one HEADERS frame and its CONTINUATIONs, decoded when they are whole.

While a block is being continued nothing else may come on the connection (RFC 9113 §6.10):
``of_stream`` says whose it is. Every block is decoded, whatever becomes of it, because
the peer's compression depends on it.
"""

from typing import NamedTuple

from hpack import Decoder, HPACKError, OversizedHeaderListError

from extproc.transport.http2 import frames
from extproc.transport.http2.broken import BrokenError, too_much, violation, wrong_size
from extproc.transport.http2.frames import ErrorCode
from extproc.transport.http2.limits import Limits
from extproc.transport.reasons import Reason

_PRIORITY_BYTES = 5


class Block(NamedTuple):
    """The fields of a whole block. ``ended``: the peer says nothing after it."""

    stream_id: int
    fields: list[tuple[bytes, bytes]]
    ended: bool


class HeaderBlocks:
    """Puts blocks together. ``of_stream``: whose block is not whole yet; 0 none."""

    def __init__(self, limits: Limits) -> None:
        self.of_stream = 0
        self._limits = limits
        self._flags = 0
        self._frames = 0
        self._gathered = bytearray()
        self._decoder = Decoder(max_header_list_size=limits.header_bytes)

    def begin(self, stream_id: int, flags: int, payload: bytes) -> Block | None:
        """A HEADERS frame; returns the block if it is whole."""
        if stream_id == 0 or not stream_id % 2:
            raise violation()
        self.of_stream, self._flags, self._frames = stream_id, flags, 0
        return self.more(flags, _fragment(stream_id, flags, payload))

    def more(self, flags: int, fragment: bytes) -> Block | None:
        """The next part of the block that has begun; returns the block if it is whole."""
        if self.of_stream == 0:
            raise violation()
        self._gathered += fragment
        self._frames += 1
        if self._frames > self._limits.header_frames or len(self._gathered) > self._limits.header_bytes:
            raise too_much(Reason.CONTINUATION_FLOOD)
        if not flags & frames.END_HEADERS:
            return None
        block = Block(self.of_stream, self._decode(), bool(self._flags & frames.END_STREAM))
        self.of_stream = 0
        return block

    def _decode(self) -> list[tuple[bytes, bytes]]:
        """The fields that were gathered."""
        gathered = bytes(self._gathered)
        self._gathered.clear()
        try:
            return [(bytes(name), bytes(value)) for name, value in self._decoder.decode(gathered, raw=True)]
        except OversizedHeaderListError as error:
            raise too_much(Reason.HEADER_LIST) from error
        except (HPACKError, ValueError, IndexError) as error:
            raise BrokenError(ErrorCode.COMPRESSION_ERROR, Reason.COMPRESSION) from error


def _fragment(stream_id: int, flags: int, payload: bytes) -> bytes:
    """A HEADERS frame without its padding and its obsolete priority."""
    if flags & frames.PADDED:
        if not payload or payload[0] >= len(payload):
            raise violation()
        payload = payload[1 : len(payload) - payload[0]]
    if not flags & frames.WITH_PRIORITY:
        return payload
    if len(payload) < _PRIORITY_BYTES:
        raise wrong_size()
    if frames.u32(payload) & frames.MAX_STREAM_ID == stream_id:
        raise violation()
    return payload[_PRIORITY_BYTES:]
