"""Group commit: whoever writes while a commit is on its way shares the next one.

A writer is a thread with one connection. It takes everything that waits (within
bounds), does it in one transaction, commits once, and only then answers. A commit
costs a disk flush; under load its price is shared, and when idle nobody waits for
company.

What can go wrong with a group
* the store is away or full: everybody in it whose work is not committed yet is told so, and the
  connection is replaced;
* somebody's work fails otherwise: the group is rolled back and each does its work in a
  transaction of its own, so nobody pays for a neighbour.
A commit whose answer was lost (connection cut) is answered as a failure; the caller
comes again and finds its duplicate.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from ingest.store.connection import (
    BeginError,
    BusyError,
    CollisionError,
    Connection,
    StoreError,
    UnavailableError,
)
from ingest.store.rows import NewTurn, Put

_log = logging.getLogger("steno.ingest.store")
_ATTEMPTS: Final = 3
T = TypeVar("T")

Work = Callable[[Connection], T]


@dataclass(frozen=True, slots=True)
class WriteLimits:
    """How much may wait, and how much goes into one transaction."""

    queue_jobs: int = 4096
    queue_bytes: int = 268_435_456
    group_jobs: int = 256
    group_bytes: int = 16 * 1024 * 1024


class Merge(Protocol):
    """Stores the turns of a whole group at once; one answer for each."""

    def __call__(self, connection: Connection, turns: Sequence[NewTurn], /) -> list[Put]:
        """Store ``turns``."""
        ...


@dataclass(slots=True)
class _Job:
    """Either ``work``, or ``turns`` to be stored with everybody else's."""

    work: Work[Any] | None
    turns: Sequence[NewTurn]
    size: int
    answer: asyncio.Future[Any]
    result: object = None
    failure: BaseException | None = None
    settled: bool = False
    """Committed, or failed for good: whatever happens to the rest of its group."""


@dataclass(slots=True)
class _Queue:
    """What waits for a writer. Guarded by its condition."""

    limits: WriteLimits
    jobs: deque[_Job] = field(default_factory=deque[_Job])
    bytes: int = 0
    held_jobs: int = 0
    closed: bool = False
    condition: threading.Condition = field(default_factory=threading.Condition)

    def push(self, job: _Job) -> None:
        with self.condition:
            if self.closed:
                raise UnavailableError("the store is closing")
            if self.held_jobs >= self.limits.queue_jobs:
                raise BusyError(f"{self.held_jobs} writes wait already")
            if self.held_jobs and self.bytes + job.size > self.limits.queue_bytes:
                raise BusyError(f"{self.bytes} bytes wait already")
            self.jobs.append(job)
            self.held_jobs += 1
            self.bytes += job.size
            self.condition.notify()

    def take(self) -> list[_Job]:
        """The next group; empty once closed and drained."""
        with self.condition:
            while not self.jobs and not self.closed:
                self.condition.wait()
            group: list[_Job] = []
            size = 0
            while self.jobs and len(group) < self.limits.group_jobs and size < self.limits.group_bytes:
                group.append(self.jobs.popleft())
                size += group[-1].size
            return group

    def release(self, group: Sequence[_Job]) -> None:
        """The group is answered: its room is free."""
        with self.condition:
            self.held_jobs -= len(group)
            self.bytes -= sum(job.size for job in group)

    def close(self) -> None:
        with self.condition:
            self.closed = True
            self.condition.notify_all()


class Writer:
    """One queue, and the thread that serves it. Its connection is its own."""

    def __init__(self, connect: Callable[[], Connection], limits: WriteLimits, merge: Merge) -> None:
        self._connect = connect
        self._merge = merge
        self._queue = _Queue(limits)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Writes not answered yet."""
        return self._queue.held_jobs

    async def write(self, work: Work[T], size: int = 0) -> T:
        """Do ``work`` in a transaction and return its result once it is durable.

        Raises :class:`BusyError` at once when too much waits, :class:`UnavailableError`
        when the store is away, and whatever ``work`` raises.
        """
        answer: asyncio.Future[T] = self._loop.create_future()
        self._queue.push(_Job(work, (), size, answer))
        return await answer

    async def put(self, turns: Sequence[NewTurn], size: int) -> list[Put]:
        """Store turns, in one statement with those of everybody else who waits."""
        answer: asyncio.Future[list[Put]] = self._loop.create_future()
        self._queue.push(_Job(None, turns, size, answer))
        return await answer

    async def close(self) -> None:
        """Finish what waits, then stop."""
        self._queue.close()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        connection: Connection | None = None
        while group := self._queue.take():
            connection = self._serve(connection, group)
            self._queue.release(group)
            self._loop.call_soon_threadsafe(_answer, group)
        if connection is not None:
            connection.close()

    def _serve(self, connection: Connection | None, group: list[_Job]) -> Connection | None:
        """Do the group; the connection to use next (None: it is dead)."""
        try:
            connection = connection or self._connect()
            try:
                self._transact(connection, group)
            except BeginError:  # a connection that died while it was idle
                connection.close()
                connection = None
                connection = self._connect()
                self._transact(connection, [job for job in group if not job.settled])
        except Exception as error:  # noqa: BLE001 -- what is not translated must not end the thread: writes would hang
            _log.warning("store unavailable: %s", error, exc_info=not isinstance(error, UnavailableError))
            for job in group:
                if not job.settled:
                    job.failure = _unavailable(error)
            if connection is not None:
                connection.rollback()
                connection.close()
            return None
        return connection

    def _transact(self, connection: Connection, group: list[_Job]) -> None:
        """One transaction for all; if somebody's work fails, one for each."""
        if len(group) > 1:
            try:
                self._together(connection, group)
            except UnavailableError:
                raise
            except Exception as error:  # noqa: BLE001 -- whatever it is, each is tried alone and told its own
                _log.info("a group of %d writes is done one by one: %s", len(group), error)
                connection.rollback()
            else:
                return
        for job in group:
            self._alone(connection, job)

    def _together(self, connection: Connection, group: Sequence[_Job]) -> None:
        connection.begin()
        turns = [turn for job in group for turn in job.turns]
        puts = iter(self._merge(connection, turns) if turns else ())
        for job in group:
            job.result = job.work(connection) if job.work else [next(puts) for _ in job.turns]
        connection.commit()
        for job in group:
            job.settled = True

    def _alone(self, connection: Connection, job: _Job) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._together(connection, (job,))
            except UnavailableError:
                raise
            except CollisionError as error:
                connection.rollback()
                if attempt == _ATTEMPTS:
                    job.failure = StoreError(f"still colliding after {_ATTEMPTS} attempts: {error}")
                    job.settled = True
            except Exception as error:  # noqa: BLE001 -- told to the caller who brought the work
                connection.rollback()
                job.failure = error
                job.settled = True
                return
            else:
                return


def _unavailable(error: Exception) -> UnavailableError:
    if isinstance(error, UnavailableError):
        return error
    unavailable = UnavailableError(f"the store cannot be used: {error}")
    unavailable.__cause__ = error
    return unavailable


def _answer(group: Sequence[_Job]) -> None:
    for job in group:
        if job.answer.done():  # the caller is gone
            continue
        if job.failure is not None:
            job.answer.set_exception(job.failure)
        else:
            job.answer.set_result(job.result)
