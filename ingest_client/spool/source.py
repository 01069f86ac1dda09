"""What can be read of another spool's files: whole ones through SQLite, damaged ones around the damage."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, TypeVar

import apsw

from ingest_client.spool.books import TERMS, Life
from ingest_client.spool.record import row_crc
from ingest_client.spool.rows import SELECT, Row, as_row
from ingest_client.spool.sql import Connection, Value, integer, whole

T = TypeVar("T")

BATCH_ROWS: Final = 64
BATCH_BYTES: Final = 1 << 20
"""What one transaction of taking over moves: little enough not to hold up the turns of the day."""

_BLIND_STEPS: Final = 500
"""How many seqs are tried one by one behind a page that cannot be read, in one step."""

_FURTHEST: Final = 10_000
"""How far behind the last readable row others are looked for when the end itself cannot be read: about
three times what hangs on one inner page."""


class Snapshot(NamedTuple):
    """A row of ``checkpoints``."""

    turn_id: Value
    tenant: Value
    started_at_ns: Value
    heartbeat_at_ns: Value
    status: Value
    generation: Value
    frame: Value


class Found(NamedTuple):
    """A row with what belongs to it. ``frame`` is None when it cannot be read."""

    row: Row
    frame: bytes | None
    attempts: tuple[tuple[int, str], ...]


@dataclass(slots=True)
class Source:
    """A spool to be taken over. Damage is passed over and counted in ``errors``."""

    connection: Connection
    close: Callable[[], None]
    errors: int = 0
    _last: int = -1
    _guessed: bool = False

    def lives(self) -> dict[int, Life]:
        """Its generations, as far as they can be read."""
        lives: dict[int, Life] = {}
        for values in self._all("SELECT number, id, started_at_ns, ended_at_ns, ending FROM generations"):
            number, name, started, ended, ending = values
            if isinstance(number, int) and isinstance(name, str):
                lives[number] = Life(name, whole(started), whole(ended), str(ending))
        return lives

    def terms(self) -> tuple[dict[tuple[int, str], int], set[int]]:
        """Its ledger, and the generations whose counters are damaged."""
        terms: dict[tuple[int, str], int] = {}
        damaged: set[int] = set()
        for generation, term, n, crc in self._all("SELECT generation, term, n, crc FROM ledger"):
            if crc == row_crc(generation, term, n) and term in TERMS:
                terms[whole(generation), str(term)] = whole(n)
            else:
                damaged.add(whole(generation))
        return terms, damaged

    def checkpoints(self) -> Iterator[Snapshot]:
        """Its snapshots of open exchanges, one by one: all of them may be more than the memory holds."""
        sql = f"SELECT {', '.join(Snapshot._fields)} FROM checkpoints"  # noqa: S608 - names of our own
        cursor = self._try(lambda: self.connection.execute(sql))
        while cursor is not None:
            values = self._try(cursor.fetchone)
            if values is None:
                return
            yield Snapshot(*values)

    def absorbed(self) -> list[tuple[str, int]]:
        """How far it had itself taken over others."""
        return [(str(name), whole(upto)) for name, upto in self._all("SELECT source, upto_seq FROM absorbed")]

    def batch(self, after: int) -> tuple[list[Found], int, bool]:
        """The next rows behind a seq, up to which seq they were looked for, and whether there are more.

        A row whose own checksum fails is given too, but its seq leads nowhere.
        """
        rows, upto = self._scan(after)
        if rows is None:
            rows, upto = self._grope(after)
        found: list[Found] = []
        size = 0
        for row in rows:
            frame = self.frame(row.seq)
            size += len(frame or b"")
            found.append(Found(row, frame, self._attempts(row)))
            if size >= BATCH_BYTES and row.intact:
                return found, row.seq, True
        return found, upto, upto < self.last_seq()

    def _scan(self, after: int) -> tuple[list[Row] | None, int]:
        """Rows in order; None where a page on the way cannot be read."""
        values = self._try(
            lambda: self.connection.execute(
                SELECT + " WHERE seq > ? ORDER BY seq LIMIT ?", (after, BATCH_ROWS)
            ).fetchall()
        )
        if values is None:
            return None, after
        rows = [as_row(row) for row in values]
        if len(rows) < BATCH_ROWS:
            return rows, max(self.last_seq(), after)
        return rows, max((row.seq for row in rows if row.intact and row.seq > after), default=after + 1)

    def _grope(self, after: int) -> tuple[list[Row], int]:
        """Seq by seq, where scanning fails: what lies on other pages is still found."""
        rows: list[Row] = []
        upto = min(after + _BLIND_STEPS, max(self.last_seq(), after + 1))
        for seq in range(after + 1, upto + 1):
            values = self._try(partial(self._row, seq))
            if values is not None:
                rows.append(as_row(values))
                if self._guessed:
                    self._last = max(self._last, seq + _FURTHEST)
            if len(rows) >= BATCH_ROWS:
                return rows, seq
        return rows, upto

    def _row(self, seq: int) -> tuple[Value, ...] | None:
        return self.connection.execute(SELECT + " WHERE seq = ?", (seq,)).fetchone()

    def frame(self, seq: int) -> bytes | None:
        """The stored payload of a row, or None where it is missing or cannot be read."""
        found = self._try(
            lambda: self.connection.execute("SELECT frame FROM bodies WHERE seq = ?", (seq,)).fetchone()
        )
        return found[0] if found is not None and isinstance(found[0], bytes) else None

    def last_seq(self) -> int:
        """The highest seq; a guess where the end cannot be read."""
        if self._last < 0:
            found = self._try(lambda: integer(self.connection, "SELECT ifnull(max(seq), 0) FROM turns"))
            self._guessed = found is None
            self._last = self._first() + _FURTHEST if found is None else found
        return self._last

    def _first(self) -> int:
        return self._try(lambda: integer(self.connection, "SELECT ifnull(min(seq), 0) FROM turns")) or 0

    def _attempts(self, row: Row) -> tuple[tuple[int, str], ...]:
        if row.attempts == 0:
            return ()
        found = self._try(
            lambda: self.connection.execute(
                "SELECT number, record FROM attempts WHERE seq = ?", (row.seq,)
            ).fetchall()
        )
        return tuple((whole(number), str(record)) for number, record in found or ())

    def _all(self, statement: str) -> list[tuple[Value, ...]]:
        """Every row that comes before the first that cannot be read."""
        rows: list[tuple[Value, ...]] = []

        def read() -> None:
            rows.extend(iter(self.connection.execute(statement)))

        self._try(read)
        return rows

    def _try(self, read: Callable[[], T]) -> T | None:
        """None where SQLite cannot read, which is what a damaged file is expected to give."""
        try:
            return read()
        except (apsw.Error, UnicodeDecodeError, MemoryError, OverflowError):
            self.errors += 1
            return None
