"""Derived tables: what waits, what is saved, what is read back."""

from collections.abc import Sequence
from typing import Final, cast

import msgspec
from msgspec import Struct, structs

from ingest.derivation.derive import Derived
from ingest.derivation.sessions import Session
from ingest.derivation.steps import EXCERPT, Step
from ingest.store import nodes, placeholders, tables
from ingest.store.connection import Connection, Purpose, Row
from ingest.store.merge import by_day, merge_run, merge_session, usage_of
from ingest.store.rows import COUNTS, MOST, Became, Body, Event, RunRow, SessionRow, State, StepRow, TurnRow
from ingest.store.turns import NAME_LIMIT, body_of, clean

_EVENTS_AT_ONCE: Final = 10
"""Events of one notification: PostgreSQL takes less than 8,000 bytes."""
_NOTHING: Final = "DO NOTHING"
_REPLACING_SESSION: Final = tables.replacing(SessionRow, "tenant", "id")
_REPLACING_RUN: Final = tables.replacing(RunRow, "tenant", "id")


def _adding(table: str, *key: str) -> str:
    """The ON CONFLICT clause that adds the counts up, to :data:`MOST` at most."""
    sums = [
        f"{name} = CASE WHEN {table}.{name} > {MOST} - excluded.{name} THEN {MOST}"
        f" ELSE {table}.{name} + excluded.{name} END"
        for name in COUNTS
    ]
    return f"({', '.join(key)}) DO UPDATE SET {', '.join(sums)}"


_DAY_KEY: Final = ("tenant", "day", "provider", "model", "agent_name")
_ADDING: Final = _adding("usage", *_DAY_KEY, "session_id")
_ADDING_DAYS: Final = _adding("usage_days", *_DAY_KEY)
_PENDING: Final = (
    f"SELECT {tables.columns(TurnRow, 't.')} FROM pending p JOIN turns t ON t.seq = p.seq"  # noqa: S608 -- constants
    " ORDER BY p.seq LIMIT ?"
)
_BODIES: Final = f"SELECT seq, {tables.columns(Body)} FROM bodies WHERE seq IN"  # noqa: S608 -- constants
_WAITING: Final = (
    "SELECT p.seq, a.seq FROM pending p LEFT JOIN derive_again a ON a.seq = p.seq WHERE p.seq IN"
)
_BATCH_BYTES: Final = 8 * 1024 * 1024
"""Bodies of a batch, as posted: what is derived of them takes several times that."""


class LostBodyError(Exception):
    """The turn has no body: a damaged store, or somebody's hand."""


class Waiting(Struct, frozen=True):
    """A turn that waits. Its body is packed, because a batch of them unpacked would be large."""

    turn: TurnRow
    packed: Row | None

    def body(self) -> Body:
        """What is derived from. Raises whatever a damaged body provokes."""
        if self.packed is None:
            raise LostBodyError("its body is gone")
        return body_of(self.packed)


def pending(connection: Connection, limit: int) -> list[Waiting]:
    """The oldest turns that wait: few where they are large, and with their bodies but for rejected ones."""
    found: list[TurnRow] = []
    size = 0
    for row in connection.run(_PENDING, (limit,)):
        turn = tables.load(TurnRow, row)
        size += turn.body_bytes if turn.state == State.ACCEPTED else 0
        if found and size > _BATCH_BYTES:
            break
        found.append(turn)
    bodies = {
        row[0]: row[1:]
        for marks, chunk in tables.chunks([turn.seq for turn in found if turn.state == State.ACCEPTED])
        for row in connection.run(f"{_BODIES} ({marks})", chunk)
    }
    return [Waiting(turn, bodies.get(turn.seq)) for turn in found]


def newest_pending(connection: Connection) -> int:
    """The sequence number of the newest turn that waits; 0 for none."""
    return cast("int", connection.run("SELECT COALESCE(max(seq), 0) FROM pending")[0][0])


def waits(connection: Connection, newest: int) -> bool:
    """Whether a turn waits that is no newer than ``newest``."""
    return bool(connection.run("SELECT 1 FROM pending WHERE seq <= ? LIMIT 1", (newest,)))


def backlog(connection: Connection) -> tuple[int, int]:
    """How many turns wait, and when the oldest of them came (0: none waits)."""
    count, oldest = connection.run("SELECT count(*), min(seq) FROM pending")[0]
    if not count:
        return 0, 0
    rows = connection.run("SELECT received_at_us FROM turns WHERE seq = ?", (oldest,))
    return cast("int", count), cast("int", rows[0][0]) if rows else 0


def save(
    connection: Connection,
    derived: Sequence[Derived],
    failures: Sequence[tuple[int, str]] = (),
    refused: Sequence[TurnRow] = (),
) -> list[Event]:
    """Keep what was derived and why the rest was not; none of them waits any longer, nor do ``refused`` ones.

    Turns that were deleted while they were being derived are left out. Returns what happened.
    """
    connection.alone(Purpose.DERIVE)
    seqs = [one.turn.seq for one in derived] + [seq for seq, _ in failures] + [turn.seq for turn in refused]
    waiting = _still_waiting(connection, seqs)
    derived = [one for one in derived if one.turn.seq in waiting]
    failures = [(seq, reason) for seq, reason in failures if seq in waiting]
    events = _told(connection, derived, [seq for seq, _ in failures])
    events += [_turn_event(turn, Became.REJECTED) for turn in refused if turn.seq in waiting]
    nodes.save(connection, [(one.turn, one.session.id, one.nodes) for one in derived])
    _save_sessions(connection, derived)
    events += _save_runs(connection, derived)
    tables.insert(connection, "steps", [_step_row(one, one.step) for one in derived if one.step], _NOTHING)
    usage = usage_of(derived)
    tables.insert(connection, "usage", usage, _ADDING)
    tables.insert(connection, "usage_days", by_day(usage), _ADDING_DAYS)
    reasons = [(seq, clean(reason)) for seq, reason in failures]
    tables.put_rows(connection, "derive_failures", reasons, _NOTHING)
    _release(connection, "pending", list(waiting))
    _release(connection, "derive_again", [seq for seq, again in waiting.items() if again])
    events = [structs.replace(event, again=True) if waiting[event.seq] else event for event in events]
    announce(connection, events)
    return events


def announce(connection: Connection, events: Sequence[Event]) -> None:
    """Tell every instance, with the commit."""
    starts = range(0, len(events), _EVENTS_AT_ONCE)
    payloads = [msgspec.json.encode(events[start : start + _EVENTS_AT_ONCE]) for start in starts]
    if payloads:
        connection.notify([payload.decode() for payload in payloads])


def _still_waiting(connection: Connection, seqs: Sequence[int]) -> dict[int, bool]:
    """Which of ``seqs`` wait, and whether they were derived before."""
    return {
        cast("int", seq): again is not None
        for marks, chunk in tables.chunks(seqs)
        for seq, again in connection.run(f"{_WAITING} ({marks})", chunk)
    }


def _release(connection: Connection, table: str, seqs: Sequence[int]) -> None:
    for marks, chunk in tables.chunks(seqs):
        connection.run(f"DELETE FROM {table} WHERE seq IN ({marks})", chunk)  # noqa: S608 -- constants


def _told(connection: Connection, derived: Sequence[Derived], failed: Sequence[int]) -> list[Event]:
    """That these turns wait no longer."""
    events = [_turn_event(one.turn, Became.DERIVED, one.session.id) for one in derived]
    for marks, chunk in tables.chunks(failed):
        sql = f"SELECT {tables.columns(TurnRow)} FROM turns WHERE seq IN ({marks})"  # noqa: S608 -- constants
        rows = connection.run(sql, chunk)
        events += [_turn_event(tables.load(TurnRow, row), Became.FAILED) for row in rows]
    return events


def _turn_event(turn: TurnRow, became: Became, session: str = "") -> Event:
    return Event(
        kind="turn",
        tenant=turn.tenant,
        session_id=session,
        turn_id=turn.id,
        seq=turn.seq,
        status=became.value,
    )


def _by_tenant(derived: Sequence[Derived]) -> dict[str, list[Derived]]:
    found: dict[str, list[Derived]] = {}
    for one in derived:
        found.setdefault(one.turn.tenant, []).append(one)
    return found


def _save_sessions(connection: Connection, derived: Sequence[Derived]) -> None:
    for tenant, ones in _by_tenant(derived).items():
        rows = tables.fetch(connection, "sessions", SessionRow, tenant, {one.session.id for one in ones})
        before = {row.id: row.parent_id for row in rows.values()}
        said: dict[str, Session] = {}
        for one in ones:
            rows[one.session.id] = merge_session(rows.get(one.session.id), one)
            said[one.session.parent_id] = one.session
        tables.insert(connection, "sessions", list(rows.values()), _REPLACING_SESSION)
        children = [(row, said[row.parent_id]) for row in rows.values() if row.parent_id in said]
        placeholders.add(
            connection,
            [
                (row, clean(one.harness_id, NAME_LIMIT), clean(one.parent_harness_session_id, NAME_LIMIT))
                for row, one in children
                if row.parent_id
            ],
        )
        left = {old for name, old in before.items() if old and old != rows[name].parent_id}
        if left:
            placeholders.refresh(connection, tenant, left)


def _save_runs(connection: Connection, derived: Sequence[Derived]) -> list[Event]:
    events: list[Event] = []
    for tenant, ones in _by_tenant(derived).items():
        steps = [(one, one.step) for one in ones if one.step]
        rows = tables.fetch(connection, "runs", RunRow, tenant, {step.run_id for _, step in steps})
        for one, step in steps:
            row, ends = merge_run(rows.get(step.run_id), one.turn, one.session.id, step)
            rows[row.id] = row
            events += _events(one, step, row, ends=ends)
        tables.insert(connection, "runs", list(rows.values()), _REPLACING_RUN)
    return events


def _events(one: Derived, step: Step, run: RunRow, *, ends: bool) -> list[Event]:
    def event(kind: str, status: str) -> Event:
        return Event(
            kind=kind,
            tenant=one.turn.tenant,
            session_id=one.session.id,
            run_id=run.id,
            turn_id=one.turn.id,
            seq=one.turn.seq,
            status=status,
        )

    happened = [event("step_update", step.status), event("run_update", run.status)]
    return [*happened, event("finalize", run.status)] if ends else happened


def _step_row(one: Derived, step: Step) -> StepRow:
    turn = one.turn
    return StepRow(
        seq=turn.seq,
        tenant=turn.tenant,
        session_id=one.session.id,
        run_id=step.run_id,
        agent_name=turn.agent_name,
        provider=turn.provider,
        model=clean(step.model, NAME_LIMIT),
        received_at_us=turn.received_at_us,
        kind=step.kind.value,
        operation=step.operation,
        status=step.status.value,
        result=clean(step.result),
        stop_reason=clean(step.stop_reason),
        leaf=bytes.fromhex(step.leaf) if step.leaf else None,
        duration_ns=step.duration_ns,
        label=clean(step.label),
        excerpt=clean(step.text, EXCERPT),
        tool_calls=step.tool_calls,
        **structs.asdict(step.tokens),
    )
