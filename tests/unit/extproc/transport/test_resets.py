"""Messages that had arrived when a reset came: http2 hears them all, grpcio those that it was quick enough for."""

import asyncio

import pytest

from extproc.events import StreamEnd
from extproc.transport.address import TcpAddress
from extproc.transport.http2 import frames
from tests.unit.extproc.transport.conftest import TRANSPORTS
from tests.unit.extproc.transport.http2.client import GREETING, data, head
from tests.unit.extproc.transport.http2.client import grpc as framed
from tests.unit.extproc.transport.peer import Recorder, events_of, exchange

STREAMS = 50
MESSAGES = exchange(observe=True, chunks=[b"x" * 100] * 5)[:-1]
EVENTS = events_of(MESSAGES)


@pytest.mark.parametrize("name", sorted(TRANSPORTS))
async def test_a_reset_on_the_heels_of_messages_costs_what_the_transport_says_and_is_counted(
    name: str,
) -> None:
    """Head, messages and reset in one write. What is heard is a beginning of what was sent; the end is counted."""
    recorder = Recorder()
    transport = TRANSPORTS[name](TcpAddress("127.0.0.1", 0), recorder)
    await transport.start()
    assert isinstance(transport.address, TcpAddress)
    _, writer = await asyncio.open_connection(transport.address.host, transport.address.port)
    try:
        writer.write(GREETING)
        for stream_id in range(1, 2 * STREAMS, 2):
            whole = b"".join(data(stream_id, framed(message)) for message in MESSAGES)
            writer.write(head(stream_id) + whole + frames.reset(stream_id, frames.ErrorCode.CANCEL))
        # gRPC need not tell us of a stream that was reset before anybody took it up: one that lasts ends the list.
        writer.write(head(2 * STREAMS + 1) + data(2 * STREAMS + 1, framed(MESSAGES[0]), frames.END_STREAM))
        async with asyncio.timeout(30):
            while StreamEnd.EOF not in transport.counters.streams_ended or transport.counters.streams_open:
                await asyncio.sleep(0.01)
    finally:
        writer.transport.abort()
        await transport.stop(0)
    reset = [
        stream for stream in recorder.streams if stream.ends != [StreamEnd.EOF] or len(stream.events) > 1
    ]
    for stream in reset:
        assert len(stream.ends) == 1
        assert len(stream.events) <= len(EVENTS)
        if len(stream.events) < len(EVENTS):
            assert stream.ends == [StreamEnd.CANCELLED]
    assert transport.counters.streams_ended[StreamEnd.CANCELLED] >= len(reset)
    if name == "http2":
        assert [stream.events for stream in reset] == [EVENTS] * STREAMS
