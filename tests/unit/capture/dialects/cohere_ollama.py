"""Answers of Cohere and Ollama as bytes."""

import json
from collections.abc import Iterable, Mapping

from capture.turn import Dialect, Turn
from tests.unit.capture.dialects.google_aws import as_json, reduce

NDJSON = "application/x-ndjson"
STREAM_JSON = "application/stream+json"
SSE = "text/event-stream"


def lines(*events: object) -> bytes:
    """One JSON object a line."""
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def named_sse(kind: str, *events: Mapping[str, object]) -> bytes:
    """Events as Cohere sends them: the name on a line of its own and in member ``kind``."""
    return b"".join(f"event: {event.get(kind)}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


def v1(*events: Mapping[str, object]) -> Turn:
    """The turn of a v1 stream."""
    return reduce(Dialect.COHERE_V1, lines(*events), STREAM_JSON)


def v1_whole(answer: object) -> Turn:
    """The turn of a v1 answer."""
    return reduce(Dialect.COHERE_V1, as_json(answer))


def text(said: str, **members: object) -> dict[str, object]:
    """A v1 text event."""
    return {"is_finished": False, "event_type": "text-generation", "text": said, **members}


def end(response: object, reason: str = "COMPLETE") -> dict[str, object]:
    """The last event of a v1 stream."""
    return {"is_finished": True, "event_type": "stream-end", "response": response, "finish_reason": reason}


def message(kind: str, index: int | None = None, **members: object) -> dict[str, object]:
    """A v2 event with a message delta."""
    placed: dict[str, object] = {} if index is None else {"index": index}
    return {"type": kind, **placed, "delta": {"message": members}}


def message_end(reason: str = "COMPLETE", **members: object) -> dict[str, object]:
    """The last event of a v2 stream."""
    return {"type": "message-end", "delta": {"finish_reason": reason, **members}}


def content(index: int, **said: str) -> Iterable[dict[str, object]]:
    """One v2 content item: its start, a delta for each character, its end."""
    ((kind, words),) = said.items()
    yield message("content-start", index, content={"type": kind, kind: ""})
    yield from (message("content-delta", index, content={kind: word}) for word in words)
    yield {"type": "content-end", "index": index}


def tool_call(index: int, name: str, arguments: str) -> Iterable[dict[str, object]]:
    """One v2 call: its start, a delta for each character, its end."""
    function = {"name": name, "arguments": ""}
    yield message(
        "tool-call-start", index, tool_calls={"id": f"id_{index}", "type": "function", "function": function}
    )
    for piece in arguments:
        yield message("tool-call-delta", index, tool_calls={"function": {"arguments": piece}})
    yield {"type": "tool-call-end", "index": index}


def v2(*events: Mapping[str, object], tail: bytes = b"data: [DONE]\n\n") -> Turn:
    """The turn of a v2 stream."""
    return reduce(Dialect.COHERE_V2, named_sse("type", *events) + tail, SSE)


def v2_whole(answer: object) -> Turn:
    """The turn of a v2 answer."""
    return reduce(Dialect.COHERE_V2, as_json(answer))


def chat_line(said: str = "", done: bool = False, **members: object) -> dict[str, object]:
    """A line of Ollama's chat; ``members`` are the message's."""
    told = {"role": "assistant", "content": said, **members}
    return {"model": "m", "created_at": "2026-01-02T03:04:05Z", "message": told, "done": done}


LAST = {"done_reason": "stop", "prompt_eval_count": 3, "eval_count": 4, "eval_duration": 9}


def chat(*events: object, content_type: str = NDJSON) -> Turn:
    """The turn of an Ollama chat stream."""
    return reduce(Dialect.OLLAMA_CHAT, lines(*events), content_type)


def chat_whole(answer: object) -> Turn:
    """The turn of an Ollama chat answer."""
    return reduce(Dialect.OLLAMA_CHAT, as_json(answer))
