"""From what was captured to the record that is kept: the gates, then the payload.

    Captured → Outcome (excluded or lost: nothing to keep)
             | Record  (a turn, or a quarantined one)

Pure, and the only place where a turn is marshalled. Every gate names its outcome;
the order is the contract's (``behaviour.md`` §4). What cannot be decoded, reduced or
marshalled is quarantined whole with its reason: it is never dropped, and never sent
empty.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, cast

import msgspec
from msgspec import UNSET, Raw, Struct

from capture import jsontext, redact
from capture.canonical import ViewFacts, view
from capture.classify import Classification, settle
from capture.coding import MAX_DECODED_BYTES, CodingError, CodingFailure, decode
from capture.dialects.fold import RequestFacts
from capture.envelope import Session
from capture.http_error import error_turn
from capture.model_family import model_family
from capture.outcomes import Outcome
from capture.reduce import Reduced, ResponseFacts, ResponseReducer, Undecodable
from capture.routes import Kind
from capture.turn import Dialect, Refused, Turn
from capture.wire_response import reduced_response
from extproc import quarantine
from extproc.captured import OK, Captured, Instant, reducer_for
from ingest_client import payload
from ingest_client.payload import MarshalError, Meta, TooLongError, TurnPayload, embed, marshal
from ingest_client.sink import Quarantine, Record

_MODEL_BYTES: Final = 128

MAX_SNAPSHOT_BYTES: Final = 8 << 20
"""Of request and answer. To write down more would hold the loop too long, again and again: such an
exchange is counted, and a crash costs it what came after the last snapshot it had."""


class _Members(Struct):
    """What is read of a request here."""

    stream: object = None
    model: object = None


_MEMBERS: Final = msgspec.json.Decoder(_Members)


@dataclass(frozen=True, slots=True)
class TurnIdentity:
    """Our own name for the turn: a UUIDv7, and the idempotency key all the way."""

    turn_id: str


@dataclass(frozen=True, slots=True)
class _Request:
    """The request, content-decoded. ``value`` is its JSON (None when it is none)."""

    body: bytes
    value: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmade:
    """A turn that could not be made, and why; :func:`quarantined` writes it down for a person. That searches
    all of it for credentials, at some ten megabytes a second.

    ``request``: without its coding, where that could be undone; ``payload``: the turn without its request,
    where it could be written; ``withhold``: write the sizes of bodies and nothing of them.
    """

    outcome: Outcome
    reason: str
    request: bytes | None = None
    payload: bytes | None = None
    withhold: bool = False

    def searched_bytes(self, captured: Captured) -> int:
        """What there is to search."""
        request = captured.request.kept_bytes if self.request is None else len(self.request)
        answer = captured.reducer.decoded_bytes if captured.reducer is not None else 0
        return request + answer + len(captured.error_body) + len(self.payload or b"")


def assemble(captured: Captured, identity: TurnIdentity) -> Record | Outcome:
    """Decide what becomes of a captured exchange that may be a turn."""
    made = attempt(captured, identity)
    return quarantined(captured, identity, made) if isinstance(made, Unmade) else made


def attempt(captured: Captured, identity: TurnIdentity) -> Record | Outcome | Unmade:
    """The same, but what could not be made is not written yet. Call once: it finishes the answer."""
    if captured.request.over_budget:
        return Outcome.REQUEST_OVER_BUDGET
    if captured.classification.kind is Kind.NON_TURN:
        return Outcome.NON_TURN_REQUEST
    try:
        request = _decoded_request(captured)
    except CodingError as error:
        return _request_undecoded(captured, identity, str(error))
    if not captured.request_ended and request.value is None:
        return _request_undecoded(captured, identity, "the response ended before the request did")
    if len(request.body) > captured.policy.request_budget_bytes:
        return Outcome.REQUEST_OVER_BUDGET
    if captured.classification.kind is Kind.AMBIGUOUS:
        captured.classification = settle(captured.classification, request.value)
        if captured.classification.kind is not Kind.TURN:
            return Outcome.NON_TURN_REQUEST
        captured.reducer = reducer_for(captured)
        if captured.reducer is not None:
            captured.reducer.feed(bytes(captured.held))
            captured.reducer.read_out()
            if captured.truncated and not captured.reducer.is_stream:
                return Outcome.OVER_BUDGET
    if not captured.response_bytes and captured.status == OK:
        return Outcome.EMPTY_RESPONSE
    if captured.classification.dialect is None:
        return Outcome.UNKNOWN_PROVIDER
    return _keep(captured, identity, request, captured.classification.dialect)


def _keep(captured: Captured, identity: TurnIdentity, request: _Request, dialect: Dialect) -> Record | Unmade:
    turn = _reduced(captured, dialect)
    if isinstance(turn, Undecodable):
        return Unmade(outcome=Outcome.RESPONSE_DECODE, reason=turn.reason)
    if isinstance(turn, Refused):
        return Unmade(outcome=Outcome.REDUCER_ERROR, reason=turn.reason)
    try:
        body = _marshalled(_payload(captured, identity, request, turn, embed(request.body)))
    except MarshalError as error:
        payload = _without_request(captured, identity, request, turn)
        return Unmade(outcome=Outcome.MARSHAL_ERROR, reason=str(error), request=request.body, payload=payload)
    return Record(
        turn_id=identity.turn_id,
        tenant=captured.policy.tenant,
        body=body,
        created_at_ns=captured.started.wall_ns,
    )


def _marshalled(payload: TurnPayload) -> bytes:
    """The payload's JSON; near an ingest's limit without what repeats the answer. Raises MarshalError."""
    try:
        return marshal(payload)
    except TooLongError:
        payload.meta.canonical = None
        if payload.response is not None:
            payload.response.pop("raw_response", None)
        return marshal(payload)


def _request_undecoded(captured: Captured, identity: TurnIdentity, reason: str) -> Unmade:
    """The answer is reduced all the same: it may be a stream, of which nothing else is kept."""
    dialect = captured.classification.dialect
    turn = _reduced(captured, dialect) if dialect is not None else None
    request = _Request(captured.request.joined(), None)
    if not isinstance(turn, Turn) or not captured.response_bytes:
        return Unmade(outcome=Outcome.REQUEST_DECODE, reason=reason)
    payload = _without_request(captured, identity, request, turn)
    return Unmade(outcome=Outcome.REQUEST_DECODE, reason=reason, request=request.body, payload=payload)


def _without_request(
    captured: Captured, identity: TurnIdentity, request: _Request, turn: Turn
) -> bytes | None:
    """The turn without its request; None where even the answer cannot be written."""
    try:
        return marshal(_payload(captured, identity, request, turn, Raw(b"null")), max_bytes=None)
    except MarshalError:
        return None


def _reduced(captured: Captured, dialect: Dialect) -> Reduced:
    if captured.reducer is None:
        return error_turn(dialect, captured.status or 0, _error_text(captured), captured.response_headers)
    return captured.reducer.finish(captured.ending)


def _error_text(captured: Captured) -> bytes:
    """The error answer with its coding undone as far as that goes: only its start was kept."""
    raw = bytes(captured.error_body)
    try:
        return decode(captured.response_headers.get("content-encoding", ""), raw)[0]
    except CodingError:
        return raw


def _decoded_request(captured: Captured, max_bytes: int = MAX_DECODED_BYTES) -> _Request:
    """Undo the request's coding, to at most ``max_bytes``. A salvaged request is not the client's: refused
    (``behaviour.md`` §3). Raises CodingError.
    """
    raw = captured.request.joined()
    encoding = captured.head.headers.get("content-encoding", "")
    if not raw and not captured.request.received_bytes and not encoding:
        return _Request(b"", None)
    body, truncated = decode(encoding, raw, max_bytes)
    if truncated:
        raise CodingError(CodingFailure.UNDECODABLE, "the request body ends before its coding does")
    return _Request(body, _value(captured, body))


def _value(captured: Captured, body: bytes) -> object:
    """The body's JSON, or None. Only an ambiguous exchange is classified by it: of the others no more
    is built than the members that are read here, and megabytes take milliseconds.
    """
    if captured.classification.kind is not Kind.AMBIGUOUS:
        with suppress(msgspec.MsgspecError, UnicodeError, RecursionError):
            read = _MEMBERS.decode(body)
            return {"stream": read.stream, "model": read.model}
    try:
        return jsontext.decode(body)
    except jsontext.JsonError:
        return None


def snapshot(captured: Captured, identity: TurnIdentity, now: Instant) -> bytes | None:
    """The payload of an exchange that is still open, as it would be if it ended now, marked
    interrupted and partial. None while there is no turn in it yet, or none to be.
    """
    if not captured.request_ended or captured.request.over_budget or not captured.policy.capture:
        return None
    if captured.classification.kind is Kind.NON_TURN:
        return None
    try:
        request = _decoded_request(captured, MAX_SNAPSHOT_BYTES)
    except CodingError:
        return None
    if captured.classification.kind is Kind.AMBIGUOUS:
        captured.classification = settle(captured.classification, request.value)
    found = captured.classification
    if found.kind is not Kind.TURN or found.dialect is None:
        return None
    turn = _reduced_so_far(captured, found.dialect)
    if not isinstance(turn, Turn):
        return None
    try:
        made = _payload(replace(captured, ended=now), identity, request, turn, embed(request.body))
        made.meta.interrupted = made.meta.partial = True
        return marshal(made)
    except MarshalError:
        return None


def _reduced_so_far(captured: Captured, dialect: Dialect) -> Reduced | None:
    """None of an answer that is not reduced as it comes: an error's."""
    if captured.reducer is not None:
        return captured.reducer.snapshot()
    if captured.status is not None:
        return None
    facts = RequestFacts(path=captured.head.path, model=captured.classification.path_model)
    return ResponseReducer(dialect, facts, ResponseFacts()).snapshot()


# -- the payload ----------------------------------------------------------------


def _payload(
    captured: Captured, identity: TurnIdentity, request: _Request, turn: Turn, embedded: Raw
) -> TurnPayload:
    session = captured.envelope.session
    return TurnPayload(
        provider=captured.classification.provider,
        agent_name=captured.envelope.agent_name,
        request=embedded,
        response=_response(captured, turn),
        meta=_meta(captured, identity, request, turn),
        session=UNSET if session is None else _session(session),
    )


def _response(captured: Captured, turn: Turn) -> dict[str, object]:
    response = reduced_response(turn, reduced_at=rfc3339(_ended(captured).wall_ns))
    usage = cast("dict[str, object]", response.setdefault("usage", {}))
    usage["total_duration_ns"] = _ended(captured).monotonic_ns - captured.started.monotonic_ns
    return response


def _meta(captured: Captured, identity: TurnIdentity, request: _Request, turn: Turn) -> Meta:
    found = captured.classification
    stream, model = _stream_and_model(found, request)
    status = captured.status or 0
    facts = ViewFacts(
        provider=found.provider, endpoint=found.endpoint, stream=stream == "true", request_model=model
    )
    return Meta(
        request_id=identity.turn_id,
        content_type=captured.response_headers.get("content-type", ""),
        thread_id=captured.envelope.thread_id,
        method=captured.head.method,
        path=redact.path(captured.head.path),
        endpoint=found.endpoint,
        model=model.encode()[:_MODEL_BYTES].decode("utf-8", "ignore"),
        model_family=model_family(model),
        stream=stream,
        content_encoding=captured.response_headers.get("content-encoding", ""),
        upstream_status=status,
        upstream_status_class=f"{status // 100}xx" if status else "",
        request_bytes=captured.request.received_bytes,
        response_bytes=captured.response_bytes,
        elapsed_seconds=(_ended(captured).monotonic_ns - captured.started.monotonic_ns) / 1e9,
        ts_request=rfc3339(captured.started.wall_ns),
        captured_at=rfc3339(_ended(captured).wall_ns),
        tenant=captured.policy.tenant,
        client_request_id=captured.envelope.request_id,
        dialect=turn.dialect.value,
        vendor=found.vendor,
        host=captured.head.host,
        partial=turn.partial,
        truncated=captured.truncated,
        canonical=view(turn, facts),
    )


def _stream_and_model(found: Classification, request: _Request) -> tuple[str, str]:
    """The contract's stream label and the request's model (``behaviour.md`` §2): of a body
    that is an object with members of the right types, else what the path says.
    """
    unread = "true" if found.path_streams else "unknown", found.path_model
    if not isinstance(request.value, dict):
        return unread
    members = cast("dict[str, object]", request.value)
    stream, model = members.get("stream"), members.get("model")
    if not isinstance(stream, bool | None) or not isinstance(model, str | None):
        return unread
    return "true" if stream or found.path_streams else "false", (model or "").strip() or found.path_model


def _session(session: Session) -> payload.Session:
    return payload.Session(
        org_id=session.org_id,
        auth_subject=session.auth_subject,
        harness_id=session.harness_id,
        harness_session_id=session.harness_session_id,
        harness_version=session.harness_version,
        cwd=session.cwd,
        name=session.name,
        parent_harness_session_id=session.parent_harness_session_id,
        harness_metadata=dict(session.harness_metadata),
    )


# -- quarantine -----------------------------------------------------------------


def quarantined(captured: Captured, identity: TurnIdentity, unmade: Unmade) -> Record:
    """Keep the whole of a turn that could not be made (``extproc.quarantine`` has the format)."""
    body = quarantine.write(
        captured,
        identity.turn_id,
        unmade.outcome,
        unmade.reason,
        request=unmade.request,
        payload=unmade.payload,
        withhold=unmade.withhold,
    )
    return Record(
        turn_id=identity.turn_id,
        tenant=captured.policy.tenant,
        body=body,
        created_at_ns=captured.started.wall_ns,
        quarantine=Quarantine(outcome=unmade.outcome, reason=unmade.reason),
    )


def _ended(captured: Captured) -> Instant:
    return captured.ended or captured.started


def rfc3339(wall_ns: int) -> str:
    """The moment in UTC with microseconds."""
    return (
        datetime.fromtimestamp(wall_ns / 1e9, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    )
