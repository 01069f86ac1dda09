"""Anthropic Messages, beyond what the contract's vectors hold."""

import json
from typing import Any

import msgspec
import pytest

from capture.dialects.fold import RequestFacts
from capture.reduce import ResponseFacts, ResponseReducer
from capture.turn import Damage, Dialect, Ending, Result, Turn
from capture.wire_response import reduced_response

Json = dict[str, Any]

START: Json = {
    "type": "message_start",
    "message": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x",
        "usage": {"input_tokens": 3, "cache_read_input_tokens": 10, "output_tokens": 1},
    },
}  # fmt: skip
STOP: Json = {"type": "message_stop"}


def sse(*events: Json) -> bytes:
    """A stream of events, framed as Anthropic does."""
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


def opened(index: int, **block: object) -> Json:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, kind: str, **members: object) -> Json:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **members}}


def closed(index: int) -> Json:
    return {"type": "content_block_stop", "index": index}


def ended(word: str, **usage: object) -> Json:
    return {"type": "message_delta", "delta": {"stop_reason": word}, "usage": usage or {"output_tokens": 7}}


def reduce(body: bytes, content_type: str = "text/event-stream") -> Turn:
    """The turn of a body."""
    reducer = ResponseReducer(
        Dialect.ANTHROPIC_MESSAGES, RequestFacts(), ResponseFacts(content_type=content_type)
    )
    reducer.feed(body)
    turn = reducer.finish(Ending.COMPLETE)
    assert isinstance(turn, Turn)
    return turn


def streamed(*events: Json) -> Turn:
    return reduce(sse(START, *events))


def test_tool_fragments_become_the_calls_arguments() -> None:
    turn = streamed(
        opened(0, type="tool_use", id="t1", name="search", input={}),
        delta(0, "input_json_delta", partial_json=""),
        delta(0, "input_json_delta", partial_json='{"q": "a'),
        delta(0, "input_json_delta", partial_json='b"}'),
        closed(0),
        ended("tool_use"),
        STOP,
    )
    (call,) = turn.choices[0].tool_calls
    assert (call.id, call.name, call.arguments) == ("t1", "search", {"q": "ab"})
    assert turn.choices[0].result is Result.TOOL_CALL


def test_arguments_cut_short_are_shown_as_sent() -> None:
    turn = streamed(
        opened(0, type="tool_use", id="t1", name="search", input={}),
        delta(0, "input_json_delta", partial_json='{"q": "a'),
    )
    (call,) = turn.choices[0].tool_calls
    assert (call.arguments, call.raw_arguments) == (None, '{"q": "a')
    assert turn.partial


def test_a_call_without_fragments_has_no_arguments_rather_than_null() -> None:
    turn = streamed(
        opened(0, type="tool_use", id="t1", name="now", input={}), closed(0), ended("tool_use"), STOP
    )
    assert turn.choices[0].tool_calls[0].arguments == {}


def test_server_tools_are_no_calls_of_the_client_and_stay_whole() -> None:
    result = {"type": "mcp_tool_result", "tool_use_id": "m1", "content": [{"type": "text", "text": "42"}]}
    turn = streamed(
        opened(0, type="server_tool_use", id="s1", name="web_search", input={}),
        delta(0, "input_json_delta", partial_json='{"query": "q"}'),
        closed(0),
        opened(1, type="mcp_tool_use", id="m1", name="answer", server_name="s", input={}),
        delta(1, "input_json_delta", partial_json='{"x": 1}'),
        closed(1),
        opened(2, **result),
        closed(2),
        opened(3, type="text", text=""),
        delta(3, "text_delta", text="It is 42."),
        closed(3),
        ended("end_turn"),
        STOP,
    )
    assert turn.choices[0].tool_calls == ()
    assert turn.choices[0].result is Result.STOP
    assert turn.choices[0].text == "It is 42."
    assert result in turn.unparsed
    assert {
        "type": "mcp_tool_use",
        "id": "m1",
        "name": "answer",
        "server_name": "s",
        "input": {"x": 1},
    } in turn.unparsed


def test_thinking_and_its_signature_are_kept_apart_from_text() -> None:
    turn = streamed(
        opened(0, type="thinking", thinking="", signature=""),
        delta(0, "thinking_delta", thinking="hm"),
        delta(0, "thinking_delta", thinking="m"),
        delta(0, "signature_delta", signature="c2ln"),
        closed(0),
        opened(1, type="text", text=""),
        delta(1, "text_delta", text="yes"),
        closed(1),
        ended("end_turn"),
        STOP,
    )
    assert (turn.choices[0].thinking, turn.choices[0].text) == ("hmm", "yes")
    assert turn.blocks[0].thinking_signature == "c2ln"


def test_citations_change_no_text() -> None:
    turn = streamed(
        opened(0, type="text", text="", citations=[]),
        delta(0, "text_delta", text="a"),
        delta(0, "citations_delta", citation={"type": "char_location", "cited_text": "zzz"}),
        delta(0, "text_delta", text="b"),
        closed(0),
        ended("end_turn"),
        STOP,
    )
    assert turn.choices[0].text == "ab"


@pytest.mark.parametrize(
    ("word", "result"),
    [
        ("pause_turn", Result.MAX_ITERATIONS),
        ("refusal", Result.REFUSAL),
        ("max_tokens", Result.MAX_TOKENS),
        ("model_context_window_exceeded", Result.MAX_TOKENS),
        ("stop_sequence", Result.STOP),
    ],
)
def test_stop_words_have_their_meaning(word: str, result: Result) -> None:
    turn = streamed(opened(0, type="text", text="x"), closed(0), ended(word), STOP)
    assert (turn.choices[0].stop_reason, turn.choices[0].result) == (word, result)


def test_an_error_in_the_stream_keeps_what_came_before_it() -> None:
    turn = streamed(
        opened(0, type="text", text=""),
        delta(0, "text_delta", text="half"),
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
    )
    assert turn.provider_error is not None
    assert (turn.provider_error.where, turn.provider_error.type) == ("stream", "overloaded_error")
    assert (turn.choices[0].text, turn.choices[0].result, turn.partial) == ("half", Result.ERROR, True)


def test_usage_is_merged_member_by_member() -> None:
    turn = streamed(ended("end_turn", output_tokens=7, cache_read_input_tokens=None, input_tokens=4), STOP)
    assert (turn.usage.input_tokens, turn.usage.output_tokens) == (14, 7)
    assert (turn.usage.cache_read_tokens, turn.usage.cache_write_tokens) == (10, None)


def test_no_usage_is_no_numbers() -> None:
    turn = reduce(sse({"type": "message_start", "message": {"id": "m"}}, STOP))
    assert (turn.usage.input_tokens, turn.usage.output_tokens, turn.usage.total_tokens) == (None, None, None)


def test_unknown_events_are_counted_and_never_fatal() -> None:
    turn = streamed({"type": "message_sparkle", "x": 1}, opened(0, type="text", text="x"), STOP)
    assert [(each.damage, each.count) for each in turn.diagnostics] == [(Damage.UNKNOWN_EVENT, 1)]
    assert turn.choices[0].text == "x"


def test_members_of_the_wrong_type_cost_their_event_only() -> None:
    turn = reduce(
        sse(START, opened(0, type="text", text=""))
        + b'event: content_block_delta\ndata: {"type":"content_block_delta","index":"zero"}\n\n'
        + sse(delta(0, "text_delta", text="still here"), closed(0), ended("end_turn"), STOP)
    )
    assert turn.choices[0].text == "still here"
    assert [each.damage for each in turn.diagnostics] == [Damage.UNPARSEABLE_EVENT]


def test_reading_the_turn_off_changes_nothing() -> None:
    """A running exchange is checkpointed with the code that ends it."""
    events = sse(
        START, opened(0, type="tool_use", id="t", name="n", input={}),
        delta(0, "input_json_delta", partial_json='{"a": '), delta(0, "input_json_delta", partial_json="1}"),
        closed(0), ended("tool_use"), STOP,
    )  # fmt: skip
    reducer = ResponseReducer(
        Dialect.ANTHROPIC_MESSAGES, RequestFacts(), ResponseFacts(content_type="text/event-stream")
    )
    for start in range(0, len(events), 40):
        reducer.feed(events[start : start + 40])
        reducer.snapshot()
    assert reducer.finish(Ending.COMPLETE) == reduce(events)


def test_the_two_renderings_of_one_shot_and_stream_agree() -> None:
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "ab"}], "usage": {"input_tokens": 3, "output_tokens": 7},
    }  # fmt: skip
    whole = reduce(json.dumps(message).encode(), "application/json")
    stream = streamed(
        opened(0, type="text", text="a"), delta(0, "text_delta", text="b"), ended("end_turn"), STOP
    )
    assert whole.blocks == stream.blocks
    assert whole.choices == stream.choices
    assert reduced_response(whole)["message"] == reduced_response(stream)["message"]


def test_members_that_are_null_cost_nothing() -> None:
    turn = streamed(
        opened(0, type="text", text=""),
        delta(0, "text_delta", text="a", signature=None),
        delta(0, "text_delta", text=None),
        {"type": "content_block_delta", "index": None, "delta": {"type": "text_delta", "text": "b"}},
        closed(0),
        ended("end_turn"),
        STOP,
    )
    assert turn.choices[0].text == "ab"
    assert turn.diagnostics == ()


@pytest.mark.parametrize(
    "error", [{"error": "overloaded"}, {"message": "overloaded"}, {"error": {"message": "overloaded"}}]
)
def test_an_error_event_of_any_shape_is_an_error(error: Json) -> None:
    turn = streamed({"type": "error", **error})
    assert turn.provider_error is not None
    assert (turn.provider_error.type, turn.provider_error.message) == (None, "overloaded")
    assert turn.choices[0].result is Result.ERROR


def test_an_error_document_of_another_shape_is_an_error() -> None:
    turn = reduce(b'{"error": {"type": "server_error", "message": "no"}}', "application/json")
    assert turn.provider_error is not None
    assert (turn.provider_error.type, turn.choices[0].result) == ("server_error", Result.ERROR)


def test_citations_and_compactions_are_kept() -> None:
    citation = {"type": "char_location", "cited_text": "zzz"}
    turn = streamed(
        opened(0, type="text", text=""), delta(0, "citations_delta", citation=citation), closed(0),
        opened(1, type="compaction", content=None), delta(1, "compaction_delta", content="sum"), closed(1), STOP,
    )  # fmt: skip
    assert {"type": "text", "text": "", "citations": [citation]} in turn.unparsed
    assert {"type": "compaction", "content": "sum"} in turn.unparsed


def test_what_the_contract_loses_is_told() -> None:
    turn = streamed(opened(-1, type="text", text="x"), delta(0, "sparkle_delta", text="y"), STOP)
    assert [(each.damage, each.count) for each in turn.diagnostics] == [(Damage.UNKNOWN_CONTENT, 2)]


@pytest.mark.parametrize(
    "body",
    [b'\xef\xbb\xbf{"content": []}', b'{"content": [], "x": "\\ud800"}', b'{"content": [], "x": "\xff"}'],
    ids=["byte-order-mark", "unpaired-surrogate", "not-utf-8"],
)
def test_a_repaired_document_is_sent_on_as_strict_json(body: bytes) -> None:
    turn = reduce(body, "application/json")
    assert "content" in msgspec.json.decode(turn.wire.document)


def test_white_space_in_front_costs_linear_time() -> None:
    """It waits for the first byte that tells, and must not be joined again and again."""
    reducer = ResponseReducer(Dialect.ANTHROPIC_MESSAGES, RequestFacts(), ResponseFacts())
    for _ in range(4000):
        reducer.feed(b" " * 4096)
    reducer.feed(b'{"content": [{"type": "text", "text": "x"}]}')
    assert len(reducer.document) < 4096
    turn = reducer.finish(Ending.COMPLETE)
    assert isinstance(turn, Turn)
    assert turn.choices[0].text == "x"
