"""How fast the ingest service stores, derives and lists, beside its store's own limit.

    python -m bench.ingest [--engine sqlite|postgresql] [--seconds 5] [--bulk 1000000]

Turns are 10 KiB envelopes of a conversation that grows. The service runs in a process of its
own, the load in this one; PostgreSQL is a server of the test package. "Store's own limit" is
the same rows inserted by a plain script, in the same run: the machine is part of the result.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec
import psutil

from ingest.access import OPEN
from ingest.app import engine_of
from ingest.intake import Posted, Prepared, prepare, stamp
from ingest.store import tables, turns
from ingest.store.connection import Connection, Value
from ingest.store.rows import NewTurn
from tests.unit.ingest.engines import drop_database, new_database

SIZE = 10 * 1024
SERVE = """
import sys
from ingest.app import run
from ingest.settings import IngestSettings
run(IngestSettings(listen="127.0.0.1:0", database_url=sys.argv[1], derive=sys.argv[2] == "1"))
"""
WORDS = [f"w{number:x}" for number in range(4096)]
_random = random.Random(7)


def envelope(number: int) -> bytes:
    """A turn of :data:`SIZE` bytes: the tenth of a conversation, with text that compresses like text."""
    talk = number // 10
    messages: list[dict[str, str]] = []
    for step in range(number % 10 + 1):
        _random.seed(talk * 100 + step)
        text = " ".join(_random.choices(WORDS, k=120))
        messages += [{"role": "user", "content": text}, {"role": "assistant", "content": f"answer {step}"}]
    messages.pop()
    value = {
        "provider": "anthropic",
        "agent_name": f"agent-{talk % 20}",
        "request": {"model": "m", "max_tokens": 100, "messages": messages},
        "response": {
            "model": "m",
            "message": {"role": "assistant", "content": [{"type": "text", "text": f"answer {number % 10}"}]},
            "done": True,
            "stop_reason": "end_turn",
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        },
        "meta": {"request_id": f"bench-{os.getpid()}-{number}", "filler": ""},
        "session": {
            "org_id": "",
            "auth_subject": "",
            "harness_id": "bench",
            "harness_session_id": f"s{talk}",
        },
    }
    short = SIZE - len(json.dumps(value))
    _random.seed(number)
    value["meta"]["filler"] = "".join(_random.choices("abcdefghijklmnop qrstuv", k=max(0, short)))  # type: ignore[index]
    return json.dumps(value).encode()


class Load:
    """A client that costs little: one connection, requests one after another."""

    def __init__(self, url: str, path: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 0
        self._head = (
            f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: "
        ).encode()
        self.latencies: list[float] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self._host, self._port)

    async def post(self, connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], body: bytes) -> None:
        reader, writer = connection
        began = time.perf_counter()
        writer.write(self._head + str(len(body)).encode() + b"\r\n\r\n" + body)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 202"):
            raise RuntimeError(head.decode())
        self.latencies.append(time.perf_counter() - began)


async def flood(url: str, path: str, bodies: list[bytes], connections: int) -> tuple[float, list[float]]:
    """Post everything as fast as it goes; seconds, and each request's latency."""
    load = Load(url, path)
    waiting = iter(bodies)

    async def worker() -> None:
        connection = await load.connect()
        for body in waiting:
            await load.post(connection, body)
        connection[1].close()

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(connections)))
    return time.perf_counter() - began, load.latencies


async def steady(url: str, bodies: list[bytes], rate: float) -> list[float]:
    """Post at a rate, whatever the answers take (open loop); each request's latency."""
    load = Load(url, "/v1/ingest")
    idle: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(64):
        idle.put_nowait(await load.connect())
    latencies: list[float] = []

    async def one(body: bytes, due: float) -> None:
        connection = await idle.get()
        await load.post(connection, body)
        latencies.append(time.perf_counter() - due)
        idle.put_nowait(connection)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number, body in enumerate(bodies):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(body, due))
    return latencies


@contextmanager
def database(engine: str) -> Generator[str]:
    """An empty database on the disk of this checkout's temporary directory."""
    if engine == "sqlite":
        directory = Path(tempfile.mkdtemp(prefix="bench"))
        yield f"sqlite:///{directory / 'x.db'}"
        shutil.rmtree(directory)
        return
    name = f"bench{time.time_ns()}"
    yield new_database(name)
    drop_database(name)


CHILDREN: list[psutil.Process] = []


def cpu() -> float:
    """CPU seconds of the service that runs now."""
    times = CHILDREN[-1].cpu_times()
    return times.user + times.system


@contextmanager
def server(url: str, *, derive: bool) -> Generator[str]:
    """The service in its own process; its address."""
    child = subprocess.Popen(
        [sys.executable, "-c", SERVE, url, "1" if derive else "0"], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout
    CHILDREN.append(psutil.Process(child.pid))
    try:
        yield child.stdout.readline().split()[-1]
    finally:
        child.terminate()
        child.wait(60)


def batches(bodies: list[bytes], size: int) -> list[bytes]:
    return [
        b'{"turns":[' + b",".join(bodies[start : start + size]) + b"]}"
        for start in range(0, len(bodies), size)
    ]


def prepared(bodies: list[bytes]) -> list[NewTurn]:
    found = [prepare(Posted(body=body), OPEN, "", stamp()) for body in bodies]
    return [item.turn for item in found if isinstance(item, Prepared)]


def own_limit(url: str, bodies: list[bytes], group: int) -> float:
    """Turns a second that a plain script inserts, ``group`` to a commit, with nothing around it."""
    engine = engine_of(url)
    engine.prepare()
    rows = prepared(bodies)
    connection = engine.writer()
    began = time.perf_counter()
    for start in range(0, len(rows), group):
        connection.begin()
        turns.put(connection, rows[start : start + group])
        connection.commit()
    took = time.perf_counter() - began
    connection.close()
    return len(rows) / took


def p(latencies: list[float], share: float) -> float:
    """A percentile in milliseconds."""
    return sorted(latencies)[int(share * (len(latencies) - 1))] * 1000


def derivation(url: str, count: int) -> float:
    """Turns a second that the service derives from a backlog, alone."""
    with server(url, derive=True) as address, httpx.Client(base_url=address) as client:
        began = time.perf_counter()
        while True:
            text = client.get("/metrics").text
            if "steno_ingest_derive_lag_turns 0.0" in text:
                print(f"  {cpu() / count * 1e6:.0f} us CPU a turn derived, start-up included", flush=True)
                return count / (time.perf_counter() - began)
            time.sleep(0.2)


def lists(url: str) -> None:
    """How long a page of each list takes."""
    with server(url, derive=False) as address, httpx.Client(base_url=address, timeout=60) as client:
        for path in (
            "/v1/turns",
            "/v1/turns?agent=agent-3",
            "/v1/turns?model=m&agent=agent-3",
            "/v1/turns?provider=openai",
            "/v1/turns?until=2020-01-01T00:00:00Z",
            "/v1/sessions",
            "/v1/ingest/nodes?agent=agent-3",
            "/v1/usage?by=day,model",
        ):
            times: list[float] = []
            for _ in range(7):
                began = time.perf_counter()
                client.get(path).raise_for_status()
                times.append(time.perf_counter() - began)
            print(f"  list {path:<40} {statistics.median(times) * 1000:8.1f} ms", flush=True)


def bulk(url: str, count: int) -> None:
    """Load ``count`` turns with their steps and sessions, bodies shortened: the size of the tables counts."""
    engine = engine_of(url)
    connection = engine.writer()
    template = prepared([envelope(1)])[0]
    last = 0
    for start in range(0, count, 20_000):
        connection.begin()
        seqs = connection.allocate(min(20_000, count - start))
        last = seqs[-1]
        base = time.time_ns() // 1000 - 30 * 86_400_000_000
        put(
            connection,
            "turns",
            (
                turns.turn_values(
                    seq,
                    _numbered(template, seq, base + seq * 1_000_000),
                    turns.key_hash("default", f"bulk-{seq}"),
                    seq.to_bytes(16, "big"),
                    False,
                )
                for seq in seqs
            ),
        )
        put(
            connection,
            "bodies",
            ((seq, b"{}", b"{}", b"{}", b"", b"", "") for seq in seqs),
        )
        put(
            connection,
            "steps",
            (
                (
                    seq,
                    "default",
                    f"{seq // 10:032x}",
                    f"{seq:032x}",
                    f"agent-{seq % 20}",
                    "anthropic",
                    "m",
                    base + seq * 1_000_000,
                    "chat_turn",
                    "generate",
                    "completed",
                    "stop",
                    "end_turn",
                    seq.to_bytes(32, "big"),
                    0,
                    "label",
                    "text",
                    0,
                    1,
                    1,
                    2,
                    None,
                    None,
                    None,
                )
                for seq in seqs
            ),
        )
        put(
            connection,
            "sessions",
            (
                (
                    "default",
                    f"{seq // 10:032x}",
                    "bench",
                    f"b{seq // 10}",
                    0,
                    "",
                    "",
                    "",
                    "",
                    "",
                    "{}",
                    "label",
                    base + seq * 1_000_000,
                    base + seq * 1_000_000,
                    seq,
                    seq,
                    10,
                    1,
                    1,
                    2,
                )
                for seq in seqs[::10]
            ),
        )
        put(
            connection,
            "nodes",
            (
                (
                    "default",
                    seq.to_bytes(32, "big"),
                    None,
                    "user",
                    1,
                    "anthropic",
                    "m",
                    f"agent-{seq % 20}",
                    seq,
                    0,
                    b"[]",
                )
                for seq in seqs
            ),
        )
        put(
            connection,
            "node_agents",
            (
                ("default", f"agent-{seq % 20}", seq.to_bytes(32, "big"), "anthropic", "m", seq, 0)
                for seq in seqs
            ),
        )
        connection.commit()
    connection.close()
    print(f"  bulk-loaded to {last} turns", flush=True)


def put(connection: Connection, table: str, rows: Iterable[Sequence[Value]]) -> None:
    tables.put_rows(connection, table, list(rows), "DO NOTHING")


def _numbered(template: NewTurn, seq: int, at_us: int) -> NewTurn:
    return msgspec.structs.replace(
        template, id=f"bulk-{seq}", key=f"bulk-{seq}", received_at_us=at_us, agent_name=f"agent-{seq % 20}"
    )


async def growth(url: str, sizes: list[int]) -> None:
    """The cost of a turn, and of lists, at several sizes."""
    have = 0
    for size in sizes:
        bulk(url, size - have)
        have = size
        bodies = [envelope(size * 10 + number) for number in range(3000)]
        with server(url, derive=False) as address:
            seconds, _ = await flood(address, "/v1/ingest/batch", batches(bodies, 50), 4)
        print(f"  at {size:>9} stored: {len(bodies) / seconds:8.0f} turns/s batched", flush=True)
    lists(url)


async def run(engine: str, seconds: float, size: int) -> None:
    count = int(1500 * seconds)
    bodies = [envelope(number) for number in range(count)]
    with database(engine) as url:
        limit = own_limit(url, bodies, 256)
    print(f"{engine}: store's own limit, 256 to a commit {limit:8.0f} turns/s", flush=True)
    with database(engine) as url:
        limit = own_limit(url, bodies[:2000], 16)
    print(f"{engine}: store's own limit, 16 to a commit  {limit:8.0f} turns/s", flush=True)
    with database(engine) as url:
        with server(url, derive=False) as address:
            spent = cpu()
            took, _ = await flood(address, "/v1/ingest/batch", batches(bodies, 50), 4)
            spent = (cpu() - spent) / count * 1e6
            print(
                f"{engine}: batched (50)                       {count / took:8.0f} turns/s"
                f"  {spent:.0f} us CPU a turn",
                flush=True,
            )
        rate = derivation(url, count)
        print(f"{engine}: derivation of the backlog          {rate:8.0f} turns/s", flush=True)
    for derive in (False, True):
        with database(engine) as url, server(url, derive=derive) as address:
            spent = cpu()
            took, latencies = await flood(address, "/v1/ingest", bodies[: count // 2], 32)
            spent = (cpu() - spent) / (count // 2) * 1e6
            print(
                f"{engine}: single POSTs, derivation {'on ' if derive else 'off'}"
                f"       {count / 2 / took:8.0f} turns/s"
                f"  p50 {p(latencies, 0.5):.1f} ms  p99 {p(latencies, 0.99):.1f} ms"
                f"  {spent:.0f} us CPU a turn",
                flush=True,
            )
    with database(engine) as url, server(url, derive=True) as address:
        latencies = await steady(address, bodies[: int(400 * seconds)], 400)
        print(
            f"{engine}: 400/s steady, derivation on        p50 {p(latencies, 0.5):.1f} ms"
            f"  p99 {p(latencies, 0.99):.1f} ms",
            flush=True,
        )
    if size:
        with database(engine) as url:
            engine_of(url).prepare()
            await growth(url, [10_000, size // 10, size])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--bulk", type=int, default=0)
    options = parser.parse_args()
    print(f"load average {os.getloadavg()}, {os.cpu_count()} cores", flush=True)
    asyncio.run(run(options.engine, options.seconds, options.bulk))


if __name__ == "__main__":
    main()
