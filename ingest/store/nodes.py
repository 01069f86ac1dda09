"""Nodes: saved once each, and listed as v0.9 lists them.

The turns of a conversation share all but their last messages, so most nodes of a batch are
repetitions, of each other or of what is stored. Those that their session holds already are left out
before they are encoded. That is known from inserting who holds them, which comes first and needs no
look-up: one of hundreds of hashes took PostgreSQL 40 ms on a new store, because without statistics it
read all nodes of the tenant.
"""

from collections.abc import Sequence
from typing import Final, cast

import msgspec

from capture.merkle import Node
from ingest.store import tables
from ingest.store.connection import Connection, Value
from ingest.store.packing import pack
from ingest.store.rows import NodeRow, TurnRow
from ingest.store.turns import NAME_LIMIT, clean

_CONTENT: Final = msgspec.json.Encoder()
_NOTHING: Final = "DO NOTHING"
_NEW: Final = "DO NOTHING RETURNING tenant, hash"

Chain = tuple[TurnRow, str, Sequence[Node]]
"""A turn, the id of its session, and its nodes."""


def save(connection: Connection, chains: Sequence[Chain]) -> None:
    """Keep the nodes that are new, and who holds which."""
    first: dict[tuple[str, bytes], tuple[TurnRow, int, Node]] = {}
    agents: dict[tuple[str, str, bytes], tuple[Value, ...]] = {}
    sessions: dict[tuple[str, str, bytes, str], None] = {}
    for turn, session, chain in chains:
        for place, node in enumerate(chain):
            name = bytes.fromhex(node.hash)
            first.setdefault((turn.tenant, name), (turn, place, node))
            sessions[turn.tenant, session, name, turn.agent_name] = None
            if turn.agent_name:
                key = (turn.tenant, turn.agent_name, name)
                agents.setdefault(key, (*key, turn.provider, turn.model, turn.seq, place))
    fresh = tables.put_rows(connection, "node_sessions", list(sessions), _NEW)
    fresh_names = {(str(tenant), bytes(cast("bytes", name))) for tenant, name in fresh}
    new = [_row(key[1], *first[key]) for key in first if key in fresh_names]
    tables.put_rows(connection, "nodes", new, _NOTHING)
    tables.put_rows(connection, "node_agents", list(agents.values()), _NOTHING)


def _row(name: bytes, turn: TurnRow, place: int, node: Node) -> tuple[Value, ...]:
    return (
        turn.tenant,
        name,
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


def newest(connection: Connection, tenant: str, agent: str, limit: int) -> list[NodeRow]:
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
