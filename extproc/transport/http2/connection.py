"""One HTTP/2 connection, without sockets or clocks: bytes in, happenings out.

``receive_data`` takes what was read and the time; what is to be sent gathers and is
fetched with ``take_output``. A violation of the connection ends it: a GOAWAY that says
why is in the output, ``broken`` is the reason, and nothing is heard any more.

This module cuts reads into frames and gives each to the part that it is for, by a table:
``bodies`` (DATA), ``blocks`` and ``requests`` (HEADERS, CONTINUATION), ``control`` (the
rest). The parts share the table of streams (``table``) and what is to be sent (``outgoing``).
"""

from collections.abc import Callable
from typing import TypeAlias

from extproc.transport.http2 import frames
from extproc.transport.http2.blocks import Block, HeaderBlocks
from extproc.transport.http2.bodies import Bodies
from extproc.transport.http2.broken import BrokenError, violation, wrong_size
from extproc.transport.http2.control import Control
from extproc.transport.http2.frames import ErrorCode
from extproc.transport.http2.happenings import Happening
from extproc.transport.http2.limits import Limits
from extproc.transport.http2.memory import Memory, Share
from extproc.transport.http2.messages import Status
from extproc.transport.http2.outgoing import Outgoing
from extproc.transport.http2.requests import Requests
from extproc.transport.http2.table import StreamTable
from extproc.transport.reasons import Reason

_Handler: TypeAlias = Callable[[int, int, bytes], None]


class Connection:
    """The server's end of one connection. ``share``: what it may hold; all of ``limits`` without."""

    def __init__(self, limits: Limits | None = None, share: Share | None = None) -> None:
        self.broken: Reason | None = None
        self._limits = limits = limits or Limits()
        self._share = share = share or Memory(limits.process_bytes).share(limits.connection_window)
        self._out = out = Outgoing()
        self._table = table = StreamTable(limits, out, share)
        self._bodies = Bodies(limits, table, out, share)
        self._blocks = HeaderBlocks(limits)
        self._requests = Requests(limits, table, out)
        self._control = control = Control(table, out, self._requests)
        self._greeted = False
        self._rest = bytearray()
        self._wanted = len(frames.PREFACE)
        self._handlers: dict[int, _Handler] = {
            frames.DATA: self._bodies.frame,
            frames.HEADERS: self._headers,
            frames.PRIORITY: control.priority,
            frames.RST_STREAM: control.rst_stream,
            frames.SETTINGS: control.settings,
            frames.PUSH_PROMISE: control.forbidden,
            frames.PING: control.ping,
            frames.GOAWAY: control.goaway,
            frames.WINDOW_UPDATE: control.window_update,
            frames.CONTINUATION: self._continuation,
        }
        out.bytes += frames.settings(
            {
                frames.MAX_CONCURRENT_STREAMS: limits.streams,
                frames.INITIAL_WINDOW_SIZE: limits.stream_window,
                frames.MAX_HEADER_LIST_SIZE: limits.header_bytes,
            }
        )
        if share.window > frames.DEFAULT_WINDOW:
            out.bytes += frames.window_update(0, share.window - frames.DEFAULT_WINDOW)

    @property
    def ready(self) -> bool:
        """Whether the peer's preface and settings have come."""
        return self._control.ready

    def receive_data(self, data: bytes, now_s: float) -> list[Happening]:
        """Take what was read, at a monotonic time; return what happened, in order."""
        if self.broken:
            return []
        heard = self._table.listen(now_s)
        try:
            self._receive(data)
        except BrokenError as broken:
            self.fail(broken.reason, broken.code)
        if self._share.answers:
            self._share.hold(answers=self._out.waiting_bytes)
        return heard

    def take_output(self) -> bytes:
        """What is to be sent now; it is the caller's from here on."""
        if not self._out.bytes:
            return b""
        output = bytes(self._out.bytes)
        self._out.bytes.clear()
        return output

    def send_message(self, stream_id: int, message: bytes) -> None:
        """Answer with one message. Does nothing for an RPC that is over."""
        stream = self._table.of_us(stream_id)
        if stream is None or self.broken:
            return
        self._out.message(stream, message)
        waiting = self._out.waiting_bytes
        if waiting and (not self._share.hold(answers=waiting) or waiting > self._limits.unread_bytes):
            self.fail(Reason.UNREAD_ANSWERS)

    def finish(self, stream_id: int, status: Status = Status.OK, why: str = "") -> None:
        """End an RPC, after its answers. Does nothing for one that is over."""
        stream = self._table.of_us(stream_id)
        if stream is not None and not self.broken:
            self._table.finish(stream, status, why)

    def drain(self) -> None:
        """Tell the peer to open no more streams; those already on their way are still taken."""
        if not self.broken:
            self._control.drain()

    @property
    def drained(self) -> bool:
        """Whether the peer has heard that it shall open no more: none is on its way to us any more."""
        return self._control.drained

    def fail(self, reason: Reason, code: ErrorCode = ErrorCode.ENHANCE_YOUR_CALM) -> None:
        """End the connection with a GOAWAY that says why; give back all that it held."""
        if self.broken is None:
            self.broken = reason
            self._out.bytes += frames.goaway(self._table.last_id, code, reason.value)
            self._table.clear()
            self._rest.clear()

    def _receive(self, data: bytes) -> None:
        """Cut what was read into frames, the unfinished rest of the last read first."""
        rest = self._rest
        if rest:
            rest += data
            if len(rest) < self._wanted:
                if not self._greeted and not frames.PREFACE.startswith(rest):
                    raise violation()
                return
            data = bytes(rest)
            rest.clear()
        start = 0 if self._greeted else self._preface(data)
        if self._greeted:
            start = self._frames(data, start)
        if start < len(data):
            rest += data[start:]

    def _preface(self, data: bytes) -> int:
        """Where the frames begin."""
        if data.startswith(frames.PREFACE):
            self._greeted = True
            return len(frames.PREFACE)
        if not frames.PREFACE.startswith(data):
            raise violation()
        return 0

    def _frames(self, data: bytes, start: int) -> int:
        """Handle every whole frame; return where the rest begins."""
        size = len(data)
        while True:
            if not self._blocks.of_stream:
                start = self._bodies.run(data, start)
            if size - start < frames.FRAME_HEADER_BYTES:
                self._wanted = frames.FRAME_HEADER_BYTES
                return start
            high, low, kind, flags, stream_id = frames.HEADER.unpack_from(data, start)
            length = high << 8 | low
            if length > frames.MAX_FRAME_BYTES:
                raise wrong_size()
            end = start + frames.FRAME_HEADER_BYTES + length
            if end > size:
                self._wanted = end - start
                return start
            payload = data[start + frames.FRAME_HEADER_BYTES : end]
            self._frame(kind, flags, stream_id & frames.MAX_STREAM_ID, payload)
            start = end

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """One frame, if it may come now."""
        if not self._control.ready and kind != frames.SETTINGS:
            raise violation()
        of_stream = self._blocks.of_stream
        if of_stream and (kind != frames.CONTINUATION or stream_id != of_stream):
            raise violation()
        self._handlers.get(kind, self._control.unknown)(stream_id, flags, payload)

    def _headers(self, stream_id: int, flags: int, payload: bytes) -> None:
        """Begins a header block."""
        self._block(self._blocks.begin(stream_id, flags, payload))

    def _continuation(self, stream_id: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 -- checked before
        """More of a header block."""
        self._block(self._blocks.more(flags, payload))

    def _block(self, block: Block | None) -> None:
        """Take a header block that is whole."""
        if block is not None:
            self._requests.take(block)
