"""DATA frames: flow control, padding, and the messages inside.

Flow control (RFC 9113 §5.2, §6.9): the whole length of a frame counts, padding included.
What arrives is consumed at once, so credit goes back at once; it is told in steps of half
a window, because every WINDOW_UPDATE costs both ends more than the bytes it is about.

``run`` is the hot path. A frame that is exactly one message of a stream that is ``plain``
is recognised by one unpack of its fourteen first bytes, and costs one slice. Everything else,
and every frame that makes credit due, goes through ``frame``. All messages of a stream that one
read brings are told together.
"""

from collections.abc import Mapping

from extproc.events import StreamEnd
from extproc.transport.http2 import frames
from extproc.transport.http2.broken import overrun, violation
from extproc.transport.http2.frames import ErrorCode
from extproc.transport.http2.happenings import Gone
from extproc.transport.http2.limits import Limits
from extproc.transport.http2.memory import Share
from extproc.transport.http2.messages import PREFIX_BYTES, MessageReader, Status
from extproc.transport.http2.outgoing import Outgoing
from extproc.transport.http2.streams import State, StreamRecord
from extproc.transport.http2.table import StreamTable
from extproc.transport.reasons import Reason

_LARGEST = frames.MAX_FRAME_BYTES << 8
_HEAD_BYTES = frames.FRAME_HEADER_BYTES + PREFIX_BYTES


class Bodies:
    """Takes DATA frames."""

    def __init__(self, limits: Limits, table: StreamTable, out: Outgoing, share: Share) -> None:
        self._limits = limits
        self._table = table
        self._out = out
        self._share = share
        self._window = share.window
        self._size = share.window

    def run(self, data: bytes, start: int) -> int:
        """Take frames from ``start`` on for as long as they are plain; return where the next begins."""
        streams: Mapping[int, StreamRecord] = self._table.open
        arrived = self._table.arrived
        unpack = frames.MESSAGE_HEADER.unpack_from
        size = len(data)
        last = size - _HEAD_BYTES
        window, due = self._window, self._size // 2
        stream_due = self._limits.stream_window // 2
        while start <= last:
            length_and_kind, flags, stream_id, compressed, message_bytes = unpack(data, start)
            # Equal only for a DATA frame (kind 0) that ends where its message does.
            if length_and_kind != (message_bytes + PREFIX_BYTES) << 8 or flags or compressed:
                break
            stream = streams.get(stream_id)
            end = start + message_bytes + _HEAD_BYTES
            if stream is None or not stream.plain or end > size or length_and_kind > _LARGEST:
                break
            left = stream.receive_window - message_bytes - PREFIX_BYTES
            if left <= stream_due or window - message_bytes - PREFIX_BYTES <= due:
                break
            stream.receive_window = left
            window -= message_bytes + PREFIX_BYTES
            arrived[stream_id].append(data[start + _HEAD_BYTES : end])
            start = end
        self._window = window
        return start

    def frame(self, stream_id: int, flags: int, payload: bytes) -> None:
        """Any DATA frame."""
        length = len(payload)
        self._take_credit(length)
        stream = self._table.open.get(stream_id)
        if stream is None or stream.state is State.PEER_ENDED:
            self._late(stream_id)
            return
        if flags & frames.PADDED:
            if length == 0 or payload[0] >= length:
                raise violation()
            payload = payload[1 : length - payload[0]]
        self._take_stream_credit(stream, length)
        if not payload and not flags & frames.END_STREAM:
            self._table.spend(Reason.EMPTY_FRAME_FLOOD)
        if stream.expected_bytes is not None:
            stream.expected_bytes -= len(payload)
            if stream.expected_bytes < 0:
                self._table.reset(stream_id, ErrorCode.PROTOCOL_ERROR)
                return
        if payload and stream.state is State.OPEN and stream.status is None:
            self._messages(stream, payload)
        if flags & frames.END_STREAM:
            self._table.peer_ends(stream)

    def _take_credit(self, length: int) -> None:
        """Count what came against the connection's window, and give it back."""
        self._window -= length
        if self._window < 0:
            raise overrun()
        if self._window * 2 <= self._size:
            self._out.bytes += frames.window_update(0, self._size - self._window)
            self._window = self._size

    def _take_stream_credit(self, stream: StreamRecord, length: int) -> None:
        """The same for the stream's window."""
        window, size = stream.receive_window - length, self._limits.stream_window
        if window < 0:
            raise overrun()
        if window * 2 <= size:
            self._out.bytes += frames.window_update(stream.id, size - window)
            window = size
        stream.receive_window = window

    def _messages(self, stream: StreamRecord, part: bytes) -> None:
        """Give the bytes of a body to its reader; tell of the messages that are whole now."""
        reader = stream.reader or MessageReader()
        before = reader.held_bytes
        for message in reader.feed(part):
            stream.used = True
            self._table.arrived[stream.id].append(message)
        more = reader.held_bytes - before
        held = self._share.parts + more
        fits = not more or self._share.hold(parts=held) or more < 0
        stream.reader = reader if reader.held_bytes else None
        stream.plain = stream.used and stream.reader is None and stream.expected_bytes is None
        refused = reader.refused
        if refused is None and (held > self._limits.held_bytes or not fits):
            refused = Status.RESOURCE_EXHAUSTED
        if refused is not None:
            self._refuse(stream, refused)

    def _refuse(self, stream: StreamRecord, status: Status) -> None:
        """A message that cannot be taken ends its RPC alone."""
        self._table.heard.append(Gone(stream.id, StreamEnd.ERROR))
        self._table.finish(stream, status, "the message cannot be taken")

    def _late(self, stream_id: int) -> None:
        """DATA for a stream that takes none any more, or never did."""
        if stream_id == 0 or stream_id > self._table.last_id or not stream_id % 2:
            raise violation()
        if not self._table.was_reset_by_us(stream_id):
            self._table.reset(stream_id, ErrorCode.STREAM_CLOSED)
