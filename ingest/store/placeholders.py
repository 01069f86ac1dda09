"""Sessions that have no turn (left): they are there because others name them as their parent.

A placeholder is there exactly as long as the row of another session names it and it has no turns of its
own, and its times are those of the first of these: whatever was stored, derived and deleted in which
order, deriving everything again gives the same rows.
"""

from collections.abc import Iterable
from typing import Final

from ingest.store import tables
from ingest.store.connection import Connection
from ingest.store.rows import SessionRow

_CHILDREN: Final = (
    "FROM sessions c WHERE c.tenant = sessions.tenant AND c.parent_id <> '' AND c.parent_id = sessions.id"
    " AND c.id <> sessions.id"
)
_OF: Final = "WHERE tenant = ? AND id = ?"
_EARLIER: Final = ", ".join(
    f"{name} = CASE WHEN excluded.{name} < sessions.{name} THEN excluded.{name} ELSE sessions.{name} END"
    for name in ("first_at_us", "last_at_us", "first_seq")
)
_ADDING: Final = (
    f"(tenant, id) DO UPDATE SET {_EARLIER} WHERE sessions.placeholder = 1"
    " AND (excluded.first_at_us < sessions.first_at_us OR excluded.first_seq < sessions.first_seq)"
)
_EMPTY: Final = SessionRow(
    tenant="", id="", harness_id="", harness_session_id="", placeholder=1,
    first_at_us=0, last_at_us=0, first_seq=0, last_seq=0,
)  # fmt: skip
_SAID: Final = tuple(
    name
    for name in SessionRow.__struct_fields__
    if name
    not in ("tenant", "id", "harness_id", "harness_session_id", "first_at_us", "last_at_us", "first_seq")
)
"""What only a session's own turns say."""
_CLEARED: Final = ", ".join(f"{name} = ?" for name in _SAID)
_LEAVE: Final = f"UPDATE sessions SET {_CLEARED} {_OF} AND EXISTS (SELECT 1 {_CHILDREN})"  # noqa: S608 -- constants
_DROP: Final = f"DELETE FROM sessions {_OF} AND placeholder = 1 AND NOT EXISTS (SELECT 1 {_CHILDREN})"  # noqa: S608 -- constants
_DATE: Final = (
    f"UPDATE sessions SET first_at_us = (SELECT min(c.first_at_us) {_CHILDREN}),"  # noqa: S608 -- constants
    f" last_at_us = (SELECT min(c.first_at_us) {_CHILDREN}),"
    f" first_seq = (SELECT min(c.first_seq) {_CHILDREN}) {_OF} AND placeholder = 1"
)


def add(connection: Connection, children: Iterable[tuple[SessionRow, str, str]]) -> None:
    """Make sure of the parents of these rows, each with its parent's harness and name."""
    parents: dict[tuple[str, str], SessionRow] = {}
    for child, harness_id, harness_session_id in children:
        row = SessionRow(
            tenant=child.tenant,
            id=child.parent_id,
            harness_id=harness_id,
            harness_session_id=harness_session_id,
            placeholder=1,
            first_at_us=child.first_at_us,
            last_at_us=child.first_at_us,
            first_seq=child.first_seq,
            last_seq=0,  # anything that its own turns say is newer
        )
        known = parents.setdefault((row.tenant, row.id), row)
        known.first_at_us = known.last_at_us = min(known.first_at_us, row.first_at_us)
        known.first_seq = min(known.first_seq, row.first_seq)
    tables.insert(connection, "sessions", list(parents.values()), _ADDING)


def leave(connection: Connection, tenant: str, session: str) -> None:
    """Forget what the turns of a session said: it stays as a placeholder if another names it, or goes."""
    connection.run(_LEAVE, (*(getattr(_EMPTY, name) for name in _SAID), tenant, session))
    connection.run(f"DELETE FROM sessions {_OF} AND placeholder = 0", (tenant, session))  # noqa: S608 -- constants


def refresh(connection: Connection, tenant: str, ids: Iterable[str]) -> None:
    """Drop those of ``ids`` that are placeholders which nobody names any more, and date the others anew."""
    named = [(tenant, identifier) for identifier in sorted(ids)]
    connection.run_many(_DROP, named)
    connection.run_many(_DATE, named)
