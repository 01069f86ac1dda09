"""What the statements of the repository need from an engine, and how engines fail.

SQL is written once, with ``?`` for values, in what SQLite and PostgreSQL share.
"""

from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from pathlib import Path
from threading import Event
from typing import Protocol, TypeAlias

Value: TypeAlias = str | int | bytes | float | None
Row: TypeAlias = tuple[Value, ...]


class StoreError(Exception):
    """Root of the store's failures."""


class UnavailableError(StoreError):
    """The world failed (database away, disk full): the same call may work later."""


class LateError(UnavailableError):
    """A read took longer than a read may: its connection is sound, and the same call would take as long."""


class BeginError(UnavailableError):
    """The transaction could not even begin: nothing was done, a new connection may do it."""


class BusyError(StoreError):
    """The queue of writes is full by number or by bytes: come back later."""


class CollisionError(StoreError):
    """Another writer took the same key first: look again, in a new transaction."""


class TooLargeError(StoreError):
    """The engine takes no row that large: the same call will never work."""


class Purpose(IntEnum):
    """What only one transaction at a time may do, of all instances on one database."""

    PUT = 7_305_003
    """Look keys up and insert: otherwise two would not see each other's request ids."""
    DERIVE = 7_305_002
    """Write derived rows, or delete them."""


class Connection(Protocol):
    """One connection, used by one thread at a time.

    Every method may raise :class:`UnavailableError` (the connection is then dead or the
    disk full), :class:`CollisionError` or :class:`TooLargeError`. Anything else is our bug.
    """

    def run(self, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        """Execute one statement, and return its rows."""
        ...

    def run_many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """Execute one statement for each of ``rows``."""
        ...

    def run_together(self, statements: Sequence[tuple[str, Sequence[Value]]]) -> None:
        """Execute statements that insert, none of which needs what another does: one round trip for all."""
        ...

    def allocate(self, count: int) -> Sequence[int]:
        """Reserve ``count`` sequence numbers, ascending, never given out before."""
        ...

    def alone(self, purpose: Purpose) -> None:
        """Until the transaction ends, nobody else is in one that asked for the same purpose."""
        ...

    def notify(self, payloads: Sequence[str]) -> None:
        """Send ``payloads`` (each less than 8,000 bytes) to every :meth:`Engine.listen` with the commit."""
        ...

    def begin(self) -> None:
        """Begin a write transaction, now or with its first statement; either raises :class:`BeginError`."""
        ...

    def commit(self) -> None:
        """Commit. When it returns, what was written survives power loss."""
        ...

    def rollback(self) -> None:
        """Give up the transaction; never raises."""
        ...

    def close(self) -> None:
        """Close; never raises."""
        ...


class Engine(Protocol):
    """Makes connections to one database."""

    writers: int
    """How many connections may write at a time: one for everything, or two, one of them for puts alone."""
    directory: Path | None
    """Where the database is on this machine's disk; None when it is elsewhere."""

    notifies: bool
    """Whether :meth:`listen` hears what connections notify: instances on several machines do."""

    def listen(self, heard: Callable[[str], None], listening: Callable[[], None], stopped: Event) -> None:
        """Call ``listening`` once it listens, then ``heard`` with every payload, until ``stopped``.

        In this thread. Raises :class:`UnavailableError` when the connection is lost: what is told until
        the next call is lost, too.
        """
        ...

    def prepare(self) -> None:
        """Create or migrate the schema."""
        ...

    def writer(self) -> Connection:
        """A new connection that may write."""
        ...

    def reader(self) -> Connection:
        """A new connection for reading."""
        ...
