"""A whole connection, socket's side included, under any mixture of right and wrong frames in any reads.

The model knows which messages were sent whole on which stream. Whatever comes: nothing
raises, what is said is whole frames, every handler hears its messages in order and its end
exactly once, and what was held is given back.
"""

import asyncio
import os
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from extproc.events import Body, StreamEnd
from extproc.pb.ext_proc_pb2 import HttpBody, ProcessingRequest
from extproc.transport.base import Command, Message, StreamHandler, TransportCounters
from extproc.transport.health import Health
from extproc.transport.http2 import frames
from extproc.transport.http2.calls import methods
from extproc.transport.http2.context import Context
from extproc.transport.http2.frames import ErrorCode
from extproc.transport.http2.limits import Limits
from extproc.transport.http2.memory import Memory
from extproc.transport.http2.protocol import ServerProtocol
from extproc.wire import HEALTH_SERVICE
from tests.unit.extproc.transport.http2.client import GREETING, REQUEST, block, data, grpc, head, parse

LIMITS = Limits(stream_window=65_535, connection_window=131_070, held_bytes=20_000, unread_bytes=20_000)
BUDGET_BYTES = 1 << 20
EXAMPLES = int(os.environ.get("STENO_HTTP2_EXAMPLES", "100"))
NUMBERS = st.integers(0, 9)


class Socket(asyncio.Transport):
    """Keeps what is written; says that it is being read or not."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.reading = True
        self.shut = False
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.shut
        self.written += bytes(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.shut = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True


class Kept:
    """A handler that keeps the bodies it hears: those of one read may come as one."""

    def __init__(self) -> None:
        self.heard = b""
        self.ends: list[StreamEnd] = []

    def receive(self, event: Message) -> Sequence[Command]:
        assert not self.ends
        assert isinstance(event, Body)
        self.heard += event.data
        return ()

    def ended(self, end: StreamEnd) -> None:
        self.ends.append(end)


class Acceptor:
    """Keeps every handler under the number that its stream was sent with."""

    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}

    def open(self, initial_metadata: Mapping[str, str]) -> StreamHandler:
        return self.kept.setdefault(initial_metadata["x-number"], Kept())


class ConnectionMachine(RuleBasedStateMachine):
    """Rules put frames on the wire; ``arrives`` reads some of them."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now_s = 0.0
        self.acceptor = Acceptor()
        self.counters = TransportCounters()
        self.memory = Memory(BUDGET_BYTES)
        self.context = Context(
            methods(self.acceptor, self.counters, Health()),
            LIMITS, self.memory, self.counters, rest_s=0.0, clock=lambda: self.now_s,
        )  # fmt: skip
        self.socket = Socket()
        self.wire = bytearray(GREETING)
        self.hostile = False
        self.right = True  # whether everything so far was as it ought to be
        self.next_id = 1
        self.sent: dict[int, list[bytes]] = {}  # whole messages by stream
        self.open: list[int] = []
        self.in_step(self._connect())

    def in_step(self, work: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(work)

    async def _connect(self) -> None:
        self.protocol = ServerProtocol(self.context)
        self.protocol.connection_made(self.socket)

    @initialize(hostile=st.booleans(), streams=st.integers(0, 3))
    def begins(self, hostile: bool, streams: int) -> None:
        self.hostile = hostile
        for _ in range(streams):
            self.opens()

    @rule()
    def opens(self) -> None:
        self.wire += head(self.next_id, ("x-number", str(self.next_id)))
        self.sent[self.next_id] = []
        self.open.append(self.next_id)
        self.next_id += 2

    @rule(
        path=st.sampled_from(["/nowhere", f"/{HEALTH_SERVICE}/Check", f"/{HEALTH_SERVICE}/Watch"]),
        body=st.binary(max_size=9),
    )
    def asks_something_else(self, path: str, body: bytes) -> None:
        fields = [(name, path if name == ":path" else value) for name, value in REQUEST]
        self.wire += frames.frame(frames.HEADERS, frames.END_HEADERS, self.next_id, block(fields))
        self.wire += data(self.next_id, grpc(body), frames.END_STREAM)
        self.next_id += 2

    @precondition(lambda self: self.open)
    @rule(number=NUMBERS, body=st.binary(max_size=3000), cut=st.integers(1, 4000), padding=st.integers(0, 9))
    def sends(self, number: int, body: bytes, cut: int, padding: int) -> None:
        stream_id = self.open[number % len(self.open)]
        message = ProcessingRequest(response_body=HttpBody(body=body), observability_mode=True)
        whole = grpc(message.SerializeToString())
        for part in (whole[:cut], whole[cut:]):
            if part and padding:
                self.wire += data(stream_id, bytes([padding]) + part + bytes(padding), frames.PADDED)
            elif part:
                self.wire += data(stream_id, part)
        self.sent[stream_id].append(body)

    @precondition(lambda self: self.open)
    @rule(number=NUMBERS, bodies=st.lists(st.binary(max_size=20), min_size=2, max_size=8))
    def sends_many(self, number: int, bodies: list[bytes]) -> None:
        for body in bodies:
            self.sends(number, body, 4000, 0)

    @precondition(lambda self: self.open)
    @rule(number=NUMBERS, trailers=st.booleans(), cut_off=st.booleans())
    def ends(self, number: int, trailers: bool, cut_off: bool) -> None:
        stream_id = self.open.pop(number % len(self.open))
        if cut_off:
            self.wire += data(stream_id, grpc(b"never whole")[:-1])
        last = frames.END_STREAM | frames.END_HEADERS
        self.wire += (
            frames.frame(frames.HEADERS, last, stream_id, block([("x-last", "1")]))
            if trailers
            else data(stream_id, b"", frames.END_STREAM)
        )

    @precondition(lambda self: self.open)
    @rule(number=NUMBERS)
    def resets(self, number: int) -> None:
        self.wire += frames.reset(self.open.pop(number % len(self.open)), ErrorCode.CANCEL)

    @rule(payload=st.binary(min_size=8, max_size=8))
    def pings(self, payload: bytes) -> None:
        self.wire += frames.frame(frames.PING, 0, 0, payload)

    @rule(window=st.sampled_from([0, 1, 65_535]))
    def sets(self, window: int) -> None:
        self.wire += frames.settings({frames.INITIAL_WINDOW_SIZE: window})

    @rule(increment=st.integers(1, 1000))
    def widens(self, increment: int) -> None:
        self.wire += frames.window_update(0, increment)

    @precondition(lambda self: self.hostile)
    @rule(
        kind=st.integers(0, 12),
        flags=st.sampled_from([0, 1, 4, 5, 8, 0x20, 255]),
        stream_id=st.integers(0, 12),
        payload=st.one_of(st.binary(max_size=30), st.sampled_from([grpc(b"x"), block(REQUEST)])),
    )
    def says_anything(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        self.right = False
        self.wire += frames.frame(kind, flags, stream_id, payload)

    @precondition(lambda self: self.hostile)
    @rule(noise=st.binary(min_size=1, max_size=30))
    def says_no_frame(self, noise: bytes) -> None:
        self.right = False
        self.wire += noise

    @rule(size=st.one_of(st.integers(1, 40), st.integers(1, 400), st.integers(1, 100_000)))
    def arrives(self, size: int) -> None:
        self.in_step(self._arrives(size))

    @rule(left=st.integers(1, 40))
    def arrives_but_for_a_little(self, left: int) -> None:
        self.in_step(self._arrives(max(0, len(self.wire) - left)))

    @rule(seconds=st.floats(0, 5))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def drains(self) -> None:
        self.in_step(self._drains())

    async def _drains(self) -> None:
        self.protocol.connection.drain()
        self.protocol.flush()

    async def _arrives(self, size: int) -> None:
        read = bytes(self.wire[:size])
        del self.wire[:size]
        if read and not self.socket.closing:
            self.protocol.data_received(read)

    @invariant()
    def what_is_said_is_whole_frames_and_a_broken_connection_was_told(self) -> None:
        farewells = [
            each.payload[8:].decode() for each in parse(self.socket.written) if each.kind == frames.GOAWAY
        ]
        reason = self.protocol.connection.broken
        assert [each for each in farewells if each != "draining"] == (
            [] if reason is None else [reason.value]
        )
        assert self.socket.shut == (reason is not None)
        assert self.counters.broken_connections.total() == (reason is not None)

    @invariant()
    def memory_is_bounded(self) -> None:
        assert self.memory.held_bytes <= LIMITS.held_bytes + LIMITS.unread_bytes + frames.MAX_FRAME_BYTES

    @invariant()
    def handlers_hear_what_was_sent_in_order_and_one_end(self) -> None:
        for number, kept in self.acceptor.kept.items():
            assert len(kept.ends) <= 1
            sent = self.sent.get(int(number), [])
            if self.right:
                assert kept.heard in (b"".join(sent[:count]) for count in range(len(sent) + 1))
        if self.protocol.connection.broken:
            assert self.counters.streams_open == 0

    def teardown(self) -> None:
        self.in_step(self._leave())
        self.loop.close()
        for kept in self.acceptor.kept.values():
            assert len(kept.ends) == 1
        assert self.counters.streams_open == 0
        assert self.memory.promised_bytes == self.memory.held_bytes == 0
        if self.right:
            assert self.protocol.connection.broken is None or "flood" in self.protocol.connection.broken
        if self.right and self.protocol.connection.broken is None:
            heard = {int(number): kept.heard for number, kept in self.acceptor.kept.items()}
            assert heard == {number: b"".join(bodies) for number, bodies in self.sent.items()}
            assert self.counters.messages == sum(map(len, self.sent.values()))

    async def _leave(self) -> None:
        while self.wire and not self.socket.closing:
            await self._arrives(100_000)
        self.protocol.connection_lost(None)


TestConnection = ConnectionMachine.TestCase
TestConnection.settings = settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None)
