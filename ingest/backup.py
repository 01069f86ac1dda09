"""Backup and restore of a whole store.

A backup of SQLite is a copy of the database, taken while the service runs; a backup of
PostgreSQL is an export of every turn, which any store can take back: for copies of the
database itself PostgreSQL has tools of its own. Either is checked after it is written, lies
on the disk before it gets its name, and has its SHA-256 beside it.

A restore is all or nothing, into a store that nobody uses; it refuses one that has turns
unless it is told to replace them.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from enum import StrEnum, unique
from pathlib import Path
from typing import BinaryIO, Final, cast

from msgspec import Struct

from ingest import files
from ingest.archive import CONFLICT, ArchiveError, Progress, groups, write_out
from ingest.store import sqlite_copy
from ingest.store.connection import Connection, Engine, Row
from ingest.store.deletion import requeue_all
from ingest.store.portable import Choice, Landing, audit, count, erase, put_back
from ingest.store.schema import STEPS
from ingest.store.sqlite import SqliteEngine
from ingest.store.sqlite_copy import DamagedError

_SERVICES: Final = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'steno-ingest' AND pid <> pg_backend_pid()"
)


@unique
class Form(StrEnum):
    """What a backup is."""

    SQLITE = "sqlite"
    LINES = "json lines"


class Made(Struct, frozen=True):
    """A backup that was made, or put back. ``derive``: turns that wait for derivation now."""

    form: Form
    turns: int
    bytes: int
    sha256: str
    replaced: int = 0
    derive: int = 0


Stage = Callable[[str], Progress]
"""Given the name of the next stage, who is told of its progress."""


def back_up(engine: Engine, target: Path, stage: Stage) -> Made:
    """Write a backup to ``target``, which must not exist.

    Raises :class:`ArchiveError`, StoreError, OSError.
    """
    if target.exists():
        raise ArchiveError(f"{target} exists: a backup replaces nothing")
    with files.whole(target) as partial:
        form, turns = _write(engine, partial, stage)
        digest, size = files.digest(partial), partial.stat().st_size
    files.write_checksum(target, digest)
    return Made(form, turns, size, digest)


def _write(engine: Engine, partial: Path, stage: Stage) -> tuple[Form, int]:
    if isinstance(engine, SqliteEngine):
        return Form.SQLITE, _copy(engine, partial, stage)
    lost: list[str] = []
    with partial.open("wb") as file:
        turns = write_out(engine, Choice(), file.write, stage("turns written"), lost.append)
    if lost:
        raise ArchiveError(f"{len(lost)} turns cannot be read, the first: {lost[0]}")
    return Form.LINES, turns


def _copy(engine: SqliteEngine, partial: Path, stage: Stage) -> int:
    try:
        turns = sqlite_copy.copy_out(engine.path, partial, stage("pages copied"))
    except DamagedError as error:
        raise ArchiveError(f"{engine.path} cannot be copied: {error}") from error
    try:
        found = sqlite_copy.check(partial)
    except DamagedError as error:
        raise ArchiveError(f"the copy is damaged, and so may be {engine.path}: {error}") from error
    if found.turns != turns:
        raise ArchiveError(f"the copy has {found.turns} turns, the store had {turns}")
    return turns


def restore(engine: Engine, source: Path, stage: Stage, *, overwrite: bool, derive_again: bool) -> Made:
    """Put a backup in place of the store. Raises :class:`ArchiveError`, StoreError, OSError."""
    digest = files.digest(source)
    kept = files.read_checksum(source)
    if kept is not None and kept != digest:
        raise ArchiveError(
            f"{source} is damaged: its SHA-256 is not the one in {files.checksum_path(source)}"
        )
    with source.open("rb") as file:
        form = Form.SQLITE if file.read(len(sqlite_copy.MAGIC)) == sqlite_copy.MAGIC else Form.LINES
    if form is Form.LINES:
        if kept is None:
            raise ArchiveError(
                f"{source} has no {files.checksum_path(source).name} beside it, so nobody knows whether it is"
                " whole: use `steno ingest import` to bring in the lines that are readable"
            )
        made = _restore_lines(engine, source, stage, overwrite=overwrite)
    elif isinstance(engine, SqliteEngine):
        made = _restore_copy(engine, source, stage, overwrite=overwrite, derive_again=derive_again)
    else:
        raise ArchiveError(
            f"{source} is a SQLite database: `steno ingest export --database-url sqlite:///{source.absolute()}"
            " | steno ingest import` brings its turns here"
        )
    turns, replaced, derive = made
    return Made(form, turns, source.stat().st_size, digest, replaced, derive)


def _restore_copy(
    engine: SqliteEngine, source: Path, stage: Stage, *, overwrite: bool, derive_again: bool
) -> tuple[int, int, int]:
    try:
        found = sqlite_copy.check(source)
    except DamagedError as error:
        raise ArchiveError(f"{source} is damaged: {error}") from error
    replaced = _room(engine.path, overwrite=overwrite)
    if not engine.path.exists():
        engine.path.parent.mkdir(parents=True, exist_ok=True)
        files.create_private(engine.path).close()
    try:
        history = sqlite_copy.audit_rows(engine.path)
        sqlite_copy.put_in_place(source, engine.path, stage("pages restored"))
    except sqlite_copy.InUseError as error:
        raise ArchiveError(f"{engine.path} is in use: stop the service first") from error
    except DamagedError as error:
        raise ArchiveError(f"{engine.path} cannot be replaced: {error}") from error
    engine.prepare()
    with closing(engine.writer()) as connection:
        return (
            found.turns,
            replaced,
            _settle(connection, replaced, history, again=derive_again or found.version < len(STEPS)),
        )


def _settle(connection: Connection, replaced: int, history: Sequence[Row], *, again: bool) -> int:
    """Record the restore; derive again what was told to, or was derived by an earlier release.

    ``history``: the audit of the store that was replaced, which outlives it.
    """
    connection.begin()
    kept = set(connection.run("SELECT * FROM audit"))
    connection.run_many(
        "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)", [row for row in history if row not in kept]
    )
    audit(connection, time.time_ns() // 1000, "restore", f"in the place of {replaced} turns", replaced)
    waiting = requeue_all(connection) if again else _waiting(connection)
    connection.commit()
    return waiting


def _waiting(connection: Connection) -> int:
    return cast("int", connection.run("SELECT count(*) FROM pending")[0][0])


def _room(path: Path, *, overwrite: bool) -> int:
    """How many turns will be replaced. A database that cannot be read is set aside, never deleted."""
    try:
        turns = sqlite_copy.count_turns(path)
    except DamagedError as error:
        if not overwrite:
            raise ArchiveError(f"{path} cannot be read ({error}): --overwrite sets it aside") from error
        _set_aside(path)
        return 0
    _require_room(turns, overwrite=overwrite)
    return turns


def _set_aside(path: Path) -> None:
    stamp = f"damaged-{time.time_ns() // 1_000_000_000}"
    for suffix in ("", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        if file.exists():
            file.rename(path.with_name(f"{path.name}.{stamp}{suffix}"))


def _require_room(turns: int, *, overwrite: bool) -> None:
    if turns and not overwrite:
        raise ArchiveError(f"the store has {turns} turns: --overwrite replaces them")


def _restore_lines(engine: Engine, source: Path, stage: Stage, *, overwrite: bool) -> tuple[int, int, int]:
    """All lines in one transaction."""
    _require_unused(engine)
    engine.prepare()
    with closing(engine.writer()) as connection, source.open("rb") as lines:
        if not isinstance(engine, SqliteEngine) and connection.run(_SERVICES)[0][0]:
            raise ArchiveError("a service uses this database: stop it first")
        connection.begin()
        try:
            replaced = count(connection, Choice())
            _require_room(replaced, overwrite=overwrite)
            erase(connection)
            turns = _bring_all(connection, lines, source, stage)
            audit(
                connection, time.time_ns() // 1000, "restore", f"in the place of {replaced} turns", replaced
            )
            waiting = _waiting(connection)
            connection.commit()
        except BaseException:
            connection.rollback()
            raise
    return turns, replaced, waiting


def _require_unused(engine: Engine) -> None:
    if not isinstance(engine, SqliteEngine):
        return
    try:
        sqlite_copy.require_alone(engine.path)
    except sqlite_copy.InUseError as error:
        raise ArchiveError(f"{engine.path} is in use: stop the service first") from error
    except DamagedError as error:
        raise ArchiveError(f"{engine.path} cannot be read: {error}") from error


def _bring_all(connection: Connection, lines: BinaryIO, source: Path, stage: Stage) -> int:
    def refuse(number: int, reason: str) -> None:
        raise ArchiveError(f"{source}:{number}: {reason}")

    told, size, turns = stage("bytes restored"), source.stat().st_size, 0
    for group, read in groups(lines, refuse):
        landings = put_back(connection, [one for _, one in group])
        for (number, _), landing in zip(group, landings, strict=True):
            if landing is not Landing.STORED:
                refuse(number, CONFLICT)
        turns += len(group)
        told(read, size)
    return turns
