"""Delivery against our own ingest, each as it is shipped: what one means the other understands."""

import asyncio
import contextlib
import json
import sqlite3
from pathlib import Path

from capture.outcomes import Outcome
from ingest_client.delivery import Final
from ingest_client.spool.api import Claimed
from tests.unit.ingest.running import turn
from tests.unit.ingest.test_serving import process
from tests.unit.ingest_client.delivery.memory_queue import MemoryQueue
from tests.unit.ingest_client.delivery.running import delivering, eventually, quick

TURNS = 150
DAMAGED = {7, 70}


def claimed(seq: int) -> Claimed:
    """A turn as the sidecar marshals it; two of them are none that ingest can use."""
    turn_id = f"0190b8a0-0000-7000-8000-{seq:012d}"
    provider = {"provider": "nobody"} if seq in DAMAGED else {}
    body = json.dumps(turn(f"question {seq}", meta={"request_id": turn_id, "tenant": "default"}, **provider))
    return Claimed(
        seq=seq, turn_id=turn_id, tenant="default", body=body.encode(), attempts=0, created_at_ns=0
    )


def stored_ids(database: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return [row[0] for row in connection.execute("SELECT request_id FROM turns")]


async def all_decided(finals: list[Final]) -> None:
    """Return once delivery has told of every turn what became of it."""
    await eventually(lambda: len(finals) == TURNS)


async def test_batches_are_decided_turn_by_turn_and_nothing_is_stored_twice(tmp_path: Path) -> None:
    """All turns in batches, refused ones found among them; delivered again from the start, nothing doubles."""
    database = tmp_path / "ingest.db"
    async with process(database) as (_, url):
        for _attempt in range(2):
            queue = MemoryQueue()
            finals: list[Final] = []
            async with delivering(queue, quick(url, answer_timeout_s=10.0), finals) as delivery:
                queue.put(claimed(seq) for seq in range(TURNS))
                await queue.until("acknowledged", TURNS - len(DAMAGED), 60)
                await queue.until("dead_letter", len(DAMAGED), 60)
                await all_decided(finals)
                [endpoint] = delivery.snapshot().endpoints
            assert {seq for seq, row in queue.rows.items() if row.state == "dead_letter"} == DAMAGED
            assert all("unprocessable (422)" in queue.rows[seq].reason for seq in DAMAGED)
            assert [final.outcome for final in finals].count(Outcome.INGEST_REJECT) == len(DAMAGED)
            assert (endpoint.batches, endpoint.hold) == ("yes", None)
            assert delivery.counters.batches > 0
    ids = await asyncio.to_thread(stored_ids, database)
    accepted = {claimed(seq).turn_id for seq in range(TURNS) if seq not in DAMAGED}
    assert accepted <= set(ids)
    assert len(ids) == len(set(ids))


async def test_ingest_killed_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """kill -9 in the middle, a new process on the same database: every turn is stored once."""
    database = tmp_path / "ingest.db"
    queue = MemoryQueue()
    async with process(database) as (child, first), delivering(queue, quick(first, batch_turns=4)):
        queue.put(claimed(seq) for seq in range(1000, 1000 + 600))
        await queue.until("acknowledged", 100, 60)
        child.kill()
        await child.wait()
    async with process(database) as (_, second), delivering(queue, quick(second, answer_timeout_s=10.0)):
        await queue.until("acknowledged", 600, 60)
    ids = await asyncio.to_thread(stored_ids, database)
    assert sorted(ids) == sorted(row.turn.turn_id for row in queue.rows.values())
