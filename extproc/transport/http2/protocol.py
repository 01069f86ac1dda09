"""One connection on its socket: gives it bytes and time, its calls their messages, and rest.

Rest: after a small read, while every call of the connection is in observability mode, the
next read waits a little, so that one read takes in the messages of many streams. PINGs
wait no longer than that; Envoy allows them a second. A large read is followed by the next
at once: reading must keep up with what comes.
"""

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from extproc.events import StreamEnd
from extproc.transport.http2.calls import Call, MakeCall
from extproc.transport.http2.connection import Connection
from extproc.transport.http2.happenings import Arrived, Gone, Opened, PeerEnded
from extproc.transport.http2.limits import Limits, Reason
from extproc.transport.http2.messages import Status

_log = logging.getLogger(__name__)

_SMALL_READ_BYTES = 64 * 1024
_UNSENT_BYTES = 256 * 1024 * 1024
_LONGEST_TIMEOUT_S = 10 * 365 * 86400.0


@dataclass(slots=True)
class Context:
    """What all connections of a server share."""

    methods: Mapping[str, MakeCall]
    limits: Limits
    rest_s: float
    connections: "set[ServerProtocol]" = field(default_factory=set)
    broken: Counter[Reason] = field(default_factory=Counter[Reason])


class _Reply:
    """How one call answers."""

    __slots__ = ("_protocol", "_stream_id")

    def __init__(self, protocol: "ServerProtocol", stream_id: int) -> None:
        self._protocol = protocol
        self._stream_id = stream_id

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
        self.connection = Connection(context.limits)
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, Call] = {}
        self._answering: set[int] = set()  # calls whose peer may wait for an answer
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._reading = False
        self._closing = False
        self._closed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._greeting: asyncio.TimerHandle | None = None
        self._resting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A peer is there; it must greet us soon."""
        self._transport = cast("asyncio.Transport", transport)
        self._context.connections.add(self)
        tls = cast("ssl.SSLObject | None", transport.get_extra_info("ssl_object"))
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self._break(Reason.NO_ALPN)
            return
        self._greeting = self._loop.call_later(
            self._context.limits.preface_s, self._break, Reason.SLOW_PREFACE
        )
        self.flush()

    def data_received(self, data: bytes) -> None:
        """Take in one read, and answer it with one write."""
        self._reading = True
        for event in self.connection.receive_data(data, self._loop.time()):
            kind = type(event)
            if kind is Arrived:
                self._arrived(cast("Arrived", event))
            elif kind is Opened:
                self._opened(cast("Opened", event))
            elif kind is PeerEnded:
                call = self._calls.get(event.stream_id)
                if call is not None:
                    call.peer_ended()
            else:
                self._gone(cast("Gone", event))
        self._reading = False
        if self._greeting is not None and self.connection.ready:
            self._greeting.cancel()
            self._greeting = None
        self.flush()
        if self._calls and not self._answering and len(data) < _SMALL_READ_BYTES:
            self._rest()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's
        """The peer has gone, or we have closed: nothing can be said any more."""
        end = StreamEnd.CANCELLED if self._closing and not self.connection.broken else StreamEnd.ERROR
        for stream_id in tuple(self._calls):
            call = self._calls[stream_id]
            self.over(stream_id)
            call.ended(end)
        for timer in (self._greeting, self._resting):
            if timer is not None:
                timer.cancel()
        self._context.connections.discard(self)
        self._closed.set()

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
        transport = self._transport
        if self._reading or transport is None or transport.is_closing():
            return
        output = self.connection.take_output()
        if output:
            transport.write(output)
        if self.connection.broken is not None:
            self._close_broken(self.connection.broken)
        elif transport.get_write_buffer_size() > _UNSENT_BYTES:
            self._break(Reason.UNREAD_ANSWERS)

    async def drain(self) -> None:
        """Ask the peer to open no more streams, and wait until none is open."""
        self.connection.drain()
        for call in tuple(self._calls.values()):
            call.stopping()
        self.flush()
        await self._idle.wait()

    async def close(self, patience_s: float) -> None:
        """Cancel what is open and close; abort when the peer does not take its answers."""
        self._closing = True
        for stream_id in tuple(self._calls):
            self.connection.finish(stream_id, Status.UNAVAILABLE, "the server stops")
            call = self._calls[stream_id]
            self.over(stream_id)
            call.ended(StreamEnd.CANCELLED)
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

    def _arrived(self, event: Arrived) -> None:
        """A message for a call that is not over."""
        stream_id = event.stream_id
        call = self._calls.get(stream_id)
        if call is None:
            return
        call.receive(event.message)
        if not call.observing:
            if stream_id in self._calls:
                self._answering.add(stream_id)
        elif self._answering:
            self._answering.discard(stream_id)

    def _gone(self, event: Gone) -> None:
        """A call that its peer, or a fault, has ended."""
        call = self._calls.get(event.stream_id)
        if call is not None:
            self.over(event.stream_id)
            call.ended(event.end)

    def _expired(self, stream_id: int) -> None:
        """The peer's deadline has passed."""
        self.connection.finish(stream_id, Status.DEADLINE_EXCEEDED, "the deadline has passed")
        self._gone(Gone(stream_id, StreamEnd.CANCELLED))
        self.flush()

    def _rest(self) -> None:
        """Read again in a while."""
        transport = self._transport
        if transport is None or transport.is_closing() or self._context.rest_s <= 0 or self._resting:
            return
        transport.pause_reading()
        self._resting = self._loop.call_later(self._context.rest_s, partial(self._resume, transport))

    def _resume(self, transport: asyncio.Transport) -> None:
        """The rest is over."""
        self._resting = None
        if not transport.is_closing():
            transport.resume_reading()

    def _break(self, reason: Reason) -> None:
        """End the connection for a reason that the bytes do not show."""
        self.connection.fail(reason)
        self.flush()

    def _close_broken(self, reason: Reason) -> None:
        """Close a connection that was told why, and count it; its peer need not read that."""
        self._context.broken[reason] += 1
        _log.warning("a connection was ended", extra={"reason": reason.value})
        transport = self._transport
        if transport is not None:
            transport.close()
            self._loop.call_later(1.0, transport.abort)
