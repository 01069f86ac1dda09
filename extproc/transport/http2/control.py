"""Frames that are not about a body or a header block: settings, pings, windows, resets, goodbyes.

Each costs us something and the peer next to nothing, so each is paid for from its bucket
(``extproc.transport.http2.limits``).
"""

from extproc.transport.http2 import frames
from extproc.transport.http2.broken import overrun, violation, wrong_size
from extproc.transport.http2.frames import ErrorCode
from extproc.transport.http2.outgoing import Outgoing
from extproc.transport.http2.requests import Requests
from extproc.transport.http2.streams import Change, StreamRecord
from extproc.transport.http2.table import StreamTable
from extproc.transport.reasons import Reason

_DRAIN_PING = b"draining"
_PRIORITY_BYTES = 5
_CODE_BYTES = 4
_PING_BYTES = 8
_GOAWAY_BYTES = 8
_SETTING_BYTES = 6


class Control:
    """Handles control frames. ``ready``: the peer's settings have come."""

    def __init__(self, table: StreamTable, out: Outgoing, requests: Requests) -> None:
        self.ready = False
        self._draining = False
        self._table = table
        self._out = out
        self._requests = requests

    @property
    def drained(self) -> bool:
        """Whether the peer has answered the PING of the first step."""
        return self._requests.refusing

    def drain(self) -> None:
        """Tell the peer to open no more streams; those already on their way are still taken.

        The last word, with the number of the last stream, follows when our PING comes back
        (RFC 9113 §6.8: a graceful shutdown in two steps).
        """
        if not self._draining:
            self._draining = True
            self._out.bytes += frames.goaway(frames.MAX_STREAM_ID, ErrorCode.NO_ERROR, "draining")
            self._out.bytes += frames.frame(frames.PING, 0, 0, _DRAIN_PING)

    def priority(self, stream_id: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 -- a row of the table
        """Obsolete; checked and paid for."""
        self._table.spend(Reason.IDLE_FRAME_FLOOD)
        depends_on = frames.u32(payload.ljust(4, b"\0")) & frames.MAX_STREAM_ID
        if stream_id in {0, depends_on}:
            raise violation()
        if len(payload) != _PRIORITY_BYTES:
            raise wrong_size()

    def rst_stream(self, stream_id: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 -- a row of the table
        """The peer gives a stream up."""
        if len(payload) != _CODE_BYTES:
            raise wrong_size()
        if stream_id == 0 or stream_id > self._table.last_id:
            raise violation()
        stream = self._table.open.get(stream_id)
        if stream is None:
            self._table.spend(Reason.IDLE_FRAME_FLOOD)
        else:
            self._table.reset_by_peer(stream)

    def settings(self, stream_id: int, flags: int, payload: bytes) -> None:
        """The peer's settings, or its acknowledgement of ours."""
        if stream_id:
            raise violation()
        acknowledged = bool(flags & frames.ACK)
        if len(payload) % _SETTING_BYTES or (acknowledged and payload):
            raise wrong_size()
        self._table.spend(Reason.SETTINGS_FLOOD)
        if acknowledged:
            if not self.ready:
                raise violation()
            return
        self.ready = True
        self._out.bytes += frames.frame(frames.SETTINGS, frames.ACK, 0, b"")
        for identifier, value in frames.parse_settings(payload):
            self._setting(identifier, value)

    def ping(self, stream_id: int, flags: int, payload: bytes) -> None:
        """Answered at once. Our own comes back when the peer has heard our GOAWAY."""
        if stream_id:
            raise violation()
        if len(payload) != _PING_BYTES:
            raise wrong_size()
        self._table.spend(Reason.PING_FLOOD)
        if not flags & frames.ACK:
            self._out.bytes += frames.frame(frames.PING, frames.ACK, 0, payload)
        elif self._draining and payload == _DRAIN_PING and not self._requests.refusing:
            self._requests.refusing = True
            self._out.bytes += frames.goaway(self._table.last_id, ErrorCode.NO_ERROR, "draining")

    def goaway(self, stream_id: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 -- a row of the table
        """The peer will open no more streams; those that are open go on."""
        self._table.spend(Reason.IDLE_FRAME_FLOOD)
        if stream_id:
            raise violation()
        if len(payload) < _GOAWAY_BYTES:
            raise wrong_size()

    def window_update(self, stream_id: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 -- a row of the table
        """The peer lets us send more."""
        if len(payload) != _CODE_BYTES:
            raise wrong_size()
        self._table.spend(Reason.WINDOW_UPDATE_FLOOD)
        if stream_id > self._table.last_id:
            raise violation()
        increment = frames.u32(payload) & frames.MAX_WINDOW
        if stream_id == 0:
            self._widen_all(increment)
            return
        stream = self._table.open.get(stream_id)
        if stream is None:
            return
        if increment == 0:
            self._table.reset(stream_id, ErrorCode.PROTOCOL_ERROR)
        else:
            self._widen(stream, increment)

    def unknown(self, stream_id: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 -- a row of the table
        """A kind from the future is passed over (RFC 9113 §4.1), and paid for."""
        self._table.spend(Reason.IDLE_FRAME_FLOOD)

    def forbidden(self, stream_id: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 -- a row of the table
        """A client never pushes."""
        raise violation()

    def _setting(self, identifier: int, value: int) -> None:
        """One setting; those that do not concern us are only checked."""
        if identifier == frames.ENABLE_PUSH and value > 1:
            raise violation()
        if (
            identifier == frames.MAX_FRAME_SIZE
            and not frames.MAX_FRAME_BYTES <= value <= frames.LARGEST_FRAME_BYTES
        ):
            raise violation()
        if identifier == frames.HEADER_TABLE_SIZE and value < frames.DEFAULT_HEADER_TABLE_BYTES:
            self._out.empty_header_table()
        if identifier == frames.INITIAL_WINDOW_SIZE:
            if value > frames.MAX_WINDOW:
                raise overrun()
            change, self._out.initial_window = value - self._out.initial_window, value
            for stream in tuple(self._table.open.values()):
                self._widen(stream, change)

    def _widen(self, stream: StreamRecord, increment: int) -> None:
        """A stream's window changes; what waited goes out."""
        stream.send_window += increment
        if stream.send_window > frames.MAX_WINDOW:
            self._table.reset(stream.id, ErrorCode.FLOW_CONTROL_ERROR)
        elif self._out.flush(stream):
            self._table.change(stream, Change.WE_END)

    def _widen_all(self, increment: int) -> None:
        """The connection's window grows."""
        if increment == 0:
            raise violation()
        ended = self._out.widen(increment)
        if ended is None:
            raise overrun()
        for stream in ended:
            self._table.change(stream, Change.WE_END)
