"""What is done with an RPC, by its path: the table of contents of the server."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

from extproc.events import StreamEnd
from extproc.transport.base import StreamAcceptor, TransportCounters
from extproc.transport.health import Health
from extproc.transport.http2.happenings import Opened
from extproc.transport.http2.messages import Status
from extproc.transport.stream import Stream
from extproc.wire import (
    HEALTH_SERVICE,
    PROCESS_METHOD,
    PROCESS_SERVICE,
    Serving,
    decode_health_check,
    encode_health,
)


class Reply(Protocol):
    """How a call answers. May be used until the call is over."""

    def observed(self, observing: bool) -> None:
        """Say, at the first message and at each change, whether the peer waits for no answer."""
        ...

    def message(self, message: bytes) -> None:
        """Send one message."""
        ...

    def finish(self, status: Status = Status.OK, why: str = "") -> None:
        """End the RPC; the call is over, and hears nothing more."""
        ...


class Call(Protocol):
    """One RPC."""

    def receive(self, messages: Sequence[bytes]) -> None:
        """At least one message has come."""
        ...

    def peer_ended(self) -> None:
        """The last message has come."""
        ...

    def ended(self, end: StreamEnd) -> None:
        """The call is over without us."""
        ...

    def stopping(self) -> None:
        """The server wants to stop: a call that would never end by itself ends now."""
        ...


class ProcessCall:
    """An ext_proc stream."""

    __slots__ = ("_observing", "_reply", "_stream")

    def __init__(
        self, opened: Opened, reply: Reply, acceptor: StreamAcceptor, counters: TransportCounters
    ) -> None:
        self._observing: bool | None = None
        self._reply = reply
        self._stream = Stream(acceptor, opened.metadata, counters)

    def receive(self, messages: Sequence[bytes]) -> None:
        """Give them to the stream; write what that answers. The hot path."""
        stream = self._stream
        for answer in stream.receive(messages):
            self._reply.message(answer)
        if stream.observing is not self._observing:
            self._observing = stream.observing
            self._reply.observed(self._observing)
        if stream.finished:
            self.peer_ended()

    def peer_ended(self) -> None:
        """A normal end."""
        self._reply.finish()
        self._stream.ended(StreamEnd.EOF)

    def ended(self, end: StreamEnd) -> None:
        """Tell the stream."""
        self._stream.ended(end)

    def stopping(self) -> None:
        """It may go on while the grace lasts."""


class CheckCall:
    """``grpc.health.v1.Health/Check``."""

    def __init__(self, health: Health, reply: Reply) -> None:
        self._health = health
        self._reply = reply
        self._message = b""

    def receive(self, messages: Sequence[bytes]) -> None:
        """The question."""
        self._message = messages[-1]

    def peer_ended(self) -> None:
        """The answer."""
        service = decode_health_check(self._message)
        status = Serving.SERVICE_UNKNOWN if service is None else self._health.status(service)
        if service is None:
            self._reply.finish(Status.INVALID_ARGUMENT, "not a HealthCheckRequest")
        elif status is Serving.SERVICE_UNKNOWN:
            self._reply.finish(Status.NOT_FOUND, "no such service here")
        else:
            self._reply.message(encode_health(status))
            self._reply.finish()

    def ended(self, end: StreamEnd) -> None:
        """Nobody waits for the answer."""

    def stopping(self) -> None:
        """It ends by itself."""


class WatchCall:
    """``grpc.health.v1.Health/Watch``: the status now, and at every change."""

    def __init__(self, health: Health, reply: Reply) -> None:
        self._health = health
        self._reply = reply
        self._service: str | None = None
        self._told: Serving | None = None
        self._unwatch: Callable[[], None] = lambda: None

    def receive(self, messages: Sequence[bytes]) -> None:
        """The question; follow its answer from now on."""
        self._unwatch()
        self._service = decode_health_check(messages[-1])
        if self._service is None:
            self._reply.finish(Status.INVALID_ARGUMENT, "not a HealthCheckRequest")
            return
        self._unwatch = self._health.watch(self._tell)
        self._tell()

    def peer_ended(self) -> None:
        """It only asks once; the answers go on."""

    def ended(self, end: StreamEnd) -> None:  # noqa: ARG002 -- a watch ends in one way
        """Follow no more."""
        self._unwatch()

    def stopping(self) -> None:
        """A watch would never end."""
        self._unwatch()
        self._reply.finish()

    def _tell(self) -> None:
        """Say the status if it is another than before."""
        status = self._health.status(self._service or "")
        if status is not self._told:
            self._told = status
            self._reply.message(encode_health(status))


MakeCall: TypeAlias = Callable[[Opened, Reply], Call]


def methods(acceptor: StreamAcceptor, counters: TransportCounters, health: Health) -> Mapping[str, MakeCall]:
    """Every path that is answered. Any other is UNIMPLEMENTED."""
    return {
        f"/{PROCESS_SERVICE}/{PROCESS_METHOD}": lambda opened, reply: ProcessCall(
            opened, reply, acceptor, counters
        ),
        f"/{HEALTH_SERVICE}/Check": lambda _, reply: CheckCall(health, reply),
        f"/{HEALTH_SERVICE}/Watch": lambda _, reply: WatchCall(health, reply),
    }
