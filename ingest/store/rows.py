"""Values that go into the store and come out of it.

Times are integer microseconds since the epoch, UTC. Bodies are bytes as received,
never decoded JSON: whatever a client sent comes back.
"""

from enum import StrEnum, unique
from typing import Final

from msgspec import Struct

MOST: Final = (1 << 53) - 1
"""What sums of tokens stop at: every reader of JSON still reads it exactly, and no engine overflows."""


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


class SessionRow(Struct, kw_only=True):
    """A session as stored. ``placeholder``: named as a parent, without a turn of its own yet."""

    tenant: str
    id: str
    harness_id: str
    harness_session_id: str
    placeholder: int = 0
    auth_subject: str = ""
    harness_version: str = ""
    cwd: str = ""
    name: str = ""
    parent_id: str = ""
    metadata: str = "{}"
    label: str = ""
    first_at_us: int
    last_at_us: int
    first_seq: int
    last_seq: int
    turns: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0


class RunRow(Struct, kw_only=True):
    """A run as stored."""

    tenant: str
    id: str
    session_id: str
    thread_id: str
    agent_name: str
    kind: str
    status: str
    label: str
    first_at_us: int
    last_at_us: int
    first_seq: int
    last_seq: int
    steps: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0


class StepRow(Struct, frozen=True, kw_only=True):
    """A step as stored."""

    seq: int
    tenant: str
    session_id: str
    run_id: str
    agent_name: str
    provider: str
    model: str
    received_at_us: int
    kind: str
    operation: str
    status: str
    result: str
    stop_reason: str
    leaf: bytes | None
    duration_ns: int
    label: str
    excerpt: str
    tool_calls: int
    input_tokens: int | None
    output_tokens: int | None
    total_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None


class UsageRow(Struct, kw_only=True):
    """Token totals of one day; what a provider did not say counts as nothing."""

    tenant: str
    day: str
    provider: str
    model: str
    agent_name: str
    session_id: str
    turns: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0


class UsageDayRow(Struct):
    """Token totals of one day over all sessions."""

    tenant: str
    day: str
    provider: str
    model: str
    agent_name: str
    turns: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0


COUNTS: Final = UsageDayRow.__struct_fields__[5:]
"""What is added up."""


class NodeDetail(Struct, frozen=True):
    """A node with its content: ``content`` is the JSON list of its blocks."""

    hash: str
    parent: str
    role: str
    on_spine: bool
    provider: str
    model: str
    agent_name: str
    content: bytes


@unique
class Became(StrEnum):
    """What a turn that no longer waits has become: the status of its ``turn`` event."""

    DERIVED = "derived"
    """What follows from it is stored: a session, and for a call a step and its run."""
    FAILED = "failed"
    """It could not be derived."""
    REJECTED = "rejected"
    """It was refused, and kept as it came."""


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that happened, without any body.

    ``kind`` is turn, step_update, run_update, finalize or delete, or ``gap`` (:mod:`ingest.events`).
    ``again``: the turn was derived before, and whoever listened then was told the same.
    """

    kind: str
    tenant: str
    session_id: str = ""
    run_id: str = ""
    turn_id: str = ""
    seq: int = 0
    status: str = ""
    turns: int = 0
    again: bool = False
