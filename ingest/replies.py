"""Answers as JSON, and the wire types of the answers (OpenAPI is made from them)."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct
from starlette.responses import Response

from ingest.store.connection import BusyError, StoreError
from ingest_client import payload

_ENCODER: Final = msgspec.json.Encoder()
ACTIONS: Final = {
    400: "correct the envelope; the same body will be refused again",
    401: "send Authorization: Bearer <key>, or show a client certificate that a key names",
    403: "use a credential that is good for this tenant",
    404: "check the identifier and the tenant of the credential",
    408: "send the body faster, or over a better line; it was not read to its end",
    413: "make the body smaller; it will be refused again",
    422: "correct the turn and send it again, under the same id if you like; this one was kept as rejected",
    429: "wait as long as Retry-After says, then send it again",
    500: "send it again after a while; if it is refused again, the log of the service says why",
    502: "send it again after a while",
    503: "send it again after a while",
}
"""What the caller can do about each status."""
_HEADERS: Final = {401: {"www-authenticate": "Bearer"}}
_RETRY_AFTER: Final = {429: "1", 502: "1", 503: "2"}


class PostedMeta(payload.Meta, kw_only=True, omit_defaults=True):
    """What a sidecar tells of an exchange, and what is taken beside it.

    ``project`` is the deployment's or the turn's own tag; without it the service's setting counts.
    """

    project: str = ""
    upstream_request_id: str = ""


class PostedTurn(payload.TurnPayload, kw_only=True, omit_defaults=True):
    """A turn: what a sidecar posts, with all that is understood of ``meta``."""

    meta: PostedMeta  # pyright: ignore[reportIncompatibleVariableOverride] -- described, never assigned


class Batch(Struct, frozen=True):
    """Several turns."""

    turns: Annotated[list[PostedTurn], Meta(min_length=1, max_length=1000)]


class TranscriptSession(Struct, frozen=True, omit_defaults=True):
    """The session of a transcript: as on a turn, but it must be named."""

    harness_session_id: Annotated[str, Meta(min_length=1)]
    harness_id: str = ""
    auth_subject: str = ""


class TranscriptPayload(Struct, frozen=True, omit_defaults=True):
    """A harness's own record of a session."""

    session: TranscriptSession
    records: list[object]
    agent_id: str = ""
    agent_type: str = ""
    description: str = ""
    tool_use_id: str = ""
    kind: Literal["", "interacted"] = ""


class Accepted(Struct, frozen=True):
    """A turn is stored for good."""

    status: str = "accepted"


class BatchResult(Struct, frozen=True):
    """What became of one turn of a batch.

    ``id`` is the turn's own request id, as posted; ``turn_id`` the stored turn's.
    ``status`` and ``error`` are those that the turn alone would have been answered with.
    """

    index: int
    id: str
    turn_id: str
    status: int
    error: str


class BatchAnswer(Struct, frozen=True):
    """What became of the turns of a batch. ``errors`` has the text of every refusal."""

    accepted: int
    rejected: int
    errors: list[str]
    results: list[BatchResult]


class TranscriptAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A transcript is stored for good; ``deduped``: it was already."""

    status: Literal["accepted"]
    deduped: bool
    records: int
    agent_id: str = ""


class Refusal(Struct, frozen=True):
    """Why not, and what to do about it."""

    error: str
    action: str = ""


class Alive(Struct, frozen=True):
    """The process answers."""

    status: str = "ok"


class Preferred(Struct, frozen=True):
    """The batch that suits the service best: a sidecar fills its batches up to either."""

    turns: int
    bytes: int


class Pulse(Struct, frozen=True):
    """The answer to a heartbeat. ``status`` is ``draining`` once the service is leaving."""

    status: Literal["ok", "draining"]
    batch: Preferred


class Readiness(Struct, frozen=True):
    """Whether turns can be stored now, and if not, why."""

    ready: bool
    problems: list[str]


class Deleted(Struct, frozen=True):
    """How many turns are gone, and the time before which they had been received."""

    deleted: int
    before: str


class Requeued(Struct, frozen=True):
    """How many turns wait to be derived."""

    pending: int


class Node(Struct, frozen=True, omit_defaults=True):
    """A node of the Merkle DAG, as the v0.9 list shows it."""

    hash: str
    role: str
    provider: str
    model: str
    agent_name: str = ""


class NodeList(Struct, frozen=True):
    """Newest first; ``count`` is the number of nodes in the list."""

    count: int
    nodes: list[Node]


def told(error: StoreError) -> str:
    """A failure of the store in words for everybody.

    A database's own words name its host and user: they go to the log.
    """
    return str(error) if isinstance(error, BusyError) else "the store is away or full"


def reply(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """``value`` as JSON."""
    return Response(_ENCODER.encode(value), status, headers, "application/json")


def refuse(status: int, error: str, headers: Mapping[str, str] | None = None, action: str = "") -> Response:
    """A refusal that says what to do (by default what its status asks for), and when."""
    extra = _HEADERS.get(status, {}) | dict(headers or {})
    if status in _RETRY_AFTER:
        extra.setdefault("retry-after", _RETRY_AFTER[status])
    return reply(Refusal(error, action or ACTIONS.get(status, "")), status, extra)
