"""The spools below a data directory as a person finds them: running, at rest, damaged, set aside.

A running one is asked through its control socket. One at rest is opened here, under its
lock, so that no process can start on it meanwhile.
"""

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import apsw

from capture.outcomes import Outcome, State
from ingest_client.spool import books
from ingest_client.spool.absorb import REPORT
from ingest_client.spool.control import Remote
from ingest_client.spool.desk import Desk
from ingest_client.spool.faults import Fault, describe, fault_of
from ingest_client.spool.instance import Lock, instances, try_lock
from ingest_client.spool.opening import open_store
from ingest_client.spool.overlay import Overlay
from ingest_client.spool.schema import SpoolRefused
from ingest_client.spool.settings import SpoolSettings
from ingest_client.spool.source import Source
from ingest_client.spool.tools import READS, Json, Selection, ToolError, run

_HELD: Final = frozenset(
    {
        books.SPOOLED,
        *(outcome.value for outcome in Outcome if outcome.state in (State.DEAD_LETTERED, State.QUARANTINED)),
    }
)
"""Terms whose turns have rows (those purged since are counted too: the number is an upper bound)."""


class Access(Protocol):
    """A way to run the tools' operations on one instance."""

    def call(self, operation: str, selection: Selection, body: str | None = None) -> Json:
        """Run an operation. Raises ToolError, OSError."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


class Local:
    """An instance at rest, opened under its lock."""

    def __init__(self, folder: Path, lock: Lock) -> None:
        """Open its store. Raises ToolError with the reason."""
        self._lock = lock
        try:
            self._desk = Desk(open_store(folder / "spool.db", SpoolSettings()))
        except BaseException as error:
            lock.release()
            if isinstance(error, SpoolRefused):
                raise ToolError(str(error)) from error
            if fault_of(error) is not Fault.BUG:
                raise ToolError(_told(error)) from error
            raise

    def call(self, operation: str, selection: Selection, body: str | None = None) -> Json:
        """Run an operation, in a transaction if it changes anything."""
        try:
            if operation in READS:
                return run(self._desk, operation, selection)
            with self._desk.store.transaction():
                return run(self._desk, operation, selection, body)
        except Exception as error:
            if fault_of(error) is Fault.BUG:
                raise
            raise ToolError(_told(error)) from error

    def structure(self) -> list[str]:
        """SQLite's own complaints about the whole file; empty when it has none."""
        try:
            answers = [
                str(row[0]) for row in self._desk.store.connection.execute("PRAGMA integrity_check(20)")
            ]
        except apsw.Error as error:
            return [str(error)]
        return [] if answers == ["ok"] else answers

    def close(self) -> None:
        """Move the log into the database and let go of the lock."""
        if not self._desk.store.closed:
            with contextlib.suppress(apsw.Error):  # else the log stays, and the next start reads it
                self._desk.store.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._desk.store.close()
        self._lock.release()


@dataclass(slots=True)
class Instance:
    """One instance folder. ``trouble`` says why it has no ``access``."""

    folder: Path
    running: bool = False
    access: Access | None = None
    trouble: str = ""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name


def reach(root: Path) -> list[Instance]:
    """Every instance below a data directory, with a way to it where there is one."""
    return [_reach_one(folder) for folder in instances(root)]


def _reach_one(folder: Path) -> Instance:
    try:
        lock = try_lock(folder)
        if lock is not None:
            return Instance(folder, access=Local(folder, lock))
    except ToolError as error:
        return Instance(folder, trouble=str(error))
    except OSError as error:
        return Instance(folder, trouble=_told(error))
    try:
        return Instance(folder, running=True, access=Remote(folder))
    except PermissionError as error:
        return Instance(folder, running=True, trouble=_told(error))
    except OSError as error:
        why = f"a process holds it and does not answer ({error}): see its log, and try again"
        return Instance(folder, running=True, trouble=why)


@dataclass(slots=True)
class SetAside:
    """Damaged files, and what has become of their turns."""

    folder: Path
    report: Json | None
    readable: int = 0
    expected: int | None = None
    turn_ids: set[str] = field(default_factory=set[str])

    @property
    def unreachable(self) -> int | None:
        """How many turns of those in its books cannot be read; None when the books cannot either."""
        return None if self.expected is None else max(0, self.expected - self.readable)


def set_aside(instance: Path) -> list[SetAside]:
    """The damaged files of an instance, with the salvage's report where it has finished."""
    shelf = instance / "damaged"
    found: list[SetAside] = []
    for folder in sorted(shelf.iterdir()) if shelf.is_dir() else []:
        report = folder / REPORT
        if report.exists():
            found.append(SetAside(folder, json.loads(report.read_text())))
        elif (folder / "spool.db").exists():
            found.append(survey(folder))
    return found


def survey(folder: Path) -> SetAside:
    """Read a damaged database as a salvage would, changing nothing: what is there, and what is missing."""
    overlay = Overlay(folder)
    source = Source(overlay.connection, overlay.close)
    found = SetAside(folder, None)
    try:
        terms, damaged = source.terms()
        if terms and not damaged:
            found.expected = sum(n for (_, term), n in terms.items() if term in _HELD)
        after, more = 0, True
        while more:
            batch, after, more = source.batch(after)
            whole = {each.row.turn_id for each in batch if each.frame is not None and each.row.intact}
            found.turn_ids |= whole
        found.readable = len(found.turn_ids)
    except apsw.Error as error:
        raise ToolError(f"{folder}: {_told(error)}") from error
    finally:
        source.close()
    return found


_NEXT: Final = {
    Fault.FULL: "make room on the disk, and run the command again",
    Fault.DISK: "see to the disk and the rights to its files, and run the command again",
    Fault.DAMAGE: "`steno spool verify` says what can be read; the sidecar salvages it when it starts",
}


def _told(error: BaseException) -> str:
    """An error for a person: what it is, and what to do next."""
    return f"{describe(error)}: {_NEXT[fault_of(error)]}"
