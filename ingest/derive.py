"""What a stored turn becomes: a pure function of its row and its body.

Derivation can be repeated at any time with the same result, whatever the order of the
turns: every name in it is made from content (hashes) or from the turn's own id.
"""

from collections.abc import Mapping
from typing import cast

from msgspec import Struct

from capture import jsontext
from capture.merkle import Node, build_chain
from ingest.store.rows import Body, TurnRow


class Derived(Struct, frozen=True, kw_only=True):
    """Everything that follows from one turn."""

    turn: TurnRow
    session_id: str
    nodes: tuple[Node, ...]


def derive(turn: TurnRow, body: Body) -> Derived:
    """Derive one turn. Raises for what cannot be read; the caller records that."""
    request = jsontext.decode(body.request) if body.request else None
    response = as_object(body.response)
    meta = as_object(body.meta)
    dialect = meta.get("dialect")
    nodes = build_chain(turn.provider, dialect if isinstance(dialect, str) else "", request, response)
    return Derived(turn=turn, session_id=session_key(turn, nodes), nodes=nodes)


def as_object(text: bytes) -> Mapping[str, object]:
    """A JSON object, or an empty one when there is none."""
    value = jsontext.decode(text) if text else None
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}


def session_key(turn: TurnRow, nodes: tuple[Node, ...]) -> str:
    """``<harness>/<session>``; a turn that names none belongs to the session of its first
    message: the first 16 digits of that node's hash (``contracts/wire.md`` §6).
    """
    harness = turn.harness_id or "unknown"
    if harness != "unknown" and turn.harness_session_id:
        return f"{harness}/{turn.harness_session_id}"
    return f"{harness}/{nodes[0].hash[:16] if nodes else turn.id}"
