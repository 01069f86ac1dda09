"""The store's door: durable puts, other writes, reads, all without blocking the event loop."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from ingest.store import turns
from ingest.store.connection import Connection, Engine, LateError, UnavailableError
from ingest.store.rows import NewTurn, Put
from ingest.store.writer import WriteLimits, Writer

_READERS: Final = 4
T = TypeVar("T")


class Store:
    """One database, in use. ``open`` first, ``close`` last."""

    def __init__(self, engine: Engine, limits: WriteLimits | None = None) -> None:
        self._engine = engine
        self._limits = limits or WriteLimits()
        self._puts: Writer | None = None
        self._others: Writer | None = None
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-reader")
        self._local = threading.local()
        self._connections: list[Connection] = []

    async def open(self) -> None:
        """Migrate and begin. Raises :class:`UnavailableError` when the database is away."""
        await asyncio.to_thread(self._engine.prepare)
        self._puts = self._others = self._writer()
        if (
            self._engine.writers > 1
        ):  # what takes long, such as saving a batch of derived turns, delays no put
            self._others = self._writer()

    def _writer(self) -> Writer:
        return Writer(self._engine.writer, self._limits, turns.put)

    @property
    def directory(self) -> Path | None:
        """Where the database is on this machine's disk; None when it is elsewhere."""
        return self._engine.directory

    @property
    def notifies(self) -> bool:
        """Whether events come by :meth:`listen`, from every instance, rather than from one's own writes."""
        return self._engine.notifies

    def listen(
        self, heard: Callable[[str], None], listening: Callable[[], None], stopped: threading.Event
    ) -> None:
        """Hear what is notified, as :meth:`ingest.store.connection.Engine.listen` does."""
        self._engine.listen(heard, listening, stopped)

    @property
    def waiting(self) -> int:
        """Puts (on an engine with one writer, writes of any kind) that are not durable yet."""
        return self._puts.waiting if self._puts else 0

    async def put(self, new: Sequence[NewTurn]) -> list[Put]:
        """Store turns; when it returns they survive power loss. Raises as :meth:`write` does."""
        size = sum(turn.body.size for turn in new)
        return await _opened(self._puts).put(new, size)

    async def write(self, work: Callable[[Connection], T], size: int = 0) -> T:
        """Do ``work`` in a transaction; it may be run again if it was rolled back."""
        return await _opened(self._others).write(work, size)

    async def probe(self) -> None:
        """Go the way of a put, and store nothing. Raises as :meth:`write` does.

        Where puts have a writer of their own, it waits for no other work.
        """
        await _opened(self._puts).write(lambda connection: connection.run("SELECT 1"))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Do ``work`` on a connection for reading."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    def _read(self, work: Callable[[Connection], T]) -> T:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            try:
                return work(connection)
            except LateError:
                raise
            except UnavailableError:  # it may have died while it was idle: once more on a new one
                self._forget(connection)
        connection = self._engine.reader()
        self._local.connection = connection
        self._connections.append(connection)
        try:
            return work(connection)
        except LateError:
            raise
        except UnavailableError:
            self._forget(connection)
            raise

    def _forget(self, connection: Connection) -> None:
        self._local.connection = None
        self._connections.remove(connection)
        connection.close()

    async def close(self) -> None:
        """Make durable what waits, then let go of the database."""
        for writer in (self._puts, self._others):
            if writer is not None:
                await writer.close()
        await asyncio.to_thread(self._readers.shutdown)
        for connection in self._connections:
            connection.close()


def _opened(writer: Writer | None) -> Writer:
    if writer is None:
        raise UnavailableError("the store is not open")
    return writer
