"""One turn derived: its nodes, its session, its step, its run."""

from collections.abc import Mapping

from msgspec import Struct

from capture import jsontext
from capture.merkle import Node, build_chain
from capture.requests.catalog import dialect_of, read
from capture.requests.request import Request
from ingest.derivation import sessions, steps, stored
from ingest.derivation.canonical import as_mapping
from ingest.derivation.view import view
from ingest.store.rows import Body, Source, TurnRow


class Derived(Struct, frozen=True, kw_only=True):
    """Everything that follows from one turn. A transcript has a session and nothing else."""

    turn: TurnRow
    session: sessions.Session
    nodes: tuple[Node, ...] = ()
    step: steps.Step | None = None


class Parts(Struct, frozen=True, kw_only=True):
    """A stored turn, decoded."""

    request: Request
    request_json: object
    response: Mapping[str, object]
    meta: Mapping[str, object]
    envelope: Mapping[str, object]
    nodes: tuple[Node, ...]


def decode(turn: TurnRow, body: Body) -> Parts:
    """Decode a stored turn. Raises JsonError for what cannot be read."""
    request = jsontext.decode(body.request) if body.request else None
    response = stored.response_of(body.response)
    meta = stored.meta_of(body.meta)
    named = meta.get("dialect")
    dialect = named if isinstance(named, str) else ""
    return Parts(
        request=read(dialect_of(turn.provider, dialect, request), request),
        request_json=request,
        response=response,
        meta=meta,
        envelope=stored.session_of(body.session),
        nodes=build_chain(turn.provider, dialect, request, response),
    )


def derive(turn: TurnRow, body: Body) -> Derived:
    """Derive one turn. Raises for what cannot be read; the caller records that."""
    if turn.source == Source.TRANSCRIPT:
        return Derived(turn=turn, session=sessions.session_of(turn, stored.session_of(body.session), (), ""))
    parts = decode(turn, body)
    label = steps.label_of(parts.request)
    session = sessions.session_of(turn, parts.envelope, parts.nodes, label)
    call = steps.Call(
        turn=turn,
        request=parts.request,
        max_tokens=as_mapping(parts.request_json).get("max_tokens"),
        meta=parts.meta,
        nodes=parts.nodes,
        session_id=session.id,
        view=view(turn, body, parts.request_json, parts.response, parts.meta),
    )
    step = steps.step_of(call)
    return Derived(turn=turn, session=session, nodes=parts.nodes, step=step)
