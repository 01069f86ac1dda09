"""The http2 transport on a socket: rests, deadlines, ALPN. What grpcio has no counterpart of."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple, Self

import grpc
import pytest

from extproc.events import StreamEnd
from extproc.transport.address import TcpAddress
from extproc.transport.base import ServerTls
from extproc.transport.http2 import frames
from extproc.transport.http2.reading import Reading
from extproc.transport.http2.server import Http2Transport
from extproc.transport.reasons import Reason
from tests.unit.extproc.transport.http2.client import GREETING, Frame, data, head
from tests.unit.extproc.transport.http2.client import grpc as framed
from tests.unit.extproc.transport.peer import (
    PATIENCE_S,
    PROCESS,
    Method,
    Peer,
    Recorder,
    answer,
    events_of,
    exchange,
    status,
)
from tests.unit.extproc.transport.test_tls import CERTIFICATES, ONE_WAY

PING_TIMEOUT_S = 1.0  # Envoy's, in the configuration that we recommend
REST_S = 0.05  # the longest that is worth it
EXCHANGE = exchange(observe=True)
FIRST, PIECE = EXCHANGE[0], EXCHANGE[5]
OBSERVED = [framed(message) for message in EXCHANGE]
WAITING = [framed(message) for message in exchange(observe=False)]


class Wire(NamedTuple):
    """A connection that sends frames as it likes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, *sent: bytes) -> Self:
        """Write at once."""
        self.writer.write(b"".join(sent))
        return self

    async def until(self, kind: int) -> Frame:
        """The next frame of that kind."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                high, low, got, flags, stream_id = frames.HEADER.unpack(await self.reader.readexactly(9))
                payload = await self.reader.readexactly(high << 8 | low)
                if got == kind and not (kind == frames.SETTINGS and flags & frames.ACK):
                    return Frame(got, flags, stream_id, payload)

    async def ping(self) -> float:
        """How long an answer to a PING takes."""
        began = asyncio.get_running_loop().time()
        self.send(frames.frame(frames.PING, 0, 0, b"12345678"))
        await self.until(frames.PING)
        return asyncio.get_running_loop().time() - began


@contextlib.asynccontextmanager
async def serving(
    recorder: Recorder, *, rest_s: float = REST_S, tls: ServerTls | None = None
) -> AsyncGenerator[Http2Transport]:
    """The transport for the length of a block."""
    transport = Http2Transport(TcpAddress("127.0.0.1", 0), recorder, rest_s=rest_s, tls=tls)
    await transport.start()
    try:
        yield transport
    finally:
        await transport.stop(0)


@contextlib.asynccontextmanager
async def wired(transport: Http2Transport, context: ssl.SSLContext | None = None) -> AsyncGenerator[Wire]:
    """A greeted connection for the length of a block."""
    assert isinstance(transport.address, TcpAddress)
    wire = Wire(*await asyncio.open_connection(transport.address.host, transport.address.port, ssl=context))
    try:
        yield wire.send(GREETING)
    finally:
        wire.writer.transport.abort()


async def trickle(wire: Wire, messages: Sequence[bytes], stream_ids: Sequence[int]) -> None:
    """A message each few milliseconds, stream by stream: light traffic."""
    for number, message in enumerate(messages):
        wire.send(data(stream_ids[number % len(stream_ids)], message))
        await asyncio.sleep(0.004)


class Counted(Reading):
    """Counts the reads, and the rests after them."""

    reads = 0
    rests = 0

    def arrived(self, data: bytes) -> bool:
        Counted.reads += 1
        return super().arrived(data)

    def rest(self) -> None:
        before = self._waiting
        super().rest()
        Counted.rests += self._waiting is not before


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[Counted]:
    """How often connections are read, and rest: what a clock says of it depends on the machine."""
    monkeypatch.setattr("extproc.transport.http2.protocol.Reading", Counted)
    Counted.reads = Counted.rests = 0
    return Counted


@pytest.mark.parametrize(("rest_s", "rested"), [(REST_S, True), (0.01, True), (0.0, False)])
async def test_light_traffic_that_nobody_waits_for_is_read_in_few_large_reads(
    rest_s: float, rested: bool, counted: type[Counted]
) -> None:
    """Of a hundred messages, at most a read in the time of a rest."""
    recorder = Recorder()
    async with serving(recorder, rest_s=rest_s) as transport, wired(transport) as wire:
        wire.send(*(head(number) + data(number, OBSERVED[0]) for number in (1, 3)))
        await (await recorder.stream(1)).until(lambda each: bool(each.events))
        began = asyncio.get_running_loop().time()
        await trickle(wire, [framed(PIECE)] * 100, (1, 3))
        took_s = asyncio.get_running_loop().time() - began
        for stream in recorder.streams:
            await stream.until(lambda each: each.events == events_of([FIRST, *[PIECE] * 50]))
    assert (2 <= counted.rests <= took_s / rest_s + 4) if rested else counted.rests == 0


async def test_a_ping_is_answered_in_time_while_reading_rests() -> None:
    """Beside one on a connection that never rests, at the same moment: what the machine takes both take."""
    recorder = Recorder()
    async with serving(recorder) as transport, wired(transport) as wire, wired(transport) as awake:
        wire.send(head(1), data(1, OBSERVED[0]))
        await (await recorder.stream()).until(lambda each: bool(each.events))
        trickling = asyncio.ensure_future(trickle(wire, [OBSERVED[1]] * 100, (1,)))
        took_s = [await asyncio.gather(wire.ping(), awake.ping()) for _ in range(8)]
        await trickling
    assert max(resting_s - awake_s for resting_s, awake_s in took_s) < PING_TIMEOUT_S


async def test_who_waits_for_an_answer_does_not_wait_for_a_rest(counted: type[Counted]) -> None:
    """Only the first message of the second stream may meet one, of a second."""
    recorder = Recorder()
    async with serving(recorder, rest_s=1.0) as transport, wired(transport) as wire:
        wire.send(head(1), data(1, OBSERVED[0]))
        await (await recorder.stream()).until(lambda each: bool(each.events))
        wire.send(head(3), data(3, WAITING[0]))
        await wire.until(frames.DATA)
        assert counted.rests == 1
        for message in WAITING[1:]:
            wire.send(data(3, message), data(1, OBSERVED[1]))
            await wire.until(frames.DATA)
        assert counted.rests == 1


async def test_where_one_waited_for_an_answer_the_next_waits_for_no_rest(counted: type[Counted]) -> None:
    """The stream that waited is over; only one that nobody waits for is open."""
    recorder = Recorder()
    async with serving(recorder, rest_s=1.0) as transport, wired(transport) as wire:
        wire.send(head(1), data(1, WAITING[0]))
        await wire.until(frames.DATA)
        wire.send(head(3), data(3, OBSERVED[0]))
        await (await recorder.stream(1)).until(lambda each: bool(each.events))
        wire.send(frames.frame(frames.RST_STREAM, 0, 1, (8).to_bytes(4, "big")))
        for number in (5, 7, 9):
            wire.send(data(3, OBSERVED[1]), head(number), data(number, WAITING[0]))
            await wire.until(frames.DATA)
        assert counted.rests == 0


async def test_heavy_traffic_is_read_without_rests(counted: type[Counted]) -> None:
    """4 MB in reads that are large: few may be small enough to rest after."""
    recorder = Recorder()
    async with serving(recorder, rest_s=1.0) as transport, wired(transport) as wire:
        wire.send(head(1), data(1, OBSERVED[0]))
        await (await recorder.stream()).until(lambda each: bool(each.events))
        reads, rests = counted.reads, counted.rests
        chunk = data(1, OBSERVED[1]) * 40_000
        for start in range(0, len(chunk), 200_000):
            wire.send(chunk[start : start + 200_000])
            await wire.writer.drain()
        await recorder.streams[0].until(lambda each: len(each.events) == 40_001)
    assert counted.rests - rests <= min(7, (counted.reads - reads) // 2)


@pytest.mark.parametrize("observe", [True, False])
async def test_a_deadline_that_passes_ends_the_rpc_on_both_sides(observe: bool) -> None:
    """A deadline that passed before the server heard of the stream says nothing: then with a longer one."""
    recorder = Recorder()
    async with serving(recorder) as transport, Peer(transport.address) as peer:
        method: Method = peer.channel.stream_stream(PROCESS)
        for timeout_s in (0.3, 3.0, 30.0):
            call = method(timeout=timeout_s)
            with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
                await call.write(exchange(observe=observe)[0])
            assert await status(call) is grpc.StatusCode.DEADLINE_EXCEEDED
            if recorder.streams:
                break
        stream = await recorder.stream()
        await stream.until(lambda each: bool(each.ends))
    assert stream.ends == [StreamEnd.CANCELLED]


async def test_the_server_keeps_a_deadline_that_its_peer_forgets() -> None:
    recorder = Recorder()
    async with serving(recorder) as transport, wired(transport) as wire:
        wire.send(head(1, ("grpc-timeout", "200m")), data(1, OBSERVED[0]))
        trailers = await wire.until(frames.HEADERS)
        assert trailers.flags & frames.END_STREAM
        await (await recorder.stream()).until(lambda each: each.ends == [StreamEnd.CANCELLED])
        assert (await wire.ping()) < PING_TIMEOUT_S


async def test_a_deadline_that_does_not_pass_changes_nothing() -> None:
    recorder = Recorder()
    async with serving(recorder) as transport, Peer(transport.address) as peer:
        method: Method = peer.channel.stream_stream(PROCESS)
        call = method(timeout=100)
        for message in exchange(observe=False):
            await call.write(message)
            assert await answer(call) is not None
        assert await status(call) is grpc.StatusCode.OK


@pytest.mark.parametrize("protocols", [[], ["http/1.1"]])
async def test_a_tls_peer_that_does_not_ask_for_h2_is_told_so_and_counted(
    protocols: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    context = ssl.create_default_context(cafile=str(CERTIFICATES / "ca.pem"))
    context.check_hostname = False
    if protocols:
        context.set_alpn_protocols(protocols)
    async with serving(Recorder(), tls=ONE_WAY) as transport:
        async with wired(transport, context) as wire:
            farewell = await wire.until(frames.GOAWAY)
        assert farewell.payload[8:] == b"no_alpn"
        assert transport.counters.broken_connections == {Reason.NO_ALPN: 1}
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert vars(record)["reason"] == "no_alpn"
