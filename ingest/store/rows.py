"""Values that go into the store and come out of it.

Times are integer microseconds since the epoch, UTC. Bodies are bytes as received,
never decoded JSON: whatever a client sent comes back.
"""

from enum import StrEnum, unique

from msgspec import Struct


@unique
class Source(StrEnum):
    """Where a turn came from."""

    WIRE = "wire"
    TRANSCRIPT = "transcript"


@unique
class State(StrEnum):
    """Whether the turn was acknowledged (202) or kept although it was refused (422)."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"


class Body(Struct, frozen=True, kw_only=True):
    """The heavy part of a turn. JSON texts; ``raw_response`` is the upstream's bytes, under its coding."""

    request: bytes = b""
    response: bytes = b""
    meta: bytes = b"{}"
    session: bytes = b""
    raw_response: bytes = b""
    raw_response_encoding: str = ""

    @property
    def size(self) -> int:
        """Bytes held."""
        return (
            len(self.request)
            + len(self.response)
            + len(self.meta)
            + len(self.session)
            + len(self.raw_response)
        )


class NewTurn(Struct, frozen=True, kw_only=True):
    """A turn to be stored.

    ``id`` is ours (UUIDv7). ``key`` is what makes it idempotent within its tenant
    (``Idempotency-Key`` or ``meta.request_id``), empty for none; ``strict``: the key came
    as a header, so one key is one turn. ``digest`` identifies the posted body.
    ``raw_dropped``: the upstream's bytes existed and are not kept.
    """

    id: str
    tenant: str
    project: str = ""
    source: Source = Source.WIRE
    state: State = State.ACCEPTED
    reason: str = ""
    key: str = ""
    strict: bool = False
    digest: bytes
    provider: str = ""
    agent_name: str = ""
    model: str = ""
    harness_id: str = ""
    harness_session_id: str = ""
    thread_id: str = ""
    received_at_us: int
    body_bytes: int
    raw_dropped: bool = False
    body: Body


@unique
class Fate(StrEnum):
    """What became of a turn that was put."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    """The same key and the same body are there already."""
    CONFLICT = "conflict"
    """A strict key is there already with another body: kept as rejected."""


class Put(Struct, frozen=True):
    """The answer to one put. ``id`` is the stored turn's (of the first one, for a duplicate).

    ``reused``: stored, although another body came under the same request id before.
    """

    fate: Fate
    id: str
    reused: bool = False


class TurnRow(Struct, frozen=True, kw_only=True):
    """A stored turn without its body. ``seq`` orders turns; it is never reused."""

    seq: int
    id: str
    tenant: str
    project: str
    source: str
    state: str
    reason: str
    request_id: str
    reused: int
    provider: str
    agent_name: str
    model: str
    harness_id: str
    harness_session_id: str
    thread_id: str
    received_at_us: int
    body_bytes: int
    raw_dropped: int


class NodeRow(Struct, frozen=True):
    """A node as the v0.9 list shows it."""

    hash: str
    role: str
    provider: str
    model: str
    agent_name: str
