"""Where a spool's stores come from: a folder on disk, or memory."""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ingest_client.spool.instance import set_files_aside
from ingest_client.spool.opening import open_store
from ingest_client.spool.rows import SELECT
from ingest_client.spool.settings import SpoolSettings
from ingest_client.spool.store import Store
from ingest_client.spool.writer import Chore

_log = logging.getLogger("steno.spool")

_WORD_LENGTH = 40


@dataclass(slots=True, kw_only=True)
class DiskFiles:
    """The files of one instance, whose lock the caller holds."""

    folder: Path
    settings: SpoolSettings
    generation_id: str
    clock: Callable[[], int]
    vfs: str | None = None
    _told: bool = False
    _new_chores: list[Chore] = field(default_factory=list[Chore])

    def open(self) -> Store:
        """Open the store and begin (or resume) our generation; ``moved`` tells what the ledger learns."""
        store = open_store(self.folder / "spool.db", self.settings, vfs=self.vfs)
        try:
            with store.transaction():
                store.begin(self.generation_id, self.clock())
                for seq in store.strangers:
                    for row in store.rows(SELECT + " WHERE seq = ?", (seq,)):
                        store.mend(row, "the row's CRC differs")
            if not self._told:
                store.moved = store.books.totals()
        except BaseException:
            store.close()
            raise
        self._told = True
        return store

    def replace(self, damaged: Store | None, why: str) -> Store:
        """Set the damaged files aside and start fresh ones, with the books that are known."""
        if damaged is not None:
            damaged.close()
        set_files_aside(self.folder, _word(why))
        store = open_store(self.folder / "spool.db", self.settings, vfs=self.vfs)
        try:
            with store.transaction():
                if damaged is not None:
                    store.books.carry(damaged.books)
                store.begin(self.generation_id, self.clock())
            store.moved.clear()
        except BaseException:
            store.close()
            raise
        self._told = True
        return store

    def find_chores(self) -> Sequence[Chore]:
        """Nothing yet."""
        found, self._new_chores = self._new_chores, []
        return found


@dataclass(slots=True, kw_only=True)
class MemoryFiles:
    """A store in memory: gone with its process."""

    settings: SpoolSettings
    generation_id: str
    clock: Callable[[], int]

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
