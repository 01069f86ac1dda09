"""Synthetic streams of every dialect, of as many text events as wanted.

What streams look like in practice: a few events around thousands that bring a word
each. The words differ, so that nothing is cached for being equal.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from capture.turn import Dialect
from tests.unit.capture.dialects.google_aws import EVENTSTREAM, converse_stream, invoke_stream

SSE: Final = "text/event-stream"
NDJSON: Final = "application/x-ndjson"
STREAM_JSON: Final = "application/stream+json"
JSON: Final = "application/json"

Event = dict[str, object]


@dataclass(frozen=True, slots=True)
class Stream:
    """A kind of answer: its name here, what it is, and how to make one of ``events`` words."""

    name: str
    dialect: Dialect
    content_type: str
    make: Callable[[int], bytes]


def _words(count: int) -> Iterable[str]:
    return (f" word{number % 9973}" for number in range(count))


def _sse(events: Iterable[Event], name: str = "", done: bool = False) -> bytes:
    pieces: list[str] = []
    for event in events:
        if name:
            pieces.append(f"event: {event[name]}\n")
        pieces.append(f"data: {_json(event)}\n\n")
    if done:
        pieces.append("data: [DONE]\n\n")
    return "".join(pieces).encode()


def _lines(events: Iterable[Event]) -> bytes:
    return "".join(f"{_json(event)}\n" for event in events).encode()


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _anthropic_events(count: int) -> Iterable[Event]:
    usage = {"input_tokens": 10, "output_tokens": 1}
    yield {
        "type": "message_start",
        "message": {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": usage,
        },
    }  # fmt: skip
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for word in _words(count):
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
    yield {"type": "content_block_stop", "index": 0}
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": count},
    }
    yield {"type": "message_stop"}


def _chat_events(count: int) -> Iterable[Event]:
    head: Event = {
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1750000000, "model": "gpt-x"
    }  # fmt: skip
    for word in _words(count):
        yield {**head, "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
    yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def _completion_events(count: int) -> Iterable[Event]:
    head: Event = {"id": "cmpl-1", "object": "text_completion", "created": 1750000000, "model": "gpt-x"}
    for word in _words(count):
        yield {**head, "choices": [{"index": 0, "text": word, "logprobs": None, "finish_reason": None}]}
    yield {**head, "choices": [{"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}]}


def _responses_events(count: int) -> Iterable[Event]:
    response: Event = {
        "id": "resp_1", "object": "response", "created_at": 1750000000, "model": "gpt-x",
        "status": "in_progress", "output": [], "parallel_tool_calls": True, "tool_choice": "auto",
        "tools": [],
    }  # fmt: skip
    item: Event = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "in_progress",
        "content": [],
    }
    place: Event = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part: Event = {"type": "output_text", "text": "", "annotations": []}
    yield {"type": "response.created", "sequence_number": 0, "response": response}
    yield {"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": item}
    yield {"type": "response.content_part.added", "sequence_number": 2, **place, "part": part}
    said = list(_words(count))
    for number, word in enumerate(said, 3):
        delta: Event = {"type": "response.output_text.delta", "sequence_number": number, **place}
        yield {**delta, "delta": word, "logprobs": []}
    whole = {**part, "text": "".join(said)}
    done: Event = {**item, "status": "completed", "content": [whole]}
    ended: Event = {**response, "status": "completed", "output": [done]}
    yield {"type": "response.output_text.done", "sequence_number": count + 3, **place, "text": whole["text"]}
    yield {"type": "response.output_item.done", "sequence_number": count + 4, "output_index": 0, "item": done}
    yield {"type": "response.completed", "sequence_number": count + 5, "response": ended}


def _gemini_events(count: int) -> Iterable[Event]:
    for word in _words(count):
        content = {"parts": [{"text": word}], "role": "model"}
        yield {"candidates": [{"content": content, "index": 0}], "modelVersion": "gemini", "responseId": "r"}
    yield {
        "candidates": [{"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": count},
    }


def _converse(count: int) -> bytes:
    def events() -> Iterable[tuple[str, object]]:
        yield "messageStart", {"role": "assistant"}
        for word in _words(count):
            yield "contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word}, "p": "abcdefghijk"}
        yield "contentBlockStop", {"contentBlockIndex": 0}
        yield "messageStop", {"stopReason": "end_turn"}

    return converse_stream(*events())


def _v1_events(count: int) -> Iterable[Event]:
    yield {"is_finished": False, "event_type": "stream-start", "generation_id": "g"}
    for word in _words(count):
        yield {"is_finished": False, "event_type": "text-generation", "text": word}
    response = {"text": "", "generation_id": "g", "finish_reason": "COMPLETE"}
    yield {"is_finished": True, "event_type": "stream-end", "response": response, "finish_reason": "COMPLETE"}


def _v2_events(count: int) -> Iterable[Event]:
    message: Event = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    yield {"id": "r", "type": "message-start", "delta": {"message": message}}
    opened: Event = {"message": {"content": {"type": "text", "text": ""}}}
    yield {"type": "content-start", "index": 0, "delta": opened}
    for word in _words(count):
        yield {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": word}}}}
    yield {"type": "content-end", "index": 0}
    yield {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": {"tokens": {}}}}


def _ollama_lines(count: int, *, prompt: bool) -> Iterable[Event]:
    head: Event = {"model": "m", "created_at": "2026-01-02T03:04:05.678901Z"}
    for word in _words(count):
        said: Event = {"response": word} if prompt else {"message": {"role": "assistant", "content": word}}
        yield {**head, **said, "done": False}
    last: Event = {"response": ""} if prompt else {"message": {"role": "assistant", "content": ""}}
    yield {**head, **last, "done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": count}


STREAMS: Final = (
    Stream(
        "anthropic", Dialect.ANTHROPIC_MESSAGES, SSE, lambda count: _sse(_anthropic_events(count), "type")
    ),
    Stream("openai chat", Dialect.OPENAI_CHAT, SSE, lambda count: _sse(_chat_events(count), done=True)),
    Stream("mistral chat", Dialect.OPENAI_CHAT, SSE, lambda count: _sse(_chat_events(count), done=True)),
    Stream(
        "openai completions", Dialect.OPENAI_COMPLETIONS, SSE,
        lambda count: _sse(_completion_events(count), done=True),
    ),
    Stream(
        "openai responses", Dialect.OPENAI_RESPONSES, SSE,
        lambda count: _sse(_responses_events(count), "type"),
    ),
    Stream("gemini sse", Dialect.GEMINI, SSE, lambda count: _sse(_gemini_events(count))),
    Stream("gemini array", Dialect.GEMINI, JSON, lambda count: _json(list(_gemini_events(count))).encode()),
    Stream("bedrock converse", Dialect.BEDROCK_CONVERSE, EVENTSTREAM, _converse),
    Stream(
        "bedrock invoke", Dialect.BEDROCK_INVOKE, EVENTSTREAM,
        lambda count: invoke_stream(list(_anthropic_events(count))),
    ),
    Stream("cohere v1", Dialect.COHERE_V1, STREAM_JSON, lambda count: _lines(_v1_events(count))),
    Stream("cohere v2", Dialect.COHERE_V2, SSE, lambda count: _sse(_v2_events(count), "type", done=True)),
    Stream(
        "ollama chat", Dialect.OLLAMA_CHAT, NDJSON, lambda count: _lines(_ollama_lines(count, prompt=False))
    ),
    Stream(
        "ollama generate", Dialect.OLLAMA_GENERATE, NDJSON,
        lambda count: _lines(_ollama_lines(count, prompt=True)),
    ),
)  # fmt: skip
