"""The sending half of a connection: answers, trailers, and the windows that hold them back."""

from extproc.transport.http2.frames import (
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MAX_FRAME_BYTES,
    MAX_WINDOW,
    frame,
)
from extproc.transport.http2.heads import ANSWER_BLOCK, refusal_block, trailers_block
from extproc.transport.http2.messages import Status, frame_message
from extproc.transport.http2.streams import StreamRecord

_TABLE_EMPTIED = b"\x20"  # RFC 7541 §6.3: the dynamic table's size is now 0
_REFUSAL = b"only gRPC is spoken here\n"


class Outgoing:
    """Bytes to send, and what waits for the peer's windows.

    Frames are at most as large as every peer must take. The owner changes the state of a
    stream whose trailers are said to have gone out.
    """

    def __init__(self) -> None:
        self.bytes = bytearray()
        self.window = DEFAULT_WINDOW
        self.initial_window = DEFAULT_WINDOW
        self.waiting_bytes = 0
        self._waiting: dict[int, StreamRecord] = {}
        self._block_prefix = b""

    def empty_header_table(self) -> None:
        """The peer made its header table smaller: say that we use none."""
        self._block_prefix = _TABLE_EMPTIED

    def message(self, stream: StreamRecord, message: bytes) -> None:
        """Send one message, as far as the windows let it; the rest waits."""
        if not stream.answered:
            stream.answered = True
            self._headers(stream.id, ANSWER_BLOCK, END_HEADERS)
        self._payload(stream, frame_message(message))

    def refuse(self, stream: StreamRecord, http_status: int) -> bool:
        """Answer a request that is no gRPC call, with a word to whoever reads it; as ``finish``."""
        stream.answered = True
        self._headers(stream.id, refusal_block(http_status), END_HEADERS)
        self._payload(stream, _REFUSAL)
        return self.finish(stream, Status.UNIMPLEMENTED, "")

    def finish(self, stream: StreamRecord, status: Status, why: str) -> bool:
        """End our side after what waits; True when the trailers went out at once."""
        return self._end(stream, trailers_block(status, why, answered=stream.answered))

    def _end(self, stream: StreamRecord, block: bytes) -> bool:
        """End our side with a header block, after what waits."""
        if stream.outbox is not None:
            stream.status = block
            return False
        self._headers(stream.id, block, END_HEADERS | END_STREAM)
        return True

    def flush(self, stream: StreamRecord) -> bool:
        """Send what waits in a stream; True when its trailers have gone out with it."""
        outbox = stream.outbox
        if outbox is None:
            return False
        while outbox and (size := min(len(outbox), self.window, stream.send_window, MAX_FRAME_BYTES)) > 0:
            self._data(stream, bytes(memoryview(outbox)[:size]))
            del outbox[:size]
            self.waiting_bytes -= size
        if outbox and stream.send_window > 0:
            self._waiting[stream.id] = stream
            return False
        self._waiting.pop(stream.id, None)
        if outbox:
            return False
        stream.outbox = None
        return stream.status is not None and self._end(stream, stream.status)

    def widen(self, increment: int) -> list[StreamRecord] | None:
        """The connection's window grows; the streams that ended so. None: it grew too far."""
        self.window += increment
        if self.window > MAX_WINDOW:
            return None
        ended: list[StreamRecord] = []
        for stream in tuple(self._waiting.values()):
            if self.window <= 0:
                break
            if self.flush(stream):
                ended.append(stream)
        return ended

    def forget(self, stream: StreamRecord) -> None:
        """The stream is no more: drop what it had to say."""
        self._waiting.pop(stream.id, None)
        if stream.outbox is not None:
            self.waiting_bytes -= len(stream.outbox)
            stream.outbox = None

    def _payload(self, stream: StreamRecord, payload: bytes) -> None:
        """Send bytes of a body; what the windows do not let through waits."""
        size = len(payload)
        if stream.outbox is None and size <= min(self.window, stream.send_window, MAX_FRAME_BYTES):
            self._data(stream, payload)
            return
        if stream.outbox is None:
            stream.outbox = bytearray()
        stream.outbox += payload
        self.waiting_bytes += size
        self.flush(stream)

    def _data(self, stream: StreamRecord, payload: bytes) -> None:
        """One DATA frame that the windows allow."""
        self.window -= len(payload)
        stream.send_window -= len(payload)
        self.bytes += frame(DATA, 0, stream.id, payload)

    def _headers(self, stream_id: int, block: bytes, flags: int) -> None:
        """One HEADERS frame; ours always fit one."""
        self.bytes += frame(HEADERS, flags, stream_id, self._block_prefix + block)
        self._block_prefix = b""
