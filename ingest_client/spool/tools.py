"""What a person may do to a spool: look, requeue, take out, remove, check. Runs on the spool's thread.

Every operation works in small pages, each given the place where the last one ended, so a
running sidecar is never held up. Arguments and answers are JSON values: they also
travel over the control socket.
"""

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from capture.outcomes import Outcome
from ingest_client.spool import books, mending
from ingest_client.spool.desk import Desk
from ingest_client.spool.record import Damaged
from ingest_client.spool.rows import SELECT, Row, RowState
from ingest_client.spool.sql import Value, integer, whole

Json = dict[str, object]

PAGE_ROWS: Final = 200
PAGE_BYTES: Final = 4 << 20
PAGE_S: Final = 0.02
"""A page ends after so many rows or bytes, or when it has held the thread for so long."""


class ToolError(Exception):
    """The operation cannot be done as asked; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which records, behind ``after`` (a seq): any of ``states`` (all if empty); of ``tenant``, of
    ``turn_ids`` and created before ``before_ns`` where given.
    """

    states: tuple[str, ...] = ()
    tenant: str | None = None
    turn_ids: tuple[str, ...] | None = None
    before_ns: int | None = None
    after: int = 0

    def where(self) -> tuple[str, list[Value]]:
        """The condition, and its bindings."""
        terms = ["seq > ?"]
        values: list[Value] = [self.after]
        for column, chosen in (("state", self.states or None), ("turn_id", self.turn_ids)):
            if chosen is not None:
                terms.append(f"{column} IN ({', '.join('?' * len(chosen))})")
                values += chosen
        if self.tenant is not None:
            terms.append("tenant = ?")
            values.append(self.tenant)
        if self.before_ns is not None:
            terms.append("created_at_ns < ?")
            values.append(self.before_ns)
        return " AND ".join(terms), values


def count(desk: Desk, selection: Selection) -> Json:
    """How many records the selection has."""
    where, values = selection.where()
    sql = f"SELECT count(*) FROM turns WHERE {where}"  # noqa: S608 - our own terms
    return {"count": integer(desk.store.connection, sql, values)}


def listing(desk: Desk, selection: Selection) -> Json:
    """A page of records without their bodies."""
    rows, after = _page(desk, selection)
    return {"records": [_facts(row) for row in rows], "next": after}


def export(desk: Desk, selection: Selection) -> Json:
    """A page of records with bodies and attempts."""
    rows, after = _page(desk, selection)
    records: list[Json] = []
    size = 0
    for row in rows:
        records.append(_whole_record(desk, row))
        size += row.body_bytes
        if size > PAGE_BYTES:
            after = row.seq
            break
    return {"records": records, "next": after}


def show(desk: Desk, selection: Selection) -> Json:
    """The one record of a turn id, whole."""
    rows, _ = _page(desk, selection)
    return {"records": [_whole_record(desk, row) for row in rows], "next": None}


def requeue(desk: Desk, selection: Selection, body: str | None = None) -> Json:
    """Make a page of dead letters and quarantined records pending. Inside a transaction.

    A record whose body is no turn that ingest could take is refused, with the reason.
    """
    rows, after = _page(desk, selection)
    done: list[str] = []
    refused: list[Json] = []
    for row in rows:
        why = _not_deliverable(desk, row, body)
        if why:
            refused.append({"turn_id": row.turn_id, "reason": why})
        else:
            mending.requeue(desk.store, row, body.encode() if body is not None else None)
            done.append(row.turn_id)
    return {"requeued": done, "refused": refused, "next": after}


def purge(desk: Desk, selection: Selection) -> Json:
    """Remove a page of records for good. Inside a transaction. Pending ones count as lost."""
    rows, after = _page(desk, selection)
    removed = 0
    for row in rows:
        if row.state != RowState.PENDING:
            desk.store.delete(row)
        elif row.seq in desk.store.claimed:
            continue
        else:
            desk.store.give_up(row, Outcome.VOLUME_DISCARDED)
        removed += 1
    return {"purged": removed, "next": after}


def verify(desk: Desk, selection: Selection) -> Json:
    """Check a page of records against their checksums; set damaged ones aside. Inside a transaction."""
    rows, after = _page(desk, selection)
    damaged: list[Json] = []
    mended: list[str] = []
    known = 0
    for row in rows:
        if row.state == RowState.DAMAGED or row.seq in desk.store.claimed:
            known += row.state == RowState.DAMAGED
            continue
        reason = _damage(desk, row)
        if not reason:
            continue
        if row.state == RowState.PENDING:
            desk.store.claim(row)
        if mending.mend(desk.store, row, reason):
            mended.append(row.turn_id)
        else:
            damaged.append({"turn_id": row.turn_id, "seq": row.seq, "reason": reason})
    return {
        "checked": len(rows),
        "damaged": damaged,
        "mended": mended,
        "already_set_aside": known,
        "next": after,
    }


def check_books(desk: Desk, _selection: Selection) -> Json:
    """Count rows against counters and indexes: what must be equal, and is not."""
    store = desk.store
    problems: list[str] = []
    desk.claimer.check_index()
    rows = {
        whole(generation): whole(n)
        for generation, n in store.connection.execute(
            "SELECT generation, count(*) FROM turns WHERE state = 'pending' GROUP BY generation"
        )
    }
    for generation in {*store.books.lives, *rows}:
        terms = store.books.of(generation)
        there = rows.get(generation, 0)
        if terms[books.SPOOLED] != there:
            problems.append(
                f"generation {generation}: {there} pending turns, {terms[books.SPOOLED]} in the books"
            )
        problems += [f"generation {generation}: {term} is {n}" for term, n in terms.items() if n < 0]
    orphans = integer(
        store.connection, "SELECT count(*) FROM bodies WHERE seq NOT IN (SELECT seq FROM turns)"
    )
    if orphans:
        problems.append(f"{orphans} payloads belong to no turn")
    return {"problems": problems}


def ledger(desk: Desk, _selection: Selection) -> Json:
    """The balance, in sum and of every generation."""
    store = desk.store
    generations = [
        {
            "id": life.id,
            "started_at_ns": life.started_at_ns,
            "ended_at_ns": life.ended_at_ns,
            "ending": life.ending,
            "open": books.still_open(store.books.of(number)),
            **store.books.of(number),
        }
        for number, life in sorted(store.books.lives.items())
    ]
    totals = store.books.totals()
    return {"total": {"open": books.still_open(totals), **totals}, "generations": generations}


def summary(desk: Desk, _selection: Selection) -> Json:
    """Records and bytes by state and tenant."""
    found = desk.store.connection.execute(
        "SELECT state, tenant, count(*), sum(body_bytes), sum(stored_bytes), min(created_at_ns)"
        " FROM turns GROUP BY state, tenant"
    )
    return {
        "groups": [
            {
                "state": str(state),
                "tenant": str(tenant),
                "turns": n,
                "body_bytes": body_bytes,
                "stored_bytes": stored_bytes,
                "oldest_at_ns": oldest,
            }
            for state, tenant, n, body_bytes, stored_bytes, oldest in found
        ]
    }


READS: Final[dict[str, Callable[[Desk, Selection], Json]]] = {
    "count": count,
    "list": listing,
    "show": show,
    "export": export,
    "check_books": check_books,
    "ledger": ledger,
    "summary": summary,
}
"""Operations that change nothing."""

WRITES: Final[dict[str, Callable[[Desk, Selection], Json]]] = {"purge": purge, "verify": verify}
"""Operations that run inside a transaction. ``requeue`` is the third: it may bring a body."""


OPERATIONS: Final = frozenset({*READS, *WRITES, "requeue"})


def run(desk: Desk, operation: str, selection: Selection, body: str | None = None) -> Json:
    """Run one of the :data:`OPERATIONS`; those not in ``READS`` inside a transaction of the caller's."""
    if operation == "requeue":
        return requeue(desk, selection, body)
    return (READS | WRITES)[operation](desk, selection)


def _page(desk: Desk, selection: Selection) -> tuple[list[Row], int | None]:
    """The next rows, and where the page after them begins; None when there is none."""
    until = time.monotonic() + PAGE_S
    where, values = selection.where()
    rows = desk.store.rows(f"{SELECT} WHERE {where} ORDER BY seq LIMIT {PAGE_ROWS}", values)
    size = 0
    for number, row in enumerate(rows, 1):
        size += row.stored_bytes
        if size > PAGE_BYTES or time.monotonic() > until:
            return rows[:number], row.seq
    return rows, rows[-1].seq if len(rows) == PAGE_ROWS else None


def _facts(row: Row) -> Json:
    return {
        "turn_id": row.turn_id,
        "tenant": row.tenant,
        "created_at_ns": row.created_at_ns,
        "state": row.state,
        "outcome": row.outcome or None,
        "reason": row.reason or None,
        "attempts": row.attempts,
        "due_at_ns": row.due_at_ns or None,
        "body_bytes": row.body_bytes,
    }


def _whole_record(desk: Desk, row: Row) -> Json:
    """The record with its attempts and its body: as JSON text, or base64 where it is none."""
    facts = _facts(row)
    facts["attempts"] = [
        msgspec.json.decode(str(record))
        for (record,) in desk.store.connection.execute(
            "SELECT record FROM attempts WHERE seq = ? ORDER BY number", (row.seq,)
        )
    ]
    try:
        body = desk.store.body(row)
    except Damaged as damage:
        return facts | {"damaged": str(damage), "frame_base64": _base64(desk.store.frame(row.seq) or b"")}
    try:
        msgspec.json.decode(body)
        return facts | {"body": body.decode()}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return facts | {"body_base64": _base64(body)}


def _not_deliverable(desk: Desk, row: Row, body: str | None) -> str:
    """Why requeueing the record would be in vain; empty when it would not."""
    if row.state not in (RowState.DEAD_LETTER, RowState.QUARANTINED):
        return f"it is {row.state}"
    try:
        payload = msgspec.json.decode(body.encode() if body is not None else desk.store.body(row))
    except Damaged as damage:
        return f"its payload is damaged: {damage}"
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        return f"its body is no JSON ({error}): give a mended one with --body"
    if not isinstance(payload, dict) or "provider" not in payload or "meta" not in payload:
        return "its body is no turn (no provider or no meta): give a mended one with --body"
    return ""


def _damage(desk: Desk, row: Row) -> str:
    if not row.intact:
        return "the row's CRC differs"
    try:
        desk.store.body(row)
    except Damaged as damage:
        return str(damage)
    return ""


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def parse(arguments: Mapping[str, object]) -> Selection:
    """A selection from JSON. Raises :class:`ToolError`."""
    try:
        return msgspec.convert(dict(arguments), Selection)
    except msgspec.ValidationError as error:
        raise ToolError(str(error)) from error


def as_arguments(selection: Selection) -> Json:
    """A selection as JSON."""
    return {
        "states": list(selection.states),
        "tenant": selection.tenant,
        "turn_ids": None if selection.turn_ids is None else list(selection.turn_ids),
        "before_ns": selection.before_ns,
        "after": selection.after,
    }


STATES: Final[Sequence[str]] = [state.value for state in RowState]
