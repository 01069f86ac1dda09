"""T4, T9 and T17 in their short form: an outage, a stop during one, a flood. On the real spool.

The full T4 is ``STENO_T4_TURNS=90000 pytest --log-cli-level=INFO -k outage_loses tests/chaos``.
"""

import asyncio
import logging
import os
import statistics
import time
from collections.abc import Generator
from pathlib import Path

import psutil
import pytest

from ingest_client.ledger import Ledger
from ingest_client.sink import Kept, Record
from ingest_client.spool.settings import SpoolSettings
from ingest_client.spool.spool import Spool
from tests.chaos.delivery_sink import Sink, sink
from tests.patience import GrantedTime, kept_port
from tests.unit.ingest_client.delivery.running import delivering, eventually, patient

log = logging.getLogger("steno.tests")

OUTAGE_TURNS = int(os.environ.get("STENO_T4_TURNS", "5000"))
ARRIVAL_PER_S = 200
OTHERS_PER_S = 4
"""So few that a hundred times as many are no work for a whole core: a busy one has to do them, too."""
MIB = 1 << 20


def record(number: int, tenant: str = "a", size: int = 10_240) -> Record:
    turn_id = f"0190b8a0-0000-7000-8000-{number:012d}"
    head = f'{{"meta":{{"request_id":"{turn_id}"}},"pad":"'.encode()
    # Random text: a spool that compresses must not make the turns cheap.
    pad = os.urandom(size).hex()[: size - len(head) - 2].encode()
    return Record(turn_id=turn_id, tenant=tenant, body=head + pad + b'"}', created_at_ns=time.time_ns())


async def keep(spool: Spool, ledger: Ledger, turn: Record) -> None:
    ledger.observe()
    assert await spool.keep(turn) == Kept()


async def keep_all(spool: Spool, ledger: Ledger, numbers: range) -> None:
    for start in range(numbers.start, numbers.stop, 256):
        group = range(start, min(start + 256, numbers.stop))
        await asyncio.gather(*(keep(spool, ledger, record(number)) for number in group))


@pytest.fixture
def port() -> Generator[int]:
    """Where ingest will be."""
    with kept_port() as kept:
        yield kept


@pytest.mark.timeout(240 + OUTAGE_TURNS // 100)
async def test_an_outage_loses_nothing_costs_little_memory_and_is_made_up_for_quickly(
    tmp_path: Path, port: int
) -> None:
    """T4: turns pile up while ingest is down; when it is back all arrive, five times as fast as they came,
    in the time that the machine leaves to it.
    """
    process = psutil.Process()
    ledger = Ledger()
    spool = await Spool.open(tmp_path, SpoolSettings(), ledger=ledger)
    await keep_all(spool, ledger, range(256))  # what a process needs anyway is not counted
    before = process.memory_info().rss
    async with delivering(spool, patient(f"http://127.0.0.1:{port}")) as delivery:
        await keep_all(spool, ledger, range(256, OUTAGE_TURNS))
        await eventually(lambda: delivery.snapshot().endpoints[0].status in {"not_ready", "gone"})
        peak = process.memory_info().rss
        assert ledger.spooled == OUTAGE_TURNS
        async with sink(port=port) as ingest:
            granted, began_s = GrantedTime(), time.monotonic()
            while ledger.delivered < OUTAGE_TURNS:
                await asyncio.sleep(0.05)
                peak = max(peak, process.memory_info().rss)
            took_s, wall_s = granted.passed_s(), time.monotonic() - began_s
    assert len(ingest.arrived_s) == OUTAGE_TURNS
    assert (ledger.spooled, ledger.imbalance) == (0, 0)
    grown, rate = peak - before, OUTAGE_TURNS / took_s
    log.info(
        "T4: %s turns, RSS + %.1f MiB, drained at %.0f turns/s (%.0f by the wall)",
        OUTAGE_TURNS, grown / MIB, rate, OUTAGE_TURNS / wall_s,
    )  # fmt: skip
    assert grown <= 64 * MIB
    assert rate >= 5 * ARRIVAL_PER_S
    await spool.close(30.0)


async def test_a_stop_during_an_outage_leaves_every_turn_in_the_spool(tmp_path: Path) -> None:
    """T9: 500 turns pending, ingest hangs; the stop keeps its time and the next start finds all 500."""
    spool = await Spool.open(tmp_path, SpoolSettings(), ledger=(ledger := Ledger()))
    async with sink(latency_s=3600) as hung:
        async with delivering(spool, patient(hung.url, answer_timeout_s=30.0)) as delivery:
            await keep_all(spool, ledger, range(500))
            await eventually(lambda: delivery.snapshot().endpoints[0].requests_in_flight > 0)
            granted = GrantedTime()
            await delivery.close(3.0)  # of which a tenth is for writing down what became of them
            took_s = granted.passed_s()
            assert delivery.snapshot().held_turns == 0
        await spool.close(30.0)
    assert took_s <= 3.2
    assert (ledger.spooled, ledger.imbalance) == (500, 0)
    again = await Spool.open(tmp_path, SpoolSettings())
    assert sum(backlog.turns for backlog in again.backlog.values()) == 500
    async with sink() as ingest, delivering(again, patient(ingest.url)):
        await eventually(lambda: again.ledger.delivered == 500)
        assert len(ingest.arrived_s) == 500
    await again.close(30.0)


async def test_a_stop_with_drain_delivers_what_is_left(tmp_path: Path) -> None:
    """A memory-only spool dies with its process: its stop delivers everything while ingest takes it."""
    spool = await Spool.open(tmp_path, SpoolSettings(memory_only=True), ledger=(ledger := Ledger()))
    async with sink(latency_s=0.005) as ingest, delivering(spool, patient(ingest.url)) as delivery:
        await keep_all(spool, ledger, range(1000))
        await delivery.close(60.0, drain=True)
        assert len(ingest.arrived_s) == 1000
        assert (ledger.delivered, ledger.imbalance) == (1000, 0)
    await spool.close(30.0)


async def test_a_flood_of_one_tenant_does_not_delay_the_others(tmp_path: Path) -> None:
    """T17: one tenant sends a hundred times as much; the others lose nothing and wait at most twice as long
    as they do before or after it.
    """
    for name in ("calm", "flooded", "again"):
        (tmp_path / name).mkdir()
    calm = await lag_of_the_others(tmp_path / "calm", flood_per_s=0)
    flooded = await lag_of_the_others(tmp_path / "flooded", flood_per_s=100 * OTHERS_PER_S)
    again = await lag_of_the_others(tmp_path / "again", flood_per_s=0)
    log.info(
        "T17: median lag of the others %.1f ms and %.1f ms calm, %.1f ms flooded",
        *(lag * 1e3 for lag in (calm, again, flooded)),
    )
    # Ten milliseconds for a scheduler that eight processes share: the lag itself is of that order.
    assert flooded <= 2 * max(calm, again) + 0.01


async def lag_of_the_others(root: Path, *, flood_per_s: int, seconds: float = 4.0) -> float:
    """The median time from kept to arrived of two tenants at their rate each, beside a flooding third."""
    kept_s: dict[str, float] = {}
    floods = [record(1_000_000 + number, "flood", 2_000) for number in range(int(flood_per_s * seconds))]
    spool = await Spool.open(root, SpoolSettings(), ledger=(ledger := Ledger()))
    loop = asyncio.get_running_loop()

    async def steady(tenant: str, first: int) -> None:
        for number in range(first, first + int(OTHERS_PER_S * seconds)):
            turn = record(number, tenant)
            kept_s[turn.turn_id] = loop.time()
            await keep(spool, ledger, turn)
            await asyncio.sleep(1 / OTHERS_PER_S)

    async def flood() -> None:
        for start in range(0, len(floods), 20):
            await asyncio.gather(*(keep(spool, ledger, turn) for turn in floods[start : start + 20]))
            await asyncio.sleep(20 / flood_per_s)

    async with sink(latency_s=0.02) as ingest, delivering(spool, patient(ingest.url)):
        await asyncio.gather(steady("b", 0), steady("c", 500_000), flood())
        await eventually(lambda: kept_s.keys() <= ingest.arrived_s.keys())
        lags = lags_of(kept_s, ingest)
        await eventually(lambda: ledger.spooled == 0)
    await spool.close(30.0)
    assert ledger.imbalance == 0
    return statistics.median(lags)


def lags_of(kept_s: dict[str, float], ingest: Sink) -> list[float]:
    return [ingest.arrived_s[turn_id] - at_s for turn_id, at_s in kept_s.items()]
