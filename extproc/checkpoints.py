"""Snapshots of exchanges that are still open, so that a crash leaves turns and not silence.

    open ──1 s──► snapshot ──2 s──► snapshot ──4, 8, 16, 30, 30 … s──► …  ──► its end: keep, or forget

An exchange that lasts is written down at growing intervals as the turn it would be if
it ended now, marked interrupted: the redacted, reduced payload, never raw bytes. Its turn gets its
name at the first snapshot and keeps it, so that the end (``keep`` or ``forget`` in the
pipeline) clears the snapshot. What a dead process left is kept as it is, under that name.

Statuses, each terminal one written once (``docs/spool.md``): *in_progress* while the snapshot
waits, *completed* by ``keep`` of the whole turn, *error* by ``forget``, *interrupted* by
``keep`` of the snapshot.

The reader pays for one heap entry a stream. Everything else happens in one task, with a bounded
share of the loop's time: late snapshots are the price of load, never late traffic. When
the spool sheds, fails or hangs, snapshots stop and nothing else does.
"""

import asyncio
import heapq
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from extproc.assemble import MAX_SNAPSHOT_BYTES, TurnIdentity, snapshot
from extproc.captured import Captured, Instant
from extproc.exchange import Exchange
from extproc.shelf import fetch
from ingest_client.beat import until_next
from ingest_client.sink import Kept, Record, Sink
from ingest_client.spool.api import Checkpoint, Checkpoints
from ingest_client.spool.patience import MANY

_log = logging.getLogger(__name__)

INTERVALS_S: Final = (1, 2, 4, 8, 16, 30)
"""From the request's headers to the first snapshot, and between snapshots; the last one repeats."""

TICK_S: Final = 0.5
"""How often to look for what is due: what falls due meanwhile shares one waking and one commit, which
cost as much as several snapshots."""

BATCH_ITEMS: Final = MANY
BATCH_BYTES: Final = 8 << 20
"""Snapshots handed to the spool together: one commit for all, and milliseconds of the loop's time."""

IDLE_PER_WORK: Final = 9
"""Rest after work, as a multiple of it: snapshots get a tenth of the loop's time at most."""

SWEEP_S: Final = 60.0
"""How often to look for what dead processes left (spools are adopted at any time)."""

KEEP_AT_ONCE: Final = 64
"""Interrupted turns handed to the spool together; their bytes are bounded by what it hands out at once."""


@dataclass(slots=True)
class CheckpointCounters:
    """What became of snapshots since the process started.

    ``interrupted``: turns of dead processes, kept. ``interrupted_put_off``: how often one could not be kept
    and went back to the spool, for the next sweep.
    """

    written: int = 0
    shed: int = 0
    too_large: int = 0
    failed: int = 0
    interrupted: int = 0
    interrupted_put_off: int = 0


class Watched:
    """An open exchange in the schedule. Ending it lets go of everything it holds."""

    __slots__ = ("exchange", "looks", "turn_id")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange: Exchange | None = exchange
        self.looks = 0
        self.turn_id = ""

    def end(self) -> None:
        """The exchange is concluded: from now on its end is the pipeline's."""
        self.exchange = None


class Checkpointer:
    """Writes down open exchanges, and finishes those of dead processes."""

    def __init__(
        self,
        *,
        checkpoints: Checkpoints,
        sink: Sink,
        name: Callable[[], str],
        clock: Callable[[], Instant],
        cpu_ns: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        """``name`` makes turn ids; the pipeline draws from the same source. ``cpu_ns`` measures our own
        work: on a busy machine the time of day would make a rest of what others used.
        """
        self._checkpoints = checkpoints
        self._sink = sink
        self._name = name
        self._clock = clock
        self._cpu_ns = cpu_ns
        self._due: list[tuple[int, int, Watched]] = []
        self._order = itertools.count()
        self._worked_ns = 0
        self._living: set[str] = set()
        self.counters = CheckpointCounters()

    def watch(self, exchange: Exchange, opened: Instant) -> Watched:
        """Take an exchange that has just begun into the schedule. Cheap: called by the reader."""
        watched = Watched(exchange)
        self._schedule(watched, opened.monotonic_ns)
        return watched

    def _schedule(self, watched: Watched, now_ns: int) -> None:
        interval_s = INTERVALS_S[min(watched.looks, len(INTERVALS_S) - 1)]
        heapq.heappush(self._due, (now_ns + interval_s * 10**9, next(self._order), watched))

    # Writing down

    async def run(self) -> None:
        """Write snapshots until cancelled."""
        while True:
            await asyncio.sleep(until_next(TICK_S))
            while self._due and self._due[0][0] <= self._clock().monotonic_ns:
                await self.write_due()
                await asyncio.sleep(self._worked_ns * IDLE_PER_WORK / 1e9)

    async def write_due(self) -> None:
        """Write one batch of what is due, and put each back into the schedule."""
        self._worked_ns = 0
        batch = list(self._batch(self._clock().monotonic_ns))
        async with asyncio.TaskGroup() as writing:
            for watched in batch:
                writing.create_task(self._write(watched))

    def _batch(self, now_ns: int) -> Iterator[Watched]:
        """What is due, within the batch's bounds. What has ended meanwhile falls out."""
        items = size = 0
        while self._due and self._due[0][0] <= now_ns and items < BATCH_ITEMS and size < BATCH_BYTES:
            watched = heapq.heappop(self._due)[2]
            if watched.exchange is None:
                self._living.discard(watched.turn_id)
                continue
            items += 1
            size += _weight(watched.exchange.captured)
            yield watched

    async def _write(self, watched: Watched) -> None:
        exchange = watched.exchange
        if exchange is None:  # it ended since the batch was chosen
            self._living.discard(watched.turn_id)
            return
        request = exchange.captured.request
        small_enough = _weight(exchange.captured) <= MAX_SNAPSHOT_BYTES
        if small_enough and not await fetch(request):
            self.counters.failed += 1
        if watched.exchange is None:  # it ended while its request came from the shelf
            self._living.discard(watched.turn_id)
            return
        # No await between reading the exchange and the hand-over: its end, which comes to the
        # spool by the same queue, can only come after it.
        made = self._made(exchange.captured) if request.in_memory or not small_enough else None
        request.pack()
        request.put_back()
        watched.looks += 1
        self._schedule(watched, self._clock().monotonic_ns)
        if made is None:
            return
        watched.turn_id = made.turn_id
        self._living.add(made.turn_id)
        if await self._checkpoints.checkpoint(made):
            self.counters.written += 1
            exchange.captured.written_down = True
        else:
            self.counters.shed += 1

    def _made(self, captured: Captured) -> Checkpoint | None:
        if _weight(captured) > MAX_SNAPSHOT_BYTES:
            self.counters.too_large += 1
            return None
        now = self._clock()
        turn_id = captured.turn_id or self._name()
        began_ns = self._cpu_ns()
        try:
            body = snapshot(captured, TurnIdentity(turn_id), now)
        except Exception:  # noqa: BLE001 - our own bug must cost one snapshot, not the worker
            _log.exception("exchange could not be written down", extra={"turn_id": turn_id})
            self.counters.failed += 1
            return None
        finally:
            self._worked_ns += self._cpu_ns() - began_ns
        if body is None:
            return None
        captured.turn_id = turn_id
        return Checkpoint(
            turn_id=turn_id,
            tenant=captured.policy.tenant,
            started_at_ns=captured.started.wall_ns,
            heartbeat_at_ns=now.wall_ns,
            body=body,
        )

    # Finishing what others left

    async def sweep_forever(self) -> None:
        """Finish what dead processes left: at once, and every minute."""
        while True:
            await self.sweep()
            await asyncio.sleep(SWEEP_S)

    async def sweep(self) -> None:
        """Keep every interrupted exchange's last snapshot as its turn.

        What the spool cannot keep now it takes back; then the rest waits for the next sweep with it.
        """
        while left := await self._checkpoints.take_interrupted(self._clock().wall_ns):
            put_off = 0
            # An exchange of our own whose snapshots were shed for long, or whose clock jumped, is
            # alive: its end will be the pipeline's.
            dead = [each for each in left if each.turn_id not in self._living]
            for start in range(0, len(dead), KEEP_AT_ONCE):
                some = dead[start : start + KEEP_AT_ONCE]
                put_off += await self._finalise(some)
            if put_off:
                return

    async def _finalise(self, dead: Sequence[Checkpoint]) -> int:
        """Keep some; returns how many could not be kept."""
        put_off = 0
        answers = await asyncio.gather(*(self._sink.keep(_interrupted(each)) for each in dead))
        for each, answer in zip(dead, answers, strict=True):
            facts: dict[str, object] = {"turn_id": each.turn_id, "tenant": each.tenant}
            if isinstance(answer, Kept):
                self.counters.interrupted += 1
                _log.warning("turn kept as interrupted", extra=facts)
            else:
                put_off += 1
                _log.warning("interrupted turn put off", extra=facts | {"reason": answer.reason})
        self.counters.interrupted_put_off += put_off
        return put_off


def _interrupted(left: Checkpoint) -> Record:
    return Record(
        turn_id=left.turn_id,
        tenant=left.tenant,
        body=left.body,
        created_at_ns=left.started_at_ns,
        interrupted=True,
    )


def _weight(captured: Captured) -> int:
    reduced = captured.reducer.decoded_bytes if captured.reducer is not None else 0
    return captured.request.kept_bytes + reduced
