"""From a path to a usable store: pragmas, schema, and a first look at its health."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import apsw

from ingest_client.spool import sql, wal
from ingest_client.spool.faults import Fault, fault_of
from ingest_client.spool.instance import make_private_file
from ingest_client.spool.schema import OLDEST_SQLITE, SpoolRefused, StructureDamaged, prepare, shape
from ingest_client.spool.settings import SpoolSettings
from ingest_client.spool.store import Store

MEMORY: Final = ":memory:"

_CHECK_S: Final = 0.5
"""A structure check at the start may take so long; a larger database is checked as it is read."""

_PROGRESS_STEPS: Final = 10_000


def open_store(path: Path | None, settings: SpoolSettings, *, vfs: str | None = None) -> Store:
    """Open (or create) the database at ``path``; None is memory.

    Raises SpoolRefused (newer schema, old SQLite), StructureDamaged or an apsw error
    (see :mod:`ingest_client.spool.faults`).
    """
    if tuple(int(part) for part in apsw.sqlite_lib_version().split(".")) < OLDEST_SQLITE:
        raise SpoolRefused(
            f"SQLite {apsw.sqlite_lib_version()} can corrupt a WAL: "
            "install an apsw that carries 3.51.3 or later"
        )
    connection = connect(path, settings, vfs=vfs)
    try:
        if path is not None:
            wal.check(connection, path, vfs)
        prepare(connection)
        _look(connection)
        return Store(connection, settings)
    except BaseException:
        connection.close(force=True)
        raise


def connect(path: Path | None, settings: SpoolSettings, *, vfs: str | None = None) -> sql.Connection:
    """A connection with our pragmas: WAL without shared memory, no checkpoint but ours."""
    if path is not None:
        make_private_file(path)
    connection = sql.connect(MEMORY if path is None else str(path), vfs=vfs)
    try:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        connection.pragma("locking_mode", "EXCLUSIVE")
        connection.pragma("cell_size_check", 1)
        connection.pragma("cache_size", -2048)
        connection.pragma("temp_store", "MEMORY")
        shape(connection)
        connection.pragma("journal_mode", "WAL")
        connection.pragma("synchronous", settings.synchronous)
        connection.wal_autocheckpoint(0)
    except BaseException:
        connection.close(force=True)
        raise
    return connection


def _look(connection: sql.Connection) -> None:
    """Check the structure for as long as a start may take. Raises :class:`StructureDamaged`."""
    deadline = time.monotonic() + _CHECK_S
    connection.set_progress_handler(_until(deadline), _PROGRESS_STEPS)
    try:
        answers = [str(row[0]) for row in connection.execute("PRAGMA quick_check(1)")]
    except apsw.InterruptError:
        return
    except apsw.Error as error:
        if fault_of(error) is Fault.DAMAGE:
            raise StructureDamaged(str(error)) from error
        raise
    finally:
        connection.set_progress_handler(None)
    if answers != ["ok"]:
        raise StructureDamaged(answers[0])


def _until(deadline: float) -> Callable[[], bool]:
    return lambda: time.monotonic() > deadline
