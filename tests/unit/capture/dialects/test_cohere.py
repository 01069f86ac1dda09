"""Cohere v1 and v2: streamed, one-shot, broken off and damaged."""

import json

import pytest

from capture.merkle import build_chain
from capture.turn import Block, Damage, Dialect, ProviderError, Refused, Result, ToolCall, WireUsage
from capture.wire_response import reduced_response
from tests.unit.capture.dialects.cohere_ollama import (
    SSE,
    STREAM_JSON,
    content,
    end,
    lines,
    message,
    message_end,
    named_sse,
    text,
    tool_call,
    v1,
    v1_whole,
    v2,
    v2_whole,
)
from tests.unit.capture.dialects.google_aws import as_json, hash_of, reduce, reduce_chunks

NO_MEMBERS: dict[str, object] = {}
START: dict[str, object] = {
    "type": "message-start",
    "id": "r",
    "delta": {"message": {"role": "assistant", "content": []}},
}
USAGE = {
    "billed_units": {"input_tokens": 1, "output_tokens": 2},
    "tokens": {"input_tokens": 10.0, "output_tokens": 5, "image_tokens": 7, "reasoning_tokens": 3},
    "cached_tokens": 4,
}


# -- v2 --------------------------------------------------------------------------


def test_v2_plan_thinking_text_and_calls_each_have_their_place() -> None:
    """The plan is no text and no thinking of the view; it is kept all the same."""
    turn = v2(
        START,
        message("tool-plan-delta", tool_plan="I will "),
        message("tool-plan-delta", tool_plan="look."),
        *content(0, thinking="hm"),
        *content(1, text="well"),
        *tool_call(0, "look", '{"q": 1}'),
        *tool_call(1, "go", ""),
        message_end("TOOL_CALL", usage=USAGE),
    )
    answer = turn.choices[0]
    assert (answer.thinking, answer.text, answer.result) == ("hm", "well", Result.TOOL_CALL)
    assert answer.tool_calls == (
        ToolCall(id="id_0", name="look", arguments={"q": 1}),
        ToolCall(id="id_1", name="go", arguments={}),
    )
    assert turn.unparsed == ({"tool_plan": "I will look."},)
    assert [block.type for block in turn.blocks] == ["thinking", "thinking", "text", "tool_use", "tool_use"]
    assert turn.blocks[0].thinking == "I will look."
    assert (turn.response_id, turn.model, turn.partial, turn.diagnostics) == ("r", "", False, ())


def test_v2_counts_tokens_and_never_what_is_billed() -> None:
    """Those of images lie beside those of text; reasoning and the cached part lie inside."""
    turn = v2(START, message_end(usage=USAGE))
    usage = turn.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (17, 5, 22)
    assert (usage.cache_read_tokens, usage.cache_write_tokens, usage.reasoning_tokens) == (4, None, 3)
    assert usage.raw == USAGE
    assert turn.wire.usage == WireUsage(
        prompt_tokens=17, completion_tokens=5, total_tokens=22, cache_read_input_tokens=4
    )


def test_billed_units_alone_are_no_usage() -> None:
    for turn in (
        v2(START, message_end(usage={"billed_units": {"input_tokens": 1}})),
        v1_whole({"text": "x", "meta": {"billed_units": {"input_tokens": 1}}}),
    ):
        usage = turn.usage
        assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (None, None, None)


def test_a_streamed_and_a_whole_v2_turn_have_one_hash() -> None:
    citation = {"start": 0, "end": 1, "text": "w", "sources": ["doc"]}
    stream = v2(
        START,
        message("tool-plan-delta", tool_plan="plan"),
        *content(0, thinking="hm"),
        *content(1, text="well"),
        message("citation-start", 0, citations=citation),
        {"type": "citation-end", "index": 0},
        *tool_call(0, "look", '{"q": [1, null]}'),
        message_end("TOOL_CALL", usage=USAGE),
    )
    call = {"id": "id_0", "type": "function", "function": {"name": "look", "arguments": '{"q": [1, null]}'}}
    whole = v2_whole(
        {
            "id": "r",
            "message": {
                "role": "assistant",
                "tool_plan": "plan",
                "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "well"}],
                "tool_calls": [call],
                "citations": [citation],
            },
            "finish_reason": "TOOL_CALL",
            "usage": USAGE,
        }
    )
    assert hash_of(stream) == hash_of(whole)
    assert stream == whole
    assert stream.wire.extra["citations"] == [citation]


def test_a_v2_answer_is_the_beginning_of_the_request_that_echoes_it() -> None:
    """What a client sends back as history hashes as what it was sent."""
    asked = {"role": "user", "content": "where?"}
    call = {"id": "id_0", "type": "function", "function": {"name": "look", "arguments": '{"q": 1}'}}
    echo = {"role": "assistant", "tool_plan": "plan", "tool_calls": [call]}
    turn = v2(
        START,
        message("tool-plan-delta", tool_plan="plan"),
        *tool_call(0, "look", '{"q": 1}'),
        message_end("TOOL_CALL"),
    )
    first = build_chain("", Dialect.COHERE_V2, {"messages": [asked]}, reduced_response(turn))
    later = build_chain("", Dialect.COHERE_V2, {"messages": [asked, echo]}, NO_MEMBERS)
    assert [node.hash for node in first] == [node.hash for node in later]


def test_a_v1_answer_is_the_beginning_of_the_request_that_echoes_it() -> None:
    history: list[object] = [
        {"role": "USER", "message": "where?"},
        {"role": "CHATBOT", "message": "plan", "tool_calls": [{"name": "look", "parameters": {"q": 1}}]},
    ]
    results = [{"call": {"name": "look"}, "outputs": [{"a": 1}]}]
    turn = v1_whole({"text": "plan", "tool_calls": [{"name": "look", "parameters": {"q": 1}}]})
    first = build_chain("", Dialect.COHERE_V1, {"message": "where?"}, reduced_response(turn))
    body = {"chat_history": history, "tool_results": results, "message": ""}
    later = build_chain("", Dialect.COHERE_V1, body, NO_MEMBERS)
    assert [node.hash for node in first] == [node.hash for node in later[:2]]


@pytest.mark.parametrize(
    ("word", "result"),
    [
        ("COMPLETE", Result.STOP),
        ("STOP_SEQUENCE", Result.STOP),
        ("MAX_TOKENS", Result.MAX_TOKENS),
        ("TOOL_CALL", Result.TOOL_CALL),
        ("ERROR", Result.ERROR),
        ("TIMEOUT", Result.ERROR),
        ("ERROR_TOXIC", Result.BLOCKED),
        ("ERROR_LIMIT", Result.MAX_TOKENS),
        ("USER_CANCEL", Result.INCOMPLETE),
        ("SOMETHING_NEW", Result.OTHER),
    ],
)
def test_every_finish_reason_has_its_result(word: str, result: Result) -> None:
    for turn in (v2(START, message_end(word)), v1(text("x"), end(NO_MEMBERS, word))):
        assert (turn.choices[0].stop_reason, turn.choices[0].result) == (word, result)
        assert not turn.partial


def test_a_v2_stream_without_its_end_is_partial() -> None:
    """``[DONE]`` is no end marker of Cohere's."""
    turn = v2(START, *content(0, text="ab"))
    assert (turn.partial, turn.choices[0].result, turn.choices[0].text) == (True, Result.INCOMPLETE, "ab")
    assert turn.wire.extra == {"id": "r", "partial": True}


def test_what_follows_done_is_counted_and_not_read() -> None:
    turn = v2(START, *content(0, text="a"), tail=b"data: [DONE]\n\ndata: {}\n\n")
    assert [(item.damage, item.count) for item in turn.diagnostics] == [(Damage.UNKNOWN_EVENT, 1)]


def test_an_error_in_the_last_v2_event_is_the_providers() -> None:
    turn = v2(START, *content(0, text="a"), message_end("ERROR", error="out of memory"))
    assert turn.provider_error == ProviderError(
        status=200, type=None, message="out of memory", where="stream"
    )
    assert (turn.partial, turn.choices[0].result, turn.choices[0].text) == (True, Result.ERROR, "a")
    assert turn.wire.extra["error"] == {"type": "", "message": "out of memory"}


@pytest.mark.parametrize("dialect", [Dialect.COHERE_V1, Dialect.COHERE_V2])
def test_an_error_in_the_place_of_an_event_breaks_the_stream_off(dialect: Dialect) -> None:
    told = {"id": "x", "message": "internal server error", "error_type": "server"}
    body = named_sse("event", told).replace(b"event: None\n", b"")
    turn = reduce(dialect, body, SSE)
    error = ProviderError(status=200, type="server", message="internal server error", where="stream")
    assert (turn.provider_error, turn.partial) == (error, True)


@pytest.mark.parametrize("dialect", [Dialect.COHERE_V1, Dialect.COHERE_V2])
@pytest.mark.parametrize("content_type", ["application/json", SSE, ""])
def test_an_error_document_of_status_200_is_an_error_and_whole(dialect: Dialect, content_type: str) -> None:
    """A gateway's, even under a stream's content type."""
    turn = reduce(dialect, as_json({"message": "no"}), content_type)
    assert turn.provider_error == ProviderError(status=200, type=None, message="no", where="http")
    assert (turn.partial, turn.choices[0].result) == (False, Result.ERROR)


@pytest.mark.parametrize("dialect", [Dialect.COHERE_V1, Dialect.COHERE_V2])
@pytest.mark.parametrize("body", [b"<html>", b"[1]", b"null", b'{"text', b"<a>\n<b>"])
def test_what_is_no_json_object_is_refused(dialect: Dialect, body: bytes) -> None:
    assert isinstance(reduce_chunks(dialect, [body], "application/json"), Refused)


def test_v2_content_that_we_do_not_know_is_kept_whole() -> None:
    odd = {"type": "image", "url": "u"}
    turn = v2(START, message("content-start", 0, content=odd), *content(1, text="a"), message_end())
    whole = v2_whole({"message": {"content": [odd, {"type": "text", "text": "a"}]}})
    for seen in (turn, whole):
        assert seen.unparsed == (odd,)
        assert seen.blocks[1] == Block(type="image", content=odd)
        assert [item.damage for item in seen.diagnostics] == [Damage.UNKNOWN_CONTENT]
        assert seen.choices[0].text == "a"


def test_v2_deltas_without_a_start_open_what_they_are_of() -> None:
    """And one event may say both: nothing is lost."""
    turn = v2(
        message("content-delta", 0, content={"text": "b", "thinking": "a"}),
        message("content-delta", 0, content={"text": "c"}),
        message("tool-call-delta", 3, tool_calls={"function": {"name": "f", "arguments": "{}"}}),
        message_end(),
    )
    answer = turn.choices[0]
    assert (answer.thinking, answer.text) == ("a", "bc")
    assert answer.tool_calls == (ToolCall(id=None, name="f", arguments={}),)


def test_v2_content_as_a_plain_text_is_read() -> None:
    assert v2_whole({"message": {"content": "hi"}}).choices[0].text == "hi"


def test_a_v2_call_that_opens_at_a_used_place_is_another_call() -> None:
    turn = v2(START, *tool_call(0, "a", "{}"), *tool_call(0, "b", '{"x": 1}'), message_end())
    assert [(call.name, call.arguments) for call in turn.choices[0].tool_calls] == [
        ("a", {}),
        ("b", {"x": 1}),
    ]


def test_arguments_that_are_no_object_are_kept_as_sent() -> None:
    turn = v2(START, *tool_call(0, "f", '{"a": '), message_end("MAX_TOKENS"))
    assert turn.choices[0].tool_calls == (
        ToolCall(id="id_0", name="f", arguments=None, raw_arguments='{"a": '),
    )
    assert [item.damage for item in turn.diagnostics] == [Damage.UNPARSEABLE_TOOL_INPUT]
    whole = v1_whole({"text": "", "tool_calls": [{"name": "f", "parameters": [1]}]})
    assert whole.choices[0].tool_calls == (ToolCall(id=None, name="f", arguments=None, raw_arguments="[1]"),)
    assert [item.damage for item in whole.diagnostics] == [Damage.UNPARSEABLE_TOOL_INPUT]


def test_an_unknown_v2_event_is_counted() -> None:
    turn = v2(
        START, {"type": "new-thing"}, {"type": "debug", "prompt": "p"}, *content(0, text="a"), message_end()
    )
    assert [(item.damage, item.detail) for item in turn.diagnostics] == [(Damage.UNKNOWN_EVENT, "new-thing")]
    assert turn.choices[0].text == "a"


def test_a_v2_event_with_an_odd_member_loses_only_that() -> None:
    odd = {
        "type": "content-delta",
        "index": "0",
        "delta": {"message": {"content": {"text": "a", "thinking": 7}}},
    }
    turn = v2(START, odd, message_end())
    assert turn.choices[0].text == "a"
    assert [item.damage for item in turn.diagnostics] == [Damage.UNKNOWN_CONTENT]


def test_an_event_that_is_no_json_costs_nothing_but_itself() -> None:
    events = named_sse("type", START, *content(0, text="a"))
    body = events + b"data: {oops\n\n" + named_sse("type", *content(1, text="b"), message_end())
    turn = reduce(Dialect.COHERE_V2, body, SSE)
    assert turn.choices[0].text == "ab"
    assert [item.damage for item in turn.diagnostics] == [Damage.UNPARSEABLE_EVENT]


# -- v1 --------------------------------------------------------------------------

CALLS: list[dict[str, object]] = [{"name": "look", "parameters": {"q": 1}}, {"name": "go", "parameters": {}}]


def test_a_v1_stream_is_what_its_events_said_and_its_last_event_adds() -> None:
    """The id is the generation's; the whole answer in the last event is not told twice."""
    meta = {"tokens": {"input_tokens": 3, "output_tokens": 2}, "billed_units": {"input_tokens": 1}}
    whole = {
        "response_id": "r",
        "generation_id": "g",
        "text": "Hi.",
        "finish_reason": "COMPLETE",
        "meta": meta,
    }
    turn = v1(
        {"event_type": "stream-start", "generation_id": "g", "is_finished": False},
        {"event_type": "search-queries-generation", "search_queries": []},
        text("Hi"),
        text("."),
        {"event_type": "citation-generation", "citations": [{"start": 0}]},
        end(whole),
    )
    assert (turn.choices[0].text, turn.response_id, turn.partial) == ("Hi.", "g", False)
    assert (turn.usage.input_tokens, turn.usage.output_tokens, turn.usage.raw) == (3, 2, meta)
    assert turn.wire.extra == {"id": "g", "citations": [{"start": 0}]}
    assert turn.diagnostics == ()
    assert v1_whole({**whole, "citations": [{"start": 0}]}) == turn


def test_v1_calls_in_fragments_are_replaced_by_the_whole_ones() -> None:
    chunks: list[dict[str, object]] = [
        {"event_type": "tool-calls-chunk", "text": "I will"},
        {"event_type": "tool-calls-chunk", "text": " look."},
        {"event_type": "tool-calls-chunk", "tool_call_delta": {"index": 0, "name": "look"}},
        {"event_type": "tool-calls-chunk", "tool_call_delta": {"index": 0, "parameters": '{"q": '}},
        {"event_type": "tool-calls-chunk", "tool_call_delta": {"index": 0, "parameters": "1}"}},
        {"event_type": "tool-calls-chunk", "tool_call_delta": {"index": 1, "name": "go"}},
    ]
    cut = v1(*chunks)
    stream = v1(
        *chunks,
        {"event_type": "tool-calls-generation", "text": "I will look.", "tool_calls": CALLS},
        end({"text": "I will look.", "tool_calls": CALLS}),
    )
    whole = v1_whole({"text": "I will look.", "tool_calls": CALLS, "finish_reason": "COMPLETE"})
    for turn in (cut, stream, whole):
        assert turn.choices[0].text == "I will look."
        assert [(call.id, call.name, call.arguments) for call in turn.choices[0].tool_calls] == [
            (None, "look", {"q": 1}),
            (None, "go", {}),
        ]
        assert turn.choices[0].result is Result.TOOL_CALL
    assert hash_of(stream) == hash_of(whole) == hash_of(cut)
    assert (cut.partial, stream.partial) == (True, False)


def test_a_v1_stream_comes_as_sse_too() -> None:
    """As the client asked for it: the same events."""
    events = [text("a"), text("b"), end({"generation_id": "g"})]
    assert reduce(Dialect.COHERE_V1, named_sse("event_type", *events), SSE) == v1(*events)


@pytest.mark.parametrize("content_type", ["", "application/json", STREAM_JSON, "application/x-ndjson", SSE])
def test_v1_lines_are_read_under_any_content_type(content_type: str) -> None:
    events = [text("a"), text("b"), end({"generation_id": "g"})]
    turn = reduce(Dialect.COHERE_V1, lines(*events), content_type)
    assert (turn.choices[0].text, turn.response_id, turn.partial) == ("ab", "g", False)


def test_one_line_of_a_v1_stream_that_broke_off_is_partial_under_any_type() -> None:
    for content_type in ("", STREAM_JSON):
        turn = reduce(Dialect.COHERE_V1, lines(text("a")), content_type)
        assert (turn.choices[0].text, turn.partial) == ("a", True)


def test_several_generations_are_choices() -> None:
    def generation(index: int, said: str) -> dict[str, object]:
        return {"id": f"g{index}", "index": index, "text": said, "finish_reason": "MAX_TOKENS"}

    whole = {"id": "r", "generations": [generation(0, "ab"), generation(1, "c")], "meta": None}
    stream = v1(text("a", index=0), text("c", index=1), text("b", index=0), end(whole, ""))
    for turn in (stream, v1_whole(whole)):
        assert [(choice.index, choice.text, choice.result) for choice in turn.choices] == [
            (0, "ab", Result.MAX_TOKENS),
            (1, "c", Result.MAX_TOKENS),
        ]
        assert turn.response_id == "r"
        assert turn.wire.extra["choices"] == [
            {
                "index": 1,
                "message": {"role": "assistant", "content": [{"type": "text", "text": "c"}]},
                "stop_reason": "MAX_TOKENS",
            }
        ]


def test_a_generate_stream_of_an_older_server_does_not_name_its_events() -> None:
    turn = v1(
        {"text": "a", "is_finished": False},
        {"text": "b", "is_finished": False},
        {"is_finished": True, "finish_reason": "COMPLETE", "response": {"id": "r", "generations": []}},
    )
    assert (turn.choices[0].text, turn.response_id, turn.partial) == ("ab", "r", False)
    assert turn.choices[0].result is Result.STOP


@pytest.mark.parametrize(
    "last",
    [
        {"event_type": "stream-error", "is_finished": True, "finish_reason": "ERROR", "err": "boom"},
        {"is_finished": True, "finish_reason": "ERROR", "err": "boom"},
        {"event_type": "stream-end", "is_finished": True, "finish_reason": "ERROR", "error": "boom"},
    ],
)
def test_an_error_at_the_end_of_a_v1_stream_is_the_providers(last: dict[str, object]) -> None:
    turn = v1(text("a"), last)
    assert turn.provider_error == ProviderError(status=200, type=None, message="boom", where="stream")
    assert (turn.partial, turn.choices[0].result, turn.choices[0].text) == (True, Result.ERROR, "a")


def test_an_unknown_v1_event_is_counted() -> None:
    turn = v1(text("a"), {"event_type": "new-thing"}, {"odd": 1}, end(NO_MEMBERS))
    assert [(item.damage, item.count) for item in turn.diagnostics] == [(Damage.UNKNOWN_EVENT, 2)]


def test_a_v1_event_with_an_odd_member_loses_only_that() -> None:
    turn = v1(text("a", index="x"), text("b"), end(NO_MEMBERS))
    assert turn.choices[0].text == "ab"
    assert [item.damage for item in turn.diagnostics] == [Damage.UNKNOWN_CONTENT]


def test_a_broken_v1_line_costs_nothing_but_itself() -> None:
    body = lines(text("a")) + b'{"text": \n' + lines(text("b"), end(NO_MEMBERS))
    turn = reduce(Dialect.COHERE_V1, body, STREAM_JSON)
    assert turn.choices[0].text == "ab"
    assert [item.damage for item in turn.diagnostics] == [Damage.UNPARSEABLE_EVENT]


def test_a_pretty_printed_v1_answer_is_one_document() -> None:
    body = json.dumps({"text": "hi", "generation_id": "g", "finish_reason": "COMPLETE"}, indent=2).encode()
    turn = reduce(Dialect.COHERE_V1, body)
    assert (turn.choices[0].text, turn.response_id, turn.partial) == ("hi", "g", False)
