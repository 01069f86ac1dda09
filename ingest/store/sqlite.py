"""SQLite through apsw: WAL, one writer, every commit fsynced.

``synchronous=FULL`` makes a WAL commit survive power loss. The writer also does the
checkpoints: before SQLite 3.51.3, several connections that write and checkpoint could
corrupt a WAL, and one writer is what group commit wants anyway.
"""

import logging
import os
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Final, Protocol, cast

import apsw

from ingest.store.connection import (
    BeginError,
    CollisionError,
    Purpose,
    Row,
    TooLargeError,
    UnavailableError,
    Value,
)
from ingest.store.schema import STEPS, NewerSchemaError, statements

_log = logging.getLogger("steno.ingest.store")
_WRITER: Final = (
    "PRAGMA synchronous=FULL",
    "PRAGMA wal_autocheckpoint=4000",
    "PRAGMA cache_size=-65536",
    "PRAGMA temp_store=MEMORY",
)
_READER: Final = ("PRAGMA query_only=ON", "PRAGMA cache_size=-16384")
_BUSY_MS: Final = 5000
_AGAIN_MS: Final = 5
_MAX_BLOB: Final = 256 * 1024 * 1024


class _Rows(Protocol):
    def fetchall(self) -> list[Row]: ...


class _Database(Protocol):
    """What is used of apsw.Connection; its own annotations need Python 3.12."""

    in_transaction: bool

    def execute(self, statements: str, bindings: Sequence[Value] = ()) -> _Rows: ...
    def executemany(self, statements: str, sequenceofbindings: Iterable[Sequence[Value]]) -> _Rows: ...
    def close(self, force: bool = False) -> None: ...


@contextmanager
def _translated() -> Generator[None]:
    try:
        yield
    except apsw.ConstraintError as error:
        raise CollisionError(str(error)) from error
    except apsw.TooBigError as error:
        raise TooLargeError(f"SQLite takes no row beyond {_MAX_BLOB} bytes") from error
    except (
        apsw.BusyError,
        apsw.LockedError,
        apsw.FullError,
        apsw.IOError,
        apsw.CantOpenError,
        apsw.ReadOnlyError,
        apsw.NoMemError,
        apsw.CorruptError,
        apsw.NotADBError,
        apsw.ConnectionClosedError,
    ) as error:
        raise UnavailableError(f"SQLite: {error}") from error


class SqliteConnection:
    """One apsw connection behind the repository's seam."""

    def __init__(self, database: _Database) -> None:
        self._database = database

    def run(self, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        """Execute one statement, and return its rows."""
        with _translated():
            return self._database.execute(sql, tuple(values)).fetchall()

    def run_many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """Execute one statement for each of ``rows``."""
        with _translated():
            self._database.executemany(sql, [tuple(row) for row in rows])

    def run_together(self, statements: Sequence[tuple[str, Sequence[Value]]]) -> None:
        """Execute statements, one after another: there are no round trips here."""
        for sql, values in statements:
            self.run(sql, values)

    def allocate(self, count: int) -> range:
        """Reserve ``count`` sequence numbers, ascending."""
        rows = self.run("UPDATE counters SET value = value + ? RETURNING value", (count,))
        last = cast("int", rows[0][0])
        return range(last - count + 1, last + 1)

    def alone(self, purpose: Purpose) -> None:
        """There is one writer anyhow."""

    def notify(self, payloads: Sequence[str]) -> None:
        """Nobody listens elsewhere: the events of one process stay in it."""

    def begin(self) -> None:
        """Begin a write transaction."""
        try:
            self.run("BEGIN IMMEDIATE")
        except UnavailableError as error:
            raise BeginError(str(error)) from error

    def commit(self) -> None:
        """Commit; fsynced when it returns."""
        self.run("COMMIT")

    def rollback(self) -> None:
        """Give up the transaction, if there is one."""
        try:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
        except apsw.Error:  # SQLite rolled back by itself, or cannot: the connection is replaced
            return

    def close(self) -> None:
        """Close; the last connection checkpoints the WAL away."""
        try:
            self._database.close(True)
        except apsw.Error as error:  # its last checkpoint failed: the WAL keeps what was committed
            _log.warning("closing the database: %s", error)


class SqliteEngine:
    """A database file.

    ``vfs`` names another file system than the machine's own (one that fails on request, in
    tests). Such a one shares no memory, so the database then has a single connection.
    """

    writers = 1
    notifies = False

    def __init__(self, path: Path, *, vfs: str | None = None) -> None:
        self.path = path
        self.directory: Path | None = path.parent
        self._vfs = vfs

    def listen(self, heard: Callable[[str], None], listening: Callable[[], None], stopped: Event) -> None:
        """Nothing is heard."""

    def prepare(self) -> None:
        """Create the file, its directory and its schema, or bring them up to date.

        What is created is its owner's alone; other files and folders stay as they are.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = self.writer()
        try:
            _migrate(connection)
        finally:
            connection.close()

    def writer(self) -> SqliteConnection:
        """The connection that writes. SQLite gives the files beside the database its own mode."""
        if self._vfs is None:
            _create_private(self.path)
        return self._open(apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, _WRITER, wal=True)

    def reader(self) -> SqliteConnection:
        """A connection that cannot write."""
        return self._open(apsw.SQLITE_OPEN_READWRITE, _READER)

    def _open(self, flags: int, pragmas: Sequence[str], *, wal: bool = False) -> SqliteConnection:
        with _translated():
            database = apsw.Connection(str(self.path), flags=flags, vfs=self._vfs)
            database.set_busy_timeout(_BUSY_MS)
            database.limit(apsw.SQLITE_LIMIT_LENGTH, _MAX_BLOB)
            connection = SqliteConnection(cast("_Database", database))
            if self._vfs is not None:
                connection.run("PRAGMA locking_mode=EXCLUSIVE")
            if wal:
                _use_wal(cast("_Database", database))
            for pragma in pragmas:
                connection.run(pragma)
        return connection


def _use_wal(database: _Database) -> None:
    """Make the journal a WAL; raises ``apsw.BusyError`` where others hold the file for too long.

    SQLite itself does not wait here: the busy timeout does not apply to a change of the journal's
    mode, and of several instances that start on a new file together one would be told "locked".
    """
    until = time.monotonic() + _BUSY_MS / 1000
    while True:
        try:
            database.execute("PRAGMA journal_mode=WAL").fetchall()
        except apsw.BusyError:
            if time.monotonic() >= until:
                raise
            time.sleep(_AGAIN_MS / 1000)
        else:
            return


def _create_private(path: Path) -> None:
    """Make an empty database that only its owner may read, where there is none.

    One that is there is not even opened: closing it again would take all of this process's locks off it.
    """
    with suppress(FileExistsError):
        os.close(os.open(path.resolve(), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _migrate(connection: SqliteConnection) -> None:
    version = _version(connection)
    if version > len(STEPS):
        raise NewerSchemaError(f"the database has schema version {version}, this release knows {len(STEPS)}")
    for number in range(version, len(STEPS)):
        connection.begin()
        if _version(connection) > number:  # another process was faster
            connection.rollback()
            continue
        if number == 0:
            connection.run("CREATE TABLE counters (value INTEGER NOT NULL) STRICT")
            connection.run("INSERT INTO counters VALUES (0)")
        for statement in statements(STEPS[number], integer="INTEGER", blob="BLOB", strict="STRICT"):
            connection.run(statement)
        connection.run(f"PRAGMA user_version={number + 1}")
        connection.commit()


def _version(connection: SqliteConnection) -> int:
    return cast("int", connection.run("PRAGMA user_version")[0][0])
