"""Taking over another spool: one that a dead process left, or what can be read of a damaged one.

Rows move in small transactions, each with a note of how far it came (``absorbed``), so a crash
resumes where it was. The books move first, as a whole; rows then only change their place.
When every source is through, the rows are counted against the books: what is missing could not be
reached, and is lost under ``volume_discarded``.
"""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from capture.outcomes import Outcome
from ingest_client.spool import books
from ingest_client.spool.books import CRASHED, WHOLE, Life
from ingest_client.spool.checkpoints import IN_PROGRESS
from ingest_client.spool.desk import Desk
from ingest_client.spool.jobs import Progress
from ingest_client.spool.record import Damaged
from ingest_client.spool.rows import Row, RowState
from ingest_client.spool.source import Found, Snapshot, Source
from ingest_client.spool.sql import whole
from ingest_client.spool.store import Store

REPORT: Final = "salvaged.json"
"""Written into a folder of damaged files when everything that can be read has been moved."""

CARRIED: Final = "books-carried"
"""In such a folder: our books are those of the damaged file, so its generations' numbers are ours."""

_log = logging.getLogger("steno.spool")


@dataclass(slots=True, kw_only=True)
class Absorb:
    """A chore: move one source into our store.

    ``open`` opens it, or gives None when it must be left; it raises what
    :mod:`ingest_client.spool.faults` sorts. ``damaged`` says whether its
    files are kept and reported on, or removed at the end. ``room_bytes``: a spool
    that is delivered from is not filled faster than it drains.
    """

    name: str
    folder: Path
    open: Callable[[], Source | None]
    clock: Callable[[], int]
    damaged: bool
    room_bytes: int = 64 << 20
    moved: int = 0
    spoiled: int = 0
    done: bool = False
    _source: Source | None = None
    _numbers: dict[int, int] = field(default_factory=dict[int, int])

    def step(self, desk: Desk) -> Progress:
        """Move a little."""
        store = desk.store
        if store.books.absorbed.get(self.name) == WHOLE:
            self._finish()
            return Progress.DONE
        if sum(part.waiting_bytes for part in store.usage.tenants.values()) > self.room_bytes:
            return Progress.WAIT
        if self._source is not None:
            self._move(store, self._source)
            return Progress.MORE
        self._source = self.open()
        if self._source is None:
            self.done = True
            return Progress.DONE
        self._begin(store, self._source)
        return Progress.MORE

    def close(self) -> None:
        """Close the source."""
        if self._source is not None:
            self._source.close()

    def _begin(self, store: Store, source: Source) -> None:
        """Move the books and the snapshots, once; learn the generations' numbers, always."""
        fresh = self.name not in store.books.absorbed
        with store.transaction():
            stranger = Life(f"stranger:{self.name}", self.clock(), self.clock(), CRASHED)
            self._numbers = store.books.import_lives(source.lives(), stranger)
            if (self.folder / CARRIED).exists():
                self._numbers |= {number: number for number in store.books.lives}
            if fresh:
                self._import_terms(store, source)
            for name, upto in source.absorbed():
                if name not in store.books.absorbed:
                    store.books.absorb(name, upto)
            for snapshot in source.checkpoints():
                self._import_snapshot(store, snapshot)
            if fresh:
                store.books.bury(self.clock(), store.checkpoints.open_by_generation())
                store.books.absorb(self.name, 0)

    def _import_terms(self, store: Store, source: Source) -> None:
        terms, damaged = source.terms()
        for (generation, term), n in terms.items():
            store.books.count(self._ours(generation), term, n)
        store.books.damaged |= {self._ours(generation) for generation in damaged}

    def _import_snapshot(self, store: Store, snapshot: Snapshot) -> None:
        """A snapshot of our own living process is not taken: it will write a newer one, or has ended."""
        generation = self._ours(snapshot.generation)
        if generation == store.books.generation or snapshot.status != IN_PROGRESS:
            return
        if isinstance(snapshot.frame, bytes) and isinstance(snapshot.turn_id, str):
            store.checkpoints.restore(snapshot, generation)

    def _move(self, store: Store, source: Source) -> None:
        found, upto, more = source.batch(store.books.absorbed.get(self.name, 0))
        with store.transaction():
            for each in found:
                self._take(store, each)
            store.books.absorb(self.name, upto if more else WHOLE)

    def _take(self, store: Store, found: Found) -> None:
        """One row: as it was, pending when only its own columns are wrong, damaged when its payload is."""
        row = self._verified(store, found)
        if row is None:
            return
        row = row._replace(seq=store.next_seq, generation=self._ours(found.row.generation)).sealed()
        if not store.insert(row, found.frame or b""):
            self._twice(store, row, intact=found.row.intact)
            return
        for number, record in found.attempts:
            store.connection.execute(
                "INSERT OR REPLACE INTO attempts VALUES(?, ?, ?)", (row.seq, number, record)
            )
        if row.state == RowState.DAMAGED and found.row.state != RowState.DAMAGED:
            self.spoiled += 1
            known = found.row.state != RowState.PENDING and found.row.outcome in books.TERMS
            store.books.count(row.generation, found.row.outcome if known else books.SPOOLED, -1)
            store.books.count(row.generation, Outcome.VOLUME_DISCARDED.value)
        else:
            self.moved += 1

    def _verified(self, store: Store, found: Found) -> Row | None:
        row = found.row
        try:
            body = store.packer.unpack(found.frame or b"", row.turn_id, row.tenant, row.created_at_ns)
        except Damaged as damage:
            if found.frame is None:
                return None
            return Row(
                seq=0,
                turn_id=row.turn_id,
                tenant=row.tenant,
                created_at_ns=row.created_at_ns,
                state=RowState.DAMAGED.value,
                outcome=Outcome.VOLUME_DISCARDED.value,
                reason=f"salvaged: {damage}",
                attempts=0,
                due_at_ns=0,
                generation=0,
                body_bytes=row.body_bytes,
                stored_bytes=len(found.frame),
                crc=0,
            )
        if row.intact:
            return row
        return Row(
            seq=0,
            turn_id=row.turn_id,
            tenant=row.tenant,
            created_at_ns=row.created_at_ns,
            state=RowState.PENDING.value,
            outcome="",
            reason="",
            attempts=0,
            due_at_ns=0,
            generation=0,
            body_bytes=len(body),
            stored_bytes=len(found.frame or b""),
            crc=0,
        )

    @staticmethod
    def _twice(store: Store, row: Row, *, intact: bool) -> None:
        """The turn is here already: one exchange was counted by two generations."""
        if intact and row.state == RowState.PENDING:
            store.books.count(row.generation, books.SPOOLED, -1)
            store.books.count(row.generation, books.OBSERVED, -1)

    def _ours(self, generation: object) -> int:
        return self._numbers.get(whole(generation), self._numbers[0])

    def _finish(self) -> None:
        """Leave the report, or remove what is empty now."""
        self.close()
        self.done = True
        if not self.damaged:
            shutil.rmtree(self.folder, ignore_errors=True)
            _log.info("took over %s: %d turns", self.name, self.moved)
            return
        errors = self._source.errors if self._source else 0
        report = {"turns_moved": self.moved, "payloads_damaged": self.spoiled, "unreadable_places": errors}
        (self.folder / REPORT).write_text(json.dumps(report) + "\n")
        _log.warning("salvaged %s: %s", self.folder, report)


@dataclass(slots=True)
class Reconcile:
    """A chore for after the last salvage: count the rows against the books, generation by generation.

    Done alone it would call rows lost that another source still holds, so it waits for ``others``.
    """

    others: list[Absorb]
    report: Callable[[int, int], None]

    def step(self, desk: Desk) -> Progress:
        """Write the difference: too few rows are lost, too many were brought back."""
        if not all(other.done for other in self.others):
            return Progress.WAIT
        store = desk.store
        rows = {
            whole(generation): whole(n)
            for generation, n in store.connection.execute(
                "SELECT generation, count(*) FROM turns WHERE state = 'pending' GROUP BY generation"
            )
        }
        unreachable = returned = 0
        with store.transaction():
            for generation in {*rows, *store.books.lives}:
                missing = store.books.of(generation)[books.SPOOLED] - rows.get(generation, 0)
                store.books.count(generation, books.SPOOLED, -missing)
                if missing > 0:
                    store.books.count(generation, Outcome.VOLUME_DISCARDED.value, missing)
                    unreachable += missing
                else:
                    store.books.count(generation, books.OBSERVED, -missing)
                    returned -= missing
        self.report(unreachable, returned)
        return Progress.DONE

    def close(self) -> None:
        """Nothing is open."""
