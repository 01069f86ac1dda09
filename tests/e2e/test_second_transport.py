"""The http2 transport behind the real Envoy: the same bytes, the same turns."""

import asyncio
from pathlib import Path

import pytest

from extproc.transport.address import TcpAddress
from tests.e2e.conftest import StartEnvoy, free_ports
from tests.e2e.harness.client import fetch
from tests.e2e.harness.envoy import Mode
from tests.e2e.harness.provider import Script, frames, message_request
from tests.e2e.harness.services import Ingest, Sidecar

PATH = "/v1/messages"
EXCHANGES = 40


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.FULL_DUPLEX_STREAMED, Mode.STREAMED, Mode.BUFFERED])
async def test_turns_arrive_and_no_byte_changes(
    start_envoy: StartEnvoy, ingest: Ingest, short_tmp: Path, logs: list[Path], mode: Mode
) -> None:
    port, admin_port = free_ports(2)
    steno = Sidecar(short_tmp, port, admin_port, ingest.url, "--transport=http2")
    logs.append(steno.log)
    await steno.start()
    try:
        envoy = await start_envoy(mode, sidecar=[TcpAddress("127.0.0.1", port)])
        scripts = [Script(seed=f"n{number}-", chunks=12, delay_s=0.005) for number in range(EXCHANGES)]
        replies = await asyncio.gather(
            *(
                fetch(envoy.port, PATH, message_request(stream=True, text=f"question {number}"), script)
                for number, script in enumerate(scripts)
            )
        )
        for script, reply in zip(scripts, replies, strict=True):
            assert (reply.complete, reply.body) == (True, b"".join(frames(PATH, script)))
        ledger = await steno.settled(EXCHANGES)
        assert (ledger["delivered"], ledger["imbalance"]) == (EXCHANGES, 0)
        assert len(await ingest.nodes(2 * EXCHANGES)) == 2 * EXCHANGES
    finally:
        await steno.stop()


@pytest.mark.timeout(300)
async def test_sixty_idle_seconds_behind_a_keepalive_of_one_second_lose_nothing(
    start_envoy: StartEnvoy, ingest: Ingest, short_tmp: Path, logs: list[Path]
) -> None:
    """Sixty PINGs and more, and no word of the stream: no flood, no timeout, no new connection."""
    port, admin_port = free_ports(2)
    steno = Sidecar(short_tmp, port, admin_port, ingest.url, "--transport=http2")
    logs.append(steno.log)
    await steno.start()
    try:
        envoy = await start_envoy(Mode.OBSERVE, sidecar=[TcpAddress("127.0.0.1", port)])
        silent = Script(chunks=6, pause_at=3, pause_s=60)
        reply = await fetch(envoy.port, PATH, message_request(stream=True), silent, timeout_s=180)
        assert (reply.complete, reply.body) == (True, b"".join(frames(PATH, silent)))
        ledger = await steno.settled(1)
        assert (ledger["observed"], ledger["delivered"]) == (1, 1)
        stats = await envoy.stats("cluster.steno.")
        assert stats.get("cluster.steno.http2.keepalive_timeout", 0) == 0
        assert stats["cluster.steno.upstream_cx_total"] == stats["cluster.steno.upstream_cx_active"]
    finally:
        await steno.stop()
