"""What delivery costs: CPU per turn, single and batched, against a bare sink in another process.

    python -m bench.delivery [--turns 20000] [--bytes 10240] [--json]

Keep-alive, 10 KiB turns, loopback. The process measured runs delivery with an in-memory
queue; the sink only counts bytes and answers 202. In the same run, for comparison: the
same POSTs by a bare pooled socket (the limit) and by aiohttp.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import cast

import aiohttp
import uvloop

from ingest_client.delivery import Delivery, DeliverySettings, EndpointSettings
from ingest_client.delivery.clock import SystemClock
from tests.unit.ingest_client.delivery.memory_queue import MemoryQueue

_ANSWER = (
    b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\r\n"
    b'{"status":"accepted"}'
)


class _Sink(asyncio.Protocol):
    """Answers 202 as soon as a request has arrived whole; reads nothing but Content-Length."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._pending = bytearray()
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._left -= len(data)
            if self._left == 0:
                self._answer()
            return
        self._pending += data
        end = self._pending.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._pending[:end]).lower()
        at = head.find(b"content-length: ")
        length = int(head[at + 16 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        self._left = length - (len(self._pending) - end - 4)
        self._pending.clear()
        if self._left == 0:
            self._answer()

    def _answer(self) -> None:
        assert self._transport is not None
        self._transport.write(_ANSWER)


def _serve(pipe: Connection) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(_Sink, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.to_thread(pipe.recv)
        server.close()

    uvloop.run(main())


@dataclass(frozen=True, slots=True)
class Measured:
    """One row of the table."""

    name: str
    turns: int
    cpu_us_per_turn: float
    turns_per_s: float


def _filled(turns: int, size: int) -> MemoryQueue:
    queue = MemoryQueue()
    queue.put([queue.turn(seq, size=size, created_at_ns=0) for seq in range(turns)])
    return queue


async def _delivery(port: int, queue: MemoryQueue, batch: int) -> None:
    turns = len(queue.rows)
    settings = DeliverySettings(
        endpoints=(EndpointSettings(url=f"http://127.0.0.1:{port}"),), batch_turns=batch
    )
    delivery = Delivery(queue, settings, SystemClock(), random.Random(1).random)
    task = asyncio.create_task(delivery.run())
    while queue.acknowledged < turns:  # noqa: ASYNC110 - an event would be part of what is measured
        await asyncio.sleep(0.05)
    await delivery.close(1.0)
    await task


async def _aiohttp(port: int, turns: int, size: int) -> None:
    body = MemoryQueue().turn(1, size=size).body
    left = iter(range(turns))

    async def post(session: aiohttp.ClientSession) -> None:
        for number in left:
            headers = {"Content-Type": "application/json", "Idempotency-Key": str(number)}
            url = f"http://127.0.0.1:{port}/v1/ingest"
            async with session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                await answer.read()
                assert answer.status == 202

    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        await asyncio.gather(*(post(session) for _ in range(16)))


async def _bare(port: int, turns: int, size: int) -> None:
    body = MemoryQueue().turn(1, size=size).body
    head = (
        f"POST /v1/ingest HTTP/1.1\r\nHost: sink\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    left = iter(range(turns))

    async def post() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in left:
            writer.write(head + body)
            assert (await reader.readexactly(len(_ANSWER)))[9:12] == b"202"
        writer.close()

    await asyncio.gather(*(post() for _ in range(16)))


def _measure(name: str, turns: int, work: Callable[[], Coroutine[object, object, None]]) -> Measured:
    """``work`` is made before the clocks start."""
    coroutine = work()

    async def timed() -> Measured:
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        await coroutine
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
        return Measured(name, turns, cpu_s / turns * 1e6, turns / wall_s)

    return uvloop.run(timed())


def run(turns: int, size: int) -> list[Measured]:
    """Every row, measured in one run."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,))
    process.start()
    port: int = ours.recv()
    try:
        return [
            _measure("single", turns, lambda: _delivery(port, _filled(turns, size), 1)),
            _measure("batched (64)", turns, lambda: _delivery(port, _filled(turns, size), 64)),
            _measure("bare pooled socket, single", turns, lambda: _bare(port, turns, size)),
            _measure("aiohttp, single", turns, lambda: _aiohttp(port, turns, size)),
        ]
    finally:
        ours.send(None)
        process.join(5)


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--turns", type=int, default=20_000)
    parser.add_argument("--bytes", type=int, default=10_240)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    rows = run(chosen.turns, chosen.bytes)
    if chosen.json:
        json.dump([asdict(row) for row in rows], sys.stdout, indent=2)
        return
    for row in rows:
        print(f"{row.name:28} {row.cpu_us_per_turn:8.1f} µs CPU/turn {row.turns_per_s:10.0f} turns/s")


if __name__ == "__main__":
    main()
