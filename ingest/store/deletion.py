"""Deletion and retention: turns and everything that was made of them, and the record of it.

A deletion is bounded by the time it was asked for first: a retry after a crash, or a job
that runs twice, never removes what came later. Derived rows are not edited but dropped
with their session and made again from the turns that stay. Two things are edited instead,
because making them again would touch every session: the totals of days, and the nodes that
other sessions share, which keep provider, model and place in the list of whoever brought
them first until everything is derived again.

A session is chosen by what its turns say: harness and session, whatever became of them
(derived, failed, waiting, rejected, transcripts). Turns that name none are in the session
of their first message, which only derivation knows; :func:`undecided` counts those that wait.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final, cast

from msgspec import Struct, structs

from ingest.derivation.sessions import UNKNOWN, session_id, session_of
from ingest.store import placeholders, reads, tables
from ingest.store.connection import Connection, Purpose, Value
from ingest.store.derived import announce
from ingest.store.rows import COUNTS, Event, Source, State, TurnRow
from ingest.store.schema import DERIVED
from ingest.store.turns import clean

BATCH: Final = 500
"""Turns of one transaction: other writers get their turn in between."""
_NO_HARNESS: Final = ("", UNKNOWN)


class Scope(Struct, frozen=True, kw_only=True):
    """What to delete: turns of ``tenant`` received before ``before_us``, of one session if
    ``session_id`` is given, in one state if ``state`` is.
    """

    tenant: str
    before_us: int
    session_id: str = ""
    harness: tuple[str, str] | None = None
    """Harness and session as the turns of ``session_id`` name them, if they name any (:func:`named`)."""
    seqs: tuple[int, ...] = ()
    """The turns of ``session_id``, if they name none (:func:`named`)."""
    state: str = ""

    def words(self) -> str:
        """For the audit."""
        return f"before_us={self.before_us} session={self.session_id} state={self.state}"


def named(connection: Connection, scope: Scope) -> Scope:
    """The scope with what tells the turns of its session."""
    if not scope.session_id:
        return scope
    row = reads.session(connection, scope.tenant, scope.session_id)
    harness = (row.harness_id, row.harness_session_id) if row else _harness(connection, scope)
    if harness is None or harness[0] == UNKNOWN:
        return structs.replace(scope, seqs=_unnamed(connection, scope, harness[1] if harness else ""))
    return structs.replace(scope, harness=harness)


def _harness(connection: Connection, scope: Scope) -> tuple[str, str] | None:
    """The names behind an id that has no row: of rejected or failed turns, or of a deletion cut off."""
    found = connection.run(
        "SELECT DISTINCT harness_id, harness_session_id FROM turns WHERE tenant = ?", (scope.tenant,)
    )
    pairs = ((str(harness), str(session)) for harness, session in found)
    named_pairs = (pair for pair in pairs if pair[0] not in _NO_HARNESS and pair[1])
    return next((pair for pair in named_pairs if session_id(scope.tenant, *pair) == scope.session_id), None)


def _unnamed(connection: Connection, scope: Scope, key: str) -> tuple[int, ...]:
    """The turns of a session that they do not name: by their steps, or the one that is its only turn."""
    found = connection.run(
        "SELECT seq FROM steps WHERE tenant = ? AND session_id = ? AND received_at_us < ?"
        " UNION SELECT seq FROM turns WHERE tenant = ? AND id = ? AND received_at_us < ?",
        (scope.tenant, scope.session_id, scope.before_us, scope.tenant, key, scope.before_us),
    )
    return tuple(sorted(cast("int", row[0]) for row in found)) if scope.state != State.REJECTED else ()


def undecided(connection: Connection, scope: Scope) -> int:
    """How many turns wait that may turn out to be of the scope's session: 0 where turns name it."""
    if not scope.session_id or named(connection, scope).harness is not None:
        return 0
    rows = connection.run(
        "SELECT count(*) FROM pending p JOIN turns t ON t.seq = p.seq WHERE t.tenant = ?"
        " AND t.state = 'accepted' AND t.received_at_us < ?"
        " AND (t.harness_id IN (?, ?) OR t.harness_session_id = '')",
        (scope.tenant, scope.before_us, *_NO_HARNESS),
    )
    return cast("int", rows[0][0])


def _chosen(connection: Connection, scope: Scope) -> list[int]:
    if scope.session_id and scope.harness is None:
        return _still_there(connection, scope.seqs)
    conditions = ["tenant = ?", "received_at_us < ?"]
    values: list[Value] = [scope.tenant, scope.before_us]
    if scope.state:
        conditions.append("state = ?")
        values.append(scope.state)
    if scope.harness is not None:
        conditions.append("harness_id = ? AND harness_session_id = ?")
        values += scope.harness
    sql = (
        "SELECT seq FROM turns"  # noqa: S608 -- constants
        f" WHERE {' AND '.join(conditions)} ORDER BY received_at_us LIMIT ?"
    )
    return [cast("int", row[0]) for row in connection.run(sql, (*values, BATCH))]


def _still_there(connection: Connection, seqs: Sequence[int]) -> list[int]:
    """The first of ``seqs`` that are stored."""
    found: list[int] = []
    for marks, chunk in tables.chunks(seqs):
        rows = connection.run(f"SELECT seq FROM turns WHERE seq IN ({marks}) ORDER BY seq", chunk)  # noqa: S608 -- question marks
        found += [cast("int", row[0]) for row in rows]
        if len(found) >= BATCH:
            break
    return found[:BATCH]


def _sessions_of(connection: Connection, seqs: Sequence[int]) -> tuple[Counter[str], set[str]]:
    """How many of these turns each session has, "" none; and the sessions that something was derived of."""
    counts: Counter[str] = Counter()
    derived: set[str] = set()
    for marks, chunk in tables.chunks(seqs):
        steps = connection.run(f"SELECT session_id FROM steps WHERE seq IN ({marks})", chunk)  # noqa: S608 -- question marks
        counts.update(str(row[0]) for row in steps)
        sql = (
            f"SELECT {tables.columns(TurnRow)} FROM turns WHERE seq IN ({marks})"  # noqa: S608 -- constants
            " AND NOT EXISTS (SELECT 1 FROM steps s WHERE s.seq = turns.seq)"
        )
        stepless = [tables.load(TurnRow, row) for row in connection.run(sql, chunk)]
        counts.update(_stepless_session(turn) for turn in stepless)
        derived |= {_stepless_session(turn) for turn in stepless if turn.state == State.ACCEPTED}
        derived |= {str(row[0]) for row in steps}
    return counts, derived - {""}


def _stepless_session(turn: TurnRow) -> str:
    """The session of a turn without a step: what it names, or for a transcript its own; else unknown."""
    named = turn.harness_id not in _NO_HARNESS and turn.harness_session_id
    return session_of(turn, {}, (), "").id if named or turn.source == Source.TRANSCRIPT else ""


def _parents(connection: Connection, tenant: str, sessions: set[str]) -> set[str]:
    """The sessions that ``sessions`` name as their parents."""
    found: set[str] = set()
    for marks, chunk in tables.chunks(sorted(sessions)):
        sql = f"SELECT parent_id FROM sessions WHERE tenant = ? AND parent_id <> '' AND id IN ({marks})"  # noqa: S608 -- question marks
        found |= {str(row[0]) for row in connection.run(sql, (tenant, *chunk))}
    return found


def delete_some(connection: Connection, scope: Scope, who: str, now_us: int) -> tuple[int, list[Event]]:
    """Delete up to :data:`BATCH` turns of ``scope``: how many, and what happened. Call until 0."""
    connection.alone(Purpose.DERIVE)
    seqs = _chosen(connection, scope)
    if not seqs:
        return 0, []
    counts, sessions = _sessions_of(connection, seqs)
    for table in ("bodies", "pending", "derive_again", "derive_failures"):
        _each(connection, f"DELETE FROM {table} WHERE seq = ?", seqs)  # noqa: S608 -- constants
    parents = _parents(connection, scope.tenant, sessions)
    for session in sorted(sessions):
        forget_session(connection, scope.tenant, session)
    placeholders.refresh(connection, scope.tenant, sessions | parents)
    _each(connection, "DELETE FROM turns WHERE seq = ?", seqs)
    connection.run(
        "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)",
        (now_us, clean(who), "delete", scope.tenant, clean(scope.words()), len(seqs)),
    )
    events = [
        Event(kind="delete", tenant=scope.tenant, session_id=session, turns=counts[session])
        for session in sorted(counts)
    ]
    announce(connection, events)
    return len(seqs), events


def _each(connection: Connection, sql: str, seqs: Sequence[int]) -> None:
    connection.run_many(sql, [(seq,) for seq in seqs])


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
    " (SELECT day, provider, model, agent_name FROM usage WHERE tenant = ? AND session_id = ? AND turns > 0)"
)
"""That there are turns says nothing new: without it SQLite would read the whole key for the session."""

_TRANSCRIPTS: Final = (
    "SELECT t.seq FROM sessions s CROSS JOIN turns t WHERE t.tenant = s.tenant"
    " AND t.harness_id = s.harness_id AND t.harness_session_id = s.harness_session_id"
    " AND s.tenant = ? AND s.id = ? AND t.source = 'transcript' AND t.state = 'accepted'"
    " AND t.seq IN (SELECT seq FROM bodies)"
)
"""They have no steps."""
_KEEP_AN_AGENT: Final = (
    "UPDATE nodes SET agent_name = COALESCE((SELECT o.agent_name FROM node_sessions o"
    " WHERE o.tenant = nodes.tenant AND o.hash = nodes.hash AND o.session_id <> ? AND o.agent_name <> ''"
    " LIMIT 1), '') WHERE tenant = ? AND agent_name <> ''"
    " AND first_seq IN (SELECT seq FROM steps WHERE tenant = ? AND session_id = ?)"
)
"""A node that others share lists one of their agents, any of them."""


def forget_session(connection: Connection, tenant: str, session: str) -> None:
    """Drop what was derived of a session, and let its turns (those that stay) be derived again."""
    values: tuple[Value, ...] = (tenant, session)
    of = "WHERE tenant = ? AND session_id = ?"
    _requeue(connection, f"SELECT seq FROM steps {of} AND seq IN (SELECT seq FROM bodies)", values)  # noqa: S608 -- constants
    _requeue(connection, _TRANSCRIPTS, values)
    connection.run(
        "DELETE FROM node_agents WHERE tenant = ?"  # noqa: S608 -- constants
        f" AND agent_name IN (SELECT agent_name FROM steps {of})"
        f" AND hash IN (SELECT hash FROM node_sessions {of})"
        " AND NOT EXISTS (SELECT 1 FROM node_sessions o WHERE o.tenant = node_agents.tenant"
        " AND o.hash = node_agents.hash AND o.agent_name = node_agents.agent_name AND o.session_id <> ?)",
        (tenant, *values, *values, session),
    )
    connection.run(
        "DELETE FROM nodes WHERE tenant = ?"  # noqa: S608 -- constants
        f" AND hash IN (SELECT hash FROM node_sessions {of})"
        " AND NOT EXISTS (SELECT 1 FROM node_sessions o WHERE o.tenant = nodes.tenant"
        " AND o.hash = nodes.hash AND o.session_id <> ?)",
        (tenant, *values, session),
    )
    connection.run(_KEEP_AN_AGENT, (session, tenant, *values))
    connection.run(_SUBTRACT, values)
    connection.run(_DROP_EMPTY, (tenant, *values))
    for table in ("node_sessions", "runs", "usage", "steps"):
        connection.run(f"DELETE FROM {table} {of}", values)  # noqa: S608 -- constants
    placeholders.leave(connection, tenant, session)


def _requeue(connection: Connection, seqs: str, values: Sequence[Value] = ()) -> None:
    """Let the turns that a query finds be derived again; those that wait were or were not derived before."""
    waits = "EXISTS (SELECT 1 FROM pending p WHERE p.seq = again.seq)"
    again = f"SELECT seq FROM ({seqs}) again WHERE NOT {waits}"  # noqa: S608 -- constants
    connection.run(f"INSERT INTO derive_again {again} ON CONFLICT DO NOTHING", values)
    connection.run(f"INSERT INTO pending {again} ON CONFLICT DO NOTHING", values)


def requeue_all(connection: Connection) -> int:
    """Drop everything derived and derive every accepted turn again; how many."""
    connection.alone(Purpose.DERIVE)
    for table in DERIVED:
        connection.run(f"DELETE FROM {table}")  # noqa: S608 -- constants
    connection.run("DELETE FROM derive_failures")
    _requeue(connection, "SELECT seq FROM turns WHERE state = 'accepted'")
    return cast("int", connection.run("SELECT count(*) FROM pending")[0][0])
