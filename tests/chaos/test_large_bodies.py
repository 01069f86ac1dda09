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
    """The most memory that the sidecar had: its worker, any of its other processes (the assembler is the
    largest), and the sum of all at one moment, in which shared pages count again in each.
    """

    worker_bytes: int = 0
    other_bytes: int = 0
    all_bytes: int = 0

    def __str__(self) -> str:
        sizes = (size // MIB for size in (self.worker_bytes, self.other_bytes, self.all_bytes))
        return "worker {} MiB, assembler {} MiB, all together {} MiB".format(*sizes)


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
        peak, total = self.peak, 0
        (worker,) = self._supervisor.children()
        for process in (self._supervisor, *self._supervisor.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
                total += process.memory_info().rss
                highest = _high_water_bytes(process.pid)
                if process == worker:
                    peak.worker_bytes = max(peak.worker_bytes, highest)
                else:
                    peak.other_bytes = max(peak.other_bytes, highest)
        peak.all_bytes = max(peak.all_bytes, total)


def _high_water_bytes(pid: int) -> int:
    """The kernel's own account of a process's peak."""
    status = Path(f"/proc/{pid}/status").read_text()
    lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) * 1024 if lines else 0  # a dead process has none


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
            requests_s, after_requests = time.monotonic() - began, str(peak)
            await _exchanges(provider, envoy.port, count, request_of(SMALL_BYTES), size)
            both_s = time.monotonic() - began
            ledger = await steno.settled(2 * count, timeout_s=TIMEOUT_S)
            cuts = (await envoy.stats("cluster.steno.http2")).get("cluster.steno.http2.keepalive_timeout", 0)
    finally:
        await provider.stop()
    _log.info(
        "T12 %s, %d x %d MiB: requests in %.1f s (%s), answers in %.1f s, at most: %s; %d connections cut; "
        "%d delivered, %s",
        transport, count, size // MIB, requests_s, after_requests, both_s - requests_s, peak, cuts,
        ledger["delivered"], ledger["outcomes"],
    )  # fmt: skip
    assert (ledger["observed"], ledger["imbalance"]) == (2 * count, 0)
    assert ledger["delivered"] + sum(ledger["outcomes"].values()) == 2 * count
    assert max(peak.worker_bytes, peak.other_bytes) <= MAX_RSS_BYTES


async def _exchanges(provider: BulkProvider, port: int, count: int, request: Body, answer_bytes: int) -> None:
    """So many at once; both sides get every byte."""
    provider.received.clear()
    answers = await asyncio.gather(*(exchange(port, request, answer_bytes, TIMEOUT_S) for _ in range(count)))
    expected = provider.answer(answer_bytes)
    for received, body in ((provider.received, request), (answers, expected)):
        assert [each.size for each in received] == [body.size] * count
        assert all(each.is_(body) for each in received)
