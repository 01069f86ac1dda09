"""How fast the ingest service stores, derives and lists, beside its store's own limit.

    python -m bench.ingest [--engine both] [--parts limit,batched,…] [--seconds 4] [--bulk 1000000]

The service runs in a process of its own, the load in this one; PostgreSQL is a server of the
test package. "Store's own limit" is the same rows inserted by a plain script, in the same run:
the machine is part of the result. CPU is the service's and PostgreSQL's, user and system.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import psycopg

from bench import ingest_bulk
from bench.ingest_load import batches, envelope, flood, steady
from bench.ingest_results import Results, Run
from bench.tables import publish
from ingest.access import OPEN
from ingest.deriver import derive_all
from ingest.intake import Posted, Prepared, prepare, stamp
from ingest.store import derived, turns
from ingest.store.engines import engine_of
from ingest.store.rows import NewTurn
from tests.unit.ingest import engines

SERVE = """
import sys
from ingest.app import run
from ingest.settings import IngestSettings
run(IngestSettings(listen="127.0.0.1:0", database_url=sys.argv[1], derive=sys.argv[2] == "1"))
"""
PARTS = ("limit", "batched", "derivation", "single", "steady", "growth", "lists")
BATCH = 50
HALF = 400
"""Turns a second: half of the 800 that single POSTs must reach."""
WAL_FILES = 12
PLAIN_DERIVED = 4 * 256


@dataclass
class Store:
    """One database on this machine's disk, and what is spent on it."""

    engine: str
    url: str
    service: psutil.Process | None = None
    limits: dict[int, float] = field(default_factory=dict[int, float])

    def cpu(self) -> float:
        """CPU seconds of the service that runs now, and of PostgreSQL."""
        spent = [self.service.cpu_times()] if self.service else []
        total = 0.0
        if self.engine != engines.SQLITE:
            server = psutil.Process(engines.server().get_pid())
            for child in server.children(recursive=True):
                with suppress(psutil.NoSuchProcess):  # it has just ended, and counts below
                    spent.append(child.cpu_times())
            ended = server.cpu_times()
            total += ended.children_user + ended.children_system
            spent.append(ended)
        return total + sum(times.user + times.system for times in spent)


@contextmanager
def store(engine: str) -> Generator[Store]:
    """An empty database, gone afterwards."""
    if engine == engines.SQLITE:
        directory = Path(tempfile.mkdtemp(prefix="bench"))
        yield Store(engine, f"sqlite:///{directory / 'x.db'}")
        shutil.rmtree(directory)
        return
    name = f"bench{time.time_ns()}"
    yield Store(engine, engines.new_database(name))
    engines.drop_database(name)


@contextmanager
def service(used: Store, *, derive: bool) -> Generator[str]:
    """The service in its own process; its address."""
    child = subprocess.Popen(
        [sys.executable, "-c", SERVE, used.url, "1" if derive else "0"], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout
    used.service = psutil.Process(child.pid)
    try:
        yield child.stdout.readline().split()[-1]
    finally:
        used.service = None
        child.terminate()
        child.wait(60)


def prepared(bodies: list[bytes]) -> list[NewTurn]:
    """The rows of posted bodies, as the service would store them."""
    found = [prepare(Posted(body=body), OPEN, "", stamp()) for body in bodies]
    return [item.turn for item in found if isinstance(item, Prepared)]


def age(url: str) -> None:
    """Let a new PostgreSQL server have WAL files to use again, as one has that has run for a while.

    A new one makes each as it goes: some 50 ms of all commits for each 16 MB.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE aged (x INT)")
        for number in range(WAL_FILES):
            connection.execute("INSERT INTO aged VALUES (%s)", (number,))
            connection.execute("SELECT pg_switch_wal()")
        connection.execute("CHECKPOINT")


def own_limit(used: Store, rows: list[NewTurn], group: int) -> float:
    """Seconds that a plain script takes to insert, ``group`` to a commit, with nothing around it."""
    engine = engine_of(used.url)
    engine.prepare()
    connection = engine.writer()
    began = time.perf_counter()
    for start in range(0, len(rows), group):
        connection.begin()
        turns.put(connection, rows[start : start + group])
        connection.commit()
    took_s = time.perf_counter() - began
    connection.close()
    return took_s


class Bench:
    """The parts of one run, on one engine."""

    def __init__(self, engine: str, seconds: float, size: int, results: Results) -> None:
        self._engine = engine
        self._results = results
        self._size = size
        self._bodies = [envelope(number) for number in range(int(1500 * seconds))]
        self._limits: dict[int, float] = {}

    @contextmanager
    def _store(self) -> Generator[Store]:
        with store(self._engine) as used:
            used.limits = self._limits
            yield used

    def _tell(self, used: Store, what: str, run: Run) -> None:
        self._results.tell(self._engine, what, run, used.limits.get(256))

    async def limit(self) -> None:
        """What a plain script inserts."""
        for group, count in ((256, len(self._bodies)), (16, 2000)):
            with self._store() as used:
                self._plain(used, self._bodies[:count], group, f"store's own limit, {group} to a commit")

    def _plain(self, used: Store, bodies: list[bytes], group: int, what: str) -> None:
        rows = prepared(bodies)
        before, own = used.cpu(), time.process_time()
        took = own_limit(used, rows, group)
        used.limits.pop(group, None)
        self._tell(used, what, Run(len(rows), took, used.cpu() - before + time.process_time() - own))
        used.limits[group] = len(rows) / took

    async def batched(self) -> None:
        """Batches over four connections."""
        with self._store() as used, service(used, derive=False) as address:
            await self._batched(used, address, self._bodies, "batched (50 a request, 4 connections)")

    async def _batched(self, used: Store, address: str, bodies: list[bytes], what: str) -> None:
        before = used.cpu()
        took, _ = await flood(address, "/v1/ingest/batch", batches(bodies, BATCH), 4)
        self._tell(used, what, Run(len(bodies), took, used.cpu() - before))

    async def derivation(self) -> None:
        """A backlog that nobody adds to."""
        with self._store() as used:
            with service(used, derive=False) as address:
                await flood(address, "/v1/ingest/batch", batches(self._bodies, BATCH), 4)
            await self._derived(used, "derivation of a backlog")

    async def _derived(self, used: Store, what: str) -> None:
        with service(used, derive=True) as address, httpx.Client(base_url=address) as client:
            before, began = used.cpu(), time.perf_counter()
            first = lag = _lag(client)
            while lag:
                await asyncio.sleep(0.1)
                lag = _lag(client)
            took = time.perf_counter() - began
            self._tell(used, what, Run(first - lag, took, used.cpu() - before))

    def _plain_derived(self, used: Store, what: str) -> None:
        """What a plain script saves of turns that it has derived before: the indexes of hashes grow."""
        connection = engine_of(used.url).writer()
        took_s = spent_s = 0.0
        for _ in range(PLAIN_DERIVED // 256):
            made = derive_all(derived.pending(connection, 256))
            before, own, began = used.cpu(), time.process_time(), time.perf_counter()
            connection.begin()
            derived.save(connection, *made)
            connection.commit()
            took_s += time.perf_counter() - began
            spent_s += used.cpu() - before + time.process_time() - own
        connection.close()
        self._tell(used, what, Run(PLAIN_DERIVED, took_s, spent_s))

    async def single(self) -> None:
        """One turn a request, as fast as it goes."""
        count = len(self._bodies) // 2
        for derive in (False, True):
            with self._store() as used, service(used, derive=derive) as address:
                before = used.cpu()
                took, latencies = await flood(address, "/v1/ingest", self._bodies[:count], 32)
                what = f"single POSTs, 32 connections, derivation {'on' if derive else 'off'}"
                self._tell(used, what, Run(count, took, used.cpu() - before, latencies))

    async def steady(self) -> None:
        """Single POSTs at half of the rate they must reach; on PostgreSQL a new server and a used one."""
        what = "400/s steady (half of 800), derivation on"
        if self._engine != engines.SQLITE:
            with self._store() as used:
                await self._steady(used, f"{what}, every WAL file new")
        with self._store() as used:
            if self._engine != engines.SQLITE:
                age(used.url)
            await self._steady(used, what)

    async def _steady(self, used: Store, what: str) -> None:
        bodies = self._bodies[: min(len(self._bodies), 8 * HALF)]
        with service(used, derive=True) as address:
            before = used.cpu()
            latencies = await steady(address, bodies, HALF)
            self._tell(used, what, Run(len(bodies), len(bodies) / HALF, used.cpu() - before, latencies))

    async def growth(self) -> None:
        """The cost of a turn at several sizes, each beside the plain script at that size."""
        for size in (10_000, self._size // 10, self._size):
            with self._store() as used:
                ingest_bulk.load(used.url, size)
                used.limits = {}
                at = f"at {size:,} stored"
                anyhow = [envelope(number, key=str(uuid.uuid4())) for number in range(10**8, 10**8 + 1000)]
                self._plain(used, anyhow, 256, f"store's own limit, random keys, {at}")
                plain = [envelope(number) for number in range(10**9, 10**9 + 2000)]
                self._plain(used, plain, 256, f"store's own limit {at}")
                new = [envelope(number) for number in range(10**7, 10**7 + 4000)]
                with service(used, derive=False) as address:
                    await self._batched(used, address, new, f"batched {at}")
                self._plain_derived(used, f"store's own limit, what is derived, {at}")
                await self._derived(used, f"derivation {at}")
                if size == self._size:
                    self._lists(used)

    async def lists(self) -> None:
        """A page of every list with many turns stored (part of ``growth``, or alone)."""
        with self._store() as used:
            ingest_bulk.load(used.url, self._size)
            self._lists(used)

    def _lists(self, used: Store) -> None:
        worst = (0.0, "")
        with service(used, derive=False) as address, httpx.Client(base_url=address, timeout=60) as client:
            for path in ingest_bulk.lists(self._size):
                times = [_timed(client, path) for _ in range(7)]
                usual = statistics.median(times)
                worst = max(worst, (usual, path))
                cold = f"(first {times[0] * 1000:6.1f})"
                print(f"{used.engine:10} {usual * 1000:7.1f} ms {cold}  GET {path}", flush=True)
        print(f"{used.engine:10} slowest list at {self._size:,} stored: {worst[0] * 1000:.0f} ms", flush=True)
        self._results.add(
            self._engine, f"slowest list at {self._size:,} stored", f"{worst[0] * 1000:.0f} ms (`{worst[1]}`)"
        )


def _timed(client: httpx.Client, path: str) -> float:
    began = time.perf_counter()
    client.get(path).raise_for_status()
    return time.perf_counter() - began


def _lag(client: httpx.Client) -> int:
    lines = client.get("/metrics").text.splitlines()
    return int(
        float(next(line.split()[1] for line in lines if line.startswith("steno_ingest_derive_lag_turns ")))
    )


async def run(engine: str, parts: list[str], seconds: float, size: int, results: Results) -> None:
    """Every part that is wanted, on one engine."""
    bench = Bench(engine, seconds, size, results)
    for part in parts:
        if not (part == "lists" and "growth" in parts):  # which ends with them
            await getattr(bench, part)()


def main() -> None:
    """Print the results, one line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--seconds", type=float, default=4, help="1,500 turns a second of it")
    parser.add_argument("--bulk", type=int, default=1_000_000, help="turns stored for growth and lists")
    parser.add_argument("--into", type=Path, help="a document to put the table into: docs/ingest.md")
    options = parser.parse_args()
    began, results, before = time.monotonic(), Results(), os.getloadavg()[0]
    used = ("sqlite", "postgresql") if options.engine == "both" else (options.engine,)
    for engine in used:
        print(f"# {engine}: load average {os.getloadavg()}, {os.cpu_count()} cores", flush=True)
        asyncio.run(run(engine, options.parts.split(","), options.seconds, options.bulk, results))
    took_s, after = time.monotonic() - began, os.getloadavg()[0]
    said = (
        f"One run of {took_s:.0f} s on {os.cpu_count()} cores, load average {before:.1f} before,"
        f" {after:.1f} after. Shares are of the plain script's rate; milliseconds without a p are CPU time"
        " a turn."
    )
    publish("ingest", said, results.table(used), options.into)


if __name__ == "__main__":
    main()
