"""A transport to be flooded, in a process of its own.

    python -m tests.chaos.flooded grpcio|http2

Prints its port; ends when its input does, and prints what it counted, as JSON.
"""

import asyncio
import json
import sys
import time

from extproc.metrics import WorkerMetrics
from extproc.transport.address import TcpAddress
from extproc.transport.base import Transport
from extproc.transport.grpcio import GrpcioTransport
from extproc.transport.http2.limits import Bucket, Limits
from extproc.transport.http2.server import Http2Transport
from ingest_client.ledger import Ledger
from tests.unit.extproc.transport.peer import Passing

# A tenth of what is usual: attackers on a busy machine must be able to go beyond.
BUCKETS = {
    reason: Bucket(bucket.burst // 10, max(1, bucket.per_s // 10))
    for reason, bucket in Limits().buckets.items()
}
LIMITS = Limits(preface_s=2.0, unread_bytes=4 << 20, buckets=BUCKETS)
LEAVING_S = 60.0


async def main() -> None:
    """Serve until the input ends; then give the streams a while to end too."""
    address = TcpAddress("127.0.0.1", 0)
    transport: Transport = (
        GrpcioTransport(address, Passing())
        if sys.argv[1] == "grpcio"
        else Http2Transport(address, Passing(), limits=LIMITS)
    )
    await transport.start()
    assert isinstance(transport.address, TcpAddress)
    print(transport.address.port, flush=True)  # noqa: T201 -- its report
    await asyncio.to_thread(sys.stdin.read)
    until = time.monotonic() + LEAVING_S
    while transport.counters.streams_open and time.monotonic() < until:
        await asyncio.sleep(0.1)  # gRPC hears of a connection's end in its own time
    open_now = transport.counters.streams_open
    metrics = WorkerMetrics(Ledger(), lambda: transport.counters).render().decode()
    await transport.stop(0)
    print(json.dumps({"streams_open": open_now, "metrics": metrics}))  # noqa: T201 -- its report


if __name__ == "__main__":
    asyncio.run(main())
