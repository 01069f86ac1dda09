"""Rows as the API shows them: the wire types of the read surface, and how they are made."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, cast

import msgspec
from msgspec import Raw, Struct

from capture import jsontext
from ingest.derivation.canonical import as_list
from ingest.derivation.steps import Tokens
from ingest.derivation.stored import meta_of, response_of
from ingest.derivation.view import view
from ingest.store.reads import Found
from ingest.store.rows import Body, NodeDetail, RunRow, SessionRow, TurnRow, UsageRow

JsonObject = dict[str, object]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def moment(at_us: int) -> str:
    """A time as RFC 3339 in UTC, cut to milliseconds."""
    return _rfc3339(at_us, "milliseconds")


def exact_moment(at_us: int) -> str:
    """The same to the microsecond: for a time that will be compared."""
    return _rfc3339(at_us, "microseconds")


def _rfc3339(at_us: int, precision: str) -> str:
    at = _EPOCH + timedelta(microseconds=at_us)
    return at.isoformat(timespec=precision).replace("+00:00", "Z")


class TurnItem(Struct, frozen=True, kw_only=True):
    """A turn in a list: no bodies. What follows ``session_id`` is empty until it is derived."""

    id: str
    tenant: str
    project: str
    source: str
    state: str
    reason: str
    request_id: str
    request_id_reused: bool
    provider: str
    model: str
    agent_name: str
    thread_id: str
    received_at: str
    body_bytes: int
    raw_response_dropped: bool
    derived: bool
    session_id: str = ""
    run_id: str = ""
    kind: str = ""
    operation: str = ""
    status: str = ""
    result: str = ""
    stop_reason: str = ""
    node: str = ""
    duration_ms: int = 0
    label: str = ""
    text: str = ""
    tool_calls: int = 0
    usage: Tokens | None = None


class TurnPage(Struct, frozen=True):
    """A page of turns, newest first; ``next`` is the cursor of the page that follows, if any."""

    turns: list[TurnItem]
    next: str | None


class Attempt(Struct, frozen=True):
    """One posting under a request id."""

    id: str
    state: str
    reason: str
    received_at: str
    body_bytes: int


class TurnDetail(Struct, frozen=True, kw_only=True):
    """A turn with its bodies. What was sent is shown as sent; text that is not valid JSON
    for a strict reader (unpaired surrogates, invalid UTF-8) is shown repaired with U+FFFD.
    """

    turn: TurnItem
    canonical: JsonObject
    request: Raw | None
    response: Raw | None
    meta: Raw | None
    session: Raw | None
    raw_response_bytes: int
    raw_response_encoding: str
    attempts: list[Attempt]
    diagnostics: list[object]


class SessionItem(Struct, frozen=True, kw_only=True):
    """A session. ``placeholder``: so far only named as a parent."""

    id: str
    tenant: str
    harness_id: str
    harness_session_id: str
    harness_version: str
    auth_subject: str
    cwd: str
    name: str
    parent_id: str
    metadata: Raw
    label: str
    placeholder: bool
    first_at: str
    last_at: str
    turns: int
    input_tokens: int
    output_tokens: int
    total_tokens: int


class SessionPage(Struct, frozen=True):
    """A page of sessions, the last active first."""

    sessions: list[SessionItem]
    next: str | None


class RunItem(Struct, frozen=True, kw_only=True):
    """A run: the calls of one turn of an agent."""

    id: str
    session_id: str
    thread_id: str
    agent_name: str
    kind: str
    status: str
    label: str
    first_at: str
    last_at: str
    steps: int
    input_tokens: int
    output_tokens: int
    total_tokens: int


class SessionDetail(Struct, frozen=True):
    """A session and a page of its runs."""

    session: SessionItem
    runs: list[RunItem]
    next: str | None


class RunView(Struct, frozen=True):
    """A run and a page of its steps."""

    run: RunItem
    steps: list[TurnItem]
    next: str | None


class NodeItem(Struct, frozen=True, kw_only=True):
    """A node of the Merkle DAG. ``content`` is the list of its blocks."""

    hash: str
    parent: str
    role: str
    on_spine: bool
    provider: str
    model: str
    agent_name: str
    content: Raw


class NodeView(Struct, frozen=True):
    """A node and what came before it, nearest first; ``next`` is the hash to go on from."""

    node: NodeItem
    ancestors: list[NodeItem]
    next: str | None


class UsageItem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Token totals; of the keys, those that were asked for."""

    day: str = ""
    provider: str = ""
    model: str = ""
    agent_name: str = ""
    session_id: str = ""
    turns: int
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int


class UsageList(Struct, frozen=True):
    """A page of token totals of a tenant, in the order of its groups."""

    usage: list[UsageItem]
    next: str | None


def turn_item(found: Found) -> TurnItem:
    """A turn for a list."""
    turn, step = found.turn, found.step
    shown: JsonObject = {name: getattr(turn, name) for name in _SAME_TURN}
    shown["request_id_reused"] = bool(turn.reused)
    shown["received_at"] = moment(turn.received_at_us)
    shown["raw_response_dropped"] = bool(turn.raw_dropped)
    shown["derived"] = step is not None
    if step is not None:
        shown |= {name: getattr(step, name) for name in _SAME_STEP}
        shown["model"] = step.model or turn.model
        shown["node"] = step.leaf.hex() if step.leaf else ""
        shown["duration_ms"] = step.duration_ns // 1_000_000
        shown["text"] = step.excerpt
        shown["usage"] = {name: getattr(step, name) for name in Tokens.__struct_fields__}
    return msgspec.convert(shown, TurnItem)


_SAME_TURN = (
    "id",
    "tenant",
    "project",
    "source",
    "state",
    "reason",
    "request_id",
    "provider",
    "model",
    "agent_name",
    "thread_id",
    "body_bytes",
)
_SAME_STEP = (
    "session_id",
    "run_id",
    "kind",
    "operation",
    "status",
    "result",
    "stop_reason",
    "label",
    "tool_calls",
)


def turn_detail(found: Found, body: Body, attempts: list[TurnRow]) -> TurnDetail:
    """A turn with everything that is kept of it."""
    request = _value(body.request)
    seen = view(found.turn, body, request, _read(response_of, body.response), _read(meta_of, body.meta))
    return TurnDetail(
        turn=turn_item(found),
        canonical=dict(seen),
        request=shown(body.request),
        response=shown(body.response),
        meta=shown(body.meta),
        session=shown(body.session),
        raw_response_bytes=len(body.raw_response),
        raw_response_encoding=body.raw_response_encoding,
        attempts=[
            Attempt(row.id, row.state, row.reason, moment(row.received_at_us), row.body_bytes)
            for row in attempts
        ],
        diagnostics=list(as_list(seen.get("diagnostics"))),
    )


def shown(text: bytes) -> Raw | None:
    """Stored JSON as part of an answer: as sent, repaired where a strict reader would choke,
    and as one string where nobody could read it (numbers of thousands of digits).
    """
    if not text:
        return None
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _repaired(text)
    return Raw(text)


def _repaired(text: bytes) -> Raw:
    try:
        return Raw(msgspec.json.encode(jsontext.decode(text)))
    except (jsontext.JsonError, OverflowError, RecursionError):
        return Raw(msgspec.json.encode(text.decode("utf-8", "replace")))


def _value(text: bytes) -> object:
    """A stored value, or nothing where nobody can read it."""
    try:
        return jsontext.decode(text) if text else None
    except jsontext.JsonError:
        return None


def _read(read: Callable[[bytes], Mapping[str, object]], text: bytes) -> Mapping[str, object]:
    """A stored object, or an empty one where nobody can read it."""
    try:
        return read(text)
    except jsontext.JsonError:
        return {}


def session_item(row: SessionRow) -> SessionItem:
    """A session for a list."""
    return SessionItem(
        **{name: getattr(row, name) for name in _SAME_SESSION},
        metadata=Raw(row.metadata.encode()),
        placeholder=bool(row.placeholder),
        first_at=moment(row.first_at_us),
        last_at=moment(row.last_at_us),
    )


_SAME_SESSION = tuple(
    name
    for name in SessionItem.__struct_fields__
    if name in SessionRow.__struct_fields__ and name not in ("metadata", "placeholder")
)
_SAME_RUN = tuple(name for name in RunItem.__struct_fields__ if name in RunRow.__struct_fields__)


def run_item(row: RunRow) -> RunItem:
    """A run for a list."""
    return RunItem(
        **{name: getattr(row, name) for name in _SAME_RUN},
        first_at=moment(row.first_at_us),
        last_at=moment(row.last_at_us),
    )


def node_item(node: NodeDetail) -> NodeItem:
    """A node with its content."""
    return NodeItem(
        hash=node.hash,
        parent=node.parent,
        role=node.role,
        on_spine=node.on_spine,
        provider=node.provider,
        model=node.model,
        agent_name=node.agent_name,
        content=cast("Raw", shown(node.content)),
    )


def usage_item(row: UsageRow) -> UsageItem:
    """Totals of one group."""
    return UsageItem(**{name: getattr(row, name) for name in UsageItem.__struct_fields__})
