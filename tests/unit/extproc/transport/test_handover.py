"""A generation retires beside the one that takes its place, while streams go on being opened."""

import asyncio
from collections import Counter
from functools import partial
from pathlib import Path

import grpc
import pytest

from extproc.transport.address import Address, TcpAddress, UnixAddress
from extproc.transport.binding import prefer_newest
from extproc.transport.grpcio import GrpcioTransport
from extproc.transport.http2.server import Http2Transport
from tests.unit.extproc.transport.conftest import MakeTransport
from tests.unit.extproc.transport.peer import Peer, Recorder, events_of, exchange, status

MESSAGES = exchange(observe=True)
EVERY_S = 0.004
HANDOVERS = 3
AT_ONCE = 32
"""As many are on their way at most: a machine that gets behind must not have to catch up."""


@pytest.fixture(params=["grpcio", "http2"])
def make(request: pytest.FixtureRequest) -> MakeTransport:
    """Each transport as a worker makes it, but that connections age in a moment."""
    if request.param == "http2":
        return partial(Http2Transport, reuse_port=True)
    return partial(GrpcioTransport, reuse_port=True, connection_age_s=0.5)


async def ask(peer: Peer) -> grpc.StatusCode | str:
    """One whole exchange; how it ended."""
    call = peer.call()
    try:
        for message in MESSAGES:
            await call.write(message)
        await call.done_writing()
        return await status(call)
    except (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError) as error:
        return repr(error)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_no_stream_that_is_opened_during_a_handover_is_lost(
    make: MakeTransport, kind: str, tmp_path: Path
) -> None:
    """On two connections, a stream every few milliseconds: some are on their way at any moment."""
    address: Address = TcpAddress("127.0.0.1", 0) if kind == "tcp" else UnixAddress(str(tmp_path / "s"))
    recorders = [Recorder() for _ in range(HANDOVERS + 1)]
    serving = make(address, recorders[0])
    await serving.start()
    address = serving.address
    if isinstance(address, TcpAddress):
        assert prefer_newest(address)
    asked: list[asyncio.Future[grpc.StatusCode | str]] = []

    async def load(peers: tuple[Peer, ...]) -> None:
        while True:
            if sum(not each.done() for each in asked) < AT_ONCE:
                asked.append(asyncio.ensure_future(ask(peers[len(asked) % len(peers)])))
            await asyncio.sleep(EVERY_S)

    async with Peer(address) as first, Peer(address) as second:
        loading = asyncio.ensure_future(load((first, second)))
        for recorder in recorders[1:]:
            await asyncio.sleep(0.3)
            new = make(address, recorder)
            await new.start()
            await asyncio.sleep(0.1)
            await serving.retire(60)
            serving = new
            await recorder.stream()
        await asyncio.sleep(0.1)
        loading.cancel()
        ends = Counter(await asyncio.gather(*asked))
    await serving.stop(5)
    assert ends == {grpc.StatusCode.OK: len(asked)}
    heard = [stream for recorder in recorders for stream in recorder.streams]
    assert len(heard) == len(asked)
    assert all(stream.events == events_of(MESSAGES) for stream in heard)
    assert all(recorder.streams for recorder in recorders)


async def test_a_stop_cuts_a_retirement_short(make: MakeTransport) -> None:
    recorder = Recorder()
    transport = make(TcpAddress("127.0.0.1", 0), recorder)
    await transport.start()
    async with Peer(transport.address) as peer:
        call = peer.call()
        await call.write(MESSAGES[0])
        stream = await recorder.stream()
        retiring = asyncio.ensure_future(transport.retire(60))
        await asyncio.sleep(1.2)  # beyond the age: it waits for the stream
        assert not retiring.done()
        retiring.cancel()
        async with asyncio.timeout(30):
            await transport.stop(0.1)
        assert len(stream.ends) == 1
