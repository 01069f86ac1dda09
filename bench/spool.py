"""What the spool costs and holds: ``python -m bench.spool [--seconds 5] [--root DIR]``.

In one run, on one disk: a plain file append with fdatasync (the limit), turns of 20 KB kept and delivered as
fast as they go (checkpoints and deletions included), commit latency at 500 turns a second,
and the time to open a spool of 90,000 turns. Prints a table; ``--json`` one JSON object.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from ingest_client.sink import Kept, Record
from ingest_client.spool import Spool, SpoolSettings

TURN_BYTES = 20_000
GROUP = 16
WORDS = ["".join(random.Random(n).choices("etaoinshrdlucmfwypvbgk", k=2 + n % 9)) for n in range(3000)]
WEIGHTS = [1 / (rank + 3) for rank in range(len(WORDS))]


def body(seed: int, size: int = TURN_BYTES) -> bytes:
    """A turn of prose in JSON. Words are as frequent as in a language, so zstd takes it to a third
    (recorded LLM exchanges go to a fifth).
    """
    chooser = random.Random(seed)
    text = " ".join(chooser.choices(WORDS, WEIGHTS, k=size // 4))[: size - 60]
    return b'{"provider":"anthropic","request":null,"text":"' + text.encode().ljust(size - 60) + b'"}'


BODIES = [body(seed) for seed in range(64)]


@dataclass
class Figures:
    """Everything measured."""

    values: dict[str, float] = field(default_factory=dict[str, float])

    def add(self, name: str, value: float) -> None:
        self.values[name] = round(value, 3)
        print(f"{name:58} {value:12,.2f}", file=sys.stderr)


def percentile(samples: list[float], percent: float) -> float:
    return statistics.quantiles(samples, n=1000, method="inclusive")[int(percent * 10) - 1]


def measure_append(folder: Path, seconds: float, figures: Figures) -> float:
    """The limit: a group of turns appended to a file, then fdatasync. Returns its p99 in seconds."""
    descriptor = os.open(folder / "append", os.O_CREAT | os.O_WRONLY)
    times: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        os.writev(descriptor, BODIES[:GROUP])
        os.fdatasync(descriptor)
        times.append(time.perf_counter() - began)
    os.close(descriptor)
    (folder / "append").unlink()
    figures.add("append + fdatasync in groups of 16: turns/s", GROUP * len(times) / sum(times))
    figures.add("append + fdatasync of 16 turns: p50 ms", percentile(times, 50) * 1e3)
    figures.add("append + fdatasync of 16 turns: p99 ms", percentile(times, 99) * 1e3)
    return percentile(times, 99)


def record(number: int) -> Record:
    return Record(
        turn_id=f"01900000-0000-7000-8000-{number:012x}",
        tenant=f"tenant-{number % 4}",
        body=BODIES[number % len(BODIES)],
        created_at_ns=time.time_ns(),
    )


async def until_delivered(spool: Spool) -> None:
    """Nothing signals this: it is no state of the service."""
    while spool.ledger.spooled or spool.ledger.open:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def deliver(spool: Spool) -> None:
    """Take everything and acknowledge it, as a very fast ingest would."""
    while True:
        await spool.wait_for_work()
        claimed = await spool.claim(256, 16 << 20, time.time_ns(), per_tenant=64)
        if claimed:
            await spool.acknowledge([turn.seq for turn in claimed])


async def measure_throughput(folder: Path, seconds: float, figures: Figures, *, level: int) -> None:
    """Callers that wait for each turn, many at once; delivery at the same time."""
    spool = await Spool.open(folder / f"throughput-{level}", SpoolSettings(zstd_level=level))
    until = time.perf_counter() + seconds
    done = 0

    async def caller(offset: int) -> None:
        nonlocal done
        number = offset
        while time.perf_counter() < until:
            spool.ledger.observe()
            assert isinstance(await spool.keep(record(number)), Kept)
            number += 256
            done += 1

    cpu, began = time.process_time(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        delivery = group.create_task(deliver(spool))
        async with asyncio.TaskGroup() as callers:
            for offset in range(256):
                callers.create_task(caller(offset))
        kept = time.perf_counter() - began
        await until_delivered(spool)
        delivery.cancel()
    drained = time.perf_counter() - began
    name = f"spool, zstd {level}" if level else "spool, plain"
    figures.add(f"{name}: turns/s kept durably, deletions included", done / kept)
    figures.add(f"{name}: turns/s until the last was deleted", done / drained)
    figures.add(f"{name}: CPU us a turn", (time.process_time() - cpu) / done * 1e6)
    figures.add(f"{name}: transactions", spool.condition.commits)
    figures.add(f"{name}: WAL checkpoints", spool.condition.checkpoints)
    assert spool.ledger.imbalance == 0
    await spool.close(10)


async def measure_latency(
    folder: Path, seconds: float, rate: float, figures: Figures, limit_s: float
) -> None:
    """Turns at a steady rate; the time from handing one over to knowing it durable."""
    spool = await Spool.open(folder / "latency", SpoolSettings())
    times: list[float] = []

    async def one(number: int) -> None:
        began = time.perf_counter()
        spool.ledger.observe()
        assert isinstance(await spool.keep(record(number)), Kept)
        times.append(time.perf_counter() - began)

    cpu = time.process_time()
    async with asyncio.TaskGroup() as group:
        delivery = group.create_task(deliver(spool))
        began = time.perf_counter()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            group.create_task(one(number))
        await until_delivered(spool)
        delivery.cancel()
    figures.add(f"commit latency at {rate:g} turns/s: p50 ms", percentile(times, 50) * 1e3)
    figures.add(f"commit latency at {rate:g} turns/s: p99 ms", percentile(times, 99) * 1e3)
    figures.add(f"commit latency at {rate:g} turns/s: worst ms", max(times) * 1e3)
    figures.add("bound for p99 (20 ms or 10 x fdatasync p99): ms", max(0.020, 10 * limit_s) * 1e3)
    figures.add(f"CPU us a turn at {rate:g} turns/s", (time.process_time() - cpu) / len(times) * 1e6)
    await spool.close(10)


async def measure_open(folder: Path, turns: int, figures: Figures) -> None:
    """A spool as a long outage leaves it."""
    root = folder / "large"
    spool = await Spool.open(root, SpoolSettings(quota_bytes=0))
    for first in range(0, turns, 1000):
        spool.ledger.observed += 0
        for _ in range(1000):
            spool.ledger.observe()
        await asyncio.gather(*(spool.keep(record(first + i)) for i in range(1000)))
    await spool.close(60)
    (database,) = root.rglob("spool.db")
    figures.add(f"spool of {turns:,} turns: MB on disk", database.stat().st_size / 1e6)
    before = resident_bytes()
    began = time.perf_counter()
    spool = await Spool.open(root, SpoolSettings(quota_bytes=0))
    figures.add(f"spool of {turns:,} turns: s to open", time.perf_counter() - began)
    after = resident_bytes()
    figures.add(f"spool of {turns:,} turns: MiB of memory more when open", (after - before) / (1 << 20))
    assert spool.ledger.spooled == turns
    await spool.close(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--turns", type=int, default=90_000, help="in the spool that is opened; 0 skips it")
    parser.add_argument("--root", type=Path, help="measure the disk under this folder")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-spool-", dir=arguments.root))
    figures = Figures()
    try:
        limit_s = measure_append(folder, arguments.seconds / 2, figures)
        asyncio.run(measure_throughput(folder, arguments.seconds, figures, level=1))
        asyncio.run(measure_throughput(folder, arguments.seconds, figures, level=0))
        asyncio.run(measure_latency(folder, arguments.seconds, arguments.rate, figures, limit_s))
        if arguments.turns:
            asyncio.run(measure_open(folder, arguments.turns, figures))
    finally:
        shutil.rmtree(folder)
    if arguments.json:
        print(json.dumps(figures.values))


if __name__ == "__main__":
    main()
