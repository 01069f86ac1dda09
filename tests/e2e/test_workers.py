"""Several workers behind one Envoy: each has its socket and its spool, and one may die."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from extproc.transport.address import UnixAddress
from tests.e2e.conftest import StartEnvoy, free_ports
from tests.e2e.harness.client import fetch
from tests.e2e.harness.envoy import Mode
from tests.e2e.harness.provider import Script, message_request
from tests.e2e.harness.services import Ingest, Sidecar, get_json
from tests.e2e.harness.upstream import Upstream


async def _ask(port: int, count: int) -> None:
    replies = await asyncio.gather(
        *(fetch(port, "/v1/messages", message_request(stream=True), Script(chunks=5)) for _ in range(count))
    )
    assert all(reply.complete for reply in replies)


async def _balances(steno: Sidecar) -> list[dict[str, Any]]:
    """Every worker's, once each answers."""
    async with asyncio.timeout(60):
        while True:
            states = [worker["state"] for worker in (await get_json(f"{steno.admin}/state"))["workers"]]
            if None not in states:
                return [state["ledger"] for state in states]
            await asyncio.sleep(0.1)


async def _delivered(steno: Sidecar, count: int) -> None:
    async with asyncio.timeout(60):
        while sum(balance["delivered"] for balance in await _balances(steno)) < count:
            await asyncio.sleep(0.1)


@pytest.mark.timeout(300)
async def test_two_workers_share_the_streams_and_a_dead_one_comes_back(
    start_envoy: StartEnvoy, provider: Upstream, ingest: Ingest, short_tmp: Path, logs: list[Path]
) -> None:
    socket = short_tmp / "s"
    (admin_port,) = free_ports(1)
    steno = Sidecar(short_tmp, 0, admin_port, ingest.url, f"--listen=unix:{socket}", "--workers=2")
    logs.append(steno.log)
    await steno.start()
    try:
        envoy = await start_envoy(
            Mode.OBSERVE, sidecar=[UnixAddress(str(socket)), UnixAddress(f"{socket}.1")]
        )
        await _ask(envoy.port, 40)
        await _delivered(steno, 40)
        shares = [balance["observed"] for balance in await _balances(steno)]
        assert sum(shares) == 40
        assert min(shares) > 0, "Envoy's least-request choice uses both sockets"
        first = (await get_json(f"{steno.admin}/state"))["workers"][0]
        os.kill(first["pid"], signal.SIGKILL)
        await _until_restarted(steno)
        await _ask(envoy.port, 20)
        await _delivered(steno, 60)
        assert [balance["imbalance"] for balance in await _balances(steno)] == [0, 0]
        assert len(provider.served) == 60
    finally:
        await steno.stop()


async def _until_restarted(steno: Sidecar) -> None:
    async with asyncio.timeout(60):
        while True:
            (first, _) = (await get_json(f"{steno.admin}/state"))["workers"]
            if first["restarts"] == 1 and first["ready"]:
                return
            await asyncio.sleep(0.1)
