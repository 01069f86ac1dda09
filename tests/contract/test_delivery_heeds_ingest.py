"""What our ingest says about itself, our delivery does: batch size, codings, limits of a tenant."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn

from ingest.app import build, listen, running
from ingest.limits import Limit
from ingest.protocol import ClientProtocol
from ingest.service import Service
from ingest.settings import IngestSettings
from ingest_client.delivery import Final
from ingest_client.delivery.classify import Reason
from ingest_client.spool.api import Claimed
from tests.unit.ingest.running import turn
from tests.unit.ingest_client.delivery.memory_queue import MemoryQueue
from tests.unit.ingest_client.delivery.running import delivering, eventually, quick


@asynccontextmanager
async def served(directory: Path, limits: list[dict[str, object]]) -> AsyncGenerator[tuple[Service, str]]:
    """An ingest on a port of loopback, in this process, so that its parts can be looked at."""
    (directory / "limits.yaml").write_text(json.dumps(limits))
    settings = IngestSettings(
        database_url=f"sqlite:///{directory}/x.db", limits_file=directory / "limits.yaml"
    )
    application = build(settings)
    sock = listen("127.0.0.1:0")
    config = uvicorn.Config(application.asgi, http=ClientProtocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    async with running(application) as service:
        serving = asyncio.ensure_future(server._serve([sock]))
        await eventually(lambda: server.started, 60)
        try:
            yield service, f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


def claimed(seq: int, tenant: str) -> Claimed:
    turn_id = f"0190b8a0-0000-7000-8000-{seq:012d}"
    body = json.dumps(turn(f"question {seq} " * 200, meta={"request_id": turn_id, "tenant": tenant}))
    return Claimed(seq=seq, turn_id=turn_id, tenant=tenant, body=body.encode(), attempts=0, created_at_ns=0)


async def counted(service: Service, sql: str) -> list[tuple[object, ...]]:
    rows = await service.store.read(lambda connection: connection.run(sql))
    return [tuple(row) for row in rows]


async def test_batches_grow_to_what_ping_names_and_bodies_are_compressed(tmp_path: Path) -> None:
    """A sidecar set to batches of 3 sends 64, and zstd once an answer has offered it."""
    queue = MemoryQueue()
    async with served(tmp_path, []) as (service, url):
        settings = quick(url, batch_turns=3, answer_timeout_s=20.0, requests_per_endpoint=1)
        async with delivering(queue, settings) as delivery:
            await eventually(lambda: delivery.snapshot().endpoints[0].batch_turns == 64, 60)
            queue.put(claimed(seq, "a") for seq in range(1000))
            await queue.until("acknowledged", 1000, 60)
            [endpoint] = delivery.snapshot().endpoints
            counters = delivery.counters
        assert endpoint.coding == "zstd"
        assert counters.batched_turns / counters.batches > 30
        plain = sum(len(row.turn.body) for row in queue.rows.values())
        assert counters.request_bytes < plain / 4, "most of it went compressed"
        assert await counted(service, "SELECT count(DISTINCT request_id), count(*) FROM turns") == [
            (1000, 1000)
        ]


RATE = {"turns_per_s": 0.001, "burst_turns": 20}
"""So slow that a hundred turns are over it however long they take to come."""


@pytest.mark.parametrize(
    ("limit", "more"),
    [(RATE, [Limit(tenant="busy", turns_per_s=100, burst_turns=20)]), ({"stored_bytes": 120_000}, [])],
    ids=["rate", "stored"],
)
async def test_turns_over_a_limit_wait_and_are_neither_lost_nor_dead_nor_in_the_way(
    tmp_path: Path, limit: dict[str, object], more: list[Limit]
) -> None:
    """One tenant is over its limit; the other one does not wait for it, and it arrives whole once more is allowed.

    At a rate: over that one it is again and again.
    """
    queue, finals = MemoryQueue(), list[Final]()
    async with served(tmp_path, [{"tenant": "busy"} | limit]) as (service, url):
        settings = quick(url, answer_timeout_s=20.0, retry_after_cap_s=0.2)
        async with delivering(queue, settings, finals) as delivery:
            queue.put(claimed(seq, "busy") for seq in range(100))
            queue.put(claimed(seq, "calm") for seq in range(1000, 1100))
            await eventually(lambda: delivery.counters.attempts[Reason.THROTTLED] > 0, 60)
            calm = [queue.rows[seq] for seq in range(1000, 1100)]
            await eventually(lambda: all(row.state == "acknowledged" for row in calm), 60)
            assert queue.states()["acknowledged"] < 200
            service.throttle.limiter.rule(more)  # somebody allows it more
            await queue.until("acknowledged", 200, 60)
            [endpoint] = delivery.snapshot().endpoints
        assert endpoint.hold is None
        assert "dead_letter" not in queue.states()
        assert len(finals) == 200
        assert await counted(
            service, "SELECT tenant, count(DISTINCT request_id), count(*) FROM turns GROUP BY tenant"
        ) == [("busy", 100, 100), ("calm", 100, 100)]
