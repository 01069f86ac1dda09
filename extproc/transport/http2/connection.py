"""One HTTP/2 connection, without sockets or clocks: bytes in, happenings out.

``receive_data`` takes what was read and the time; what is to be sent gathers and is
fetched with ``take_output``. A violation of the connection ends it: a GOAWAY that says
why is in the output, ``broken`` is the reason, and nothing is heard any more.
"""

from collections.abc import Callable
from typing import TypeAlias

from hpack import Decoder, HPACKError, OversizedHeaderListError

from extproc.events import StreamEnd
from extproc.transport.http2 import frames
from extproc.transport.http2.frames import ErrorCode
from extproc.transport.http2.happenings import Arrived, Gone, Happening, Opened, PeerEnded
from extproc.transport.http2.heads import (
    Head,
    MalformedHeadError,
    check_trailers,
    read_head,
)
from extproc.transport.http2.limits import Floods, Limits, Reason
from extproc.transport.http2.messages import PREFIX_BYTES, MessageReader, Status
from extproc.transport.http2.outgoing import Outgoing
from extproc.transport.http2.streams import TRANSITIONS, Change, State, StreamRecord

_REMEMBERED = 4096
_DRAIN_PING = b"draining"
_HTTP_OK = 200
_Handler: TypeAlias = Callable[[int, int, bytes], None]


class _BrokenError(Exception):
    """The connection cannot go on."""

    def __init__(self, code: ErrorCode, reason: Reason) -> None:
        super().__init__(reason.value)
        self.code = code
        self.reason = reason


def _protocol() -> _BrokenError:
    """What most violations are."""
    return _BrokenError(ErrorCode.PROTOCOL_ERROR, Reason.PROTOCOL)


def _frame_size() -> _BrokenError:
    """A frame of a length that its kind cannot have."""
    return _BrokenError(ErrorCode.FRAME_SIZE_ERROR, Reason.FRAME_SIZE)


def _flow_control() -> _BrokenError:
    """A window was overrun, or widened too far."""
    return _BrokenError(ErrorCode.FLOW_CONTROL_ERROR, Reason.FLOW_CONTROL)


class Connection:
    """The server's end of one connection."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.broken: Reason | None = None
        self.ready = False  # the peer's preface and settings have come
        self._limits = limits or Limits()
        self._floods = Floods(self._limits.buckets)
        self._now_s = 0.0
        self._rest = bytearray()
        self._wanted = len(frames.PREFACE)
        self._greeted = False
        self._happenings: list[Happening] = []
        self._streams: dict[int, StreamRecord] = {}
        self._reset_by_us: dict[int, bool] = {}
        self._last_id = 0
        self._refusing = False
        self._draining = False
        self._credit = 0
        self._window = self._limits.connection_window
        self._held_bytes = 0
        self._block: bytearray | None = None
        self._block_of = (0, 0)  # stream and flags of the HEADERS frame that is being continued
        self._block_frames = 0
        self._decoder = Decoder(max_header_list_size=self._limits.header_bytes)
        self._out = Outgoing()
        self._handlers: dict[int, _Handler] = {
            frames.HEADERS: self._headers,
            frames.PRIORITY: self._priority,
            frames.RST_STREAM: self._rst_stream,
            frames.SETTINGS: self._settings,
            frames.PING: self._ping,
            frames.GOAWAY: self._goaway,
            frames.WINDOW_UPDATE: self._window_update,
            frames.CONTINUATION: self._continuation,
        }
        self._out.bytes += frames.settings(
            {
                frames.MAX_CONCURRENT_STREAMS: self._limits.streams,
                frames.INITIAL_WINDOW_SIZE: self._limits.stream_window,
                frames.MAX_HEADER_LIST_SIZE: self._limits.header_bytes,
            }
        )
        self._out.bytes += frames.window_update(0, self._limits.connection_window - frames.DEFAULT_WINDOW)

    def receive_data(self, data: bytes, now_s: float) -> list[Happening]:
        """Take what was read, at a monotonic time; return what happened, in order."""
        if self.broken:
            return []
        self._now_s = now_s
        happenings: list[Happening] = []
        self._happenings = happenings
        try:
            self._receive(data)
        except _BrokenError as broken:
            self.fail(broken.reason, broken.code)
        return happenings

    def take_output(self) -> bytes:
        """What is to be sent now; it is the caller's from here on."""
        output = bytes(self._out.bytes)
        self._out.bytes.clear()
        return output

    def send_message(self, stream_id: int, message: bytes) -> None:
        """Answer with one message. Does nothing for an RPC that is over."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.state is State.WE_ENDED or stream.status is not None:
            return
        self._out.message(stream, message)
        if self._out.waiting_bytes > self._limits.unread_bytes:
            self.fail(Reason.UNREAD_ANSWERS, ErrorCode.ENHANCE_YOUR_CALM)

    def finish(self, stream_id: int, status: Status = Status.OK, why: str = "") -> None:
        """End an RPC, after its answers. Does nothing for one that is over."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.state is State.WE_ENDED or stream.status is not None:
            return
        if self._out.finish(stream, status, why):
            self._change(stream, Change.WE_END)

    def drain(self) -> None:
        """Tell the peer to open no more streams; those already on their way are still taken."""
        if not self._draining and not self.broken:
            self._draining = True
            self._out.bytes += frames.goaway(frames.MAX_STREAM_ID, ErrorCode.NO_ERROR, "draining")
            self._out.bytes += frames.frame(frames.PING, 0, 0, _DRAIN_PING)

    def fail(self, reason: Reason, code: ErrorCode = ErrorCode.ENHANCE_YOUR_CALM) -> None:
        """End the connection with a GOAWAY that says why."""
        if self.broken is None:
            self.broken = reason
            self._out.bytes += frames.goaway(self._last_id, code, reason.value)

    # -- frames

    def _receive(self, data: bytes) -> None:
        """Cut what was read into frames, the unfinished rest of the last read first."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                if not self._greeted and not frames.PREFACE.startswith(self._rest):
                    raise _protocol()
                return
            data = bytes(self._rest)
        start = 0 if self._greeted else self._preface(data)
        start = self._frames(data, start) if self._greeted else start
        self._rest = bytearray(data[start:])

    def _preface(self, data: bytes) -> int:
        """Where the frames begin."""
        if data.startswith(frames.PREFACE):
            self._greeted = True
            return len(frames.PREFACE)
        if not frames.PREFACE.startswith(data):
            raise _protocol()
        self._wanted = len(frames.PREFACE)
        return 0

    def _frames(self, data: bytes, start: int) -> int:
        """Handle every whole frame; return where the rest begins. The hot loop."""
        size = len(data)
        unpack = frames.HEADER.unpack_from
        while size - start >= frames.FRAME_HEADER_BYTES:
            high, low, kind, flags, stream_id = unpack(data, start)
            length = high << 8 | low
            if length > frames.MAX_FRAME_BYTES:
                raise _frame_size()
            end = start + frames.FRAME_HEADER_BYTES + length
            if end > size:
                self._wanted = end - start
                return start
            stream_id &= frames.MAX_STREAM_ID
            if kind == frames.DATA and self._block is None and self.ready:
                self._data(stream_id, flags, data, start + frames.FRAME_HEADER_BYTES, end)
            else:
                self._control(kind, flags, stream_id, data[start + frames.FRAME_HEADER_BYTES : end])
            start = end
        self._wanted = frames.FRAME_HEADER_BYTES
        return start

    def _control(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Any frame but DATA."""
        if not self.ready and kind != frames.SETTINGS:
            raise _protocol()
        if self._block is not None and (kind != frames.CONTINUATION or stream_id != self._block_of[0]):
            raise _protocol()
        handler = self._handlers.get(kind)
        if handler is not None:
            handler(stream_id, flags, payload)
        elif kind == frames.PUSH_PROMISE:
            raise _protocol()
        else:
            self._spend(Reason.IDLE_FRAME_FLOOD)

    def _data(self, stream_id: int, flags: int, data: bytes, start: int, end: int) -> None:
        """A DATA frame. Its whole length counts against the windows, padding included."""
        length = end - start
        self._window -= length
        if self._window < 0:
            raise _flow_control()
        self._credit += length
        if self._credit * 2 >= self._limits.connection_window:
            self._out.bytes += frames.window_update(0, self._credit)
            self._window += self._credit
            self._credit = 0
        stream = self._streams.get(stream_id)
        if stream is None or stream.state is State.PEER_ENDED:
            self._late_data(stream_id)
            return
        if flags & frames.PADDED:
            if length == 0 or data[start] >= length:
                raise _protocol()
            start, end = start + 1, end - data[start]
        self._take_credit(stream, length)
        if start == end and not flags & frames.END_STREAM:
            self._spend(Reason.EMPTY_FRAME_FLOOD)
        if stream.expected_bytes is not None:
            stream.expected_bytes -= end - start
            if stream.expected_bytes < 0:
                self._reset(stream_id, ErrorCode.PROTOCOL_ERROR)
                return
        if stream.state is State.OPEN and end > start:
            self._messages(stream, data, start, end)
        if flags & frames.END_STREAM:
            self._peer_ends(stream)

    def _take_credit(self, stream: StreamRecord, length: int) -> None:
        """Count what came against the stream's window, and give it back in large steps."""
        window = stream.receive_window - length
        if window < 0:
            raise _flow_control()
        if window * 2 <= self._limits.stream_window:
            self._out.bytes += frames.window_update(stream.id, self._limits.stream_window - window)
            window = self._limits.stream_window
        stream.receive_window = window

    def _messages(self, stream: StreamRecord, data: bytes, start: int, end: int) -> None:
        """The messages in a DATA frame; as a rule it is exactly one."""
        if (
            stream.reader is None
            and end - start >= PREFIX_BYTES
            and data[start] == 0
            and frames.u32(data, start + 1) == end - start - PREFIX_BYTES
        ):
            stream.used = True
            self._happenings.append(Arrived(stream.id, data[start + PREFIX_BYTES : end]))
            return
        self._assemble(stream, data[start:end])

    def _assemble(self, stream: StreamRecord, part: bytes) -> None:
        """Messages that are not one to a frame."""
        reader = stream.reader = stream.reader or MessageReader()
        before = reader.held_bytes
        for message in reader.feed(part):
            stream.used = True
            self._happenings.append(Arrived(stream.id, message))
        self._held_bytes += reader.held_bytes - before
        refused = reader.refused
        if refused is None and self._held_bytes > self._limits.held_bytes:
            refused = Status.RESOURCE_EXHAUSTED
        if refused is None:
            if not reader.held_bytes:
                stream.reader = None
            return
        self._happenings.append(Gone(stream.id, StreamEnd.ERROR))
        self._release(stream)
        self.finish(stream.id, refused, "the message cannot be taken")

    def _late_data(self, stream_id: int) -> None:
        """DATA for a stream that takes none any more, or never did."""
        if stream_id == 0 or stream_id > self._last_id or not stream_id % 2:
            raise _protocol()
        if not self._reset_by_us.get(stream_id):
            self._reset(stream_id, ErrorCode.STREAM_CLOSED)

    def _headers(self, stream_id: int, flags: int, payload: bytes) -> None:
        """A request's head, or its trailers: begins a header block."""
        if stream_id == 0 or not stream_id % 2:
            raise _protocol()
        if flags & frames.PADDED:
            if not payload or payload[0] >= len(payload):
                raise _protocol()
            payload = payload[1 : len(payload) - payload[0]]
        if flags & frames.WITH_PRIORITY:
            if len(payload) < 5:  # noqa: PLR2004 -- RFC 9113 §6.2
                raise _frame_size()
            if frames.u32(payload) & frames.MAX_STREAM_ID == stream_id:
                raise _protocol()
            payload = payload[5:]
        self._block = bytearray(payload)
        self._block_of = (stream_id, flags)
        self._block_frames = 1
        if flags & frames.END_HEADERS:
            self._block_over()

    def _continuation(self, stream_id: int, flags: int, payload: bytes) -> None:
        """More of a header block."""
        if self._block is None or stream_id == 0:
            raise _protocol()
        self._block += payload
        self._block_frames += 1
        if self._block_frames > self._limits.header_frames or len(self._block) > self._limits.header_bytes:
            raise _BrokenError(ErrorCode.ENHANCE_YOUR_CALM, Reason.CONTINUATION_FLOOD)
        if flags & frames.END_HEADERS:
            self._block_over()

    def _block_over(self) -> None:
        """A whole header block: decode it whatever it is for, or the table is out of step."""
        block, self._block = bytes(self._block or b""), None
        stream_id, flags = self._block_of
        try:
            fields = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError as error:
            raise _BrokenError(ErrorCode.ENHANCE_YOUR_CALM, Reason.HEADER_LIST) from error
        except (HPACKError, ValueError, IndexError) as error:
            raise _BrokenError(ErrorCode.COMPRESSION_ERROR, Reason.COMPRESSION) from error
        ended = bool(flags & frames.END_STREAM)
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._trailers(stream, fields, ended=ended)
        elif stream_id > self._last_id:
            self._request(stream_id, fields, ended=ended)
        elif stream_id not in self._reset_by_us:
            raise _protocol()
        elif not self._reset_by_us[stream_id]:
            raise _BrokenError(ErrorCode.STREAM_CLOSED, Reason.STREAM_CLOSED)

    def _trailers(self, stream: StreamRecord, fields: list[tuple[bytes, bytes]], *, ended: bool) -> None:
        """A second header block ends the peer's side."""
        if stream.state is State.PEER_ENDED:
            self._reset(stream.id, ErrorCode.STREAM_CLOSED)
            return
        try:
            check_trailers(fields)
        except MalformedHeadError:
            ended = False
        if ended:
            self._peer_ends(stream)
        else:
            self._reset(stream.id, ErrorCode.PROTOCOL_ERROR)

    def _request(self, stream_id: int, fields: list[tuple[bytes, bytes]], *, ended: bool) -> None:
        """A new stream."""
        if self._refusing or len(self._streams) >= self._limits.streams:
            if not self._refusing:
                self._last_id = stream_id
            self._reset(stream_id, ErrorCode.REFUSED_STREAM)
            return
        self._last_id = stream_id
        try:
            head = read_head(fields)
        except MalformedHeadError:
            self._reset(stream_id, ErrorCode.PROTOCOL_ERROR)
            return
        stream = StreamRecord(stream_id, self._limits.stream_window, self._out.initial_window)
        stream.expected_bytes = head.content_length
        self._streams[stream_id] = stream
        self._open(stream, head)
        if ended:
            self._peer_ends(stream)

    def _open(self, stream: StreamRecord, head: Head) -> None:
        """Tell of a call; refuse what is none."""
        if head.status == _HTTP_OK:
            self._happenings.append(Opened(stream.id, head.path, head.metadata, head.timeout_s))
        elif self._out.refuse(stream, head.status):
            self._change(stream, Change.WE_END)

    def _peer_ends(self, stream: StreamRecord) -> None:
        """The peer has sent its last."""
        if stream.expected_bytes:
            self._reset(stream.id, ErrorCode.PROTOCOL_ERROR)
            return
        if stream.state is State.OPEN:
            cut = stream.reader is not None and stream.reader.held_bytes > 0
            self._change(stream, Change.PEER_ENDS)
            if cut:
                self._happenings.append(Gone(stream.id, StreamEnd.ERROR))
                self.finish(stream.id, Status.INTERNAL, "the last message is not whole")
            else:
                self._happenings.append(PeerEnded(stream.id))
        else:
            self._change(stream, Change.PEER_ENDS)

    def _priority(self, stream_id: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 -- a row of the table
        """Obsolete; checked and paid for."""
        self._spend(Reason.IDLE_FRAME_FLOOD)
        if stream_id == 0 or frames.u32(payload.ljust(4, b"\0")) & frames.MAX_STREAM_ID == stream_id:
            raise _protocol()
        if len(payload) != 5:  # noqa: PLR2004 -- RFC 9113 §6.3
            raise _frame_size()

    def _rst_stream(self, stream_id: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 -- a row of the table
        """The peer gives a stream up; what it sent before has been told before."""
        if len(payload) != 4:  # noqa: PLR2004 -- RFC 9113 §6.4
            raise _frame_size()
        if stream_id == 0 or stream_id > self._last_id:
            raise _protocol()
        stream = self._streams.get(stream_id)
        if stream is None:
            self._spend(Reason.IDLE_FRAME_FLOOD)
            return
        if not stream.used and stream.state is State.OPEN:
            self._spend(Reason.RESET_FLOOD)
        self._happenings.append(Gone(stream_id, StreamEnd.CANCELLED))
        self._change(stream, Change.RESET)

    def _settings(self, stream_id: int, flags: int, payload: bytes) -> None:
        """The peer's settings, or its acknowledgement of ours."""
        if stream_id:
            raise _protocol()
        if len(payload) % 6 or (flags & frames.ACK and payload):
            raise _frame_size()
        self._spend(Reason.SETTINGS_FLOOD)
        if flags & frames.ACK:
            if not self.ready:
                raise _protocol()
            return
        self.ready = True
        self._out.bytes += frames.frame(frames.SETTINGS, frames.ACK, 0, b"")
        for identifier, value in frames.parse_settings(payload):
            self._setting(identifier, value)

    def _setting(self, identifier: int, value: int) -> None:
        """One setting; those that do not concern us are only checked."""
        if identifier == frames.ENABLE_PUSH and value > 1:
            raise _protocol()
        if (
            identifier == frames.MAX_FRAME_SIZE
            and not frames.MAX_FRAME_BYTES <= value <= frames.LARGEST_FRAME_BYTES
        ):
            raise _protocol()
        if identifier == frames.HEADER_TABLE_SIZE and value < frames.DEFAULT_HEADER_TABLE_BYTES:
            self._out.empty_header_table()
        if identifier == frames.INITIAL_WINDOW_SIZE:
            if value > frames.MAX_WINDOW:
                raise _flow_control()
            change, self._out.initial_window = value - self._out.initial_window, value
            for stream in tuple(self._streams.values()):
                self._widen(stream, change)

    def _widen(self, stream: StreamRecord, increment: int) -> None:
        """A stream's window changes; what waited goes out."""
        stream.send_window += increment
        if stream.send_window > frames.MAX_WINDOW:
            self._reset(stream.id, ErrorCode.FLOW_CONTROL_ERROR)
        elif self._out.flush(stream):
            self._change(stream, Change.WE_END)

    def _ping(self, stream_id: int, flags: int, payload: bytes) -> None:
        """Answered at once. Our own comes back when the peer has heard our GOAWAY."""
        if stream_id:
            raise _protocol()
        if len(payload) != 8:  # noqa: PLR2004 -- RFC 9113 §6.7
            raise _frame_size()
        self._spend(Reason.PING_FLOOD)
        if not flags & frames.ACK:
            self._out.bytes += frames.frame(frames.PING, frames.ACK, 0, payload)
        elif self._draining and payload == _DRAIN_PING and not self._refusing:
            self._refusing = True
            self._out.bytes += frames.goaway(self._last_id, ErrorCode.NO_ERROR, "draining")

    def _goaway(self, stream_id: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 -- a row of the table
        """The peer will open no more streams; those that are open go on."""
        self._spend(Reason.IDLE_FRAME_FLOOD)
        if stream_id:
            raise _protocol()
        if len(payload) < 8:  # noqa: PLR2004 -- RFC 9113 §6.8
            raise _frame_size()

    def _window_update(self, stream_id: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 -- a row of the table
        """The peer lets us send more."""
        if len(payload) != 4:  # noqa: PLR2004 -- RFC 9113 §6.9
            raise _frame_size()
        self._spend(Reason.WINDOW_UPDATE_FLOOD)
        if stream_id > self._last_id:
            raise _protocol()
        increment = frames.u32(payload) & frames.MAX_WINDOW
        if stream_id == 0:
            if increment == 0:
                raise _protocol()
            ended = self._out.widen(increment)
            if ended is None:
                raise _flow_control()
            for each in ended:
                self._change(each, Change.WE_END)
            return
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if increment == 0:
            self._reset(stream_id, ErrorCode.PROTOCOL_ERROR)
        else:
            self._widen(stream, increment)

    # -- streams

    def _change(self, stream: StreamRecord, change: Change) -> None:
        """Move a stream along its table; forget it at the end."""
        stream.state = TRANSITIONS[stream.state, change]
        if stream.state is State.CLOSED:
            self._forget(stream, by_us=False)

    def _reset(self, stream_id: int, code: ErrorCode) -> None:
        """Break one stream, and pay for it: a peer must not make us do so for ever."""
        self._spend(Reason.STREAM_ERROR_FLOOD)
        self._out.bytes += frames.reset(stream_id, code)
        stream = self._streams.get(stream_id)
        if stream is None:
            self._remember(stream_id, by_us=True)
        else:
            self._happenings.append(Gone(stream_id, StreamEnd.ERROR))
            self._forget(stream, by_us=True)

    def _forget(self, stream: StreamRecord, *, by_us: bool) -> None:
        """Give back all that a stream held."""
        self._release(stream)
        self._out.forget(stream)
        self._streams.pop(stream.id, None)
        self._remember(stream.id, by_us=by_us)

    def _release(self, stream: StreamRecord) -> None:
        """Give back the parts of a message that will never be whole."""
        if stream.reader is not None:
            self._held_bytes -= stream.reader.held_bytes
            stream.reader = None

    def _remember(self, stream_id: int, *, by_us: bool) -> None:
        """Keep the number of a stream that is no more, for a while."""
        self._reset_by_us[stream_id] = by_us
        if len(self._reset_by_us) > _REMEMBERED:
            del self._reset_by_us[next(iter(self._reset_by_us))]

    def _spend(self, reason: Reason) -> None:
        """Pay for a frame that costs the peer nothing."""
        if not self._floods.spend(reason, self._now_s):
            raise _BrokenError(ErrorCode.ENHANCE_YOUR_CALM, reason)
