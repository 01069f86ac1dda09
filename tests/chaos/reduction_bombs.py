"""Answers made to be expensive: millions of events, of tool fragments, and deep JSON.

A stream of any length is made of two short ones: the longer has the bytes of one more
event somewhere, and those may be repeated. So every dialect's own shapes are used, and
a stream is never held whole.
"""

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Final

from bench.streams import NDJSON, SSE, STREAM_JSON, STREAMS, Stream
from capture.turn import Dialect
from tests.unit.capture.dialects.google_aws import EVENTSTREAM, as_json, converse_stream, message

_REPEATED: Final = 500
"""Events in one piece of a long stream."""


@dataclass(frozen=True, slots=True)
class Bomb:
    """``pieces(count)``: the body in pieces, ``count`` large."""

    dialect: Dialect
    content_type: str
    pieces: Callable[[int], Iterable[bytes]]


def stretched(make: Callable[[int], bytes], count: int) -> Iterator[bytes]:
    """The stream of two events with the bytes of the second repeated ``count`` times."""
    short, longer = make(1), make(2)
    added = len(longer) - len(short)
    same = next((at for at, (a, b) in enumerate(zip(short, longer, strict=False)) if a != b), len(short))
    yield short[:same]
    yield from repeat(longer[same : same + added] * _REPEATED, count // _REPEATED)
    yield longer[same : same + added] * (count % _REPEATED)
    yield short[same:]


def _events(stream: Stream) -> Bomb:
    make = _open_responses if stream.dialect is Dialect.OPENAI_RESPONSES else stream.make
    return Bomb(stream.dialect, stream.content_type, lambda count: stretched(make, count))


def _open_responses(count: int) -> bytes:
    """A Responses stream that breaks off: its end would repeat the whole text."""
    made = next(stream for stream in STREAMS if stream.dialect is Dialect.OPENAI_RESPONSES).make(count)
    return made.partition(b"event: response.output_text.done")[0]


# -- tool fragments ----------------------------------------------------------------


def _sse(events: Iterable[dict[str, object]]) -> bytes:
    return b"".join(b"data: " + as_json(event) + b"\n\n" for event in events)


def _anthropic(pieces: list[str]) -> bytes:
    start = {"type": "content_block_start", "index": 0}
    return _sse(
        [
            {"type": "message_start", "message": {"id": "m"}},
            {**start, "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": None}},
            *(
                {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": piece}}
                for piece in pieces
            ),
            {"type": "content_block_stop", "index": 0},
            {"type": "message_stop"},
        ]
    )  # fmt: skip


def _chat(pieces: list[str]) -> bytes:
    def chunk(finish: str | None, *calls: object) -> dict[str, object]:
        choice = {"index": 0, "delta": {"tool_calls": calls}, "finish_reason": finish}
        return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}

    opened = {"index": 0, "id": "t", "function": {"name": "f", "arguments": ""}}
    fragments = (chunk(None, {"index": 0, "function": {"arguments": piece}}) for piece in pieces)
    return _sse([chunk(None, opened), *fragments, chunk("tool_calls")])


def _responses(pieces: list[str]) -> bytes:
    item = {"id": "i", "type": "function_call", "call_id": "t", "name": "f", "arguments": ""}
    delta = {"type": "response.function_call_arguments.delta", "item_id": "i", "output_index": 0}
    return _sse(
        [
            {"type": "response.created", "response": {"id": "r", "status": "in_progress", "output": []}},
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            *({**delta, "delta": piece} for piece in pieces),
        ]
    )


def _converse(pieces: list[str]) -> bytes:
    place: dict[str, object] = {"contentBlockIndex": 0}
    return converse_stream(
        ("messageStart", {"role": "assistant"}),
        ("contentBlockStart", {**place, "start": {"toolUse": {"toolUseId": "t", "name": "f"}}}),
        *(("contentBlockDelta", {**place, "delta": {"toolUse": {"input": piece}}}) for piece in pieces),
        ("contentBlockStop", place),
        ("messageStop", {"stopReason": "tool_use"}),
    )


def _v1(pieces: list[str]) -> bytes:
    deltas: list[dict[str, object]] = [{"index": 0, "name": "f"}]
    deltas.extend({"index": 0, "parameters": piece} for piece in pieces)
    events: list[dict[str, object]] = [
        {"event_type": "tool-calls-chunk", "tool_call_delta": delta} for delta in deltas
    ]
    events.append({"event_type": "stream-end", "is_finished": True, "finish_reason": "COMPLETE"})
    return b"".join(as_json(event) + b"\n" for event in events)


def _v2(pieces: list[str]) -> bytes:
    def event(kind: str, call: object) -> dict[str, object]:
        return {"type": kind, "index": 0, "delta": {"message": {"tool_calls": call}}}

    opened = {"id": "t", "type": "function", "function": {"name": "f", "arguments": ""}}
    return _sse(
        [
            event("tool-call-start", opened),
            *(event("tool-call-delta", {"function": {"arguments": piece}}) for piece in pieces),
            {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL"}},
        ]
    )


_FRAGMENTED: Final[dict[str, tuple[Dialect, str, Callable[[list[str]], bytes]]]] = {
    "anthropic": (Dialect.ANTHROPIC_MESSAGES, SSE, _anthropic),
    "openai chat": (Dialect.OPENAI_CHAT, SSE, _chat),
    "openai responses": (Dialect.OPENAI_RESPONSES, SSE, _responses),
    "bedrock converse": (Dialect.BEDROCK_CONVERSE, EVENTSTREAM, _converse),
    "cohere v1": (Dialect.COHERE_V1, STREAM_JSON, _v1),
    "cohere v2": (Dialect.COHERE_V2, SSE, _v2),
}


def _fragments(dialect: Dialect, content_type: str, make: Callable[[list[str]], bytes]) -> Bomb:
    """Arguments of one long string, in pieces of four characters each."""
    return Bomb(
        dialect,
        content_type,
        lambda count: stretched(lambda pieces: make(['{"a":"', *["abcd"] * pieces, '"}']), count),
    )


# -- depth ---------------------------------------------------------------------------


def _nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def _deep_member(stream: Stream) -> Bomb:
    """A stream with one event that has nested lists where a text belongs."""
    word = b'" word0"'

    def pieces(depth: int) -> Iterable[bytes]:
        if stream.content_type != EVENTSTREAM:
            yield stream.make(2).replace(word, _nested(depth))
            return
        payload = b'{"contentBlockIndex":0,"delta":' + _nested(depth) + b"}"
        kind = "contentBlockDelta"
        if stream.dialect is Dialect.BEDROCK_INVOKE:
            kind, payload = "chunk", b'{"bytes":"' + base64.b64encode(payload) + b'"}'
        yield message({":event-type": kind, ":message-type": "event"}, payload)
        yield stream.make(2)

    return Bomb(stream.dialect, stream.content_type, pieces)


def _deep_document(stream: Stream) -> Bomb:
    """A one-shot answer that is nested lists under one member."""

    def pieces(depth: int) -> Iterable[bytes]:
        yield b'{"message":' + _nested(depth) + b"}"

    return Bomb(stream.dialect, "application/json", pieces)


def _deep_arguments(bomb: Bomb, make: Callable[[list[str]], bytes]) -> Bomb:
    """Arguments that are an object of nested objects, sent as text."""

    def pieces(depth: int) -> Iterable[bytes]:
        yield make(['{"a":' * depth + "1" + "}" * depth])

    return replace(bomb, pieces=pieces)


def _many_calls() -> Bomb:
    """Whole calls, one a line."""

    def make(count: int) -> bytes:
        call = {"function": {"name": "f", "arguments": {"a": 1}}}
        lines = [json.dumps({"model": "m", "message": {"tool_calls": [call]}, "done": False})] * count
        return "\n".join([*lines, '{"done":true,"done_reason":"stop"}\n']).encode()

    return Bomb(Dialect.OLLAMA_CHAT, NDJSON, lambda count: stretched(make, count))


EVENTS: Final = {f"events: {stream.name}": _events(stream) for stream in STREAMS}
FRAGMENTS: Final = {f"fragments: {name}": _fragments(*made) for name, made in _FRAGMENTED.items()}
DEPTHS: Final = {
    **{f"deep member: {stream.name}": _deep_member(stream) for stream in STREAMS},
    **{f"deep document: {stream.name}": _deep_document(stream) for stream in STREAMS},
    **{
        f"deep arguments: {name}": _deep_arguments(FRAGMENTS[f"fragments: {name}"], made[2])
        for name, made in _FRAGMENTED.items()
    },
}
CALLS: Final = {"calls: ollama chat": _many_calls()}
BOMBS: Final = EVENTS | FRAGMENTS | DEPTHS | CALLS
