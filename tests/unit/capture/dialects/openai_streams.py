"""Builders of OpenAI-family response bodies, and their reduction, for the tests beside this module."""

import json
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from capture.dialects.fold import RequestFacts
from capture.merkle import node_hash
from capture.reduce import ResponseFacts, ResponseReducer
from capture.turn import Dialect, Ending, Turn
from capture.wire_response import reduced_response

Json = dict[str, Any]


def sse(*events: Mapping[str, Any] | str) -> bytes:
    """A stream of unnamed events; a string is sent as it is."""
    texts = (event if isinstance(event, str) else json.dumps(event) for event in events)
    return "".join(f"data: {text}\n\n" for text in texts).encode()


def chunk(*choices: Mapping[str, Any], **members: Any) -> Json:
    """A chat completion chunk."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1750000000, "model": "gpt-x"}
    return {**head, "choices": list(choices), **members}


def delta(index: int = 0, finish_reason: str | None = None, **members: Any) -> Json:
    """A choice of a chunk."""
    return {"index": index, "delta": members, "finish_reason": finish_reason}


def completion(*choices: Mapping[str, Any], **members: Any) -> bytes:
    """A one-shot chat completion."""
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1750000000, "model": "gpt-x"}
    return json.dumps({**head, "choices": list(choices), **members}).encode()


def message(index: int = 0, finish_reason: str | None = "stop", **members: Any) -> Json:
    """A choice of a one-shot completion."""
    return {"index": index, "message": {"role": "assistant", **members}, "finish_reason": finish_reason}


def reduce(
    body: bytes,
    content_type: str = "text/event-stream",
    dialect: Dialect = Dialect.OPENAI_CHAT,
    ending: Ending = Ending.COMPLETE,
) -> Turn:
    """The turn of a body; the test fails when there is none."""
    reducer = ResponseReducer(dialect, RequestFacts(), ResponseFacts(content_type=content_type))
    reducer.feed(body)
    turn = reducer.finish(ending)
    assert isinstance(turn, Turn), turn
    return turn


def wire(turn: Turn) -> Json:
    """The reduced response as it goes over the wire, read back."""
    return cast("Json", json.loads(msgspec.json.encode(reduced_response(turn))))


def root_hash(turn: Turn) -> str:
    """The hash of the response's message, without a parent."""
    content = wire(turn)["message"]
    return node_hash("", content["role"], content["content"])
