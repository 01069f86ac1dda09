"""Envoy's side of one HTTP/2 connection, cheap enough never to be the bottleneck.

Messages are serialised before; sending one costs the joining of bytes. Whole rounds (a message
for each stream) go out in one write. Flow control is obeyed: streams move in step, so that what
each was sent is one number, and the peer's WINDOW_UPDATEs are read between rounds.
"""

import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from struct import Struct
from typing import Final, Self

from hpack import Encoder

from extproc.transport.http2 import frames
from extproc.wire import PROCESS_METHOD, PROCESS_SERVICE

_PREFIX: Final = Struct(">BI")
_HEAD: Final = Struct(">HBBB")
_ID: Final = Struct(">I")
_READ_BYTES: Final = 1 << 20
_OUR_WINDOW: Final = 1 << 30
_END: Final = _HEAD.pack(0, 0, frames.DATA, frames.END_STREAM)
_STALLED_S: Final = 60.0
_WRITE_BYTES: Final = 1 << 18


class PeerError(Exception):
    """The server ended the connection, broke a stream, or stalled."""


class EnvoySide:
    """One connection. ``latencies_s``: from each message sent to its answer, where answers are timed."""

    def __init__(self, port: int, *, http2: bool = True) -> None:
        """``http2`` False: for a server that only reads; nothing comes back, and no window ends."""
        self.open: dict[int, int] = {}  # stream → bytes by which its window was widened
        self.answers = 0
        self.latencies_s: list[float] = []
        self._due: dict[int, deque[float]] | None = None
        self._parts: dict[int, bytes] = {}
        self._next_id = 1
        self._encoder = Encoder()
        self._window = frames.DEFAULT_WINDOW
        self._initial = frames.DEFAULT_WINDOW
        self._sent = 0  # on each open stream
        self._rest = b""
        self._ready = False
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        if not http2:
            self._window = self._initial = 1 << 62
            return
        self._write(
            frames.PREFACE
            + frames.settings({frames.INITIAL_WINDOW_SIZE: _OUR_WINDOW})
            + frames.window_update(0, _OUR_WINDOW)
        )
        while not self._ready:
            self._read(wait_s=_STALLED_S)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self, count: int, *, timed: bool = False) -> list[int]:
        """Open streams; returns their ids. No other stream may be open. ``timed``: time the answers."""
        ids = list(range(self._next_id, self._next_id + 2 * count, 2))
        self._next_id = ids[-1] + 2
        self._sent = 0
        self.open = dict.fromkeys(ids, 0)
        self._due = {each: deque() for each in ids} if timed else None
        for start in range(0, count, 256):
            self._write(b"".join(self._head(each) for each in ids[start : start + 256]))
        return ids

    def round(self, ids: Sequence[int], message: bytes) -> None:
        """Send one message on each of the streams, in writes as large as the windows allow."""
        framed = framed_message(message)
        length = sum(len(piece) for _, piece in framed)
        self._sent += length
        while self._sent > self._initial and self._sent > self._initial + min(self.open.values(), default=0):
            self._read(wait_s=_STALLED_S)
        start = 0
        while start < len(ids):
            while self._window < length:
                self._read(wait_s=_STALLED_S)
            some = ids[start : start + max(1, min(self._window, _WRITE_BYTES) // length)]
            start += len(some)
            self._window -= length * len(some)
            if self._due is not None:
                now = time.perf_counter()
                for each in some:
                    self._due[each].append(now)
            for head, piece in framed:
                self._write(b"".join([part for each in some for part in (head, _ID.pack(each), piece)]))
        self._read()

    def one(self, stream_id: int, message: bytes) -> None:
        """Send one message on one stream, in a write of its own, within the first window."""
        framed = framed_message(message)
        self._window -= sum(len(piece) for _, piece in framed)
        while self._window < 0:
            self._read(wait_s=_STALLED_S)
        if self._due is not None:
            self._due[stream_id].append(time.perf_counter())
        self._write(b"".join(part for head, piece in framed for part in (head, _ID.pack(stream_id), piece)))

    def read(self, wait_s: float = 0.0) -> None:
        """Take what the server has sent."""
        self._read(wait_s=wait_s)

    def until_answered(self, count: int) -> None:
        """Wait until so many answers have come altogether."""
        while self.answers < count:
            self._read(wait_s=_STALLED_S)

    def until_over(self) -> None:
        """Wait until the server has ended every stream."""
        while self.open:
            self._read(wait_s=_STALLED_S)

    def _head(self, stream_id: int) -> bytes:
        block = self._encoder.encode(
            [
                (":method", "POST"),
                (":path", f"/{PROCESS_SERVICE}/{PROCESS_METHOD}"),
                (":authority", "steno"),
                (":scheme", "http"),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                ("x-steno-request-id", f"3f7a4a34-9b1c-4c86-8f4e-{stream_id:012x}"),
                ("x-envoy-internal", "true"),
                ("x-forwarded-for", "127.0.0.1"),
            ]
        )
        return frames.frame(frames.HEADERS, frames.END_HEADERS, stream_id, block)

    def _write(self, data: bytes) -> None:
        """Write everything, reading meanwhile, as a peer must."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                readable, _, _ = select.select([self._socket], [self._socket], [], _STALLED_S)
                if readable:
                    self._read()

    def _read(self, wait_s: float = 0.0) -> None:
        if wait_s:
            readable, _, _ = select.select([self._socket], [], [], wait_s)
            if not readable:
                if wait_s >= _STALLED_S:
                    raise PeerError("the server says nothing for a minute")
                return
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise PeerError("the server hung up")
        self._rest = self._frames(self._rest + data)

    def _frames(self, data: bytes) -> bytes:
        """Act on every whole frame; return the rest."""
        start, size = 0, len(data)
        reply: list[bytes] = []
        while size - start >= frames.FRAME_HEADER_BYTES:
            high, low, kind, flags, stream_id = frames.HEADER.unpack_from(data, start)
            end = start + frames.FRAME_HEADER_BYTES + (high << 8 | low)
            if end > size:
                break
            if kind == frames.DATA:
                self._answered(stream_id, data[start + frames.FRAME_HEADER_BYTES : end])
            else:
                reply.append(
                    self._control(kind, flags, stream_id, data[start + frames.FRAME_HEADER_BYTES : end])
                )
            start = end
        output = b"".join(reply)
        if output:
            self._write(output)
        return data[start:]

    def _answered(self, stream_id: int, data: bytes) -> None:
        """Count the messages in a DATA frame, and time them."""
        data = self._parts.pop(stream_id, b"") + data
        start = 0
        while len(data) - start >= _PREFIX.size:
            end = start + _PREFIX.size + _PREFIX.unpack_from(data, start)[1]
            if end > len(data):
                break
            self.answers += 1
            if self._due is not None and (waiting := self._due[stream_id]):
                self.latencies_s.append(time.perf_counter() - waiting.popleft())
            start = end
        if start < len(data):
            self._parts[stream_id] = data[start:]

    def _control(self, kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
        """What a frame changes; returns what it is answered with."""
        if kind == frames.WINDOW_UPDATE:
            increment = frames.u32(payload)
            if stream_id == 0:
                self._window += increment
            elif stream_id in self.open:
                self.open[stream_id] += increment
        elif kind == frames.HEADERS and flags & frames.END_STREAM:
            if self.open.pop(stream_id, None) is not None:
                return _END + _ID.pack(stream_id)
        elif kind == frames.RST_STREAM:
            self.open.pop(stream_id, None)
        elif kind == frames.PING and not flags & frames.ACK:
            return frames.frame(frames.PING, frames.ACK, 0, payload)
        elif kind == frames.SETTINGS and not flags & frames.ACK:
            self._ready = True
            self._initial = dict(frames.parse_settings(payload)).get(
                frames.INITIAL_WINDOW_SIZE, self._initial
            )
            return frames.frame(frames.SETTINGS, frames.ACK, 0, b"")
        elif kind == frames.GOAWAY and frames.u32(payload, 4) != frames.ErrorCode.NO_ERROR:
            raise PeerError(f"GOAWAY: {payload[8:]!r}")  # an orderly one lets the open streams go on
        return b""


def framed_message(message: bytes) -> list[tuple[bytes, bytes]]:
    """A gRPC message as DATA frames without their stream: (start of the frame's head, payload)."""
    data = _PREFIX.pack(0, len(message)) + message
    pieces = [
        data[start : start + frames.MAX_FRAME_BYTES] for start in range(0, len(data), frames.MAX_FRAME_BYTES)
    ]
    return [(_HEAD.pack(len(each) >> 8, len(each) & 0xFF, frames.DATA, 0), each) for each in pieces]
