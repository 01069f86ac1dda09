"""Settlement: in groups, after the fact, and only idle when everything is written."""

import asyncio
from collections.abc import Sequence

import pytest

from capture.outcomes import State
from ingest_client.delivery import DeliveryCounters, Final
from ingest_client.delivery.attempt import Attempt
from ingest_client.delivery.classify import Verdict, classify_status
from ingest_client.delivery.settlement import Settled, Settlement
from tests.patience import eventually
from tests.unit.ingest_client.delivery.memory_queue import MemoryQueue


class SlowQueue(MemoryQueue):
    """Commits one group at a time, when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[list[int]] = []
        self.gate = asyncio.Semaphore(0)

    async def acknowledge(self, seqs: Sequence[int]) -> None:
        self.groups.append(list(seqs))
        await self.gate.acquire()
        await super().acknowledge(seqs)


async def settled(queue: MemoryQueue, seq: int, status: int) -> Settled:
    queue.put([queue.turn(seq)])
    [turn] = await queue.claim(1, 10**6, 10**19, per_tenant=1)
    verdict: Verdict = classify_status(status)
    attempt = Attempt(
        number=1,
        endpoint="http://x",
        started_at_ns=5,
        ended_at_ns=7,
        fate=verdict.fate,
        reason=verdict.reason,
        status=status,
        error="",
        delay_s=1.0,
        turns=1,
        request_bytes=1,
        answer_bytes=1,
    )
    return Settled(turn, verdict, attempt)


async def test_what_gathers_during_a_commit_is_one_group_and_idle_means_all_written() -> None:
    queue, freed, finals = SlowQueue(), [0], list[Final]()

    def free(turns: int, _: int) -> None:
        freed[0] += turns

    settlement = Settlement(queue, DeliveryCounters(), free, finals.append)
    running = asyncio.create_task(settlement.run())
    settlement.put([await settled(queue, 1, 202)])
    await eventually(lambda: queue.groups == [[1]])
    settlement.put([await settled(queue, 2, 202)])
    settlement.put([await settled(queue, 3, 200)])
    queue.gate.release()
    await eventually(lambda: queue.groups == [[1], [2, 3]])
    assert not settlement.idle
    assert [final.turn_id[-1] for final in finals] == ["1"]
    queue.gate.release()
    await asyncio.wait_for(settlement.wait_idle(), 20)
    assert freed == [3]
    assert {final.state for final in finals} == {State.DELIVERED}
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_each_fate_is_told_in_its_own_way_and_counted() -> None:
    queue, counters, finals = MemoryQueue(), DeliveryCounters(), list[Final]()
    settlement = Settlement(queue, counters, lambda _turns, _bytes: None, finals.append)
    running = asyncio.create_task(settlement.run())
    settlement.put([await settled(queue, n, status) for n, status in enumerate((202, 422, 503, 401))])
    await asyncio.wait_for(settlement.wait_idle(), 20)
    running.cancel()
    assert [queue.rows[n].state for n in range(4)] == ["acknowledged", "dead_letter", "pending", "pending"]
    assert [queue.rows[n].at_ns for n in (2, 3)] == [7 + 10**9] * 2
    assert (counters.accepted, counters.refused, counters.put_off) == (1, 1, 2)
    assert [final.state for final in finals] == [State.DELIVERED, State.DEAD_LETTERED]
