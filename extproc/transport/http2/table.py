"""The streams of one connection, from the first header to the last that is known of them.

Every change of a stream passes here, so that what it held is given back in one place,
and every event that it causes is told in order (``heard``).
"""

from extproc.events import StreamEnd
from extproc.transport.http2 import frames
from extproc.transport.http2.broken import too_much
from extproc.transport.http2.frames import ErrorCode
from extproc.transport.http2.happenings import Arrivals, Gone, Happening, PeerEnded
from extproc.transport.http2.limits import Floods, Limits
from extproc.transport.http2.memory import Share
from extproc.transport.http2.messages import Status
from extproc.transport.http2.outgoing import Outgoing
from extproc.transport.http2.streams import Change, State, StreamRecord
from extproc.transport.reasons import Reason

_REMEMBERED = 4096


class StreamTable:
    """Which streams there are. ``now_s`` is the time of the read that is being worked on."""

    def __init__(self, limits: Limits, out: Outgoing, share: Share) -> None:
        self.open: dict[int, StreamRecord] = {}
        self.last_id = 0
        self.listen(0.0)
        self._limits = limits
        self._floods = Floods(limits.buckets)
        self._out = out
        self._share = share
        self._reset_by_us: dict[int, bool] = {}

    def listen(self, now_s: float) -> list[Happening]:
        """A read begins: what happens from now on is told in the list that this returns."""
        self.now_s = now_s
        self.heard: list[Happening] = []
        self.arrived = Arrivals(self.heard)
        return self.heard

    def spend(self, reason: Reason) -> None:
        """Pay for a frame that costs the peer nothing."""
        if not self._floods.spend(reason, self.now_s):
            raise too_much(reason)

    def add(self, stream_id: int, content_length: int | None) -> StreamRecord:
        """A new stream."""
        stream = StreamRecord(stream_id, self._limits.stream_window, self._out.initial_window)
        stream.expected_bytes = content_length
        self.open[stream_id] = stream
        return stream

    def of_us(self, stream_id: int) -> StreamRecord | None:
        """A stream on which we may still say something."""
        stream = self.open.get(stream_id)
        return stream if stream is not None and stream.ours else None

    def finish(self, stream: StreamRecord, status: Status, why: str) -> None:
        """End our side, after what waits. What the peer still sends is not read."""
        stream.plain = False
        self.release(stream)
        if self._out.finish(stream, status, why):
            self.change(stream, Change.WE_END)

    def peer_ends(self, stream: StreamRecord) -> None:
        """The peer has sent its last."""
        if stream.expected_bytes:
            self.reset(stream.id, ErrorCode.PROTOCOL_ERROR)
            return
        tell = stream.ours
        cut = stream.reader is not None and stream.reader.held_bytes > 0
        self.change(stream, Change.PEER_ENDS)
        if tell and cut:
            self.heard.append(Gone(stream.id, StreamEnd.ERROR))
            self.finish(stream, Status.INTERNAL, "the last message is not whole")
        elif tell:
            self.heard.append(PeerEnded(stream.id))

    def reset_by_peer(self, stream: StreamRecord) -> None:
        """The peer gives a stream up; what it sent before has been told before."""
        if stream.state is State.OPEN:
            self.spend(Reason.USED_RESET_FLOOD if stream.used else Reason.RESET_FLOOD)
        if stream.ours:
            self.heard.append(Gone(stream.id, StreamEnd.CANCELLED))
        self.change(stream, Change.RESET)

    def change(self, stream: StreamRecord, change: Change) -> None:
        """Move a stream along its table; forget it at the end."""
        if stream.move(change) is State.CLOSED:
            self._forget(stream, by_us=False)

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """Break one stream, and pay for it: a peer must not make us do so for ever."""
        self.spend(Reason.STREAM_ERROR_FLOOD)
        self._out.bytes += frames.reset(stream_id, code)
        stream = self.open.get(stream_id)
        if stream is None:
            self._remember(stream_id, by_us=True)
        else:
            stream.plain = False
            if stream.ours:
                self.heard.append(Gone(stream_id, StreamEnd.ERROR))
            self._forget(stream, by_us=True)

    def release(self, stream: StreamRecord) -> None:
        """Give back the parts of a message that will never be whole."""
        if stream.reader is not None:
            self._share.hold(parts=self._share.parts - stream.reader.held_bytes)
            stream.reader = None

    def clear(self) -> None:
        """Forget every stream: the connection is over."""
        for stream in self.open.values():
            self.release(stream)
            self._out.forget(stream)
        self.open.clear()
        self._share.hold(answers=0)

    def was_reset_by_us(self, stream_id: int) -> bool | None:
        """Of a stream that is no more; None when that is long ago, or never was."""
        return self._reset_by_us.get(stream_id)

    def _forget(self, stream: StreamRecord, *, by_us: bool) -> None:
        """Give back all that a stream held."""
        self.release(stream)
        self._out.forget(stream)
        self.open.pop(stream.id, None)
        self._remember(stream.id, by_us=by_us)

    def _remember(self, stream_id: int, *, by_us: bool) -> None:
        """Keep the number of a stream that is no more, for a while."""
        self._reset_by_us[stream_id] = by_us
        if len(self._reset_by_us) > _REMEMBERED:
            del self._reset_by_us[next(iter(self._reset_by_us))]
