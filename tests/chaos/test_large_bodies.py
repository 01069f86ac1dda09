"""Bodies of hundreds of megabytes, and many large ones at once: memory stays bounded, traffic whole (T12).

The short form is for any machine; ``STENO_T12_FULL=1`` has the sizes of T12 (``docs/reliability.md``).
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from extproc.transport.address import TcpAddress
from tests.chaos.delivery_sink import sink
from tests.e2e.conftest import free_ports
from tests.e2e.harness.bulk import Body, BulkProvider, exchange, request_of
from tests.e2e.harness.envoy import Envoy, Mode, configuration
from tests.e2e.harness.services import Sidecar

_log = logging.getLogger(__name__)

FULL = os.environ.get("STENO_T12_FULL") == "1"
MIB = 1 << 20
ONE_BYTES = (512 if FULL else 48) * MIB
MANY, EACH_BYTES = (64, 32 * MIB) if FULL else (16, 4 * MIB)
SMALL_BYTES = 2000
MAX_RSS_BYTES = 512 * MIB
TIMEOUT_S = 600.0 if FULL else 150.0
SAMPLE_S = 0.05


@dataclass
class Peak:
    """The most memory that the sidecar had: all of its processes at one moment, and its worker ever."""

    all_bytes: int = 0
    worker_bytes: int = 0


class Watch:
    """Looks at a sidecar's memory twenty times a second."""

    def __init__(self, steno: Sidecar) -> None:
        self._supervisor = psutil.Process(steno.pid)
        self.peak = Peak()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._look()
            await asyncio.sleep(SAMPLE_S)

    def _look(self) -> None:
        processes = [self._supervisor, *self._supervisor.children(recursive=True)]
        total = 0
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        self.peak.all_bytes = max(self.peak.all_bytes, total)
        (worker,) = self._supervisor.children()
        self.peak.worker_bytes = max(self.peak.worker_bytes, _high_water_bytes(worker.pid))


def _high_water_bytes(pid: int) -> int:
    """The kernel's own account of a process's peak."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@asynccontextmanager
async def watched(
    transport: str, provider: int, directory: Path, logs: list[Path]
) -> AsyncGenerator[tuple[Envoy, Sidecar, Peak]]:
    """Envoy and a sidecar whose memory is watched, delivering to a sink."""
    port, admin_port = free_ports(2)
    document = configuration(Mode.OBSERVE, provider=provider, sidecar=[TcpAddress("127.0.0.1", port)])
    async with sink() as ingest:
        steno = Sidecar(directory, port, admin_port, ingest.url, f"--transport={transport}")
        envoy = Envoy(directory, document)
        logs += [steno.log, envoy.log]
        await steno.start()
        watch = Watch(steno)
        watching = asyncio.ensure_future(watch.run())
        try:
            await envoy.start()
            yield envoy, steno, watch.peak
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching  # it may have failed
            await envoy.stop()
            await steno.stop()


@pytest.mark.timeout(2 * TIMEOUT_S + 60)
@pytest.mark.parametrize("transport", ["grpcio", "http2"])
@pytest.mark.parametrize("shape", ["one", "many"])
async def test_large_bodies_pass_whole_and_cost_bounded_memory(
    transport: str, shape: str, short_tmp: Path, logs: list[Path]
) -> None:
    """One huge body and many large ones, as requests and as answers; each is a turn or a loss by name."""
    count, size = (1, ONE_BYTES) if shape == "one" else (MANY, EACH_BYTES)
    provider = BulkProvider()
    await provider.start()
    try:
        async with watched(transport, provider.port, short_tmp, logs) as (envoy, steno, peak):
            began = time.monotonic()
            await _exchanges(provider, envoy.port, count, request_of(size), SMALL_BYTES)
            requests_s, after_requests = time.monotonic() - began, Peak(peak.all_bytes, peak.worker_bytes)
            await _exchanges(provider, envoy.port, count, request_of(SMALL_BYTES), size)
            both_s = time.monotonic() - began
            ledger = await steno.settled(2 * count, timeout_s=TIMEOUT_S)
            cuts = (await envoy.stats("cluster.steno.http2")).get("cluster.steno.http2.keepalive_timeout", 0)
    finally:
        await provider.stop()
    _log.info(
        "T12 %s, %d x %d MiB: requests in %.1f s, answers in %.1f s; peak RSS %d MiB (worker %d; after the "
        "requests %d and %d); %d connections cut; %d delivered, %s",
        transport, count, size // MIB, requests_s, both_s - requests_s,
        peak.all_bytes // MIB, peak.worker_bytes // MIB,
        after_requests.all_bytes // MIB, after_requests.worker_bytes // MIB,
        cuts, ledger["delivered"], ledger["outcomes"],
    )  # fmt: skip
    assert (ledger["observed"], ledger["imbalance"]) == (2 * count, 0)
    assert ledger["delivered"] + sum(ledger["outcomes"].values()) == 2 * count
    assert max(peak.all_bytes, peak.worker_bytes) <= MAX_RSS_BYTES


async def _exchanges(provider: BulkProvider, port: int, count: int, request: Body, answer_bytes: int) -> None:
    """So many at once; both sides get every byte."""
    provider.received.clear()
    answers = await asyncio.gather(*(exchange(port, request, answer_bytes, TIMEOUT_S) for _ in range(count)))
    expected = provider.answer(answer_bytes)
    assert [each.is_(request) for each in provider.received] == [True] * count
    assert [each.is_(expected) for each in answers] == [True] * count
