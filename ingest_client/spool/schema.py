"""The tables of a spool, their version, and what is refused. Documented in ``docs/spool.md``."""

from typing import Final

from ingest_client.spool.sql import Connection, transaction

APPLICATION_ID: Final = 0x53544E4F
"""``STNO``: so that a file of another program is known as such."""

VERSION: Final = 1
"""Of the schema below. A newer one is refused, an older one is migrated forward."""

OLDEST_SQLITE: Final = (3, 51, 3)
"""Older ones can corrupt a WAL when it is reset."""

PAGE_SIZE: Final = 4096

_DDL: Final = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE turns(
  seq INTEGER PRIMARY KEY,
  turn_id TEXT NOT NULL,
  tenant TEXT NOT NULL,
  created_at_ns INTEGER NOT NULL,
  state TEXT NOT NULL,
  outcome TEXT NOT NULL,
  reason TEXT NOT NULL,
  attempts INTEGER NOT NULL,
  due_at_ns INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  body_bytes INTEGER NOT NULL,
  stored_bytes INTEGER NOT NULL,
  crc INTEGER NOT NULL);
CREATE UNIQUE INDEX turns_by_id ON turns(turn_id);
CREATE INDEX turns_due ON turns(tenant, due_at_ns, created_at_ns) WHERE state = 'pending';
CREATE TABLE bodies(seq INTEGER PRIMARY KEY, frame BLOB NOT NULL);
CREATE TABLE attempts(seq INTEGER, number INTEGER, record TEXT NOT NULL, PRIMARY KEY(seq, number))
  WITHOUT ROWID;
CREATE TABLE checkpoints(
  turn_id TEXT PRIMARY KEY,
  tenant TEXT NOT NULL,
  started_at_ns INTEGER NOT NULL,
  heartbeat_at_ns INTEGER NOT NULL,
  status TEXT NOT NULL,
  generation INTEGER NOT NULL,
  frame BLOB NOT NULL);
CREATE TABLE generations(
  number INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  started_at_ns INTEGER NOT NULL,
  ended_at_ns INTEGER NOT NULL,
  ending TEXT NOT NULL);
CREATE TABLE ledger(
  generation INTEGER, term TEXT, n INTEGER NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY(generation, term))
  WITHOUT ROWID;
CREATE TABLE absorbed(source TEXT PRIMARY KEY, upto_seq INTEGER NOT NULL) WITHOUT ROWID;
"""

_MIGRATIONS: Final[dict[int, str]] = {}
"""From each earlier version, the statements that lead to the next."""


class SpoolRefused(Exception):  # noqa: N818 - what happened, not a fault of the program
    """The spool must not be used as configured; the message says why and what to do."""


class NewerSchema(SpoolRefused):
    """The files were written by a later release."""


class StructureDamaged(Exception):  # noqa: N818 - a state of the file, named as in the documents
    """The database cannot be trusted any more; the message says what was found."""


def shape(connection: Connection) -> None:
    """Fix the layout of a database before anything is written: then every spool has the same first page."""
    connection.pragma("page_size", PAGE_SIZE)
    connection.pragma("auto_vacuum", "INCREMENTAL")


def prepare(connection: Connection) -> None:
    """Create, migrate or check the schema.

    Raises :class:`NewerSchema` for a later version, :class:`StructureDamaged` for a
    file that is not, or no longer, a spool.
    """
    application = _number(connection, "application_id")
    version = _number(connection, "user_version")
    tables = {str(row[0]) for row in connection.execute("SELECT name FROM sqlite_schema")}
    if not tables and not application and not version:
        create(connection)
        return
    if application != APPLICATION_ID:
        raise StructureDamaged(f"the file belongs to another program (application id {application:#x})")
    if not _expected(tables):
        raise StructureDamaged("tables or indexes are missing")
    if _written_version(connection) != version:
        raise StructureDamaged("the two records of the schema version differ")
    if version > VERSION:
        raise NewerSchema(
            f"the spool has schema version {version}; this release reads up to {VERSION}. "
            "Start the release that wrote it (or a later one), or give this one another data directory."
        )
    _migrate(connection, version)


def create(connection: Connection) -> None:
    """Make the tables in an empty, shaped database."""
    with transaction(connection):
        for _ in connection.execute(_DDL):
            pass
        connection.execute("INSERT INTO meta VALUES('schema_version', ?)", (VERSION,))
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", VERSION)


def _migrate(connection: Connection, version: int) -> None:
    if version < 1:
        raise StructureDamaged(f"there never was a schema version {version}")
    for step in range(version, VERSION):
        with transaction(connection):
            for _ in connection.execute(_MIGRATIONS[step]):
                pass
            connection.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (step + 1,))
            connection.pragma("user_version", step + 1)


def _expected(tables: set[str]) -> bool:
    return {
        "meta",
        "turns",
        "turns_by_id",
        "turns_due",
        "bodies",
        "attempts",
        "checkpoints",
        "generations",
        "ledger",
        "absorbed",
    } <= tables


def _written_version(connection: Connection) -> object:
    row = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    return row[0] if row else None


def _number(connection: Connection, pragma: str) -> int:
    value = connection.pragma(pragma)
    return value if isinstance(value, int) else 0
