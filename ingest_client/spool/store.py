"""One spool database, as plain synchronous operations on one connection.

Used by exactly one thread. Everything that changes rows happens inside
:meth:`Store.transaction`; what is remembered in memory (usage, claims, counters)
follows the transaction: it is taken back when that is rolled back. Errors of SQLite
pass through as they are: :mod:`ingest_client.spool.faults` says what they mean.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import apsw

from capture.outcomes import Outcome
from ingest_client.sink import Kept, Record, Shed
from ingest_client.spool import books
from ingest_client.spool.books import Books
from ingest_client.spool.checkpoints import CheckpointTable
from ingest_client.spool.record import Damaged, Packer
from ingest_client.spool.rows import INSERT, REPLACE, SELECT, Row, RowState, as_row
from ingest_client.spool.settings import FullPolicy, SpoolSettings
from ingest_client.spool.sql import Connection, Value, integer, sound, whole
from ingest_client.spool.usage import Usage

KEPT: Final = Kept()

KEPT_ATTEMPTS: Final = 100
"""Attempts remembered per turn: the newest. A week of retries needs no more to be understood."""

RECENT_BYTES: Final = 8 << 20
"""Bodies just kept stay at hand up to this sum: most are claimed next, and need not be read again."""

_LARGEST_INTEGER: Final = (1 << 63) - 1


class Store:
    """The tables of one spool. See the module for the rules."""

    def __init__(self, connection: Connection, settings: SpoolSettings) -> None:
        """Read the books and the usage of a prepared database."""
        self.connection = connection
        self.settings = settings
        self.packer = Packer(settings.zstd_level)
        self.usage = Usage()
        self.books = Books(connection)
        self.checkpoints = CheckpointTable(connection, self.packer, settings.stale_after_s)
        self.claimed: dict[int, Row] = {}
        self._recent: dict[int, bytes] = {}
        self._recent_bytes = 0
        self.strangers: list[int] = []
        self.fresh_after: dict[str, tuple[int, int]] = {}
        """How far each tenant's never tried turns are claimed: (created_at_ns, seq)."""
        self.moved: Counter[str] = Counter()
        self._undo: list[Callable[[], object]] = []
        self._noted: Counter[str] = Counter()
        self._next_seq = 1
        self.closed = False
        self._load()

    def _load(self) -> None:
        """Sum up the rows. Rows in no known state are noted as strangers: their columns are damaged."""
        self._next_seq = 1 + integer(self.connection, "SELECT ifnull(max(seq), 0) FROM turns")
        known = [state.value for state in RowState]
        sums = self.connection.execute(
            "SELECT tenant, state, count(*), sum(body_bytes), sum(stored_bytes), min(created_at_ns)"
            " FROM turns WHERE typeof(tenant) = 'text' GROUP BY tenant, state"
        )
        for tenant, state, turns, body_bytes, stored_bytes, oldest in sums:
            pending = turns if state == RowState.PENDING else 0
            self.usage.change(
                str(tenant),
                waiting=whole(pending),
                waiting_bytes=whole(body_bytes) if pending else 0,
                waiting_stored_bytes=whole(stored_bytes) if pending else 0,
                pending=whole(pending),
                stored_bytes=whole(stored_bytes),
            )
            if pending:
                self.usage.of(str(tenant)).oldest_at_ns = whole(oldest)
        marks = ", ".join("?" * len(known))
        strange = f"SELECT seq FROM turns WHERE state NOT IN ({marks}) OR typeof(tenant) <> 'text'"  # noqa: S608
        self.strangers = [whole(row[0]) for row in self.connection.execute(strange, known)]

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Commit what the block did, durably; or roll all of it back and pass the error on.

        ``moved`` then has the ledger's terms that changed, those of :meth:`note` left out.
        """
        if self.connection.in_transaction:  # a failing disk kept it from being rolled back
            self.connection.execute("ROLLBACK")
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            moved = self.books.write()
            moved.subtract(self._noted)
            self.connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        self.books.committed()
        self.checkpoints.committed()
        self._undo.clear()
        self._noted.clear()
        self.moved = Counter({term: n for term, n in moved.items() if n})

    def _roll_back(self) -> None:
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()
        self._noted.clear()
        self._recent.clear()
        self._recent_bytes = 0
        self.books.rolled_back()
        self.checkpoints.rolled_back()
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    # Keeping

    def keep(self, record: Record) -> Kept | Shed:
        """Insert a record. A turn id that is here already, or that has ended before, stays as it is."""
        if self.checkpoints.finished_before(record.turn_id):
            return KEPT
        generation = self.checkpoints.generation_of(record.turn_id) or self.books.generation
        frame = self.packer.pack(record.turn_id, record.tenant, record.created_at_ns, record.body)
        shed = self._make_room(record.tenant, len(frame))
        if shed is not None and record.interrupted:
            return shed
        if shed is not None:
            self.books.count(generation, shed.outcome.value)
            self.checkpoints.finish(record.turn_id, self.books.generation)
            return shed
        quarantine = record.quarantine
        row = Row(
            seq=self._next_seq,
            turn_id=record.turn_id,
            tenant=record.tenant,
            created_at_ns=record.created_at_ns,
            state=RowState.QUARANTINED.value if quarantine else RowState.PENDING.value,
            outcome=quarantine.outcome.value if quarantine else "",
            reason=sound(quarantine.reason) if quarantine else "",
            attempts=0,
            due_at_ns=0,
            generation=generation,
            body_bytes=len(record.body),
            stored_bytes=len(frame),
            crc=0,
        ).sealed()
        if self.insert(row, frame):
            self.books.count(generation, quarantine.outcome.value if quarantine else books.SPOOLED)
            if quarantine is None and self._recent_bytes + len(record.body) <= RECENT_BYTES:
                self._recent[row.seq] = record.body
                self._recent_bytes += len(record.body)
        self.checkpoints.finish(record.turn_id, self.books.generation)
        return KEPT

    def insert(self, row: Row, frame: bytes) -> bool:
        """Add a sealed row (its seq new) and its frame. False: the turn id is here already."""
        self.connection.execute(INSERT + " ON CONFLICT(turn_id) DO NOTHING", row)
        if not self.connection.changes():
            return False
        self.connection.execute("INSERT INTO bodies VALUES(?, ?)", (row.seq, frame))
        self._next_seq = row.seq + 1
        pending = row.state == RowState.PENDING
        self.undoable(
            self.usage.change(
                row.tenant,
                waiting=int(pending),
                waiting_bytes=row.body_bytes if pending else 0,
                waiting_stored_bytes=row.stored_bytes if pending else 0,
                pending=int(pending),
                stored_bytes=row.stored_bytes,
            )
        )
        if pending:
            self._became_claimable(row)
        return True

    def _became_claimable(self, row: Row) -> None:
        part = self.usage.of(row.tenant)
        part.oldest_at_ns = min(part.oldest_at_ns or row.created_at_ns, row.created_at_ns)
        if (row.created_at_ns, row.seq) <= self.fresh_after.get(row.tenant, (-1, -1)):
            self.fresh_after.pop(row.tenant, None)

    @property
    def next_seq(self) -> int:
        """The seq that the next inserted row must have."""
        return self._next_seq

    def _make_room(self, tenant: str, stored_bytes: int) -> Shed | None:
        """Apply the quotas in bytes; None when there is room now."""
        usage, settings = self.usage, self.settings
        reason = usage.over_quota(settings, tenant, stored_bytes)
        droppable = settings.full_policy is FullPolicy.DROP_OLDEST
        if reason and droppable and not usage.could_fit(settings, tenant, stored_bytes):
            # To drop what waits would be for nothing.
            reason += f" and the new turn of {stored_bytes} does not fit beside what is never dropped"
        elif reason and droppable:
            self._drop_oldest(tenant, lambda: usage.over_tenant_quota(settings, tenant, stored_bytes))
            self._drop_oldest(None, lambda: usage.over_quota(settings, tenant, stored_bytes))
            reason = usage.over_quota(settings, tenant, stored_bytes)
        return Shed(Outcome.OVER_BUDGET, reason) if reason else None

    def _drop_oldest(self, tenant: str | None, over: Callable[[], str]) -> None:
        """Give up the oldest turns that wait, of one tenant or of all, until there is room."""
        if not over():
            return
        for row in self._oldest_waiting(tenant):
            self.give_up(row, Outcome.OVER_BUDGET)
            if not over():
                return

    def _oldest_waiting(self, tenant: str | None, page: int = 64) -> Iterator[Row]:
        """Unclaimed pending rows, oldest first, of one tenant or of all."""
        after = 0
        where = " WHERE state = 'pending' AND seq > ?" + ("" if tenant is None else " AND tenant = ?")
        while True:
            bindings = (after,) if tenant is None else (after, tenant)
            rows = self.rows(SELECT + where + " ORDER BY seq LIMIT 64", bindings)
            yield from (row for row in rows if row.seq not in self.claimed)
            if len(rows) < page:
                return
            after = rows[-1].seq

    # Settling

    def acknowledge(self, seqs: Sequence[int]) -> None:
        """Delete delivered turns. One that is gone already, or that nobody claimed, is left as it is."""
        for seq in seqs:
            row = self.settle(seq)
            if row is not None:
                self.delete(row)
                self.books.count(row.generation, books.SPOOLED, -1)
                self.books.count(row.generation, books.DELIVERED)

    def release(self, seqs: Sequence[int]) -> None:
        """Give claimed turns back as they were."""
        for seq in seqs:
            row = self.settle(seq)
            if row is not None:
                self.waits_again(row)

    def retry(self, seq: int, at_ns: int, number: int, attempt: str) -> None:
        """Put a claimed turn off until ``at_ns``, with the attempt that failed (JSON)."""
        row = self.settle(seq)
        if row is None:
            return
        self._record_attempt(seq, number, attempt)
        later = row._replace(attempts=number, due_at_ns=min(max(1, at_ns), _LARGEST_INTEGER))
        self.rewrite(later)
        self.waits_again(later)

    def dead_letter(self, seq: int, outcome: Outcome, reason: str, number: int, attempt: str) -> None:
        """Keep a claimed turn that was refused for good."""
        row = self.settle(seq)
        if row is None:
            return
        self._record_attempt(seq, number, attempt)
        self.rewrite(
            row._replace(
                state=RowState.DEAD_LETTER.value,
                outcome=outcome.value,
                reason=sound(reason),
                attempts=number,
            )
        )
        self.undoable(self.usage.change(row.tenant, pending=-1))
        self.books.count(row.generation, books.SPOOLED, -1)
        self.books.count(row.generation, outcome.value)

    def give_up(self, row: Row, outcome: Outcome) -> None:
        """Delete an unclaimed pending turn that quotas no longer allow (``outcome`` is lost)."""
        self.claim(row)
        self.settle(row.seq)
        self.delete(row)
        self.books.count(row.generation, books.SPOOLED, -1)
        self.books.count(row.generation, outcome.value)

    # Rows

    def rows(self, sql: str, bindings: Sequence[Value] = ()) -> list[Row]:
        """Every row of a ``SELECT`` of all columns."""
        return [as_row(values) for values in self.connection.execute(sql, bindings)]

    def row(self, seq: int) -> Row | None:
        """The row, or None."""
        found = self.rows(SELECT + " WHERE seq = ?", (seq,))
        return found[0] if found else None

    def claimed_body(self, row: Row) -> bytes:
        """The payload of a row on its way out; from memory if just kept. Raises :class:`Damaged`."""
        body = self._forget_recent(row.seq)
        return self.body(row) if body is None else body

    def _forget_recent(self, seq: int) -> bytes | None:
        body = self._recent.pop(seq, None)
        if body is not None:
            self._recent_bytes -= len(body)
        return body

    def body(self, row: Row) -> bytes:
        """The payload of a row as the disk has it. Raises :class:`Damaged`."""
        frame = self.frame(row.seq)
        if frame is None:
            raise Damaged("the payload is missing")
        return self.packer.unpack(frame, row.turn_id, row.tenant, row.created_at_ns)

    def frame(self, seq: int) -> bytes | None:
        """The stored bytes under a seq."""
        found = self.connection.execute("SELECT frame FROM bodies WHERE seq = ?", (seq,)).fetchone()
        return found[0] if found is not None and isinstance(found[0], bytes) else None

    def rewrite(self, row: Row) -> None:
        """Write a row's new columns, sealed."""
        self.connection.execute(REPLACE, row.sealed())

    def delete(self, row: Row) -> None:
        """Remove a row that is not waiting, with its payload and attempts."""
        self._forget_recent(row.seq)
        self.connection.execute("DELETE FROM turns WHERE seq = ?", (row.seq,))
        self.connection.execute("DELETE FROM bodies WHERE seq = ?", (row.seq,))
        if row.attempts:
            self.connection.execute("DELETE FROM attempts WHERE seq = ?", (row.seq,))
        pending = -1 if row.state == RowState.PENDING else 0
        self.undoable(self.usage.change(row.tenant, pending=pending, stored_bytes=-row.stored_bytes))

    # Claims, in memory

    def claim(self, row: Row) -> None:
        """Take a waiting row out of the backlog."""
        self.claimed[row.seq] = row
        self.undoable(self._waits(row, -1))
        self.undoable(lambda: self.claimed.pop(row.seq, None))

    def unclaim(self, rows: Sequence[Row]) -> None:
        """Put rows back that were claimed in vain, outside a transaction."""
        for row in rows:
            if self.claimed.pop(row.seq, None) is not None:
                self._waits(row, 1)
                self._became_claimable(row)

    def settle(self, seq: int) -> Row | None:
        """Take a claimed row out of the claims, inside a transaction. None: nobody claimed it."""
        row = self.claimed.pop(seq, None)
        if row is not None:
            claimed = row
            self.undoable(lambda: self.claimed.__setitem__(seq, claimed))
        return row

    def waits_again(self, row: Row) -> None:
        """Count a pending row that nobody claims in the backlog."""
        self.undoable(self._waits(row, 1))
        self._became_claimable(row)

    def _waits(self, row: Row, n: int) -> Callable[[], None]:
        return self.usage.change(
            row.tenant,
            waiting=n,
            waiting_bytes=n * row.body_bytes,
            waiting_stored_bytes=n * row.stored_bytes,
        )

    def undoable(self, undo: Callable[[], object]) -> None:
        """Remember how to take a change in memory back, should the transaction fail."""
        if self.connection.in_transaction:
            self._undo.append(undo)

    def _record_attempt(self, seq: int, number: int, attempt: str) -> None:
        self.connection.execute("INSERT OR REPLACE INTO attempts VALUES(?, ?, ?)", (seq, number, attempt))
        self.connection.execute(
            "DELETE FROM attempts WHERE seq = ? AND number <= ?", (seq, number - KEPT_ATTEMPTS)
        )

    # The life of a process

    def resume(self, before: "Store") -> None:
        """Carry on for a store of the same process that was closed: its claims, and seqs it gave away.

        A claim whose row is not here (the files were set aside) is dropped: settling it does nothing.
        """
        self._next_seq = max(self._next_seq, before.next_seq)
        self.checkpoints.taken |= before.checkpoints.taken
        for seq in before.claimed:
            row = self.row(seq)
            if row is not None and row.state == RowState.PENDING:
                self.claim(row)

    def close(self) -> None:
        """Close the connection, without a checkpoint. Never raises."""
        self.closed = True
        with suppress(apsw.Error):
            self.connection.close(force=True)

    def begin(self, generation_id: str, now_ns: int) -> int:
        """Start (or resume) a generation, inside a transaction; returns what the dead ones lost."""
        return self.books.begin(generation_id, now_ns, self.checkpoints.open_by_generation())

    def expire(self, tenant: str, before_ns: int, limit: int) -> int:
        """Give up the tenant's unclaimed turns created before a time; returns how many. At most ``limit``."""
        part = self.usage.of(tenant)
        if not part.pending or part.oldest_at_ns >= before_ns:
            return 0
        sql = SELECT + " WHERE state = 'pending' AND tenant = ? AND created_at_ns < ? LIMIT ?"
        rows = self.rows(sql, (tenant, before_ns, limit + len(self.claimed)))
        for row in rows:
            if row.seq not in self.claimed:
                self.give_up(row, Outcome.INGEST_TIMEOUT)
        if len(rows) <= limit:
            sql = "SELECT ifnull(min(created_at_ns), 0) FROM turns WHERE state = 'pending' AND tenant = ?"
            part.oldest_at_ns = integer(self.connection, sql, (tenant,))
        return len(rows)

    def note(self, counts: Mapping[str, int]) -> None:
        """Add counts made outside the spool to this generation, inside a transaction."""
        for term, n in counts.items():
            self.books.count(self.books.generation, term, n)
            self._noted[term] += n
