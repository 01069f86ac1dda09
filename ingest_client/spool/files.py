"""Where a spool's stores come from: a folder on disk, or memory."""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ingest_client.spool.absorb import CARRIED, REPORT, Absorb, Reconcile
from ingest_client.spool.books import Books
from ingest_client.spool.faults import Fault, fault_of
from ingest_client.spool.instance import (
    adopt,
    instances,
    make_private,
    move_shelves,
    set_files_aside,
    try_lock,
)
from ingest_client.spool.jobs import Chore
from ingest_client.spool.mending import mend
from ingest_client.spool.opening import open_store
from ingest_client.spool.overlay import Overlay
from ingest_client.spool.rows import SELECT
from ingest_client.spool.schema import SpoolRefused
from ingest_client.spool.settings import SpoolSettings
from ingest_client.spool.source import Source
from ingest_client.spool.store import Store

_log = logging.getLogger("steno.spool")

_WORD_LENGTH = 40


@dataclass(frozen=True, slots=True)
class _Carry:
    """The books of files that were set aside, for the fresh ones."""

    books: Books
    place: Path


@dataclass(slots=True, kw_only=True)
class DiskFiles:
    """The files of one instance, whose lock the caller holds."""

    folder: Path
    settings: SpoolSettings
    generation_id: str
    clock: Callable[[], int]
    vfs: str | None = None
    unreachable: int = 0
    """Turns that no salvage could read."""
    _told: bool = False
    _carry: _Carry | None = None
    _working: set[str] = field(default_factory=set[str])
    _sources: list[Absorb] = field(default_factory=list[Absorb])

    def open(self) -> Store:
        """Open the store and begin (or resume) our generation; ``moved`` tells what the ledger learns."""
        store = open_store(self.folder / "spool.db", self.settings, vfs=self.vfs)
        try:
            with store.transaction():
                if self._carry is not None:
                    store.books.carry(self._carry.books)
                    store.books.absorb(self._carry.place.name, 0)
                store.begin(self.generation_id, self.clock())
                for seq in store.strangers:
                    for row in store.rows(SELECT + " WHERE seq = ?", (seq,)):
                        mend(store, row, "the row's CRC differs")
            if self._carry is not None:
                (self._carry.place / CARRIED).touch()
                store.moved.clear()
            elif not self._told:
                store.moved = store.books.totals()
        except BaseException:
            store.close()
            raise
        self._carry = None
        self._told = True
        return store

    def replace(self, damaged: Store | None, why: str) -> Store:
        """Set the damaged files aside and start fresh ones, with the books that are known.

        If the disk does not allow the second, :meth:`open` goes on with it.
        """
        if damaged is not None:
            damaged.close()
        place = set_files_aside(self.folder, _word(why))
        if damaged is not None:
            self._carry = _Carry(damaged.books, place)
        return self.open()

    def find_chores(self) -> Sequence[Chore]:
        """Adopt orphans, and name everything below our folder that is still to be taken over."""
        for folder in instances(self.folder.parent):
            if folder != self.folder and (lock := try_lock(folder)) is not None:
                adopt(self.folder, lock)
                lock.release()
        chores: list[Chore] = []
        for folder in _below(self.folder / "adopted"):
            if folder.name not in self._working:
                for damaged in _below(folder / "damaged"):  # its numbers for generations are not ours
                    (damaged / CARRIED).unlink(missing_ok=True)
                move_shelves(folder, self.folder)
                chores.append(self._adopting(folder))
        salvages = [
            self._salvaging(folder)
            for folder in _below(self.folder / "damaged")
            if folder.name not in self._working and not (folder / REPORT).exists()
        ]
        if salvages:
            self._sources += salvages
            chores += [*salvages, Reconcile(list(self._sources), self._reconciled)]
        return chores

    def _adopting(self, folder: Path) -> Absorb:
        chore = Absorb(
            name=folder.name,
            folder=folder,
            open=lambda: self._open_adopted(folder),
            clock=self.clock,
            damaged=False,
        )
        self._working.add(folder.name)
        self._sources.append(chore)
        return chore

    def _open_adopted(self, folder: Path) -> Source | None:
        """An orphan through SQLite. A damaged one is left to salvage, one of a later release as it is."""
        try:
            store = open_store(folder / "spool.db", self.settings, vfs=self.vfs)
        except SpoolRefused as refused:
            _log.error("the adopted spool %s stays as it is: %s", folder, refused)
            return None
        except Exception as error:
            if fault_of(error) is not Fault.DAMAGE:
                raise
            _log.error("the adopted spool %s is damaged: %s", folder.name, error)
            make_private(self.folder / "damaged")
            self._working.discard(folder.name)
            folder.rename(self.folder / "damaged" / folder.name)
            return None
        return Source(store.connection, store.close)

    def _salvaging(self, folder: Path) -> Absorb:
        self._working.add(folder.name)
        return Absorb(
            name=folder.name,
            folder=folder,
            open=lambda: self._open_damaged(folder),
            clock=self.clock,
            damaged=True,
        )

    @staticmethod
    def _open_damaged(folder: Path) -> Source | None:
        if not (folder / "spool.db").exists():
            return None
        overlay = Overlay(folder)
        return Source(overlay.connection, overlay.close)

    def _reconciled(self, unreachable: int, returned: int) -> None:
        self.unreachable += unreachable
        _log.warning("salvage is through: %d turns are unreachable, %d came back", unreachable, returned)


def _below(shelf: Path) -> list[Path]:
    return sorted(path for path in shelf.iterdir() if path.is_dir()) if shelf.is_dir() else []


@dataclass(slots=True, kw_only=True)
class MemoryFiles:
    """A store in memory: gone with its process."""

    settings: SpoolSettings
    generation_id: str
    clock: Callable[[], int]
    unreachable: int = 0

    def open(self) -> Store:
        """A new, empty store."""
        store = open_store(None, self.settings)
        with store.transaction():
            store.begin(self.generation_id, self.clock())
        return store

    def replace(self, damaged: Store | None, why: str) -> Store:
        """Memory that is damaged is a bug: start over, with the books that are known."""
        _log.error("the spool in memory is given up: %s", why)
        store = open_store(None, self.settings)
        with store.transaction():
            if damaged is not None:
                damaged.close()
                store.books.carry(damaged.books)
            store.begin(self.generation_id, self.clock())
        return store

    def find_chores(self) -> Sequence[Chore]:
        """None: nobody else's memory can be adopted."""
        return ()


def _word(why: str) -> str:
    """A reason as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", why.lower()).strip("-")[:_WORD_LENGTH] or "damaged"
