"""Putting records right: rows whose check failed, and what a person sends on its way again.

Each runs inside a transaction of the store.
"""

from capture.outcomes import Outcome
from ingest_client.spool import books
from ingest_client.spool.record import Damaged
from ingest_client.spool.rows import Row, RowState
from ingest_client.spool.sql import sound
from ingest_client.spool.store import Store


def mend(store: Store, row: Row, reason: str) -> bool:
    """Deal with a claimed (or strange) row whose check failed. True: its payload is whole, so only the
    row was wrong, and it is pending again as if never tried. False: it is damaged, and lost.
    """
    try:
        body = store.body(row)
    except Damaged:
        _set_aside(store, row, reason)
        return False
    if row.state != RowState.PENDING:
        store.undoable(store.usage.change(row.tenant, pending=1))
        if row.outcome in books.TERMS:
            store.books.count(row.generation, row.outcome, -1)
            store.books.count(row.generation, books.SPOOLED)
    store.settle(row.seq)
    pending = _as_if_new(row)._replace(body_bytes=len(body))
    store.rewrite(pending)
    store.waits_again(pending)
    return True


def requeue(store: Store, row: Row, body: bytes | None = None) -> None:
    """Make a dead letter or quarantined record pending, as if never tried. ``body`` replaces its own."""
    pending = _as_if_new(row)
    if body is not None:
        frame = store.packer.pack(row.turn_id, row.tenant, row.created_at_ns, body)
        store.connection.execute("INSERT OR REPLACE INTO bodies VALUES(?, ?)", (row.seq, frame))
        store.undoable(store.usage.change(row.tenant, stored_bytes=len(frame) - row.stored_bytes))
        pending = pending._replace(body_bytes=len(body), stored_bytes=len(frame))
    store.rewrite(pending)
    store.undoable(store.usage.change(row.tenant, pending=1))
    store.waits_again(pending)
    store.books.count(row.generation, row.outcome, -1)
    store.books.count(row.generation, books.SPOOLED)


def _as_if_new(row: Row) -> Row:
    """The row as one that was never tried."""
    return row._replace(state=RowState.PENDING.value, outcome="", reason="", attempts=0, due_at_ns=0)


def _set_aside(store: Store, row: Row, reason: str) -> None:
    """Mark a row whose payload is not what was written: lost, its bytes kept for a person."""
    if row.state == RowState.PENDING:
        store.settle(row.seq)
        store.undoable(store.usage.change(row.tenant, pending=-1))
    known = row.state != RowState.PENDING and row.outcome in books.TERMS
    store.books.count(row.generation, row.outcome if known else books.SPOOLED, -1)
    store.books.count(row.generation, Outcome.VOLUME_DISCARDED.value)
    store.rewrite(
        row._replace(
            state=RowState.DAMAGED.value, outcome=Outcome.VOLUME_DISCARDED.value, reason=sound(reason)
        )
    )
