"""Properties of the OpenAI-family dialects, over streams made of real shapes and over noise.

Any chunking gives the same turn; any bytes finish; a stream cut at any byte gives a
partial turn whose text is a prefix of the whole.
"""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capture.dialects.fold import RequestFacts
from capture.reduce import Reduced, ResponseFacts, ResponseReducer
from capture.turn import Dialect, Ending, Refused, Turn
from tests.unit.capture.dialects.openai_streams import chunk, completion, delta, message, root_hash, sse

FAMILY = (Dialect.OPENAI_CHAT, Dialect.OPENAI_COMPLETIONS, Dialect.OPENAI_RESPONSES)
EVENT_STREAM = ResponseFacts(content_type="text/event-stream; charset=utf-8")
JSON = ResponseFacts(content_type="application/json")

Json = dict[str, Any]


def reduced(dialect: Dialect, pieces: list[bytes], facts: ResponseFacts = EVENT_STREAM) -> Reduced:
    reducer = ResponseReducer(dialect, RequestFacts(), facts)
    for piece in pieces:
        reducer.feed(piece)
        reducer.snapshot()  # reads what is pending: every piece is a batch of its own
    return reducer.finish(Ending.CUT)


def cut_at(body: bytes, places: list[int]) -> list[bytes]:
    borders = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(borders)]


# -- streams of real shapes -----------------------------------------------------------

texts = st.text(max_size=8)
indexes = st.integers(-1, 2)
odd: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
functions = st.fixed_dictionaries({}, optional={"name": texts | odd, "arguments": texts | odd})
tool_fragments = st.fixed_dictionaries(
    {}, optional={"index": indexes | odd, "id": texts | odd, "function": functions | odd, "custom": functions}
)
parts = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "thinking", "x"])}, optional={"text": texts | odd}
)
deltas = st.fixed_dictionaries(
    {},
    optional={
        "content": texts | st.lists(parts | odd, max_size=2) | odd,
        "role": st.just("assistant") | odd,
        "reasoning_content": texts | odd,
        "reasoning": texts | odd,
        "reasoning_details": st.lists(st.fixed_dictionaries({"text": texts}), max_size=2) | odd,
        "refusal": texts | odd,
        "tool_calls": st.lists(tool_fragments | odd, max_size=2) | odd,
        "function_call": functions | odd,
        "audio": st.fixed_dictionaries({"data": texts, "transcript": texts}) | odd,
        "images": odd,
    },
)
choices = st.fixed_dictionaries(
    {},
    optional={
        "index": indexes | odd,
        "delta": deltas | odd,
        "message": deltas | odd,
        "text": texts | odd,
        "finish_reason": st.sampled_from(["stop", "", None]) | odd,
        "error": odd,
    },
)
usages = st.dictionaries(st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens"]), odd)
chunks = st.fixed_dictionaries(
    {},
    optional={
        "id": texts | odd,
        "model": texts | odd,
        "created": st.integers() | odd,
        "choices": st.lists(choices | odd, max_size=2) | odd,
        "usage": usages | odd,
        "error": odd,
        "x_groq": st.fixed_dictionaries({"usage": usages}) | odd,
        "object": st.sampled_from(["chat.completion.chunk", "error"]),
    },
)

item_parts = st.fixed_dictionaries(
    {"type": st.sampled_from(["output_text", "refusal", "summary_text", "x"]) | odd},
    optional={"text": texts | odd, "refusal": texts | odd},
)
items = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["message", "reasoning", "function_call", "custom_tool_call", "mcp_call", "x"]
        )
        | odd
    },
    optional={
        "id": st.sampled_from(["a", "b"]) | odd,
        "call_id": texts | odd,
        "name": texts | odd,
        "content": st.lists(item_parts | odd, max_size=2) | odd,
        "summary": st.lists(item_parts | odd, max_size=2) | odd,
        "arguments": texts | odd,
        "input": texts | odd,
        "encrypted_content": odd,
    },
)
responses = st.fixed_dictionaries(
    {},
    optional={
        "id": texts | odd,
        "object": st.just("response"),
        "created_at": st.integers() | odd,
        "status": st.sampled_from(["completed", "incomplete", "failed"]) | odd,
        "model": texts | odd,
        "output": st.lists(items | odd, max_size=2) | odd,
        "usage": usages | odd,
        "error": odd,
        "incomplete_details": st.fixed_dictionaries({"reason": texts | odd}) | odd,
    },
)
kinds = st.sampled_from(
    [
        "response.created",
        "response.output_item.added",
        "response.output_item.done",
        "response.output_text.delta",
        "response.output_text.done",
        "response.refusal.delta",
        "response.reasoning_summary_text.delta",
        "response.reasoning_text.delta",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.custom_tool_call_input.delta",
        "response.completed",
        "response.failed",
        "error",
        "response.unheard_of",
    ]
)
response_events = st.fixed_dictionaries(
    {"type": kinds | odd},
    optional={
        "output_index": indexes | odd,
        "content_index": indexes | odd,
        "summary_index": indexes | odd,
        "item_id": st.sampled_from(["a", "b"]) | odd,
        "delta": texts | odd,
        "text": texts | odd,
        "item": items | odd,
        "response": responses | odd,
        "error": odd,
    },
)
two_lines = "{}\ndata: {}"
stray = st.sampled_from(["[DONE]", "{nope", two_lines, "", "5", "[]", '{"a": "\\ud800"}'])


def streams(dialect: Dialect) -> st.SearchStrategy[bytes]:
    events: st.SearchStrategy[Any] = response_events if dialect is Dialect.OPENAI_RESPONSES else chunks
    return st.lists(events | stray, max_size=8).map(lambda found: sse(*found))


@pytest.mark.parametrize("dialect", FAMILY)
@given(data=st.data(), places=st.lists(st.integers(0, 10_000), max_size=6))
@settings(max_examples=100, deadline=None)
def test_any_chunking_gives_the_same_turn(dialect: Dialect, data: st.DataObject, places: list[int]) -> None:
    """Odd members and unreadable events included."""
    body = data.draw(streams(dialect))
    assert reduced(dialect, cut_at(body, places)) == reduced(dialect, [body])


@pytest.mark.parametrize("dialect", FAMILY)
@given(body=st.binary(max_size=300), facts=st.sampled_from([EVENT_STREAM, JSON, ResponseFacts()]))
@settings(max_examples=60, deadline=None)
def test_any_bytes_finish(dialect: Dialect, body: bytes, facts: ResponseFacts) -> None:
    """With a turn, or with a refusal that says why."""
    outcome = reduced(dialect, [body], facts)
    assert isinstance(outcome, Turn | Refused)
    if isinstance(outcome, Refused):
        assert outcome.reason


@pytest.mark.parametrize("dialect", FAMILY)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_json_document_finishes(dialect: Dialect, data: st.DataObject) -> None:
    """One-shot answers with members of any type."""
    document = data.draw(responses if dialect is Dialect.OPENAI_RESPONSES else chunks)
    outcome = reduced(dialect, [json.dumps(document).encode()], JSON)
    assert isinstance(outcome, Turn | Refused)


# -- a stream cut at every byte ---------------------------------------------------------


def _chat(text: str) -> bytes:
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    return sse(
        chunk(delta(role="assistant", content="")),
        chunk(delta(reasoning_content="hm")),
        *(chunk(delta(content=letter)) for letter in text),
        chunk(delta(tool_calls=[call])),
        chunk(delta(finish_reason="stop")),
        chunk(usage={"prompt_tokens": 1}),
        "[DONE]",
    )


def _completion(text: str) -> bytes:
    told = [{"index": 0, "text": letter, "finish_reason": None} for letter in text]
    return sse(
        *(chunk(choice) for choice in told),
        chunk({"index": 0, "text": "", "finish_reason": "stop"}),
        "[DONE]",
    )


def _response(text: str) -> bytes:
    item: Json = {"type": "message", "content": [{"type": "output_text", "text": text}]}
    events: list[Json] = [
        {"type": "response.created", "response": {"object": "response", "status": "in_progress"}},
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "content": []}},
        *(
            {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": letter}
            for letter in text
        ),
        {"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": text},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {
            "type": "response.completed",
            "response": {"object": "response", "status": "completed", "output": [item]},
        },
    ]
    return sse(*events)


STREAM_OF = {
    Dialect.OPENAI_CHAT: _chat,
    Dialect.OPENAI_COMPLETIONS: _completion,
    Dialect.OPENAI_RESPONSES: _response,
}


@pytest.mark.parametrize("dialect", FAMILY)
def test_a_stream_cut_at_every_byte_gives_a_prefix(dialect: Dialect) -> None:
    """Partial until the end marker, and never less text than a shorter cut."""
    text = "Grüße, 世界!"
    body = STREAM_OF[dialect](text)
    found = ""
    partials: list[bool] = []
    for place in range(len(body) + 1):
        turn = reduced(dialect, [body[:place]])
        assert isinstance(turn, Turn)
        shorter, found = found, turn.choices[0].text
        assert text.startswith(found)
        assert found.startswith(shorter)
        partials.append(turn.partial)
    assert found == text
    assert partials == sorted(partials, reverse=True)
    assert (partials[0], partials[-1]) == (True, False)


@given(
    said=st.fixed_dictionaries({"content": texts}, optional={"reasoning_content": texts, "refusal": texts}),
    arguments=st.dictionaries(texts, st.integers() | texts, max_size=2),
    places=st.lists(st.integers(0, 100), max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_streamed_and_one_shot_forms_of_a_chat_answer_have_one_hash(
    said: dict[str, str], arguments: Json, places: list[int]
) -> None:
    """However the stream divides the strings."""
    text = json.dumps(arguments)
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": text}}
    opening = {"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}
    events = [chunk(delta(role="assistant", tool_calls=[opening]))]
    for name, value in said.items():
        events += [chunk(delta(**_member(name, piece))) for piece in _pieces(value, places)]
    for piece in _pieces(text, places):
        events.append(chunk(delta(tool_calls=[{"index": 0, "function": {"arguments": piece}}])))
    streamed = reduced(Dialect.OPENAI_CHAT, [sse(*events, chunk(delta(finish_reason="stop")))])
    whole = reduced(Dialect.OPENAI_CHAT, [completion(message(tool_calls=[call], **_members(said)))], JSON)
    assert isinstance(streamed, Turn)
    assert isinstance(whole, Turn)
    assert root_hash(streamed) == root_hash(whole)


def _member(name: str, value: str) -> Json:
    return {name: value}


def _members(said: dict[str, str]) -> Json:
    return dict(said)


def _pieces(text: str, places: list[int]) -> list[str]:
    borders = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in pairwise(borders)]
