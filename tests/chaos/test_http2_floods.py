"""T20: floods at the port cost their own connection, and nobody else anything."""

import asyncio
import resource
from pathlib import Path

import grpc
import pytest

from extproc.transport.address import TcpAddress
from extproc.transport.http2 import frames
from extproc.transport.http2.limits import Limits
from extproc.transport.http2.server import Http2Transport
from extproc.transport.reasons import Reason
from tests.unit.extproc.transport.http2.client import GREETING, head
from tests.unit.extproc.transport.http2.test_connection import FLOODS
from tests.unit.extproc.transport.peer import Peer, Recorder, exchange, status

GROWTH_BYTES = 96 * 1024 * 1024


def rss_bytes() -> int:
    """What this process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


async def flood(transport: Http2Transport, attack: bytes) -> bytes:
    """Send it all, and return what came back before the end of the connection."""
    assert isinstance(transport.address, TcpAddress)
    reader, writer = await asyncio.open_connection(transport.address.host, transport.address.port)
    received = b""
    try:
        writer.write(attack)
        async with asyncio.timeout(10):
            while got := await reader.read(65536):
                received += got
    except ConnectionError:
        pass  # closed on us while we were still sending: as good an end
    finally:
        writer.transport.abort()
    return received


async def one_user(transport: Http2Transport) -> grpc.StatusCode:
    """A whole exchange of somebody who does no harm."""
    async with Peer(transport.address) as peer:
        call = peer.call()
        for message in exchange(observe=True):
            await call.write(message)
        return await status(call)


@pytest.mark.parametrize("reason", FLOODS)
async def test_a_flood_ends_its_own_connection_and_is_counted(reason: Reason) -> None:
    """Five at once; a user beside them is served, and memory does not stay behind."""
    transport = Http2Transport(TcpAddress("127.0.0.1", 0), Recorder())
    await transport.start()
    try:
        await one_user(transport)
        before = rss_bytes()
        floods = [asyncio.ensure_future(flood(transport, GREETING + FLOODS[reason])) for _ in range(5)]
        async with asyncio.timeout(20):
            assert await one_user(transport) is grpc.StatusCode.OK
            await asyncio.gather(*floods)
        assert transport.counters.broken_connections == {reason: 5}
        assert rss_bytes() - before < GROWTH_BYTES
        assert transport.counters.streams_open == 0
    finally:
        await transport.stop(0)


async def test_a_peer_that_never_greets_is_sent_away() -> None:
    """A slow preface holds a socket only so long."""
    transport = Http2Transport(TcpAddress("127.0.0.1", 0), Recorder(), limits=Limits(preface_s=0.2))
    await transport.start()
    try:
        received = await flood(transport, frames.PREFACE[:10])
        assert received.endswith(Reason.SLOW_PREFACE.value.encode())
        assert transport.counters.broken_connections == {Reason.SLOW_PREFACE: 1}
    finally:
        await transport.stop(0)


async def test_a_peer_with_shut_windows_holds_up_only_itself() -> None:
    """Zero windows: its answers wait in its own stream; a user beside it is served."""
    transport = Http2Transport(TcpAddress("127.0.0.1", 0), Recorder())
    await transport.start()
    assert isinstance(transport.address, TcpAddress)
    try:
        shut = frames.PREFACE + frames.settings({frames.INITIAL_WINDOW_SIZE: 0}) + head(1)
        _, writer = await asyncio.open_connection(transport.address.host, transport.address.port)
        message = exchange(observe=False)[0]
        framed = b"\0" + len(message).to_bytes(4, "big") + message
        writer.write(shut + frames.frame(frames.DATA, 0, 1, framed) * 100)
        await writer.drain()
        async with asyncio.timeout(10):
            assert await one_user(transport) is grpc.StatusCode.OK
            while transport.counters.answers < 100:
                await asyncio.sleep(0.01)
        assert not transport.counters.broken_connections
        writer.transport.abort()
    finally:
        await transport.stop(0)
