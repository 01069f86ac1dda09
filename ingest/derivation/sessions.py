"""Which session a turn belongs to, and what it says about that session.

A turn that names no session, or no harness, belongs to the session of its first message:
the first 16 digits of that node's hash (``contracts/wire.md`` §6). So every turn has one.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import cast

from msgspec import Struct

from capture.merkle import Node
from ingest.store.rows import TurnRow
from ingest.store.turns import name_of

UNKNOWN = "unknown"


class Session(Struct, frozen=True, kw_only=True):
    """What one turn says about its session; empty texts say nothing."""

    id: str
    harness_id: str
    harness_session_id: str
    auth_subject: str = ""
    harness_version: str = ""
    cwd: str = ""
    name: str = ""
    parent_id: str = ""
    parent_harness_session_id: str = ""
    metadata: Mapping[str, object] = {}
    label: str = ""


def session_id(tenant: str, harness_id: str, harness_session_id: str) -> str:
    """The public id of a session: the same words give the same id, on every engine."""
    words = f"{tenant}\0{harness_id}\0{harness_session_id}"
    return sha256(words.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def session_of(turn: TurnRow, envelope: Mapping[str, object], nodes: Sequence[Node], label: str) -> Session:
    """The session of a turn."""
    harness = turn.harness_id or UNKNOWN
    named = turn.harness_session_id if harness != UNKNOWN else ""
    key = named or (nodes[0].hash[:16] if nodes else turn.id)
    parent = name_of(_text(envelope, "parent_harness_session_id"))
    return Session(
        id=session_id(turn.tenant, harness, key),
        harness_id=harness,
        harness_session_id=key,
        auth_subject=_text(envelope, "auth_subject"),
        harness_version=_text(envelope, "harness_version"),
        cwd=_text(envelope, "cwd"),
        name=_text(envelope, "name"),
        parent_id=session_id(turn.tenant, harness, parent) if parent else "",
        parent_harness_session_id=parent,
        metadata=_metadata(envelope),
        label=label,
    )


def _text(envelope: Mapping[str, object], name: str) -> str:
    value = envelope.get(name)
    return value if isinstance(value, str) else ""


def _metadata(envelope: Mapping[str, object]) -> Mapping[str, object]:
    """The metadata object; null is none (the reference stores it and spoils the column)."""
    value = envelope.get("harness_metadata")
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}
