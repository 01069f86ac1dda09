"""The spool's thread: groups writes into transactions, answers reads, and lives with bad disks.

Theory of operation. Jobs arrive on a queue. The first write opens a window of at most five
milliseconds; whatever has arrived by its end shares one transaction, whose COMMIT is one
fsync. Reads run right after it. Answers go back to the event loop in one call for all.

When a transaction fails it is rolled back whole, then:

    disk full     new turns in it are shed, the reserve is released, the rest is written with its space
    disk fault    new turns are shed, the rest is *owed*: remembered and written when the disk allows
    damage        the files are set aside, a fresh store is opened, and the jobs run on that
    our own bug   the jobs run again one by one, so that one of them cannot harm the others

The connection stays open through all but damage. A COMMIT whose fsync failed may have left a whole
transaction in the log; the same connection writes the next one over it, a new one would read
it as committed, although its turns were shed.

While the disk is in trouble new turns are shed without touching it, except for one try every 250 ms.
"""

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import apsw

from ingest_client.spool.desk import Desk
from ingest_client.spool.faults import Fault, describe, fault_of
from ingest_client.spool.jobs import Files, Job
from ingest_client.spool.reserve import Reserve
from ingest_client.spool.seat import Seat
from ingest_client.spool.settings import SpoolSettings
from ingest_client.spool.upkeep import Upkeep

SWEEP_S: Final = 1.0
"""Quotas of age, the reserve, and what is owed are looked at this often."""

RUSHED_SHARE: Final = 4
"""A group of a quarter of its limit means that this thread is the bottleneck: it is stored uncompressed."""

_log = logging.getLogger("steno.spool")


class Writer(threading.Thread):
    """See the module. ``post`` hands finished jobs, moved terms and the desk to the event loop."""

    def __init__(
        self,
        files: Files,
        reserve: Reserve,
        settings: SpoolSettings,
        clock: Callable[[], int],
        post: Callable[[list[Job], Counter[str], Desk | None], None],
    ) -> None:
        """Prepare; :meth:`start` begins. ``clock`` is wall-clock nanoseconds."""
        super().__init__(name="spool", daemon=True)
        self._reserve = reserve
        self._settings = settings
        self._clock = clock
        self._post = post
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._hurry = threading.Event()
        self._owed: list[Job] = []
        self._unsaved: Counter[str] = Counter()
        self._stopping = False
        self._sweep_at = 0.0
        self.seat = Seat(files, reserve)
        self.upkeep = Upkeep(self.seat, files, settings, self._queue.empty)

    def submit(self, job: Job, *, hurry: bool) -> None:
        """Queue a job; ``hurry`` closes the window of the group that is gathering."""
        self._queue.put(job)
        if hurry:
            self._hurry.set()

    def stop(self) -> None:
        """Finish what is queued, then end the thread."""
        self._queue.put(None)
        self._hurry.set()

    def open(self) -> None:
        """Open the store before the thread starts (``Seat.open``)."""
        self.seat.open()

    def run(self) -> None:
        """The thread."""
        while not self._stopping:
            jobs = self._gather()
            try:
                self._serve(jobs)
            except Exception as error:  # noqa: BLE001 - the thread must outlive our bugs
                _log.exception("the spool's thread met an unexpected error")
                for job in jobs:
                    self._failed(job, error)
            self._report(jobs)
            try:
                self._sweep_when_due()
                self.upkeep.run()
            except Exception:  # noqa: BLE001 - as above
                _log.exception("the spool could not look after itself")
            self._report([])
        self._close()

    def unserved(self) -> list[Job]:
        """Jobs that came after the thread had ended."""
        jobs: list[Job] = []
        while not self._queue.empty():
            job = self._queue.get_nowait()
            if job is not None:
                jobs.append(job)
        return jobs

    # Gathering

    def _gather(self) -> list[Job]:
        """The next group: empty when only time has passed."""
        jobs: list[Job] = []
        try:
            first = self._queue.get(timeout=0 if self.upkeep.hurried else SWEEP_S)
        except queue.Empty:
            return jobs
        if first is None:
            self._stopping = True
            return jobs
        jobs.append(first)
        if first.writes and self._settings.group_window_s:
            self._hurry.wait(self._settings.group_window_s)
        self._hurry.clear()
        size = first.size
        while len(jobs) < self._settings.group_items and size < self._settings.group_bytes:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._stopping = True
                break
            jobs.append(job)
            size += job.size
        return jobs

    # Serving

    def _serve(self, jobs: list[Job]) -> None:
        for job in jobs:
            self._unsaved.update(job.counts)
        writes = [job for job in jobs if job.writes]
        if writes:
            self._write(writes)
        for job in jobs:
            if not job.writes:
                self._read(job)

    def _write(self, jobs: list[Job]) -> None:
        if self.seat.resting or not self.seat.taken():
            self._put_off(jobs, self.seat.condition.trouble)
            return
        if self.seat.full and not self._reserve.hold():
            self._write_without_new(jobs)
            return
        try:
            self._commit([*self._owed, *jobs])
        except Exception as error:  # noqa: BLE001 - every kind has its answer below
            self._write_failed(jobs, error)
        else:
            self._owed.clear()
            self.seat.recovered()

    def _commit(self, jobs: Sequence[Job]) -> None:
        desk = self.seat.at()
        desk.store.packer.rushed = len(jobs) * RUSHED_SHARE >= self._settings.group_items
        with desk.store.transaction():
            for job in jobs:
                job.result = job.run(desk)
            desk.store.note(self._unsaved)
        self._unsaved.clear()
        self.seat.collect()
        self.seat.condition.commits += 1

    def _write_failed(self, jobs: list[Job], error: Exception) -> None:
        match fault_of(error):
            case Fault.DAMAGE:
                if self.seat.replace(error):
                    self._write_again(jobs)
                else:
                    self._put_off(jobs, describe(error))
            case Fault.FULL:
                self.seat.filled(error)
                self._write_without_new(jobs)
            case Fault.DISK:
                self.seat.trouble(error)
                self._put_off(jobs, self.seat.condition.trouble)
            case Fault.BUG:
                _log.error("a write to the spool failed", exc_info=error)
                self._one_by_one(jobs)

    def _write_again(self, jobs: list[Job]) -> None:
        """Once more on a fresh store; a second failure is no longer looked into."""
        self._owed.clear()  # they settle claims of the store that was set aside
        try:
            self._commit(jobs)
        except Exception as error:  # noqa: BLE001 - whatever it is, the disk is in trouble
            self.seat.trouble(error)
            self._put_off(jobs, self.seat.condition.trouble)

    def _write_without_new(self, jobs: list[Job]) -> None:
        """On a full disk: everything but new turns, with the reserve's space."""
        self._put_off(jobs, self.seat.condition.trouble)
        if not self._owed:
            return
        try:
            self._commit(self._owed)
        except Exception as error:  # noqa: BLE001 - owed it stays, and is tried again
            self.seat.trouble(error)
        else:
            self._owed.clear()

    def _put_off(self, jobs: Sequence[Job], reason: str) -> None:
        """Shed what may be shed; owe the rest."""
        for job in jobs:
            job.result = None
            if job.instead is None:
                self._owed.append(job)
            else:
                self.answer_without(job, reason)

    def _one_by_one(self, jobs: Sequence[Job]) -> None:
        owed, self._owed = self._owed, []
        for job in [*owed, *jobs]:
            try:
                self._commit([job])
            except Exception as error:  # noqa: BLE001 - this job's own
                self._failed(job, error)

    def _failed(self, job: Job, error: Exception) -> None:
        """An error of our own: shed what may be shed, let the others know."""
        job.result = None
        if job.instead is None:
            job.error = error
        else:
            self.answer_without(job, describe(error))

    def _read(self, job: Job) -> None:
        if not self.seat.taken():
            self.answer_without(job, self.seat.condition.trouble)
            return
        try:
            job.result = job.run(self.seat.at())
        except Exception as error:  # noqa: BLE001 - every kind has its answer
            if fault_of(error) is Fault.BUG:
                job.error = error
                return
            self.seat.failed(error)
            self.answer_without(job, describe(error))
        else:
            self.seat.collect()

    @staticmethod
    def answer_without(job: Job, reason: str) -> None:
        """Give the answer for a job that is not done. A job that would be owed is dropped."""
        try:
            job.result = job.instead(reason) if job.instead else None
            job.shed = True
        except OSError as error:
            job.error = error

    # Looking after

    def _sweep_when_due(self) -> None:
        now = time.monotonic()
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_S
            self._sweep()

    def _sweep(self) -> None:
        """One small transaction: what is owed and unsaved, and quotas of age. It also probes a bad disk."""
        desk = self.seat.desk
        nothing = not (self._owed or self._unsaved or self.seat.condition.trouble)
        if nothing and (desk is None or not desk.sweep_needed(self._clock())):
            self._reserve.hold()
            return
        self._write(
            [Job(run=lambda desk: desk.sweep(self._clock()), writes=True, done=_ignore, instead=_none)]
        )
        if not self.seat.condition.trouble:
            self._reserve.hold()

    def _report(self, jobs: list[Job]) -> None:
        moved = self.seat.moved()
        if jobs or moved:
            self._post(jobs, moved, self.seat.desk)

    def _close(self) -> None:
        leftover = self.unserved()
        try:
            self._serve(leftover)
        except Exception as error:  # noqa: BLE001 - as in run
            _log.exception("the spool's thread met an unexpected error")
            for job in leftover:
                self._failed(job, error)
        self.upkeep.close()
        if self.seat.taken():
            try:
                self.seat.insist()
                self._write(
                    [Job(run=lambda desk: desk.store.books.end(self._clock()), writes=True, done=_ignore)]
                )
                self.seat.at().store.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except Exception as error:  # noqa: BLE001 - the files are as after a crash: sound
                _log.warning("the spool was not closed in good order: %s", describe(error))
            self.seat.stand_up()
        self._reserve.release()
        self._report(leftover)


def _ignore(_job: Job) -> None:
    """Nobody waits for this job."""


def _none(_reason: str) -> object:
    return None
