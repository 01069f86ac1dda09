"""PostgreSQL through psycopg: the engine beyond one machine.

Connections are used from the store's own threads, one thread each, so the plain
(not the asyncio) interface serves: all statements and their order are shared with
SQLite. Durability is the server's: ``synchronous_commit`` is switched on for every
writing connection, and a server with ``fsync`` off is refused.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import count
from pathlib import Path
from threading import Event
from typing import Final, cast

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.numeric import Int8BinaryDumper

from ingest.store.connection import (
    BeginError,
    CollisionError,
    LateError,
    Purpose,
    Row,
    TooLargeError,
    UnavailableError,
    Value,
)
from ingest.store.schema import STEPS, NewerSchemaError, statements

_MIGRATION_LOCK: Final = 7_305_001
_CHANNEL: Final = "steno_ingest"
_READ_S: Final = 30.0
"""No list takes a second: a statement that takes so long waits for a lock, or for a server that is ill."""
_LISTEN_S: Final = 0.25
_CONNECTING: Final = {
    "connect_timeout": "5",
    "keepalives": "1",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
"""A server that vanished without a word is noticed within half a minute, not in hours. Seconds, but the
last, which is milliseconds. What the URL says counts before."""


class UnsafeServerError(Exception):
    """The server may forget what it acknowledged: turns must not be promised to it."""


@contextmanager
def _translated() -> Generator[None]:
    try:
        yield
    except (
        psycopg.errors.UniqueViolation,
        psycopg.errors.DeadlockDetected,
        psycopg.errors.SerializationFailure,
    ) as error:
        raise CollisionError(str(error)) from error
    except psycopg.errors.ProgramLimitExceeded as error:
        raise TooLargeError(f"PostgreSQL: {error}".strip()) from error
    except psycopg.errors.QueryCanceled as error:
        raise LateError(f"PostgreSQL: {error}".strip()) from error
    except (
        psycopg.OperationalError,
        psycopg.InterfaceError,
        psycopg.errors.ReadOnlySqlTransaction,  # after a failover: another connection may find the primary
        psycopg.errors.IdleInTransactionSessionTimeout,
    ) as error:
        raise UnavailableError(f"PostgreSQL: {error}".strip()) from error


@lru_cache(maxsize=512)
def _spelled(sql: str) -> bytes:
    """The statement with PostgreSQL's own marks (``$1``, ``$2``)."""
    numbers = count(1)
    first, *others = sql.split("?")
    return (first + "".join(f"${next(numbers)}{text}" for text in others)).encode()


@lru_cache(maxsize=64)
def _together(statements: Sequence[str]) -> str:
    *others, last = statements
    named = ", ".join(f"s{number} AS ({sql})" for number, sql in enumerate(others))
    return f"WITH {named} {last}" if others else last


class PostgresConnection:
    """One psycopg connection behind the repository's seam.

    One raw cursor serves for every statement: psycopg's own marks would be looked for in every
    long statement each time (half of the writer's work), and every integer is sent as BIGINT,
    because a statement that meets other types is prepared anew.
    """

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        connection.adapters.register_dumper(int, Int8BinaryDumper)
        self._connection = connection
        self._cursor = psycopg.RawCursor(connection)
        self._cursor.format = psycopg.pq.Format.BINARY
        self._begins = False

    def run(self, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        """Execute one statement, and return its rows."""
        self._send_begin()
        with _translated():
            self._cursor.execute(_spelled(sql), values)
            return self._cursor.fetchall() if self._cursor.description else []

    def run_many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """Execute one statement for each of ``rows``, without waiting between them."""
        rows = list(rows)
        if rows:
            self._send_begin()
            with _translated():
                self._cursor.executemany(_spelled(sql), rows)

    def run_together(self, statements: Sequence[tuple[str, Sequence[Value]]]) -> None:
        """Execute statements that insert as one: all but the last become its common table expressions."""
        sql = _together(tuple(sql for sql, _ in statements))
        self.run(sql, [value for _, values in statements for value in values])

    def allocate(self, count: int) -> list[int]:
        """Reserve ``count`` sequence numbers, ascending."""
        rows = self.run("SELECT nextval('turn_seq') FROM generate_series(1, ?)", (count,))
        return [cast("int", row[0]) for row in rows]

    def alone(self, purpose: Purpose) -> None:
        """Take turns with every other connection that asks for it, of any instance."""
        lock = f"SELECT pg_advisory_xact_lock({purpose.value})"
        if self._begins:
            self._send_begin(lock)
        else:
            self.run(lock)

    def notify(self, payloads: Sequence[str]) -> None:
        """NOTIFY, delivered with the commit. One by one: psycopg takes 6 ms of the processor for an array."""
        self.run_many("SELECT pg_notify(?, ?)", [(_CHANNEL, payload) for payload in payloads])

    def begin(self) -> None:
        """Begin a transaction: with its first statement, which raises :class:`BeginError` if it cannot."""
        self._begins = True

    def _send_begin(self, then: str = "") -> None:
        """Send what :meth:`begin` put off, and ``then`` without waiting in between."""
        if not self._begins:
            return
        self._begins = False
        try:
            with _translated():
                self._connection.execute(f"BEGIN; {then}".encode(), prepare=False)
        except UnavailableError as error:
            raise BeginError(str(error)) from error

    def commit(self) -> None:
        """Commit; on the server's disk when it returns."""
        if self._begins:
            self._begins = False
        else:
            self.run("COMMIT")

    def rollback(self) -> None:
        """Give up the transaction, if there is one."""
        self._begins = False
        with suppress(psycopg.Error):
            self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close."""
        with suppress(psycopg.Error):
            self._connection.close()


def connect(url: str) -> psycopg.Connection[Row]:
    """A connection that notices when its server vanishes. Raises psycopg's own errors."""
    parameters = _CONNECTING | {"application_name": "steno-ingest"} | conninfo_to_dict(url)
    return psycopg.connect(make_conninfo("", **parameters), autocommit=True)


class PostgresEngine:
    """A PostgreSQL database."""

    notifies = True
    writers = 2
    """One for puts, which take turns anyhow, and one for everything else."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.directory: Path | None = None

    def listen(self, heard: Callable[[str], None], listening: Callable[[], None], stopped: Event) -> None:
        """LISTEN on a connection of its own, until it is lost."""
        try:
            with connect(self._url) as listener:
                listener.execute(f"LISTEN {_CHANNEL}")
                listening()
                while not stopped.is_set():
                    for notification in listener.notifies(timeout=_LISTEN_S):
                        heard(notification.payload)
        except psycopg.Error as error:
            raise UnavailableError(f"PostgreSQL: {error}".strip()) from error

    def prepare(self) -> None:
        """Create the schema, or bring it up to date; one instance does it, the others wait."""
        connection = self.writer()
        try:
            if connection.run("SHOW fsync")[0][0] != "on":
                raise UnsafeServerError("PostgreSQL runs with fsync off: it may lose what it acknowledged")
            _migrate(connection)
        finally:
            connection.close()

    def writer(self) -> PostgresConnection:
        """A connection that writes, each commit flushed."""
        connection = self._open()
        connection.run("SET synchronous_commit = on")
        return connection

    def reader(self) -> PostgresConnection:
        """A connection that cannot write, and on which no statement takes long: others wait behind it."""
        connection = self._open()
        connection.run(f"SET statement_timeout = '{_READ_S:g}s'")
        connection.run("SET default_transaction_read_only = on")
        return connection

    def _open(self) -> PostgresConnection:
        try:
            return PostgresConnection(connect(self._url))
        except psycopg.Error as error:  # whatever it is: there is no connection
            raise UnavailableError(f"PostgreSQL: {error}".strip()) from error


def _migrate(connection: PostgresConnection) -> None:
    connection.begin()
    connection.run("SELECT pg_advisory_xact_lock(?)", (_MIGRATION_LOCK,))
    connection.run("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
    rows = connection.run("SELECT version FROM schema_version")
    version = cast("int", rows[0][0]) if rows else 0
    if version > len(STEPS):
        raise NewerSchemaError(f"the database has schema version {version}, this release knows {len(STEPS)}")
    if not rows:
        connection.run("INSERT INTO schema_version VALUES (0)")
        connection.run("CREATE SEQUENCE turn_seq AS BIGINT")
    for number in range(version, len(STEPS)):
        for statement in statements(STEPS[number], integer="BIGINT", blob="BYTEA", strict=""):
            connection.run(statement)
        connection.run("UPDATE schema_version SET version = ?", (number + 1,))
    connection.commit()
