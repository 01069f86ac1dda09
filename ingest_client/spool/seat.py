"""Where the spool's thread sits: the open store, what the disk is like, and when to try it again.

A store in trouble stays open (``ingest_client.spool.writer`` says why); only damage to its
structure replaces it.
"""

import logging
import time
from collections import Counter
from typing import Final

import apsw

from ingest_client.spool.desk import Desk
from ingest_client.spool.faults import Fault, describe, fault_of
from ingest_client.spool.jobs import Condition, Files
from ingest_client.spool.reserve import Reserve
from ingest_client.spool.schema import SpoolRefused
from ingest_client.spool.store import Store

PROBE_S: Final = 0.25
"""A disk in trouble is tried this often."""

REPLACE_S: Final = 5.0
"""Files are set aside no oftener than this: fresh ones that are damaged at once speak of another trouble."""

_log = logging.getLogger("steno.spool")


class Seat:
    """The desk of the spool's thread, through all that a disk does. Used by that thread alone."""

    def __init__(self, files: Files, reserve: Reserve) -> None:
        """Prepare; :meth:`open` opens the store."""
        self.desk: Desk | None = None
        self.condition = Condition()
        self.full = False
        """The last write met a full disk: new turns wait until the reserve is held again."""
        self._files = files
        self._reserve = reserve
        self._moved: Counter[str] = Counter()
        self._retry_at = 0.0
        self._replace_at = 0.0

    def open(self) -> None:
        """Open the store for the first time.

        Raises SpoolRefused. A disk in trouble is no reason not to start: it is tried again.
        """
        try:
            self._sit_down(self._files.open())
        except SpoolRefused:
            raise
        except Exception as error:  # noqa: BLE001 - sorted by fault_of; bugs are raised again
            self._opening_failed(error)

    @property
    def resting(self) -> bool:
        """Whether the disk was in trouble a moment ago, and is left alone for now."""
        return time.monotonic() < self._retry_at

    def taken(self) -> bool:
        """Whether there is an open store; a closed one is opened again at most every 250 ms."""
        if self._open_desk() is not None:
            return True
        if self.resting:
            return False
        try:
            self._sit_down(self._files.open())
        except Exception as error:  # noqa: BLE001 - stays closed, said why
            self._opening_failed(error)
        return self._open_desk() is not None

    def at(self) -> Desk:
        """The desk. Raises OSError with the disk's trouble where there is none."""
        if self.desk is None:
            raise OSError(self.condition.trouble)
        return self.desk

    def collect(self) -> None:
        """Take what the last transactions moved in the ledger."""
        store = self.at().store
        self._moved.update(store.moved)
        store.moved = Counter()

    def moved(self) -> Counter[str]:
        """What was collected since the last call."""
        moved, self._moved = self._moved, Counter()
        return moved

    # Trouble

    def failed(self, error: Exception) -> None:
        """Do what a failure asks for: damage replaces the files, anything else is trouble."""
        if fault_of(error) is Fault.DAMAGE:
            self.replace(error)
        else:
            self.trouble(error)

    def filled(self, error: Exception) -> None:
        """A write met a full disk: the reserve's space is for what must be written even so."""
        self.full = True
        self._reserve.release()
        self.trouble(error)

    def trouble(self, error: Exception) -> None:
        """Note that the disk is in trouble, and leave it alone for a moment."""
        text = describe(error)
        if text != self.condition.trouble:
            _log.error("the spool cannot write: %s", text)
        self.condition.trouble = text
        self._retry_at = time.monotonic() + PROBE_S

    def recovered(self) -> None:
        """Note that a write has worked."""
        self.full = False
        if self.condition.trouble:
            _log.warning("the spool writes again after: %s", self.condition.trouble)
            self.condition.trouble = ""

    def insist(self) -> None:
        """Try the disk at the next write, whatever it said last."""
        self._retry_at = 0.0

    def replace(self, error: Exception) -> bool:
        """Set the damaged files aside and go on with fresh ones. False: the disk will not have it now."""
        if time.monotonic() < self._replace_at:
            self.trouble(error)
            return False
        self._replace_at = time.monotonic() + REPLACE_S
        _log.error("the spool's structure is damaged, it is set aside: %s", error)
        try:
            store = self._files.replace(self.desk.store if self.desk else None, str(error))
            self._sit_down(store)
        except Exception as failure:  # noqa: BLE001 - sheds until it works
            if fault_of(failure) is Fault.BUG:
                _log.error("a fresh spool could not be made", exc_info=failure)
            self.trouble(failure)
            self.stand_up()
            return False
        self.condition.set_aside += 1
        return True

    def stand_up(self) -> None:
        """Close the store."""
        if self.desk is not None:
            self.desk.store.close()

    def _open_desk(self) -> Desk | None:
        return None if self.desk is None or self.desk.store.closed else self.desk

    def _sit_down(self, store: Store) -> None:
        before = self.desk
        self.desk = Desk(store)
        if before is not None:
            store.resume(before.store)
        self.collect()
        store.connection.set_wal_hook(self._wal_grew)

    def _opening_failed(self, error: Exception) -> None:
        if fault_of(error) is Fault.BUG:
            raise error
        self.failed(error)

    def _wal_grew(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self.condition.wal_bytes = pages * 4096
        return apsw.SQLITE_OK
