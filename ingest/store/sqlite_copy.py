"""Whole SQLite databases: copied while they are used, checked, and put in another's place.

A copy is made through SQLite's own backup interface inside one read transaction: it is the
store at one moment, however much is written meanwhile, and no writer waits for it. Putting
one in place is a single transaction of the database that it replaces: killed at any moment,
the old content is still there.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, Protocol, cast
from urllib.parse import quote

import apsw
from msgspec import Struct

from ingest.store.connection import Row
from ingest.store.schema import STEPS

_PAGES: Final = 2048
_TABLES: Final = frozenset(("turns", "bodies", "pending", "audit", "counters"))
MAGIC: Final = b"SQLite format 3\0"

Progress = Callable[[int, int], None]
"""Told how much is done, and of how much."""


class DamagedError(Exception):
    """The file is no sound store; the text says in what way."""


class InUseError(Exception):
    """Another process has the database open."""


class Found(Struct, frozen=True):
    """What a sound store holds."""

    version: int
    turns: int


class _Rows(Protocol):
    def fetchall(self) -> list[tuple[object, ...]]: ...


class _Backup(Protocol):
    done: bool
    remaining: int
    page_count: int

    def step(self, npages: int) -> bool: ...
    def finish(self) -> None: ...


class _Database(Protocol):
    """What is used of apsw.Connection; its own annotations need Python 3.12."""

    def execute(self, statements: str, bindings: Sequence[object] = ()) -> _Rows: ...
    def backup(self, databasename: str, sourceconnection: object, sourcedatabasename: str) -> _Backup: ...
    def close(self, force: bool = False) -> None: ...


def _open(name: str, flags: int, busy_ms: int = 5000) -> _Database:
    connection = apsw.Connection(name, flags=flags)
    connection.set_busy_timeout(busy_ms)
    return cast("_Database", connection)


def copy_out(source: Path, target: Path, progress: Progress) -> int:
    """Copy a store that may be in use into an empty file. Returns the number of its turns.

    The copy is in rollback mode: one file, nothing beside it. Raises :class:`DamagedError`.
    """
    try:
        with (
            closing(_open(str(source), apsw.SQLITE_OPEN_READWRITE)) as read,
            closing(_open(str(target), apsw.SQLITE_OPEN_READWRITE)) as written,
        ):
            read.execute("PRAGMA query_only=ON")
            read.execute("BEGIN")
            turns = _number(read, "SELECT count(*) FROM turns")
            written.execute("PRAGMA synchronous=OFF")  # the whole file is flushed when it is complete
            _copy(written, read, progress)
            written.execute("PRAGMA journal_mode=DELETE")
    except apsw.Error as error:
        raise DamagedError(str(error)) from error
    return turns


def _copy(written: _Database, read: _Database, progress: Progress) -> None:
    copying = written.backup("main", read, "main")
    try:
        while not copying.done:
            copying.step(_PAGES)
            progress(copying.page_count - copying.remaining, copying.page_count)
    finally:
        copying.finish()


def check(path: Path) -> Found:
    """Look through every page of a store at rest. Raises :class:`DamagedError`."""
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise DamagedError(f"part of it is in {log.name}: it is a database in use, or a bare copy of one")
    # Immutable: nothing is locked, and no -wal or -shm appears beside a backup.
    name = f"file:{quote(str(path.absolute()))}?immutable=1"
    try:
        with closing(_open(name, apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)) as database:
            problems = [str(row[0]) for row in database.execute("PRAGMA integrity_check(5)").fetchall()]
            if problems != ["ok"]:
                raise DamagedError("; ".join(problems))
            return _look(database)
    except apsw.Error as error:
        raise DamagedError(str(error)) from error


def _look(database: _Database) -> Found:
    names = {str(row[0]) for row in database.execute("SELECT name FROM sqlite_schema").fetchall()}
    if missing := _TABLES - names:
        raise DamagedError(f"it is no store of turns: it has no table {', '.join(sorted(missing))}")
    version = _number(database, "PRAGMA user_version")
    if version > len(STEPS):
        raise DamagedError(f"it has schema version {version}, this release knows {len(STEPS)}")
    turns = _number(database, "SELECT count(*) FROM turns")
    orphans = _number(database, "SELECT count(*) FROM turns WHERE seq NOT IN (SELECT seq FROM bodies)")
    if orphans:
        raise DamagedError(f"{orphans} of {turns} turns have no body")
    return Found(version, turns)


def count_turns(path: Path) -> int:
    """How many turns a database has; 0 where there is no file or no table. Raises :class:`DamagedError`."""
    if not path.exists():
        return 0
    try:
        with closing(_open(str(path), apsw.SQLITE_OPEN_READWRITE)) as database:
            tables = database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'turns'").fetchall()
            return _number(database, "SELECT count(*) FROM turns") if tables else 0
    except apsw.Error as error:
        raise DamagedError(str(error)) from error


def audit_rows(path: Path) -> list[Row]:
    """The audit of a database; nothing where there is none. Raises :class:`DamagedError`."""
    if not path.exists():
        return []
    try:
        with closing(_open(str(path), apsw.SQLITE_OPEN_READWRITE)) as database:
            there = database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'audit'").fetchall()
            rows = database.execute("SELECT * FROM audit ORDER BY rowid").fetchall() if there else []
            return cast("list[Row]", rows)
    except apsw.Error as error:
        raise DamagedError(str(error)) from error


def put_in_place(source: Path, target: Path, progress: Progress) -> None:
    """Give the database ``target`` the content of the sound store ``source``, all of it or nothing.

    Raises :class:`InUseError`, and :class:`DamagedError` when it cannot be written.
    """
    immutable = f"file:{quote(str(source.absolute()))}?immutable=1"
    try:
        with (
            closing(_open(immutable, apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)) as read,
            closing(_open(str(target), apsw.SQLITE_OPEN_READWRITE)) as written,
        ):
            _require_alone(written)
            written.execute("PRAGMA synchronous=FULL")
            _copy(written, read, progress)
    except apsw.Error as error:
        raise DamagedError(str(error)) from error


def _require_alone(database: _Database) -> None:
    """Leave the WAL, which SQLite allows only to the last connection; and let nobody in meanwhile."""
    try:
        database.execute("PRAGMA journal_mode=DELETE").fetchall()
        database.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
        database.execute("BEGIN EXCLUSIVE; COMMIT").fetchall()
    except (apsw.BusyError, apsw.LockedError) as error:
        raise InUseError("another process has the database open") from error


def require_alone(path: Path) -> None:
    """Raise :class:`InUseError` unless nobody else has the database open."""
    if not path.exists():
        return
    try:
        with closing(_open(str(path), apsw.SQLITE_OPEN_READWRITE, busy_ms=1000)) as database:
            _require_alone(database)
    except apsw.Error as error:
        raise DamagedError(str(error)) from error


def _number(database: _Database, sql: str) -> int:
    return cast("int", database.execute(sql).fetchall()[0][0])
