"""Tells the spool what became of each turn, in groups, and then whoever counts.

While one acknowledgement is being committed the next ones gather, so under load a group
grows to what the disk can take. Order matters only in one way: a final verdict is
reported after the spool has it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from capture.outcomes import Outcome, State
from ingest_client.delivery.attempt import Attempt
from ingest_client.delivery.classify import Fate, Verdict
from ingest_client.delivery.counters import DeliveryCounters
from ingest_client.spool.api import Claimed, Queue


@dataclass(frozen=True, slots=True)
class Settled:
    """A turn, the verdict on it, and the attempt that led there."""

    turn: Claimed
    verdict: Verdict
    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """A turn has left delivery for good: ``state`` is delivered or dead_lettered."""

    turn_id: str
    tenant: str
    state: State
    outcome: Outcome | None
    attempt: Attempt


OnFinal = Callable[[Final], None]


class Settlement:
    """Collects what is settled and writes it down. ``run`` is its task."""

    def __init__(
        self, queue: Queue, counters: DeliveryCounters, freed: Callable[[int, int], None], on_final: OnFinal
    ) -> None:
        """``freed(turns, bytes)`` is called when settled turns no longer count as ours."""
        self._queue = queue
        self._counters = counters
        self._freed = freed
        self._on_final = on_final
        self._waiting: list[Settled] = []
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, settled: list[Settled]) -> None:
        """Note what became of turns; the task writes it."""
        self._waiting += settled
        self._work.set()
        self._idle.clear()

    @property
    def idle(self) -> bool:
        """Whether everything put here is written."""
        return self._idle.is_set()

    async def wait_idle(self) -> None:
        """Return once everything put here is written."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write groups for ever; cancel to stop."""
        while True:
            await self._work.wait()
            self._work.clear()
            group, self._waiting = self._waiting, []
            await self._write(group)
            if not self._waiting:
                self._idle.set()

    async def _write(self, group: list[Settled]) -> None:
        accepted = [settled for settled in group if settled.verdict.fate is Fate.ACCEPTED]
        others = [settled for settled in group if settled.verdict.fate is not Fate.ACCEPTED]
        writes = [self._write_other(settled) for settled in others]
        if accepted:
            writes.insert(0, self._queue.acknowledge([settled.turn.seq for settled in accepted]))
        await asyncio.gather(*writes)
        for settled in group:
            self._count(settled)
        self._freed(len(group), sum(len(settled.turn.body) for settled in group))

    async def _write_other(self, settled: Settled) -> None:
        turn, verdict, attempt = settled.turn, settled.verdict, settled.attempt
        if verdict.fate is Fate.REFUSED:
            reason = f"{verdict.reason.value} ({verdict.status}): {verdict.text}"
            await self._queue.dead_letter(turn.seq, Outcome.INGEST_REJECT, reason, attempt)
        else:
            at_ns = attempt.ended_at_ns + int(attempt.delay_s * 1e9)
            await self._queue.retry(turn.seq, at_ns, attempt)

    def _count(self, settled: Settled) -> None:
        match settled.verdict.fate:
            case Fate.ACCEPTED:
                self._counters.accepted += 1
                self._report(settled, State.DELIVERED, None)
            case Fate.REFUSED:
                self._counters.refused += 1
                self._report(settled, State.DEAD_LETTERED, Outcome.INGEST_REJECT)
            case Fate.HOLD | Fate.RETRY:
                self._counters.put_off += 1
            case _:
                assert_never(settled.verdict.fate)

    def _report(self, settled: Settled, state: State, outcome: Outcome | None) -> None:
        turn = settled.turn
        self._on_final(
            Final(
                turn_id=turn.turn_id,
                tenant=turn.tenant,
                state=state,
                outcome=outcome,
                attempt=settled.attempt,
            )
        )
