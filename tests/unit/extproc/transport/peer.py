"""Both ends of a transport under test: a handler that keeps what it hears, and Envoy's side."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeAlias

import grpc
import grpc.aio

from extproc.events import Body, Side, StreamEnd
from extproc.pb.ext_proc_pb2 import (
    HttpBody,
    HttpHeaders,
    HttpTrailers,
    ProcessingMode,
    ProcessingRequest,
    ProcessingResponse,
    ProtocolConfiguration,
)
from extproc.pb.health_pb2 import HealthCheckRequest
from extproc.transport.address import Address, UnixAddress
from extproc.transport.base import MAX_MESSAGE_BYTES, Command, Message, StreamHandler
from extproc.transport.stream import PassThrough
from extproc.wire import HEALTH_SERVICE, PROCESS_METHOD, PROCESS_SERVICE, Undecodable, decode

PROCESS = f"/{PROCESS_SERVICE}/{PROCESS_METHOD}"
PATIENCE_S = 60.0
"""For what takes milliseconds where nothing else runs: only what never comes takes so long."""


def add_event(events: list[Message], event: Message) -> None:
    """Keep an event as the last one. Pieces of an answer that nobody waits for may come together or
    apart: they are kept together.
    """
    last = events[-1] if events else None
    if isinstance(event, Body) and isinstance(last, Body) and _is_piece(event) and _is_piece(last):
        events[-1] = Body(Side.RESPONSE, last.data + event.data, end_of_stream=False, observe=True)
    else:
        events.append(event)


def _is_piece(body: Body) -> bool:
    return body.side is Side.RESPONSE and body.observe and not body.end_of_stream


def events_of(messages: Sequence[bytes]) -> list[Message]:
    """What a recorded stream has after these messages."""
    events: list[Message] = []
    for message in messages:
        event = decode(message)
        assert not isinstance(event, Undecodable)
        add_event(events, event)
    return events


Rule: TypeAlias = Callable[[Message], Sequence[Command]]
ClientCall: TypeAlias = "grpc.aio.StreamStreamCall[bytes, bytes]"
Method: TypeAlias = "grpc.aio.StreamStreamMultiCallable[bytes, bytes]"


class RecordedStream:
    """A handler that keeps its events and answers as its rule says."""

    def __init__(self, initial_metadata: Mapping[str, str], rule: Rule) -> None:
        self.initial_metadata = dict(initial_metadata)
        self.events: list[Message] = []
        self.ends: list[StreamEnd] = []
        self._rule = rule
        self._changed = asyncio.Event()

    def receive(self, event: Message) -> Sequence[Command]:
        """Keep the event, then do as the rule says."""
        add_event(self.events, event)
        self._changed.set()
        return self._rule(event)

    def ended(self, end: StreamEnd) -> None:
        """Keep the end; there must be only one."""
        self.ends.append(end)
        self._changed.set()

    async def until(self, condition: Callable[[Self], bool], timeout_s: float = PATIENCE_S) -> None:
        """Wait for a condition on this record."""
        async with asyncio.timeout(timeout_s):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()


class Recorder:
    """An acceptor that keeps all its streams. ``rule`` makes each stream's rule anew."""

    def __init__(self, rule: Callable[[], Rule] = lambda: PassThrough().receive) -> None:
        self.streams: list[RecordedStream] = []
        self._rule = rule
        self._opened = asyncio.Event()

    def open(self, initial_metadata: Mapping[str, str]) -> StreamHandler:
        """Record one more stream."""
        stream = RecordedStream(initial_metadata, self._rule())
        self.streams.append(stream)
        self._opened.set()
        return stream

    async def stream(self, number: int = 0, timeout_s: float = PATIENCE_S) -> RecordedStream:
        """The stream of that number, as soon as it is there."""
        async with asyncio.timeout(timeout_s):
            while len(self.streams) <= number:
                self._opened.clear()
                await self._opened.wait()
        return self.streams[number]


class Passing:
    """An acceptor that keeps nothing: its streams pass everything through."""

    def open(self, initial_metadata: Mapping[str, str]) -> StreamHandler:
        """One more stream."""
        return PassThrough()


class Peer:
    """A client that speaks as Envoy does."""

    def __init__(self, address: Address, credentials: grpc.ChannelCredentials | None = None) -> None:
        target = f"unix:{address.path}" if isinstance(address, UnixAddress) else str(address)
        options = (
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.use_local_subchannel_pool", 1),
        )
        self.channel = (
            grpc.aio.insecure_channel(target, options)
            if credentials is None
            else grpc.aio.secure_channel(target, credentials, options)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.channel.close()

    def call(self, *metadata: tuple[str, str], path: str = PROCESS) -> ClientCall:
        """Open one ext_proc stream."""
        method: Method = self.channel.stream_stream(path)
        return method(metadata=grpc.aio.Metadata(*metadata))

    async def check(self, service: str = "") -> bytes:
        """``grpc.health.v1.Health/Check``."""
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(
            f"/{HEALTH_SERVICE}/Check"
        )
        return await method(HealthCheckRequest(service=service).SerializeToString())

    def watch(self, service: str = "") -> "grpc.aio.UnaryStreamCall[bytes, bytes]":
        """``grpc.health.v1.Health/Watch``."""
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self.channel.unary_stream(
            f"/{HEALTH_SERVICE}/Watch"
        )
        return method(HealthCheckRequest(service=service).SerializeToString())


async def answer(call: ClientCall) -> ProcessingResponse | None:
    """The next answer, or None where the server has ended the RPC."""
    async with asyncio.timeout(PATIENCE_S):
        message = await call.read()
    return ProcessingResponse.FromString(message) if isinstance(message, bytes) else None


async def answers_of(call: ClientCall) -> AsyncIterator[ProcessingResponse]:
    """All answers until the server ends the RPC."""
    while (got := await answer(call)) is not None:
        yield got


async def status(call: ClientCall) -> grpc.StatusCode:
    """How the RPC ended."""
    async with asyncio.timeout(PATIENCE_S):
        return await call.code()


def exchange(
    *, observe: bool, modes: ProtocolConfiguration | None = None, chunks: Sequence[bytes] = (b"a", b"b")
) -> list[bytes]:
    """The messages of one whole exchange, trailers on both sides included, serialised."""
    request = [
        ProcessingRequest(request_headers=HttpHeaders(), protocol_config=modes),
        *(ProcessingRequest(request_body=HttpBody(body=chunk)) for chunk in chunks),
        ProcessingRequest(request_trailers=HttpTrailers()),
    ]
    response = [
        ProcessingRequest(response_headers=HttpHeaders()),
        *(ProcessingRequest(response_body=HttpBody(body=chunk)) for chunk in chunks),
        ProcessingRequest(response_trailers=HttpTrailers()),
    ]
    for message in (*request, *response):
        message.observability_mode = observe
    return [message.SerializeToString() for message in (*request, *response)]


def both(mode: ProcessingMode.BodySendMode.ValueType) -> ProtocolConfiguration:
    """One body mode for both sides."""
    return ProtocolConfiguration(request_body_mode=mode, response_body_mode=mode)
