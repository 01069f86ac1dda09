"""One connection on its socket: gives the protocol bytes and time, and the calls their messages.

A connection that we end is told why and then read, without a look at what comes, until
the peer has closed it too or a moment has passed: closing with bytes unread would make
the kernel reset it, and the GOAWAY would be lost.
"""

import asyncio
import ssl
from typing import cast

from extproc.events import StreamEnd
from extproc.transport.http2.calls import Call
from extproc.transport.http2.connection import Connection
from extproc.transport.http2.context import Context
from extproc.transport.http2.happenings import Arrived, Gone, Happening, Opened, PeerEnded
from extproc.transport.http2.messages import Status
from extproc.transport.http2.reading import Reading
from extproc.transport.reasons import Reason

_HEARD_S = 1.0
_LOOK_S = 0.01
"""So long, and so often, a peer is given to hear that it shall open no more streams."""
_LONGEST_TIMEOUT_S = 10 * 365 * 86400.0
_LINGER_S = 1.0
_LINGER_BYTES = 8 * 1024 * 1024


class _Reply:
    """How one call answers."""

    __slots__ = ("_protocol", "_stream_id")

    def __init__(self, protocol: "ServerProtocol", stream_id: int) -> None:
        self._protocol = protocol
        self._stream_id = stream_id

    def observed(self, observing: bool) -> None:
        """Say whether the peer waits for no answer."""
        self._protocol.observed(self._stream_id, observing)

    def message(self, message: bytes) -> None:
        """Send one message."""
        self._protocol.connection.send_message(self._stream_id, message)
        self._protocol.flush()

    def finish(self, status: Status = Status.OK, why: str = "") -> None:
        """End the RPC."""
        self._protocol.connection.finish(self._stream_id, status, why)
        self._protocol.over(self._stream_id)
        self._protocol.flush()


class ServerProtocol(asyncio.Protocol):
    """asyncio's side of one connection."""

    def __init__(self, context: Context) -> None:
        self._share = context.memory.share(context.limits.connection_window)
        self.connection = Connection(context.limits, self._share)
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._read: Reading | None = None
        self._calls: dict[int, Call] = {}
        self._answering: set[int] = set()  # calls whose peer may wait for an answer: not known yet
        self._rests = True
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._working = False
        self._closing = False
        self._ignored_bytes = 0
        self._closed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._greeting: asyncio.TimerHandle | None = None
        self._lingering: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A peer is there; it must greet us soon."""
        context = self._context
        self._transport = cast("asyncio.Transport", transport)
        self._read = Reading(
            self._transport, self._take, window=self._share.window, rest_s=context.rest_s, clock=context.clock
        )
        context.connections.add(self)
        tls = cast("ssl.SSLObject | None", transport.get_extra_info("ssl_object"))
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self._break(Reason.NO_ALPN)
            return
        self._greeting = self._loop.call_later(context.limits.preface_s, self._break, Reason.SLOW_PREFACE)
        self.flush()

    def data_received(self, data: bytes) -> None:
        """Take in one read; rest after it if nobody minds."""
        if self.connection.broken:
            self._ignore(len(data))
            return
        assert self._read is not None
        if self._read.arrived(data) and self._rests and self._calls and not self._answering:
            self._read.rest()

    def _take(self, data: bytes) -> None:
        """Work on bytes that were read, and answer them with one write. The hot path."""
        calls = self._calls
        self._working = True
        try:
            for event in self.connection.receive_data(data, self._context.clock()):
                if type(event) is Arrived:
                    call = calls.get(event.stream_id)
                    if call is not None:
                        call.receive(event.messages)
                else:
                    self._happened(event)
        finally:
            self._working = False
        if self._greeting is not None and self.connection.ready:
            self._greeting.cancel()
            self._greeting = None
        self.flush()

    def resume_writing(self) -> None:
        """The socket has taken nearly all that was written."""
        self._share.hold(unsent=0)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's
        """The peer has gone, or we have closed: nothing can be said any more."""
        if self._read is not None:
            self._read.finish()
        self._end_calls(
            StreamEnd.CANCELLED if self._closing and not self.connection.broken else StreamEnd.ERROR
        )
        for timer in (self._greeting, self._lingering):
            if timer is not None:
                timer.cancel()
        self._share.give_back()
        self._context.connections.discard(self)
        self._closed.set()

    def observed(self, stream_id: int, observing: bool) -> None:
        """Whether a call's peer waits for no answer. Where one has waited, others will: no rest any more."""
        if observing:
            self._answering.discard(stream_id)
        else:
            self._rests = False

    def over(self, stream_id: int) -> None:
        """A call hears nothing more."""
        self._calls.pop(stream_id, None)
        self._answering.discard(stream_id)
        timer = self._timers.pop(stream_id, None)
        if timer is not None:
            timer.cancel()
        if not self._calls:
            self._idle.set()

    def flush(self) -> None:
        """Write what has gathered; while a read is worked on, that is done at its end."""
        if self._working:
            return
        output = self.connection.take_output()
        transport = self._transport
        if not output or transport is None or transport.is_closing():
            return
        transport.write(output)
        unsent = transport.get_write_buffer_size()
        if self.connection.broken is not None:
            self._leave(self.connection.broken, transport)
        elif unsent and (not self._share.hold(unsent=unsent) or unsent > self._context.limits.unread_bytes):
            self._break(Reason.UNREAD_ANSWERS)

    async def drain(self) -> None:
        """Ask the peer to open no more streams, and wait until none is open."""
        self.connection.drain()
        for call in tuple(self._calls.values()):
            call.stopping()
        self.flush()
        until = self._loop.time() + _HEARD_S
        while not (self.connection.drained or self._closed.is_set()) and self._loop.time() < until:  # noqa: ASYNC110
            # Without a call open now, the peer may have sent one a moment ago. An event costs the hot path.
            await asyncio.sleep(_LOOK_S)
        await self._idle.wait()

    async def close(self, patience_s: float) -> None:
        """Cancel what is open and close; abort when the peer does not take its answers."""
        self._closing = True
        for stream_id in self._calls:
            self.connection.finish(stream_id, Status.UNAVAILABLE, "the server stops")
        self._end_calls(StreamEnd.CANCELLED)
        self.flush()
        transport = self._transport
        if transport is None:
            return
        transport.close()
        try:
            async with asyncio.timeout(patience_s):
                await self._closed.wait()
        except TimeoutError:
            transport.abort()
            await self._closed.wait()

    def _end_calls(self, end: StreamEnd) -> None:
        """All calls are over without us."""
        for stream_id in tuple(self._calls):
            self._gone(stream_id, end)

    def _happened(self, event: Happening) -> None:
        """Anything but a message."""
        if isinstance(event, Opened):
            self._opened(event)
        elif isinstance(event, PeerEnded):
            call = self._calls.get(event.stream_id)
            if call is not None:
                call.peer_ended()
        elif isinstance(event, Gone):
            self._gone(event.stream_id, event.end)

    def _opened(self, event: Opened) -> None:
        """A new call."""
        stream_id = event.stream_id
        make = self._context.methods.get(event.path)
        if make is None:
            self.connection.finish(stream_id, Status.UNIMPLEMENTED, "no such method here")
            return
        self._calls[stream_id] = make(event, _Reply(self, stream_id))
        self._answering.add(stream_id)
        self._idle.clear()
        if event.timeout_s is not None:
            delay_s = min(event.timeout_s, _LONGEST_TIMEOUT_S)
            self._timers[stream_id] = self._loop.call_later(delay_s, self._expired, stream_id)

    def _gone(self, stream_id: int, end: StreamEnd) -> None:
        """A call that its peer, or a fault, has ended."""
        call = self._calls.get(stream_id)
        if call is not None:
            self.over(stream_id)
            call.ended(end)

    def _expired(self, stream_id: int) -> None:
        """The peer's deadline has passed."""
        self.connection.finish(stream_id, Status.DEADLINE_EXCEEDED, "the deadline has passed")
        self._gone(stream_id, StreamEnd.CANCELLED)
        self.flush()

    def _break(self, reason: Reason) -> None:
        """End the connection for a reason that the bytes do not show."""
        self.connection.fail(reason)
        self.flush()

    def _leave(self, reason: Reason, transport: asyncio.Transport) -> None:
        """Leave a connection whose peer was told why: count it, end its calls, let the peer read."""
        self._context.broken(reason)
        self._end_calls(StreamEnd.ERROR)
        if transport.can_write_eof():
            transport.write_eof()
        self._lingering = self._loop.call_later(_LINGER_S, transport.abort)

    def _ignore(self, size: int) -> None:
        """Bytes on a connection that is over; too many of them end the patience."""
        self._ignored_bytes += size
        if self._ignored_bytes > _LINGER_BYTES and self._transport is not None:
            self._transport.abort()
