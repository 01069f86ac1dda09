"""Folding the steps of a batch into the rows of sessions, runs and days: pure.

Turns are folded in the order of their sequence numbers, and the newest that says something wins.
A turn that comes out of that order (of several instances, one may commit a lower number later)
fills in what nobody said, and neither replaces what a newer one said nor what another late one did. A
run's agent, kind and label are those of the turn that was derived first; its terminal state is
written once. Deriving everything again puts all of it in order.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, cast

import msgspec

from ingest.derivation.derive import Derived
from ingest.derivation.steps import Status, Step
from ingest.store.rows import COUNTS, MOST, RunRow, SessionRow, TurnRow, UsageDayRow, UsageRow
from ingest.store.turns import NAME_LIMIT, clean

_NEWEST: Final = ("auth_subject", "harness_version", "cwd", "name", "parent_id")
_TOKENS: Final = ("input_tokens", "output_tokens", "total_tokens")
_METADATA: Final = 65_536
"""Bytes of metadata that a session keeps."""


def merge_session(row: SessionRow | None, one: Derived) -> SessionRow:
    """The session's row with one more turn."""
    turn, said = one.turn, one.session
    if row is None or row.placeholder:
        row = _session(turn, said.id, said.harness_id, said.harness_session_id)
    newer = turn.seq >= row.last_seq
    for name in _NEWEST:
        word = clean(getattr(said, name))
        if word and (newer or not getattr(row, name)):
            setattr(row, name, word)
    row.metadata = _merged(row.metadata, said.metadata, newer=newer)
    if said.label and (not row.label or turn.seq < row.first_seq):
        row.label = clean(said.label)
    _span(row, turn)
    if one.step is not None:
        row.turns += 1
        _add(row, one.step)
    return row


def _session(turn: TurnRow, identifier: str, harness_id: str, harness_session_id: str) -> SessionRow:
    return SessionRow(
        tenant=turn.tenant,
        id=identifier,
        harness_id=clean(harness_id, NAME_LIMIT),
        harness_session_id=clean(harness_session_id, NAME_LIMIT),
        first_at_us=turn.received_at_us,
        last_at_us=turn.received_at_us,
        first_seq=turn.seq,
        last_seq=turn.seq,
    )


def _merged(kept: str, said: Mapping[str, object], *, newer: bool) -> str:
    if not said:
        return kept
    try:
        old = cast("dict[str, object]", msgspec.json.decode(kept))
    except msgspec.DecodeError:  # an earlier version replaced NUL in the encoded text, and spoiled some
        old, kept = {}, "{}"
    new = cast("dict[str, object]", _without_nul(said))
    text = msgspec.json.encode({**old, **new} if newer else {**new, **old}).decode()
    return text if len(text) <= _METADATA else kept


def _without_nul(value: object) -> object:
    """A decoded value whose texts PostgreSQL takes. An escape that is spelled out is text, and stays."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [_without_nul(item) for item in cast("list[object]", value)]
    if isinstance(value, Mapping):
        items = cast("Mapping[str, object]", value).items()
        return {name.replace("\0", "\ufffd"): _without_nul(item) for name, item in items}
    return value


def merge_run(row: RunRow | None, turn: TurnRow, session_id: str, step: Step) -> tuple[RunRow, bool]:
    """The run's row with one more step, and whether it has just reached its end."""
    if row is None:
        row = RunRow(
            tenant=turn.tenant,
            id=step.run_id,
            session_id=session_id,
            thread_id=turn.thread_id,
            agent_name=turn.agent_name,
            kind=step.kind.value,
            status=Status.IN_PROGRESS.value,
            label=clean(step.label),
            first_at_us=turn.received_at_us,
            last_at_us=turn.received_at_us,
            first_seq=turn.seq,
            last_seq=turn.seq,
        )
    ends = row.status == Status.IN_PROGRESS and step.run_status is not Status.IN_PROGRESS
    if ends:
        row.status = step.run_status.value
    _span(row, turn)
    row.steps += 1
    _add(row, step)
    return row, ends


def _span(row: SessionRow | RunRow, turn: TurnRow) -> None:
    row.first_at_us = min(row.first_at_us, turn.received_at_us)
    row.last_at_us = max(row.last_at_us, turn.received_at_us)
    row.first_seq = min(row.first_seq, turn.seq)
    row.last_seq = max(row.last_seq, turn.seq)


def _add(row: SessionRow | RunRow, step: Step) -> None:
    for name in _TOKENS:
        setattr(row, name, min(getattr(row, name) + (getattr(step.tokens, name) or 0), MOST))


def usage_of(derived: Iterable[Derived]) -> list[UsageRow]:
    """What the batch adds to each day, model, agent and session."""
    rows: dict[tuple[str, ...], UsageRow] = {}
    for one in derived:
        turn, step = one.turn, one.step
        if step is None:
            continue
        day = datetime.fromtimestamp(turn.received_at_us / 1e6, UTC).date().isoformat()
        key = (
            turn.tenant,
            day,
            turn.provider,
            clean(step.model, NAME_LIMIT),
            turn.agent_name,
            one.session.id,
        )
        row = rows.get(key) or UsageRow(
            tenant=key[0], day=key[1], provider=key[2], model=key[3], agent_name=key[4], session_id=key[5]
        )
        row.turns += 1
        for name in step.tokens.__struct_fields__:
            setattr(row, name, min(getattr(row, name) + (getattr(step.tokens, name) or 0), MOST))
        rows[key] = row
    return [rows[key] for key in sorted(rows)]


def by_day(rows: Iterable[UsageRow]) -> list[UsageDayRow]:
    """The same without sessions."""
    days: dict[tuple[str, ...], UsageDayRow] = {}
    for row in rows:
        key = (row.tenant, row.day, row.provider, row.model, row.agent_name)
        day = days.setdefault(key, UsageDayRow(*key))
        for name in COUNTS:
            setattr(day, name, min(getattr(day, name) + getattr(row, name), MOST))
    return list(days.values())
