"""A stop under traffic: users notice nothing, and every exchange is accounted for."""

import asyncio

import httpx

from extproc.transport.address import TcpAddress
from tests.e2e.conftest import StartEnvoy
from tests.e2e.harness.client import Reply, fetch
from tests.e2e.harness.envoy import Mode
from tests.e2e.harness.provider import Script, frames, message_request
from tests.e2e.harness.services import Ingest, Sidecar
from tests.patience import becomes

PATH = "/v1/messages"
SLOW = Script(chunks=30, delay_s=0.05, pause_at=15, pause_s=3)
STREAMS = 10


async def _ask(port: int) -> Reply:
    return await fetch(port, PATH, message_request(stream=True), SLOW)


async def _readiness(steno: Sidecar) -> int:
    async with httpx.AsyncClient(timeout=10) as client:
        try:
            return (await client.get(f"{steno.admin}/readyz")).status_code
        except httpx.HTTPError:
            return 0


async def _open(steno: Sidecar) -> int:
    """How many exchanges the sidecar follows."""
    return int((await steno.ledger())["open"])


async def test_open_streams_are_taken_down_to_their_end_before_the_sidecar_leaves(
    start_envoy: StartEnvoy, steno: Sidecar, ingest: Ingest
) -> None:
    envoy = await start_envoy(Mode.OBSERVE, sidecar=[TcpAddress("127.0.0.1", steno.port)])
    asking = [asyncio.ensure_future(_ask(envoy.port)) for _ in range(STREAMS)]
    await becomes(lambda: _open(steno), STREAMS)
    await becomes(lambda: _readiness(steno), 200)
    stopping = asyncio.ensure_future(steno.stop())
    await becomes(lambda: _readiness(steno), 503)
    replies = await asyncio.gather(*asking)
    assert await stopping == 0
    whole = b"".join(frames(PATH, SLOW))
    assert all((reply.complete, reply.body) == (True, whole) for reply in replies)
    # The turns were the same ones: their nodes are stored once each.
    assert len(await ingest.nodes(2)) == 2
    await steno.start()
    ledger = await steno.settled(STREAMS)
    assert (ledger["observed"], ledger["delivered"], ledger["imbalance"]) == (STREAMS, STREAMS, 0)
