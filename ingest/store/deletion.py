"""Deletion and retention: turns and everything that was made of them, and the record of it.

A deletion is bounded by the time it was asked for first: a retry after a crash, or a job
that runs twice, never removes what came later. Derived rows are not edited but dropped
with their session and made again from the turns that stay, so nothing of a deleted turn
survives in them.
"""

from collections.abc import Sequence
from typing import Final, cast

from msgspec import Struct, structs

from ingest.store import reads
from ingest.store.connection import Connection, Purpose, Value
from ingest.store.derived import announce
from ingest.store.rows import COUNTS, Event
from ingest.store.schema import DERIVED
from ingest.store.turns import clean

BATCH: Final = 500
"""Turns of one transaction: other writers get their turn in between."""


class Scope(Struct, frozen=True, kw_only=True):
    """What to delete: turns of ``tenant`` received before ``before_us``, of one session if
    ``session_id`` is given, in one state if ``state`` is.
    """

    tenant: str
    before_us: int
    session_id: str = ""
    harness: tuple[str, str] | None = None
    """Harness and session as the transcripts of ``session_id`` name them."""
    state: str = ""

    def words(self) -> str:
        """For the audit."""
        return f"before_us={self.before_us} session={self.session_id} state={self.state}"


def named(connection: Connection, scope: Scope) -> Scope:
    """The scope with what transcripts call its session."""
    row = reads.session(connection, scope.tenant, scope.session_id) if scope.session_id else None
    return structs.replace(scope, harness=(row.harness_id, row.harness_session_id)) if row else scope


def _chosen(connection: Connection, scope: Scope) -> list[int]:
    conditions = ["t.tenant = ?", "t.received_at_us < ?"]
    values: list[Value] = [scope.tenant, scope.before_us]
    if scope.state:
        conditions.append("t.state = ?")
        values.append(scope.state)
    if scope.session_id:
        conditions.append(
            "(s.session_id = ? OR t.source = 'transcript' AND t.harness_id = ? AND t.harness_session_id = ?)"
        )
        values += [scope.session_id, *(scope.harness or ("", ""))]
    sql = (
        "SELECT t.seq FROM turns t LEFT JOIN steps s ON s.seq = t.seq"  # noqa: S608 -- constants
        f" WHERE {' AND '.join(conditions)} ORDER BY t.received_at_us LIMIT ?"
    )
    return [cast("int", row[0]) for row in connection.run(sql, (*values, BATCH))]


def delete_some(connection: Connection, scope: Scope, who: str, now_us: int) -> tuple[int, list[Event]]:
    """Delete up to :data:`BATCH` turns of ``scope``: how many, and what happened. Call until 0."""
    connection.alone(Purpose.DERIVE)
    seqs = _chosen(connection, scope)
    if not seqs:
        return 0, []
    sessions = set(_ids(connection, "SELECT DISTINCT session_id FROM steps WHERE seq IN", seqs))
    sessions |= {scope.session_id} if scope.session_id else set()
    for table in ("bodies", "pending", "derive_failures"):
        _each(connection, f"DELETE FROM {table} WHERE seq = ?", seqs)  # noqa: S608 -- constants
    for session in sorted(sessions):
        _forget_session(connection, scope.tenant, session)
    _each(connection, "DELETE FROM turns WHERE seq = ?", seqs)
    connection.run(
        "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)",
        (now_us, clean(who), "delete", scope.tenant, clean(scope.words()), len(seqs)),
    )
    events = [
        Event(kind="delete", tenant=scope.tenant, session_id=session, turns=len(seqs))
        for session in sorted(sessions) or [""]
    ]
    announce(connection, events)
    return len(seqs), events


def _each(connection: Connection, sql: str, seqs: Sequence[int]) -> None:
    connection.run_many(sql, [(seq,) for seq in seqs])


def _ids(connection: Connection, sql: str, seqs: Sequence[int]) -> list[str]:
    marks = ", ".join("?" * len(seqs))
    return [str(row[0]) for row in connection.run(f"{sql} ({marks})", seqs)]


_SUBTRACT: Final = (
    "UPDATE usage_days SET "  # noqa: S608 -- constants
    + ", ".join(
        f"{name} = CASE WHEN u.{name} > usage_days.{name} THEN 0 ELSE usage_days.{name} - u.{name} END"
        for name in COUNTS
    )
    + " FROM usage u WHERE u.tenant = ? AND u.session_id = ? AND usage_days.tenant = u.tenant"
    " AND usage_days.day = u.day AND usage_days.provider = u.provider AND usage_days.model = u.model"
    " AND usage_days.agent_name = u.agent_name"
)
"""A session has one row of usage for a day, provider, model and agent. Sums that stopped at their
bound do not go below 0."""
_DROP_EMPTY: Final = (
    "DELETE FROM usage_days WHERE tenant = ? AND turns = 0 AND (day, provider, model, agent_name) IN"
    " (SELECT day, provider, model, agent_name FROM usage WHERE tenant = ? AND session_id = ?)"
)


def _forget_session(connection: Connection, tenant: str, session: str) -> None:
    """Drop what was derived of a session, and let its turns (those that stay) be derived again."""
    values: tuple[Value, ...] = (tenant, session)
    of = "WHERE tenant = ? AND session_id = ?"
    connection.run(
        f"INSERT INTO pending SELECT seq FROM steps {of} AND seq IN (SELECT seq FROM bodies)"  # noqa: S608 -- constants
        " ON CONFLICT DO NOTHING",
        values,
    )
    connection.run(
        "DELETE FROM node_agents WHERE tenant = ?"  # noqa: S608 -- constants
        f" AND agent_name IN (SELECT agent_name FROM steps {of})"
        f" AND hash IN (SELECT hash FROM node_sessions {of})"
        " AND NOT EXISTS (SELECT 1 FROM node_sessions o JOIN steps s ON s.tenant = o.tenant"
        " AND s.session_id = o.session_id WHERE o.tenant = node_agents.tenant AND o.hash = node_agents.hash"
        " AND o.session_id <> ? AND s.agent_name = node_agents.agent_name)",
        (tenant, *values, *values, session),
    )
    connection.run(
        "DELETE FROM nodes WHERE tenant = ?"  # noqa: S608 -- constants
        f" AND hash IN (SELECT hash FROM node_sessions {of})"
        " AND NOT EXISTS (SELECT 1 FROM node_sessions o WHERE o.tenant = nodes.tenant"
        " AND o.hash = nodes.hash AND o.session_id <> ?)",
        (tenant, *values, session),
    )
    connection.run(
        f"UPDATE nodes SET agent_name = '' WHERE tenant = ? AND first_seq IN (SELECT seq FROM steps {of})",  # noqa: S608 -- constants
        (tenant, *values),
    )
    connection.run(_SUBTRACT, values)
    connection.run(_DROP_EMPTY, (tenant, *values))
    for table in ("node_sessions", "runs", "usage", "steps"):
        connection.run(f"DELETE FROM {table} {of}", values)  # noqa: S608 -- constants
    connection.run("DELETE FROM sessions WHERE tenant = ? AND id = ?", values)


def requeue_all(connection: Connection) -> int:
    """Drop everything derived and derive every accepted turn again; how many."""
    connection.alone(Purpose.DERIVE)
    for table in DERIVED:
        connection.run(f"DELETE FROM {table}")  # noqa: S608 -- constants
    connection.run("DELETE FROM derive_failures")
    connection.run(
        "INSERT INTO pending SELECT seq FROM turns WHERE state = 'accepted' ON CONFLICT DO NOTHING"
    )
    return cast("int", connection.run("SELECT count(*) FROM pending")[0][0])
