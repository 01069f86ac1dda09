"""The spool on the event loop: a sink for capture, a queue for delivery, a keeper of checkpoints.

Nothing here touches a disk: every call becomes a job for the writer's thread
(:mod:`ingest_client.spool.writer`) and a future. What may wait there is bounded in
items and bytes; a new turn beyond that is shed at once.

Jobs that may wait for company are *patient* (:mod:`ingest_client.spool.patience`).
"""

import asyncio
import contextlib
import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self, TypeVar, cast

from capture.outcomes import Outcome
from ingest_client.beat import until_next
from ingest_client.ledger import Ledger
from ingest_client.sink import Kept, Record, Shed
from ingest_client.spool import tools
from ingest_client.spool.api import AttemptRecord, Backlog, Checkpoint, Claimed
from ingest_client.spool.control import Control
from ingest_client.spool.desk import Desk
from ingest_client.spool.files import DiskFiles, MemoryFiles
from ingest_client.spool.instance import Lock, take
from ingest_client.spool.jobs import Condition, Files, Job
from ingest_client.spool.patience import Patience
from ingest_client.spool.reserve import Reserve
from ingest_client.spool.settings import SpoolSettings
from ingest_client.spool.tools import Json, Selection, ToolError
from ingest_client.spool.writer import Writer

T = TypeVar("T")

FLUSH_S: Final = 0.25
"""Where nothing is patient, counts made outside the spool are durable after this time at most."""

TAKEN_SHARE: Final = 8
"""Interrupted exchanges are handed out by this part of what may wait for the disk (8 MiB), so that keeping
them all leaves the queue to living traffic."""

_log = logging.getLogger("steno.spool")


class Spool:
    """See the module, and ``api.py`` for the promises. Use :meth:`open`; one event loop per spool."""

    def __init__(
        self,
        files: Files,
        reserve: Reserve,
        settings: SpoolSettings,
        *,
        ledger: Ledger,
        clock: Callable[[], int],
        lock: Lock | None,
    ) -> None:
        """Put the parts together; :meth:`open` is the way to one that runs."""
        self.settings = settings
        self.ledger = ledger
        self._clock = clock
        self._lock = lock
        self._loop = asyncio.get_running_loop()
        self._writer = Writer(files, reserve, settings, clock, self._post)
        self._backlog: Mapping[str, Backlog] = MappingProxyType({})
        self._changed = asyncio.Event()
        self._waiting_items = 0
        self._waiting_bytes = 0
        self._claimed_at_ns = 0
        self._closing = False
        self._closed = False
        self._patience = Patience(self._hand_over, none=not settings.patience_s)
        self._flusher: asyncio.TimerHandle | None = None
        self._control: Control | None = None

    @classmethod
    async def open(
        cls,
        root: Path,
        settings: SpoolSettings | None = None,
        *,
        ledger: Ledger | None = None,
        clock: Callable[[], int] = time.time_ns,
        vfs: str | None = None,
    ) -> Self:
        """Open the spool of this process below ``root``; take over the one of a dead process if there is one.

        ``ledger`` (new and empty) learns what earlier processes counted. Raises
        :class:`SpoolRefused` with what to do; OSError when the folder cannot be made.
        A disk that is full or failing is no reason: such a spool opens, sheds, and recovers.
        """
        settings = settings or SpoolSettings()
        ledger = ledger if ledger is not None else Ledger()
        generation_id = str(uuid.uuid4())
        if settings.memory_only:
            memory = MemoryFiles(settings=settings, generation_id=generation_id, clock=clock)
            spool = cls(memory, Reserve(root, 0), settings, ledger=ledger, clock=clock, lock=None)
        else:
            lock = await asyncio.to_thread(take, root, generation_id)
            files = DiskFiles(
                folder=lock.folder, settings=settings, generation_id=generation_id, clock=clock, vfs=vfs
            )
            reserve = Reserve(lock.folder / "reserve", settings.reserve_bytes)
            spool = cls(files, reserve, settings, ledger=ledger, clock=clock, lock=lock)
        await spool._start()
        return spool

    async def _start(self) -> None:
        try:
            await asyncio.to_thread(self._writer.open)
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise
        self._writer.start()
        await self._ask(_nothing, instead=_nothing)  # its answer brings ledger and backlog up to date
        self._changed.set()
        self._flush()
        if self._lock is not None:
            self._control = Control(self._lock.folder, self.operate)
            try:
                await self._control.start()
            except OSError as error:
                _log.error("the spool's control socket cannot be had: %s", error)

    # Sink

    async def keep(self, record: Record) -> Kept | Shed:
        """Return once the record is durable, or was shed: counted, or its snapshot given back."""
        answer = await self._keep(record)
        if record.interrupted and isinstance(answer, Shed):
            await self._ask(lambda desk: desk.store.checkpoints.give_back(record.turn_id), writes=True)
        return answer

    async def _keep(self, record: Record) -> Kept | Shed:
        size = len(record.body)
        waiting = self._waiting_bytes + size
        if self._closing:
            return self._shed(record, "the spool is closed")
        if self._waiting_items >= self.settings.queue_items:
            return self._shed(record, f"{self._waiting_items} turns wait for the disk")
        if self._waiting_items and waiting > self.settings.queue_bytes:
            return self._shed(record, f"{self._waiting_bytes} bytes wait for the disk")
        self._waiting_items += 1
        self._waiting_bytes = waiting
        return await self._ask(
            lambda desk: desk.store.keep(record),
            writes=True,
            instead=_over_budget,
            size=size,
            counted=not record.interrupted,
        )

    def _shed(self, record: Record, reason: str) -> Shed:
        if not record.interrupted:
            self.ledger.end(Outcome.OVER_BUDGET)
        return Shed(Outcome.OVER_BUDGET, reason)

    async def close(self, grace_s: float) -> None:
        """Write what was handed over, within ``grace_s`` seconds, then stop. What is pending stays."""
        if self._closing:
            return
        self._closing = True
        self.hurry()
        if self._flusher is not None:
            self._flusher.cancel()
        if self._control is not None:
            await self._control.stop()
        self._submit(Job(run=_nothing, writes=True, done=_done_nothing))
        self._writer.stop()
        await asyncio.to_thread(self._writer.join, max(0.1, grace_s))
        if self._writer.is_alive():
            _log.error("the spool did not stop within %s s: its disk does not answer", grace_s)
        await asyncio.sleep(0)  # the thread's last report
        self._closed = True
        for job in self._writer.unserved():
            self._answer_closed(job)
        if self._lock is not None and not self._writer.is_alive():
            self._lock.release()
        self._changed.set()

    # Queue

    @property
    def backlog(self) -> Mapping[str, Backlog]:
        """Every tenant with unclaimed pending turns, as of the last commit."""
        return self._backlog

    async def wait_for_work(self) -> None:
        """Return when a turn may have become claimable since the last claim."""
        if self._changed.is_set() and self._backlog:
            return
        # Nobody claims where nothing waits, so a change that left nothing is over here: as long as it
        # stood, waiting was a loop of early wakes that cost an idle sidecar five percent of a core.
        self._changed.clear()
        after_ns = max(self._claimed_at_ns, 1)
        due_ns = (
            await self._ask(lambda desk: desk.claimer.next_due_ns(after_ns), instead=_no_time)
            if self._backlog
            else None
        )
        timeout = None if due_ns is None else max(0.0, (due_ns - self._clock()) / 1e9)
        with contextlib.suppress(TimeoutError):
            # Not asyncio.wait_for: before 3.12 it can lose a cancellation to the event, and a stop with it.
            async with asyncio.timeout(timeout):
                await self._changed.wait()

    async def claim(
        self,
        limit: int,
        max_bytes: int,
        now_ns: int,
        *,
        per_tenant: int,
        except_tenants: Collection[str] = (),
    ) -> list[Claimed]:
        """Take due turns (``api.Queue.claim``)."""
        self._changed.clear()
        excluded = frozenset(except_tenants)
        claimed, damaged = await self._ask(
            lambda desk: desk.claim(limit, max_bytes, now_ns, per_tenant, excluded), instead=_no_turns
        )
        self._claimed_at_ns = now_ns
        self._writer.seat.condition.damaged_records += damaged
        if claimed or damaged:
            self._changed.set()
        return claimed

    async def acknowledge(self, seqs: Sequence[int]) -> None:
        """Ingest has these turns (``api.Queue.acknowledge``)."""
        taken = tuple(seqs)
        await self._ask(lambda desk: desk.store.acknowledge(taken), writes=True, patient_items=len(taken))

    async def release(self, seqs: Sequence[int]) -> None:
        """Give claimed turns back untried."""
        taken = tuple(seqs)
        await self._ask(lambda desk: desk.release(taken), writes=True)
        self._changed.set()

    async def retry(self, seq: int, at_ns: int, attempt: AttemptRecord) -> None:
        """Put a claimed turn off until ``at_ns``."""
        await self._ask(lambda desk: desk.retry(seq, at_ns, attempt), writes=True)
        self._changed.set()

    async def dead_letter(self, seq: int, outcome: Outcome, reason: str, attempt: AttemptRecord) -> None:
        """Keep a refused turn for a person."""
        await self._ask(lambda desk: desk.dead_letter(seq, outcome, reason, attempt), writes=True)

    async def flush(self) -> bool:
        """Write what was counted so far. False: the disk does not take it now; the counts are kept."""
        return await self._ask(_flushed, writes=True, instead=_refused)

    # Checkpoints

    async def checkpoint(self, snapshot: Checkpoint) -> bool:
        """Keep the newest snapshot of an open exchange. False: shed."""
        return await self._ask(
            lambda desk: desk.checkpoint(snapshot), writes=True, instead=_refused, patient_items=1
        )

    async def forget(self, turn_id: str) -> None:
        """The exchange ended without a turn."""
        await self._ask(lambda desk: desk.forget(turn_id), writes=True, patient_items=1)

    async def take_interrupted(self, now_ns: int) -> list[Checkpoint]:
        """Hand over what no living exchange will finish (``api.Checkpoints.take_interrupted``)."""
        max_bytes = self.settings.queue_bytes // TAKEN_SHARE
        return await self._ask(
            lambda desk: desk.interrupted(now_ns, max_bytes), writes=True, instead=_none_interrupted
        )

    # Tools

    async def operate(self, operation: str, selection: Selection, body: str | None = None) -> Json:
        """Run an operation of :mod:`ingest_client.spool.tools` while the spool works.

        Raises ToolError when it cannot be done, OSError when the disk does not allow it now.
        """
        if operation not in tools.OPERATIONS:
            raise ToolError(f"there is no operation {operation!r}")
        result = await self._ask(
            lambda desk: tools.run(desk, operation, selection, body),
            writes=operation not in tools.READS,
            instead=_disk_trouble,
        )
        if operation == "requeue":
            self._changed.set()
        return result

    # Jobs

    @property
    def condition(self) -> Condition:
        """How the disk is; written by the spool's thread, read by anybody."""
        return self._writer.seat.condition

    async def _ask(
        self,
        run: Callable[[Desk], T],
        *,
        writes: bool = False,
        instead: Callable[[str], T] | None = None,
        size: int = -1,
        counted: bool = True,
        patient_items: int = 0,
    ) -> T:
        """Have a job done. ``patient_items``: it may wait for company, as so many."""
        answer: asyncio.Future[object] = self._loop.create_future()

        def done(job: Job) -> None:
            if size >= 0:
                self._waiting_items -= 1
                self._waiting_bytes -= size
                if isinstance(job.result, Shed) and job.shed and counted:
                    self.ledger.end(job.result.outcome)
            if answer.done():
                return
            if job.error is not None:
                answer.set_exception(job.error)
            else:
                answer.set_result(job.result)

        job = Job(run=run, writes=writes, done=done, instead=instead, size=max(0, size))
        if patient_items:
            self._patience.wait(job, patient_items)
        else:
            self._submit(job)
        return cast("T", await answer)

    def hurry(self) -> None:
        """From now on nothing waits for company: a stop has little time."""
        self._patience.end()

    def _submit(self, job: Job) -> None:
        """To the spool's thread; a write takes the patient ones along, which came before it."""
        if job.writes:
            self._patience.over()
        job.counts = self.ledger.take_unsaved() if not self._closed else {}
        self._hand_over(job)

    def _hand_over(self, job: Job) -> None:
        if self._closed:
            self._answer_closed(job)
            return
        full = (
            self._waiting_items >= self.settings.group_items
            or self._waiting_bytes >= self.settings.group_bytes
        )
        self._writer.submit(job, hurry=full)

    def _answer_closed(self, job: Job) -> None:
        """What comes after the end changes nothing: a turn not acknowledged is delivered once more."""
        self._writer.answer_without(job, "the spool is closed")
        job.done(job)

    def _flush(self) -> None:
        """Every little while: what waited long enough, and counts that no turn carried."""
        if self.ledger.unsaved:
            self._submit(Job(run=_nothing, writes=True, done=_done_nothing, instead=_nothing))
        else:
            self._patience.over()
        self._flusher = self._loop.call_later(until_next(self.settings.patience_s or FLUSH_S), self._flush)

    def _post(self, jobs: list[Job], moved: Counter[str], desk: Desk | None) -> None:
        """On the spool's thread: hand the results over."""
        backlog = None if desk is None else desk.store.usage.backlog()
        with contextlib.suppress(RuntimeError):  # the loop has gone: nobody waits for the answers
            self._loop.call_soon_threadsafe(self._receive, jobs, moved, backlog)

    def _receive(self, jobs: list[Job], moved: Counter[str], backlog: dict[str, Backlog] | None) -> None:
        self.ledger.settle(moved)
        if backlog is not None:
            self._backlog = MappingProxyType(backlog)
        if moved[_SPOOLED] > 0:
            self._changed.set()
        for job in jobs:
            job.done(job)


_SPOOLED: Final = "spooled"


def _over_budget(reason: str) -> Kept | Shed:
    return Shed(Outcome.OVER_BUDGET, reason)


def _disk_trouble(reason: str) -> Json:
    raise OSError(reason)


def _no_turns(_reason: str) -> tuple[list[Claimed], int]:
    return [], 0


def _no_time(_reason: str) -> int | None:
    return None


def _refused(_reason: str) -> bool:
    return False


def _none_interrupted(_reason: str) -> list[Checkpoint]:
    return []


def _flushed(_: Desk) -> bool:
    return True


def _nothing(_: object) -> None:
    return None


def _done_nothing(_job: Job) -> None:
    return None
