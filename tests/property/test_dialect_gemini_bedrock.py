"""Gemini, Converse and InvokeModel: what holds for any chunking, any cut and any bytes."""

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
from tests.unit.capture.dialects.google_aws import (
    EVENTSTREAM,
    as_json,
    as_sse,
    converse_stream,
    event,
    hash_of,
    invoke_stream,
    reduce,
    reduce_chunks,
)

GEMINI_EVENTS: list[object] = [
    {"candidates": [{"content": {"parts": [{"text": "Hm…", "thought": True}]}}], "responseId": "r"},
    {"candidates": [{"content": {"parts": [{"text": "Grüße "}]}}], "modelVersion": "m"},
    {
        "candidates": [
            {"content": {"parts": [{"text": "🌍"}, {"functionCall": {"name": "f", "args": {"a": 1}}}]}}
        ]
    },
    {
        "candidates": [{"content": {"parts": [{"text": "!"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 2},
    },
]
CONVERSE_EVENTS: list[tuple[str, object]] = [
    ("messageStart", {"role": "assistant"}),
    ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "Hm…"}}}),
    ("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "Grüße "}}),
    ("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "🌍!"}}),
    ("contentBlockStart", {"contentBlockIndex": 2, "start": {"toolUse": {"toolUseId": "t", "name": "f"}}}),
    ("contentBlockDelta", {"contentBlockIndex": 2, "delta": {"toolUse": {"input": '{"a":'}}}),
    ("contentBlockDelta", {"contentBlockIndex": 2, "delta": {"toolUse": {"input": " 1}"}}}),
    ("contentBlockStop", {"contentBlockIndex": 2}),
    ("messageStop", {"stopReason": "tool_use"}),
    ("metadata", {"usage": {"inputTokens": 1, "outputTokens": 2}}),
]
CLAUDE_EVENTS: list[object] = [
    {"type": "message_start", "message": {"id": "m", "role": "assistant", "usage": {"input_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Grüße "}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "🌍!"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
]
LLAMA_EVENTS: list[object] = [
    {"generation": "Grüße ", "prompt_token_count": 1, "generation_token_count": 1, "stop_reason": None},
    {"generation": "🌍!", "prompt_token_count": None, "generation_token_count": 2, "stop_reason": "stop"},
]
BODIES: dict[str, tuple[Dialect, str, bytes]] = {
    "gemini sse": (Dialect.GEMINI, "text/event-stream", as_sse(GEMINI_EVENTS)),
    "gemini array": (Dialect.GEMINI, "application/json", json.dumps(GEMINI_EVENTS, indent=1).encode()),
    "converse": (Dialect.BEDROCK_CONVERSE, EVENTSTREAM, converse_stream(*CONVERSE_EVENTS)),
    "invoke claude": (Dialect.BEDROCK_INVOKE, EVENTSTREAM, invoke_stream(CLAUDE_EVENTS)),
    "invoke llama": (Dialect.BEDROCK_INVOKE, EVENTSTREAM, invoke_stream(LLAMA_EVENTS)),
    "invoke nova": (
        Dialect.BEDROCK_INVOKE,
        EVENTSTREAM,
        invoke_stream([{kind: payload} for kind, payload in CONVERSE_EVENTS]),
    ),
}


@pytest.mark.parametrize("name", BODIES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_chunking_gives_the_same_turn(name: str, data: st.DataObject) -> None:
    """Borders of chunks mean nothing."""
    dialect, content_type, body = BODIES[name]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=12)))
    chunks = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert reduce_chunks(dialect, chunks, content_type) == reduce_chunks(dialect, [body], content_type)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_chunking_gives_the_same_error_of_a_stream_that_broke_off(data: st.DataObject) -> None:
    """Google's bare error, however it arrives."""
    error = json.dumps({"error": {"status": "ABORTED", "message": "m"}}, indent=1)
    body = as_sse(GEMINI_EVENTS[:2]) + error.replace("\n", "\r\n").encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=12)))
    chunks = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    turn = reduce_chunks(Dialect.GEMINI, chunks, "text/event-stream")
    assert isinstance(turn, Turn)
    assert turn.provider_error is not None
    assert turn == reduce_chunks(Dialect.GEMINI, [body], "text/event-stream")


@pytest.mark.parametrize("name", BODIES)
def test_a_cut_at_every_byte_gives_a_turn_whose_text_is_a_prefix(name: str) -> None:
    """The connection may break anywhere; a turn without its end marker is partial."""
    dialect, content_type, body = BODIES[name]
    full = reduce(dialect, body, content_type)
    assert not full.partial
    texts = set[str]()
    for end in range(1, len(body)):
        turn = reduce_chunks(dialect, [body[:end]], content_type)
        assert isinstance(turn, Turn)
        assert full.choices[0].text.startswith(turn.choices[0].text)
        assert full.choices[0].thinking.startswith(turn.choices[0].thinking)
        assert turn.partial == (turn.choices[0].stop_reason is None)
        texts.add(turn.choices[0].text)
    assert len(texts) > 1


@pytest.mark.parametrize("dialect", [Dialect.GEMINI, Dialect.BEDROCK_CONVERSE, Dialect.BEDROCK_INVOKE])
@pytest.mark.parametrize("content_type", ["", "application/json", "text/event-stream", EVENTSTREAM])
@given(body=st.binary(max_size=300))
@settings(max_examples=40, deadline=None)
def test_any_bytes_finish(dialect: Dialect, content_type: str, body: bytes) -> None:
    """Whatever is sent, reduction ends with a value."""
    assert reduce_chunks(dialect, [body], content_type) is not None


NAMES = [
    "response",
    "candidates",
    "content",
    "parts",
    "text",
    "thought",
    "thoughtSignature",
    "functionCall",
    "partialArgs",
    "jsonPath",
    "stringValue",
    "willContinue",
    "name",
    "id",
    "args",
    "index",
    "finishReason",
    "promptFeedback",
    "blockReason",
    "usageMetadata",
    "promptTokenCount",
    "modelVersion",
    "error",
    "message",
    "status",
    "inlineData",
    "mimeType",
    "data",
    "executableCode",
    "contentBlockIndex",
    "delta",
    "start",
    "toolUse",
    "toolUseId",
    "input",
    "toolResult",
    "reasoningContent",
    "reasoningText",
    "redactedContent",
    "signature",
    "citation",
    "citationsContent",
    "image",
    "source",
    "bytes",
    "s3Location",
    "uri",
    "format",
    "stopReason",
    "usage",
    "inputTokens",
    "output",
    "role",
    "generation",
    "generations",
    "outputs",
    "results",
    "completions",
    "completion",
    "type",
    "choices",
    "finish_reason",
    "stop_reason",
    "is_finished",
    "outputText",
    "tokenCount",
    "data",
    "tool_calls",
    "function",
    "content_block",
    "amazon-bedrock-invocationMetrics",
    "amazon-bedrock-guardrailAction",
    "messageStart",
    "contentBlockDelta",
    "metadata",
]
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "a", "$.a", "$.a[0]", "message_start", "INTERVENED", "image/png", "null"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
CONVERSE_NAMES = st.sampled_from(
    [
        "messageStart",
        "contentBlockStart",
        "contentBlockDelta",
        "contentBlockStop",
        "messageStop",
        "metadata",
        "chunk",
    ]
)


def fold(dialect: Dialect, body: bytes, content_type: str) -> None:
    """Reduce, and render both views of what comes out."""
    reducer = ResponseReducer(dialect, RequestFacts(), ResponseFacts(content_type=content_type))
    reducer.feed(body)
    assert reducer.snapshot() == reducer.snapshot()
    turn = reducer.finish(Ending.CUT)
    if isinstance(turn, Turn):
        json.dumps(view(turn, ViewFacts(provider="p", endpoint="e", stream=True)))
        if not turn.wire.document:
            json.dumps(reduced_response(turn))
        hash_of(turn)


@given(values=st.lists(JSON_VALUES, max_size=5))
@settings(max_examples=150, deadline=None)
def test_members_of_any_type_are_survived(values: Sequence[object]) -> None:
    """No provider guarantees the types of its members."""
    fold(Dialect.GEMINI, as_sse(values), "text/event-stream")
    fold(Dialect.BEDROCK_INVOKE, invoke_stream(values), EVENTSTREAM)
    for value in values:
        for dialect in (Dialect.GEMINI, Dialect.BEDROCK_CONVERSE, Dialect.BEDROCK_INVOKE):
            fold(dialect, as_json(value), "application/json")


@given(events=st.lists(st.tuples(CONVERSE_NAMES, JSON_VALUES), max_size=6))
@settings(max_examples=150, deadline=None)
def test_converse_payloads_of_any_shape_are_survived(events: list[tuple[str, object]]) -> None:
    """An event of a known name may say anything."""
    body = b"".join(event(name, payload) for name, payload in events)
    fold(Dialect.BEDROCK_CONVERSE, body, EVENTSTREAM)
    fold(Dialect.BEDROCK_INVOKE, body, EVENTSTREAM)


PARTS = st.lists(
    st.tuples(st.sampled_from(["text", "thinking", "call"]), st.text(min_size=1, max_size=8)),
    min_size=1,
    max_size=6,
)


@given(parts=PARTS, cut=st.integers(1, 4))
@settings(max_examples=80, deadline=None)
def test_a_streamed_and_a_whole_gemini_turn_have_one_hash(parts: list[tuple[str, str]], cut: int) -> None:
    """However the texts are cut into pieces."""
    whole: list[dict[str, object]] = []
    pieces: list[dict[str, object]] = []
    for kind, text in parts:
        if kind == "call":
            call: dict[str, object] = {"functionCall": {"name": text, "args": {"a": text}}}
            whole.append(call)
            pieces.append(call)
            continue
        mark: dict[str, object] = {"thought": True} if kind == "thinking" else {}
        whole.append({"text": text, **mark})
        pieces.extend({"text": text[at : at + cut], **mark} for at in range(0, len(text), cut))
    events: list[object] = [{"candidates": [{"content": {"parts": [piece]}}]} for piece in pieces]
    events.append({"candidates": [{"finishReason": "STOP"}]})
    document = {"candidates": [{"content": {"parts": whole}, "finishReason": "STOP"}]}
    stream = reduce(Dialect.GEMINI, as_sse(events), "text/event-stream")
    one_shot = reduce(Dialect.GEMINI, as_json(document))
    assert stream.blocks == one_shot.blocks
    assert hash_of(stream) == hash_of(one_shot)
    assert stream.choices == one_shot.choices


@given(parts=PARTS, cut=st.integers(1, 4))
@settings(max_examples=80, deadline=None)
def test_a_streamed_and_a_whole_converse_turn_have_one_hash(parts: list[tuple[str, str]], cut: int) -> None:
    """However the texts and inputs are cut into deltas."""
    whole: list[dict[str, object]] = []
    events: list[tuple[str, object]] = [("messageStart", {"role": "assistant"})]
    for index, (kind, text) in enumerate(parts):
        sent = json.dumps({"a": text}) if kind == "call" else text
        if kind == "call":
            called: dict[str, object] = {"toolUseId": "t", "name": text}
            events.append(("contentBlockStart", {"contentBlockIndex": index, "start": {"toolUse": called}}))
            whole.append({"toolUse": {**called, "input": {"a": text}}})
        elif kind == "thinking":
            whole.append({"reasoningContent": {"reasoningText": {"text": text}}})
        else:
            whole.append({"text": text})
        for piece in (sent[at : at + cut] for at in range(0, len(sent), cut)):
            delta: object = {
                "call": {"toolUse": {"input": piece}},
                "thinking": {"reasoningContent": {"text": piece}},
                "text": {"text": piece},
            }[kind]
            events.append(("contentBlockDelta", {"contentBlockIndex": index, "delta": delta}))
        events.append(("contentBlockStop", {"contentBlockIndex": index}))
    events.append(("messageStop", {"stopReason": "end_turn"}))
    document = {"output": {"message": {"role": "assistant", "content": whole}}, "stopReason": "end_turn"}
    stream = reduce(Dialect.BEDROCK_CONVERSE, converse_stream(*events), EVENTSTREAM)
    one_shot = reduce(Dialect.BEDROCK_CONVERSE, as_json(document))
    assert stream.blocks == one_shot.blocks
    assert hash_of(stream) == hash_of(one_shot)
    assert stream.choices == one_shot.choices
