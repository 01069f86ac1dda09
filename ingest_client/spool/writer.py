"""The spool's thread: groups writes into transactions, answers reads, and lives with bad disks.

Theory of operation. Jobs arrive on a queue. The first write opens a window of at most five
milliseconds; whatever has arrived by its end shares one transaction, whose COMMIT is one
fsync. Reads run right after it, and end the window early. Answers go back to the event loop
in one call for all.

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
from ingest_client.spool.jobs import Chore, Condition, Files, Job, Progress
from ingest_client.spool.reserve import Reserve
from ingest_client.spool.schema import SpoolRefused
from ingest_client.spool.settings import SpoolSettings
from ingest_client.spool.sql import whole
from ingest_client.spool.store import Store

PROBE_S: Final = 0.25
"""A disk in trouble is tried this often."""

SWEEP_S: Final = 1.0
"""Quotas of age, the reserve, and what is owed are looked at this often."""

REPLACE_S: Final = 5.0
"""Files are set aside no oftener than this: fresh ones that are damaged at once speak of another trouble."""

CHORE_S: Final = 0.02
"""A background chore may hold the thread so long before jobs go first again."""

RUSHED_SHARE: Final = 4
"""A group of a quarter of its limit means that this thread is the bottleneck: it is stored uncompressed."""

VACUUM_S: Final = 0.1
VACUUM_PAGES: Final = 1024
"""Free pages are given back at this pace: 40 MiB a second, only while nothing else is to be done."""

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
        self._files = files
        self._reserve = reserve
        self._settings = settings
        self._clock = clock
        self._post = post
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._hurry = threading.Event()
        self._owed: list[Job] = []
        self._unsaved: Counter[str] = Counter()
        self._moved: Counter[str] = Counter()
        self._chores: list[Chore] = []
        self._stopping = False
        self._full = False
        self._busy = True
        self._retry_at = 0.0
        self._sweep_at = 0.0
        self._vacuum_at = 0.0
        self._adopt_at = 0.0
        self._replace_at = 0.0
        self.desk: Desk | None = None
        self.condition = Condition()

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
        """Open the store before the thread starts.

        Raises SpoolRefused. A disk in trouble is no reason not to start: it is tried again.
        """
        try:
            self._sit_down(self._files.open())
        except SpoolRefused:
            raise
        except Exception as error:  # noqa: BLE001 - sorted by fault_of; bugs are raised again
            self._opening_failed(error)

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
                self._care()
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
            first = self._queue.get(timeout=0 if self._busy and self._chores else SWEEP_S)
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
        if time.monotonic() < self._retry_at or not self._at_desk():
            self._put_off(jobs, self.condition.trouble)
            return
        if self._full and not self._reserve.hold():
            self._write_without_new(jobs)
            return
        self._full = False
        try:
            self._commit([*self._owed, *jobs])
        except Exception as error:  # noqa: BLE001 - every kind has its answer below
            self._write_failed(jobs, error)
        else:
            self._owed.clear()
            self._recovered()

    def _commit(self, jobs: Sequence[Job]) -> None:
        desk = self._desk()
        desk.store.packer.rushed = len(jobs) * RUSHED_SHARE >= self._settings.group_items
        with desk.store.transaction():
            for job in jobs:
                job.result = job.run(desk)
            desk.store.note(self._unsaved)
        self._unsaved.clear()
        self._collect(desk.store)
        self.condition.commits += 1

    def _collect(self, store: Store) -> None:
        """Take what the last transactions moved in the ledger, for the event loop to hear."""
        self._moved.update(store.moved)
        store.moved = Counter()

    def _write_failed(self, jobs: list[Job], error: Exception) -> None:
        match fault_of(error):
            case Fault.DAMAGE:
                if self._replace(error):
                    self._write_again(jobs)
                else:
                    self._put_off(jobs, describe(error))
            case Fault.FULL:
                self._trouble(error)
                self._full = True
                self._reserve.release()
                self._write_without_new(jobs)
            case Fault.DISK:
                self._trouble(error)
                self._put_off(jobs, self.condition.trouble)
            case Fault.BUG:
                _log.error("a write to the spool failed", exc_info=error)
                self._one_by_one(jobs)

    def _write_again(self, jobs: list[Job]) -> None:
        """Once more on a fresh store; a second failure is no longer looked into."""
        self._owed.clear()  # they settle claims of the store that was set aside
        try:
            self._commit(jobs)
        except Exception as error:  # noqa: BLE001 - whatever it is, the disk is in trouble
            self._trouble(error)
            self._put_off(jobs, self.condition.trouble)

    def _write_without_new(self, jobs: list[Job]) -> None:
        """On a full disk: everything but new turns, with the reserve's space."""
        self._put_off(jobs, self.condition.trouble)
        if not self._owed:
            return
        try:
            self._commit(self._owed)
        except Exception as error:  # noqa: BLE001 - owed it stays, and is tried again
            self._trouble(error)
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
        if not self._at_desk():
            self.answer_without(job, self.condition.trouble)
            return
        desk = self._desk()
        try:
            job.result = job.run(desk)
        except Exception as error:  # noqa: BLE001 - every kind has its answer
            if fault_of(error) is Fault.BUG:
                job.error = error
                return
            if fault_of(error) is Fault.DAMAGE:
                self._replace(error)
            else:
                self._trouble(error)
            self.answer_without(job, describe(error))
        else:
            self._collect(desk.store)

    @staticmethod
    def answer_without(job: Job, reason: str) -> None:
        """Give the answer for a job that is not done. A job that would be owed is dropped."""
        try:
            job.result = job.instead(reason) if job.instead else None
            job.shed = True
        except OSError as error:
            job.error = error

    # The desk

    def _desk(self) -> Desk:
        if self.desk is None:
            raise OSError(self.condition.trouble)
        return self.desk

    def _sit_down(self, store: Store) -> None:
        before = self.desk
        self.desk = Desk(store)
        if before is not None:
            store.resume(before.store)
        self._collect(store)
        store.connection.set_wal_hook(self._wal_grew)

    def _at_desk(self) -> bool:
        """Whether there is an open store; a closed one is opened again at most every 250 ms."""
        if self.desk is not None and not self.desk.store.closed:
            return True
        if time.monotonic() < self._retry_at:
            return False
        try:
            self._sit_down(self._files.open())
        except Exception as error:  # noqa: BLE001 - stays closed, said why
            self._opening_failed(error)
        return self.desk is not None and not self.desk.store.closed

    def _opening_failed(self, error: Exception) -> None:
        if fault_of(error) is Fault.DAMAGE:
            self._replace(error)
        elif fault_of(error) is Fault.BUG:
            raise error
        else:
            self._trouble(error)

    def _replace(self, error: Exception) -> bool:
        """Set the damaged files aside and go on with fresh ones. False: the disk will not have it now."""
        if time.monotonic() < self._replace_at:
            self._trouble(error)
            return False
        self._replace_at = time.monotonic() + REPLACE_S
        _log.error("the spool's structure is damaged, it is set aside: %s", error)
        try:
            store = self._files.replace(self.desk.store if self.desk else None, str(error))
            self._sit_down(store)
        except Exception as failure:  # noqa: BLE001 - sheds until it works
            if fault_of(failure) is Fault.BUG:
                _log.error("a fresh spool could not be made", exc_info=failure)
            self._trouble(failure)
            self._stand_up()
            return False
        self.condition.set_aside += 1
        self._chores.extend(self._files.find_chores())
        return True

    def _stand_up(self) -> None:
        """Close the store."""
        if self.desk is not None:
            self.desk.store.close()

    def _trouble(self, error: Exception) -> None:
        text = describe(error)
        if text != self.condition.trouble:
            _log.error("the spool cannot write: %s", text)
        self.condition.trouble = text
        self._retry_at = time.monotonic() + PROBE_S

    def _recovered(self) -> None:
        if self.condition.trouble:
            _log.warning("the spool writes again after: %s", self.condition.trouble)
            self.condition.trouble = ""

    # Care

    def _care(self) -> None:
        now = time.monotonic()
        if self._chores and self.desk is not None and not self.condition.trouble:
            self._do_chores(self.desk)
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_S
            self._sweep()
        if now >= self._adopt_at and not self.condition.trouble:
            self._adopt_at = now + self._settings.adopt_every_s
            self._chores.extend(self._files.find_chores())
        idle = self._queue.empty()
        limit = self._settings.wal_soft_bytes if idle else self._settings.wal_hard_bytes
        if self.condition.wal_bytes > limit:
            self._checkpoint()
        elif idle and not self.condition.trouble and self.desk is not None:
            self._vacuum(self.desk)

    def _vacuum(self, desk: Desk) -> None:
        """After an outage, give space back to the disk: a little at a time, when most of the file is free."""
        if desk.store.closed or not self.condition.commits or time.monotonic() < self._vacuum_at:
            return
        connection = desk.store.connection
        self._vacuum_at = time.monotonic() + VACUUM_S
        try:
            free = whole(connection.pragma("freelist_count"))
            if free > VACUUM_PAGES and 2 * free > whole(connection.pragma("page_count")):
                connection.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
        except Exception as error:  # noqa: BLE001 - every kind has its answer
            if fault_of(error) is Fault.DAMAGE:
                self._replace(error)
            else:
                self._trouble(error)

    def _sweep(self) -> None:
        """One small transaction: what is owed and unsaved, and quotas of age. It also probes a bad disk."""
        desk = self.desk
        nothing = not (self._owed or self._unsaved or self.condition.trouble)
        if nothing and (desk is None or not desk.sweep_needed(self._clock())):
            self._reserve.hold()
            return
        self._write(
            [Job(run=lambda desk: desk.sweep(self._clock()), writes=True, done=_ignore, instead=_none)]
        )
        if not self.condition.trouble:
            self._reserve.hold()

    def _checkpoint(self) -> None:
        try:
            self._desk().store.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            self.condition.checkpoints += 1
            self.condition.wal_bytes = 0
        except Exception as error:  # noqa: BLE001 - every kind has its answer
            if fault_of(error) is Fault.DAMAGE:
                self._replace(error)
            else:
                if fault_of(error) is Fault.FULL:
                    self._full = True
                    self._reserve.release()
                self._trouble(error)

    def _wal_grew(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self.condition.wal_bytes = pages * 4096
        return apsw.SQLITE_OK

    def _do_chores(self, desk: Desk) -> None:
        until = time.monotonic() + CHORE_S
        self._busy = False
        try:
            for _ in range(len(self._chores)):
                progress = Progress.MORE
                while progress is Progress.MORE and time.monotonic() < until:
                    progress = self._chores[0].step(desk)
                    self._collect(desk.store)
                self._busy |= progress is Progress.MORE
                chore = self._chores.pop(0)
                if progress is not Progress.DONE:
                    self._chores.append(chore)
        except Exception as error:  # noqa: BLE001 - every kind has its answer
            if fault_of(error) is Fault.DAMAGE:
                self._replace(error)
            elif fault_of(error) is Fault.BUG:
                _log.exception("a chore of the spool failed and is left")
                del self._chores[0]
            else:
                self._trouble(error)

    def _report(self, jobs: list[Job]) -> None:
        moved, self._moved = self._moved, Counter()
        if jobs or moved:
            self._post(jobs, moved, self.desk)

    def _close(self) -> None:
        leftover = self.unserved()
        try:
            self._serve(leftover)
        except Exception as error:  # noqa: BLE001 - as in run
            _log.exception("the spool's thread met an unexpected error")
            for job in leftover:
                self._failed(job, error)
        for chore in self._chores:
            chore.close()
        if self._at_desk():
            try:
                desk = self._desk()
                self._retry_at = 0.0
                self._write(
                    [Job(run=lambda desk: desk.store.books.end(self._clock()), writes=True, done=_ignore)]
                )
                desk.store.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except Exception as error:  # noqa: BLE001 - the files are as after a crash: sound
                _log.warning("the spool was not closed in good order: %s", describe(error))
            self._stand_up()
        self._reserve.release()
        self._report(leftover)


def _ignore(_job: Job) -> None:
    """Nobody waits for this job."""


def _none(_reason: str) -> object:
    return None
