"""Whose word the view of an answer is: the producer's, that of the answer's own bytes, or the contract's.

The contract's reduced response has fewer counts than providers send and does not say whether the answer
was streamed. Where the turn brings the bytes that this very response was reduced from, they are reduced
again, and everything is said.
"""

import msgspec

from capture.canonical import ViewFacts
from capture.canonical import view as view_of_turn
from capture.turn import JsonObject, Turn
from capture.wire_response import reduced_response
from ingest.derivation.canonical import as_mapping, as_text, canonical
from ingest.reduction import Answer, reduce
from ingest.store.rows import Body, TurnRow


def view(turn: TurnRow, body: Body, request: object, response: JsonObject, meta: JsonObject) -> JsonObject:
    """The provider-neutral view; ``request`` to ``meta`` are ``body``'s, decoded. Never raises for JSON."""
    if body.raw_response and not as_mapping(meta.get("canonical")):
        seen = reduce(
            Answer(
                provider=turn.provider,
                dialect=as_text(meta.get("dialect")),
                request=request,
                path=as_text(meta.get("path")),
                model=as_text(meta.get("model")),
                content_type=as_text(meta.get("content_type")),
                raw=body.raw_response,
                encoding=body.raw_response_encoding,
            )
        )
        if seen is not None and _same_answer(seen[0], response):
            return _of_bytes(turn, *seen, meta)
    return canonical(turn, response, meta)


def _same_answer(seen: Turn, response: JsonObject) -> bool:
    """Whether the reduced response is that of these bytes: what a producer made of others counts as it is."""
    message = msgspec.json.decode(msgspec.json.encode(reduced_response(seen)["message"]))
    return bool(message == response.get("message"))


def _of_bytes(turn: TurnRow, seen: Turn, streamed: bool, meta: JsonObject) -> JsonObject:
    facts = ViewFacts(
        provider=turn.provider,
        endpoint=as_text(meta.get("endpoint")),
        stream=streamed or as_text(meta.get("stream")) == "true",
        request_model=as_text(meta.get("model")),
    )
    shown = view_of_turn(seen, facts)
    return shown | {"partial": bool(shown["partial"] or meta.get("partial"))}
