"""Many users at once: the arrival of streams is no limit, on any transport."""

import asyncio
from collections import Counter

import grpc
import pytest

from extproc.events import StreamEnd
from extproc.transport.address import TcpAddress
from tests.unit.extproc.transport.conftest import MakeTransport
from tests.unit.extproc.transport.peer import Peer, Recorder, exchange, status

STREAMS = 5_000


@pytest.mark.timeout(240)
async def test_five_thousand_streams_opened_at_once_are_all_served(make_transport: MakeTransport) -> None:
    """All are open before any goes on; none is refused, reset or cut, and each hears all its messages."""
    recorder = Recorder()
    first, *_, last = exchange(observe=True)
    transport = make_transport(TcpAddress("127.0.0.1", 0), recorder)
    await transport.start()
    try:
        async with Peer(transport.address) as peer, asyncio.timeout(200):
            calls = [peer.call() for _ in range(STREAMS)]
            await asyncio.gather(*(call.write(first) for call in calls))
            while transport.counters.messages < STREAMS:
                await asyncio.sleep(0.05)
            assert transport.counters.streams_open == STREAMS
            await asyncio.gather(*(call.write(last) for call in calls))
            codes = Counter([await status(call) for call in calls])
            while transport.counters.streams_open:
                await asyncio.sleep(0.05)
    finally:
        await transport.stop(0)
    assert codes == {grpc.StatusCode.OK: STREAMS}
    assert Counter(len(stream.events) for stream in recorder.streams) == {2: STREAMS}
    assert transport.counters.streams_ended == {StreamEnd.EOF: STREAMS}
