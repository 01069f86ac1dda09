"""What the spool's thread does between groups: checkpoints of the WAL, space given back, chores.

Everything here is a little at a time: jobs go first.
"""

import logging
import time
from collections.abc import Callable
from typing import Final

import apsw

from ingest_client.spool.desk import Desk
from ingest_client.spool.faults import Fault, fault_of
from ingest_client.spool.jobs import Chore, Files, Progress
from ingest_client.spool.seat import Seat
from ingest_client.spool.settings import SpoolSettings
from ingest_client.spool.sql import whole

CHORE_S: Final = 0.02
"""A background chore may hold the thread so long before jobs go first again."""

VACUUM_S: Final = 0.1
VACUUM_PAGES: Final = 1024
"""Free pages are given back at this pace: 40 MiB a second, only while nothing else is to be done."""

_log = logging.getLogger("steno.spool")


class Upkeep:
    """Looks after an open store. Used by the spool's thread alone."""

    def __init__(self, seat: Seat, files: Files, settings: SpoolSettings, idle: Callable[[], bool]) -> None:
        """``idle`` tells whether no job waits."""
        self._seat = seat
        self._files = files
        self._settings = settings
        self._idle = idle
        self._chores: list[Chore] = []
        self._busy = True
        self._adopt_at = 0.0
        self._vacuum_at = 0.0
        self._set_aside = 0

    @property
    def hurried(self) -> bool:
        """Whether a chore has more to do at once."""
        return self._busy and bool(self._chores)

    def run(self) -> None:
        """Do what is due."""
        if self._chores and self._seat.desk is not None and not self._seat.condition.trouble:
            self._do_chores(self._seat.desk)
        self._look_for_chores()
        idle = self._idle()
        limit = self._settings.wal_soft_bytes if idle else self._settings.wal_hard_bytes
        if self._seat.condition.wal_bytes > limit:
            self._checkpoint(self._seat.at())
        elif idle and not self._seat.condition.trouble and self._seat.desk is not None:
            self._vacuum(self._seat.desk)

    def work_off(self) -> bool:
        """Look for chores and do some of each, whatever waits. False: there is none left."""
        self._chores.extend(self._files.find_chores())
        if self._chores:
            self._do_chores(self._seat.at())
        return bool(self._chores)

    def close(self) -> None:
        """Let go of the chores; another process goes on with them."""
        for chore in self._chores:
            chore.close()

    def _look_for_chores(self) -> None:
        """Every few seconds, and at once when files were set aside: they are to be salvaged."""
        condition = self._seat.condition
        now = time.monotonic()
        if (now >= self._adopt_at and not condition.trouble) or condition.set_aside > self._set_aside:
            self._adopt_at = now + self._settings.adopt_every_s
            self._set_aside = condition.set_aside
            self._chores.extend(self._files.find_chores())

    def _do_chores(self, desk: Desk) -> None:
        until = time.monotonic() + CHORE_S
        self._busy = False
        try:
            for _ in range(len(self._chores)):
                progress = Progress.MORE
                while progress is Progress.MORE and time.monotonic() < until:
                    progress = self._chores[0].step(desk)
                    self._seat.collect()
                self._busy |= progress is Progress.MORE
                chore = self._chores.pop(0)
                if progress is not Progress.DONE:
                    self._chores.append(chore)
        except Exception as error:  # noqa: BLE001 - every kind has its answer
            if fault_of(error) is Fault.BUG:
                _log.exception("a chore of the spool failed and is left")
                del self._chores[0]
            else:
                self._seat.failed(error)

    def _checkpoint(self, desk: Desk) -> None:
        try:
            desk.store.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            self._seat.condition.checkpoints += 1
            self._seat.condition.wal_bytes = 0
        except Exception as error:  # noqa: BLE001 - every kind has its answer
            if fault_of(error) is Fault.FULL:
                self._seat.filled(error)
            else:
                self._seat.failed(error)

    def _vacuum(self, desk: Desk) -> None:
        """After an outage, give space back to the disk: a little at a time, when most of the file is free."""
        if desk.store.closed or not self._seat.condition.commits or time.monotonic() < self._vacuum_at:
            return
        connection = desk.store.connection
        self._vacuum_at = time.monotonic() + VACUUM_S
        try:
            free = whole(connection.pragma("freelist_count"))
            if free > VACUUM_PAGES and 2 * free > whole(connection.pragma("page_count")):
                connection.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
        except Exception as error:  # noqa: BLE001 - every kind has its answer
            self._seat.failed(error)
