"""Cohere and Ollama: what holds for any chunking, any cut and any bytes."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capture.canonical import ViewFacts, view
from capture.dialects.fold import RequestFacts
from capture.reduce import ResponseFacts, ResponseReducer
from capture.turn import Dialect, Ending, Turn
from capture.wire_response import reduced_response
from tests.unit.capture.dialects.cohere_ollama import (
    LAST,
    NDJSON,
    SSE,
    STREAM_JSON,
    chat_line,
    content,
    end,
    lines,
    message,
    message_end,
    named_sse,
    text,
    tool_call,
)
from tests.unit.capture.dialects.google_aws import as_json, hash_of, reduce, reduce_chunks

DIALECTS = [Dialect.COHERE_V1, Dialect.COHERE_V2, Dialect.OLLAMA_CHAT, Dialect.OLLAMA_GENERATE]

CALLED: dict[str, object] = {"name": "f", "parameters": {"a": "ü"}}
V1_EVENTS: list[dict[str, object]] = [
    {"event_type": "stream-start", "generation_id": "g"},
    text("Grüße "),
    text("🌍"),
    {"event_type": "tool-calls-chunk", "text": "!"},
    {"event_type": "tool-calls-chunk", "tool_call_delta": {"index": 0, "name": "f"}},
    {"event_type": "tool-calls-chunk", "tool_call_delta": {"index": 0, "parameters": '{"a": "ü"}'}},
    {"event_type": "tool-calls-generation", "tool_calls": [CALLED]},
    end({"text": "Grüße 🌍!", "meta": {"tokens": {"input_tokens": 1, "output_tokens": 2}}}),
]
V2_EVENTS: list[dict[str, object]] = [
    {"type": "message-start", "id": "r", "delta": {"message": {"role": "assistant"}}},
    message("tool-plan-delta", tool_plan="plan"),
    *content(0, thinking="Hm…"),
    *content(1, text="Grüße 🌍!"),
    *tool_call(0, "f", '{"a": "ü"}'),
    message_end("TOOL_CALL", usage={"tokens": {"input_tokens": 1, "output_tokens": 2}}),
]
CHAT_LINES = [
    chat_line(thinking="Hm…"),
    chat_line("Grüße "),
    chat_line("🌍!", tool_calls=[{"function": {"name": "f", "arguments": {"a": "ü"}}}]),
    {**chat_line(done=True), **LAST},
]
GENERATE_LINES = [
    {"model": "m", "response": "Grüße ", "done": False},
    {"model": "m", "response": "🌍!", "done": False},
    {"model": "m", "response": "", "done": True, **LAST},
]
BODIES: dict[str, tuple[Dialect, str, bytes]] = {
    "v1 lines": (Dialect.COHERE_V1, STREAM_JSON, lines(*V1_EVENTS)),
    "v1 sse": (Dialect.COHERE_V1, SSE, named_sse("event_type", *V1_EVENTS)),
    "v2": (Dialect.COHERE_V2, SSE, named_sse("type", *V2_EVENTS)),
    "chat": (Dialect.OLLAMA_CHAT, NDJSON, lines(*CHAT_LINES)),
    "generate": (Dialect.OLLAMA_GENERATE, NDJSON, lines(*GENERATE_LINES)),
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("labelled", [True, False])
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_any_chunking_gives_the_same_turn(name: str, labelled: bool, data: st.DataObject) -> None:
    """Borders of chunks mean nothing, whatever the content type says."""
    dialect, content_type, body = BODIES[name]
    label = content_type if labelled else ""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=12)))
    chunks = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    turn = reduce_chunks(dialect, chunks, label)
    assert isinstance(turn, Turn)
    assert turn == reduce_chunks(dialect, [body], content_type)


@pytest.mark.parametrize("name", BODIES)
def test_a_cut_at_every_byte_gives_a_turn_whose_text_is_a_prefix(name: str) -> None:
    """The connection may break anywhere; a turn without its end marker is partial."""
    dialect, content_type, body = BODIES[name]
    full = reduce(dialect, body, content_type)
    assert not full.partial
    assert full.choices[0].text == "Grüße 🌍!"
    texts = set[str]()
    for cut in range(1, len(body)):
        turn = reduce_chunks(dialect, [body[:cut]], content_type)
        assert isinstance(turn, Turn)
        assert full.choices[0].text.startswith(turn.choices[0].text)
        assert full.choices[0].thinking.startswith(turn.choices[0].thinking)
        assert turn.partial == (turn.choices[0].stop_reason is None)
        texts.add(turn.choices[0].text)
    assert len(texts) > 1


@pytest.mark.parametrize("name", ["v1 lines", "chat", "generate"])
def test_a_cut_of_unlabelled_lines_after_the_first_gives_a_prefix(name: str) -> None:
    """They came as one document, and are read line by line."""
    dialect, content_type, body = BODIES[name]
    for cut in range(body.index(b"\n") + 1, len(body)):
        unlabelled = reduce_chunks(dialect, [body[:cut]], "")
        assert unlabelled == reduce_chunks(dialect, [body[:cut]], content_type)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("content_type", ["", "application/json", SSE, NDJSON, STREAM_JSON])
@given(body=st.binary(max_size=300))
@settings(max_examples=40, deadline=None)
def test_any_bytes_finish(dialect: Dialect, content_type: str, body: bytes) -> None:
    """Whatever is sent, reduction ends with a value."""
    assert reduce_chunks(dialect, [body], content_type) is not None


NAMES = [
    "type", "event_type", "index", "id", "delta", "message", "role", "content", "text", "thinking", "tool_plan",
    "tool_calls", "function", "name", "arguments", "parameters", "citations", "finish_reason", "usage", "tokens",
    "input_tokens", "image_tokens", "cached_tokens", "error", "err", "is_finished", "response", "generations",
    "generation_id", "response_id", "tool_call_delta", "meta", "model", "created_at", "images", "image", "done",
    "done_reason", "prompt_eval_count", "eval_count",
]  # fmt: skip
WORDS = [
    "", "a", "null", "{}", "text", "thinking", "assistant", "stop", "COMPLETE", "message-start", "message-end",
    "content-start", "content-delta", "tool-plan-delta", "tool-call-start", "tool-call-delta", "citation-start",
    "stream-start", "stream-end", "stream-error", "text-generation", "tool-calls-chunk", "tool-calls-generation",
    "citation-generation", "\ud800",
]  # fmt: skip
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=14,
)


def fold(dialect: Dialect, body: bytes, content_type: str) -> None:
    """Reduce, and render both views of what comes out."""
    reducer = ResponseReducer(dialect, RequestFacts(), ResponseFacts(content_type=content_type))
    reducer.feed(body)
    assert reducer.snapshot() == reducer.snapshot()
    turn = reducer.finish(Ending.CUT)
    if isinstance(turn, Turn):
        json.dumps(view(turn, ViewFacts(provider="p", endpoint="e", stream=True))).encode()
        json.dumps(reduced_response(turn))
        hash_of(turn)


@given(values=st.lists(JSON_VALUES, max_size=5))
@settings(max_examples=300, deadline=None)
def test_members_of_any_type_are_survived(values: Sequence[object]) -> None:
    """No provider guarantees the types of its members."""
    stream = b"".join(b"data: " + as_json(value) + b"\n\n" for value in values)
    for dialect in DIALECTS:
        fold(dialect, lines(*values), NDJSON)
        fold(dialect, stream, SSE)
        for value in values:
            fold(dialect, as_json(value), "application/json")


EVENTS = st.fixed_dictionaries(
    {"type": st.sampled_from(WORDS[:-1]), "event_type": st.sampled_from(WORDS)},
    optional=dict.fromkeys(
        ("index", "delta", "text", "response", "tool_call_delta", "tool_calls"), JSON_VALUES
    ),
)


@given(events=st.lists(EVENTS, max_size=6))
@settings(max_examples=200, deadline=None)
def test_events_of_a_known_kind_may_say_anything(events: list[dict[str, object]]) -> None:
    """The name of an event promises nothing of its members."""
    fold(Dialect.COHERE_V1, lines(*events), STREAM_JSON)
    fold(Dialect.COHERE_V2, named_sse("type", *events), SSE)


PARTS = st.lists(
    st.tuples(st.sampled_from(["text", "thinking"]), st.text(min_size=1, max_size=8)), min_size=1, max_size=5
)
CALLS = st.lists(
    st.tuples(st.text(min_size=1, max_size=5), st.dictionaries(st.text(max_size=3), st.integers())),
    max_size=3,
)


@given(parts=PARTS, calls=CALLS)
@settings(max_examples=80, deadline=None)
def test_a_streamed_and_a_whole_v2_turn_are_one(
    parts: list[tuple[str, str]], calls: list[tuple[str, dict[str, int]]]
) -> None:
    """However the texts and arguments are cut into deltas."""
    events = [event for index, (kind, said) in enumerate(parts) for event in content(index, **{kind: said})]
    for index, (name, arguments) in enumerate(calls):
        events.extend(tool_call(index, name, json.dumps(arguments)))
    made = [
        {
            "id": f"id_{index}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for index, (name, arguments) in enumerate(calls)
    ]
    said: dict[str, object] = {
        "role": "assistant",
        "content": [{"type": kind, kind: words} for kind, words in parts],
        "tool_calls": made,
    }
    stream = reduce(Dialect.COHERE_V2, named_sse("type", *events, message_end()), SSE)
    whole = reduce(Dialect.COHERE_V2, as_json({"message": said, "finish_reason": "COMPLETE"}))
    assert stream == whole
    assert hash_of(stream) == hash_of(whole)


@given(
    said=st.text(min_size=1, max_size=30), thought=st.text(max_size=10), cut=st.integers(1, 5), calls=CALLS
)
@settings(max_examples=80, deadline=None)
def test_a_streamed_and_a_whole_ollama_turn_are_one(
    said: str, thought: str, cut: int, calls: list[tuple[str, dict[str, int]]]
) -> None:
    """However the texts are cut, and wherever the calls come."""
    made = [{"function": {"name": name, "arguments": arguments}} for name, arguments in calls]
    events: list[object] = [chat_line(thinking=thought[at : at + cut]) for at in range(0, len(thought), cut)]
    events.extend(chat_line(said[at : at + cut]) for at in range(0, len(said), cut))
    events.extend(chat_line(tool_calls=[call]) for call in made)
    stream = reduce(Dialect.OLLAMA_CHAT, lines(*events, {**chat_line(done=True), **LAST}), NDJSON)
    answer = {**chat_line(said, done=True, thinking=thought, tool_calls=made), **LAST}
    whole = reduce(Dialect.OLLAMA_CHAT, as_json(answer))
    assert stream == whole
    assert hash_of(stream) == hash_of(whole)
