"""Derived tables: what waits, what is saved, what is read back."""

from collections.abc import Sequence
from typing import Final, cast

import msgspec

from ingest.derive import Derived
from ingest.store.connection import Connection, Value
from ingest.store.packing import pack
from ingest.store.rows import Body, NodeRow, TurnRow
from ingest.store.turns import COLUMNS, NAME_LIMIT, body_of, clean, turn_row

_CONTENT: Final = msgspec.json.Encoder()
_TURN_COLUMNS: Final = COLUMNS.count(",") + 1
_PENDING: Final = (
    "SELECT t."  # noqa: S608 -- constants
    + COLUMNS.replace(", ", ", t.")
    + ", b.request, b.response, b.meta, b.session, b.raw_response, b.raw_response_encoding"
    " FROM pending p JOIN turns t ON t.seq = p.seq JOIN bodies b ON b.seq = p.seq"
    " ORDER BY p.seq LIMIT ?"
)


def pending(connection: Connection, limit: int) -> list[tuple[TurnRow, Body]]:
    """The oldest turns that wait for derivation, with their bodies."""
    return [
        (turn_row(row[:_TURN_COLUMNS]), body_of(row[_TURN_COLUMNS:]))
        for row in connection.run(_PENDING, (limit,))
    ]


def backlog(connection: Connection) -> tuple[int, int]:
    """How many turns wait, and when the oldest of them came (0: none waits)."""
    count, oldest = connection.run("SELECT count(*), min(seq) FROM pending")[0]
    if not count:
        return 0, 0
    rows = connection.run("SELECT received_at_us FROM turns WHERE seq = ?", (oldest,))
    return cast("int", count), cast("int", rows[0][0]) if rows else 0


def save(
    connection: Connection, derived: Sequence[Derived], failures: Sequence[tuple[int, str]] = ()
) -> None:
    """Keep what was derived and why the rest was not; none of them waits any longer."""
    nodes = [row for one in derived for row in _node_rows(one)]
    agents = [row for one in derived for row in _agent_rows(one)]
    sessions = [row for one in derived for row in _session_rows(one)]
    nothing = "ON CONFLICT DO NOTHING"
    connection.run_many(f"INSERT INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) {nothing}", nodes)  # noqa: S608
    connection.run_many(f"INSERT INTO node_agents VALUES (?, ?, ?, ?, ?, ?, ?) {nothing}", agents)  # noqa: S608
    connection.run_many(f"INSERT INTO node_sessions VALUES (?, ?, ?) {nothing}", sessions)  # noqa: S608
    connection.run_many(
        f"INSERT INTO derive_failures VALUES (?, ?) {nothing}",  # noqa: S608
        [(seq, clean(reason)) for seq, reason in failures],
    )
    done = [one.turn.seq for one in derived] + [seq for seq, _ in failures]
    connection.run_many("DELETE FROM pending WHERE seq = ?", [(seq,) for seq in done])


def _node_rows(one: Derived) -> list[tuple[Value, ...]]:
    turn = one.turn
    return [
        (
            turn.tenant,
            bytes.fromhex(node.hash),
            bytes.fromhex(node.parent) if node.parent else None,
            clean(node.role),
            int(node.on_spine),
            turn.provider,
            turn.model,
            turn.agent_name,
            turn.seq,
            place,
            pack(_CONTENT.encode(node.blocks)),
        )
        for place, node in enumerate(one.nodes)
    ]


def _agent_rows(one: Derived) -> list[tuple[Value, ...]]:
    turn = one.turn
    if not turn.agent_name:
        return []
    return [
        (
            turn.tenant,
            turn.agent_name,
            bytes.fromhex(node.hash),
            turn.provider,
            turn.model,
            turn.seq,
            place,
        )
        for place, node in enumerate(one.nodes)
    ]


def _session_rows(one: Derived) -> list[tuple[Value, ...]]:
    session = clean(one.session_id, 2 * NAME_LIMIT)
    return [(one.turn.tenant, session, bytes.fromhex(node.hash)) for node in one.nodes]


def newest_nodes(connection: Connection, tenant: str, agent: str, limit: int) -> list[NodeRow]:
    """Nodes of a tenant, newest first; with ``agent``, those that this agent's turns hold."""
    if agent:
        rows = connection.run(
            "SELECT n.hash, n.role, a.provider, a.model, a.agent_name FROM node_agents a"
            " JOIN nodes n ON n.tenant = a.tenant AND n.hash = a.hash"
            " WHERE a.tenant = ? AND a.agent_name = ? ORDER BY a.seq DESC, a.place DESC LIMIT ?",
            (tenant, clean(agent, NAME_LIMIT), limit),
        )
    else:
        rows = connection.run(
            "SELECT hash, role, provider, model, agent_name FROM nodes"
            " WHERE tenant = ? ORDER BY first_seq DESC, place DESC LIMIT ?",
            (tenant, limit),
        )
    return [
        NodeRow(bytes(cast("bytes", found)).hex(), str(role), str(provider), str(model), str(name))
        for found, role, provider, model, name in rows
    ]
