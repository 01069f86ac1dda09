"""The part of apsw that the spool uses, typed.

apsw's own stubs name ``collections.abc.Buffer``, which Python 3.11 has not, so what a
strict checker sees of them is partly unknown. These protocols are what we rely on.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeAlias, cast

import apsw

Value: TypeAlias = int | float | bytes | str | None
"""What SQLite stores."""


class Cursor(Protocol):
    """The answer of a statement."""

    def __iter__(self) -> Iterator[tuple[Value, ...]]: ...

    def fetchone(self) -> tuple[Value, ...] | None:
        """The next row, or None."""
        ...

    def fetchall(self) -> list[tuple[Value, ...]]:
        """The remaining rows."""
        ...

    def close(self, force: bool = False) -> None:
        """Give the statement back."""
        ...


class Connection(Protocol):
    """One connection."""

    @property
    def in_transaction(self) -> bool:
        """Whether BEGIN was not yet answered by COMMIT or ROLLBACK."""
        ...

    def execute(self, statements: str, bindings: Sequence[Value] = ()) -> Cursor:
        """Run statements."""
        ...

    def executemany(self, statements: str, sequenceofbindings: Sequence[Sequence[Value]]) -> Cursor:
        """Run a statement once for each set of bindings."""
        ...

    def pragma(self, name: str, value: Value = None) -> Value:
        """Read or set a pragma."""
        ...

    def changes(self) -> int:
        """Rows changed by the last statement."""
        ...

    def config(self, op: int, *args: int) -> int:
        """Set an option of the connection."""
        ...

    def set_progress_handler(self, callable: Callable[[], bool] | None, nsteps: int = 20) -> None:  # noqa: A002
        """Call regularly during long statements; True interrupts."""
        ...

    def set_wal_hook(
        self,
        callable: Callable[[apsw.Connection, str, int], int] | None,  # noqa: A002
        /,
    ) -> None:
        """Call after each commit with the pages in the log."""
        ...

    def wal_autocheckpoint(self, n: int) -> None:
        """Checkpoint after so many pages; 0 never."""
        ...

    def wal_checkpoint(self, dbname: str | None = None, mode: int = 0) -> tuple[int, int]:
        """Move the log into the database."""
        ...

    def serialize(self, name: str) -> bytes:
        """The database as bytes."""
        ...

    def close(self, force: bool = False) -> None:
        """Close."""
        ...


def connect(path: str, *, vfs: str | None = None, flags: int | None = None) -> Connection:
    """Open a connection. Raises apsw errors."""
    if flags is None:
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    return cast("Connection", apsw.Connection(path, flags=flags, vfs=vfs))


@contextmanager
def transaction(connection: Connection) -> Generator[None]:
    """Commit what the block did, or roll it back and pass the error on."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def integer(connection: Connection, sql: str, bindings: Sequence[Value] = ()) -> int:
    """The single number a statement gives; 0 for anything else."""
    row = connection.execute(sql, bindings).fetchone()
    return whole(row[0]) if row else 0


def whole(value: object) -> int:
    """An integer column as SQLite gave it; a damaged one counts as 0 (its row's CRC will tell)."""
    return value if isinstance(value, int) else 0


def sound(text: str) -> str:
    """Text that SQLite can hold: unpaired surrogates and NULs made visible."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
