"""Chat completions: what each vendor does with them, and what damage leaves behind."""

import json
from typing import Any

import pytest

from capture.dialects.fold import RequestFacts
from capture.dialects.openai_chat import ChatFold
from capture.reduce import ResponseFacts, ResponseReducer
from capture.turn import Damage, Dialect, Ending, Refused, Result, Turn
from tests.unit.capture.dialects.openai_streams import (
    chunk,
    completion,
    delta,
    message,
    reduce,
    root_hash,
    sse,
    wire,
)

DONE = "[DONE]"


def function(
    name: str | None = None, arguments: object = None, call_id: str | None = None, **members: Any
) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}, **members}


def damages(turn: Turn) -> dict[Damage, int]:
    return {found.damage: found.count for found in turn.diagnostics}


# -- text, thinking, refusal --------------------------------------------------


def test_deltas_join_with_nothing_between_and_nothing_trimmed() -> None:
    turn = reduce(
        sse(
            chunk(delta(role="assistant", content="")),
            chunk(delta(content=" Hel")),
            chunk(delta(content="lo\n")),
            chunk(delta(finish_reason="stop")),
            DONE,
        )
    )
    answer = turn.choices[0]
    assert (answer.text, answer.stop_reason, answer.result) == (" Hello\n", "stop", Result.STOP)
    assert (turn.model, turn.response_id, turn.partial) == ("gpt-x", "chatcmpl-1", False)
    assert not turn.diagnostics


def test_an_empty_first_id_and_model_are_passed_over() -> None:
    """Azure's first chunk has its prompt filter results and empty names."""
    turn = reduce(
        sse(
            chunk(id="", model="", object="", created=0, prompt_filter_results=[{"prompt_index": 0}]),
            chunk(delta(content="x"), id="chatcmpl-2", model="gpt-y"),
            chunk({"index": 0, "content_filter_results": {}, "finish_reason": None}),
            DONE,
        )
    )
    assert (turn.response_id, turn.model, turn.choices[0].text) == ("chatcmpl-2", "gpt-y", "x")
    assert not turn.diagnostics


@pytest.mark.parametrize(
    ("deltas", "thinking"),
    [
        ([{"reasoning_content": "a"}, {"reasoning_content": "b"}], "ab"),
        ([{"reasoning": "a", "reasoning_details": [{"type": "reasoning.text", "text": "a"}]}], "a"),
        ([{"reasoning_content": "a", "reasoning": "a"}], "a"),
        (
            [
                {"reasoning_details": [{"summary": "a"}, {"data": "x"}]},
                {"reasoning_details": [{"text": "b"}]},
            ],
            "ab",
        ),
        ([{"reasoning_content": "", "reasoning": "a"}, {"reasoning_details": [{"text": "again"}]}], "a"),
        ([{"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "a"}]}]}], "a"),
        ([{"content": [{"type": "thinking", "thinking": "a"}]}], "a"),
        ([{"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}]}]}], "a"),
    ],
)
def test_thinking_is_read_under_every_name_and_once(deltas: list[dict[str, Any]], thinking: str) -> None:
    body = sse(*(chunk(delta(**members)) for members in deltas), DONE)
    answer = reduce(body).choices[0]
    assert (answer.thinking, answer.text) == (thinking, "")


def test_a_content_list_gives_its_text_parts_and_keeps_the_strange_ones() -> None:
    reference = {"type": "reference", "reference_ids": [1]}
    parts = [{"type": "text", "text": "a"}, reference, "b"]
    turn = reduce(completion(message(content=parts)), "application/json")
    assert turn.choices[0].text == "ab"
    assert turn.unparsed == (reference,)
    assert damages(turn) == {Damage.UNKNOWN_CONTENT: 1}
    assert wire(turn)["message"]["content"][1] == {"type": "reference", "content": reference}


def test_an_object_that_is_no_completion_is_kept_whole() -> None:
    """A server behind the path that speaks something else is not forgotten."""
    body = {"result": {"response": "hi"}, "success": True}
    turn = reduce(json.dumps(body).encode(), "application/json")
    assert turn.unparsed == (body,)
    assert damages(turn) == {Damage.UNKNOWN_CONTENT: 1}
    assert wire(turn)["message"]["content"] == [{"type": "unparsed", "content": body}]


@pytest.mark.parametrize(("content", "text"), [({"a": [1, "ü"]}, '{"a":[1,"ü"]}'), (5, "5"), (None, "")])
def test_content_that_is_no_text_is_compact_json(content: object, text: str) -> None:
    """Cloudflare parses the JSON that a schema asked for."""
    assert reduce(completion(message(content=content)), "application/json").choices[0].text == text


def test_a_refusal_is_not_in_the_text() -> None:
    body = sse(chunk(delta(refusal="I ")), chunk(delta(refusal="can't.")), chunk(delta(finish_reason="stop")))
    answer = reduce(body).choices[0]
    assert (answer.refusal, answer.text, answer.result) == ("I can't.", "", Result.REFUSAL)


def test_an_empty_refusal_is_none() -> None:
    """Snowflake sends one in every chunk."""
    answer = reduce(sse(chunk(delta(refusal="", content="x")), DONE)).choices[0]
    assert (answer.refusal, answer.result) == (None, Result.OTHER)


def test_perplexitys_cumulative_message_is_not_added_to_the_deltas() -> None:
    chunks: list[dict[str, Any]] = []
    for text in ("1", ", 2"):
        choice = delta(content=text)
        chunks.append(chunk({**choice, "message": {"role": "assistant", "content": "1, 2"}}))
    assert reduce(sse(*chunks)).choices[0].text == "1, 2"


def test_a_stream_of_messages_without_deltas_gives_the_last() -> None:
    one, two = ({"index": 0, "message": {"content": text}, "finish_reason": None} for text in ("1", "12"))
    turn = reduce(sse(chunk(one), chunk(two), DONE))
    assert (turn.choices[0].text, turn.partial) == ("12", False)


def test_sound_is_kept_apart_from_the_text() -> None:
    sound = {"id": "audio_1", "data": "QUJD", "transcript": "beep", "expires_at": 1}
    streamed = reduce(
        sse(
            chunk(delta(audio={"id": "audio_1", "data": "QU", "transcript": "be"})),
            chunk(delta(audio={"data": "JD", "transcript": "ep", "expires_at": 1})),
            chunk(delta(finish_reason="stop")),
        )
    )
    whole = reduce(completion(message(content=None, audio=sound)), "application/json")
    for turn in (streamed, whole):
        assert turn.choices[0].text == ""
        assert turn.unparsed == (sound,)
    assert root_hash(streamed) == root_hash(whole)


def test_generated_images_are_blocks_of_the_contract() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}
    turn = reduce(completion(message(content="x", images=[image])), "application/json")
    assert wire(turn)["message"]["content"][1] == {"type": "image", "image_url": "data:image/png;base64,QUJD"}


def test_logprobs_and_citations_leave_no_trace() -> None:
    choice = {
        **delta(content="x", annotations=[{"type": "url_citation"}]),
        "logprobs": {"content": [{"token": "x"}]},
    }
    turn = reduce(sse(chunk(choice, citations=["u"]), DONE))
    assert turn.choices[0].text == "x"
    assert not turn.unparsed


# -- tool calls -----------------------------------------------------------------


def call_stream(*fragments: list[dict[str, Any]]) -> bytes:
    chunks = [chunk(delta(tool_calls=listed)) for listed in fragments]
    return sse(*chunks, chunk(delta(finish_reason="tool_calls")), DONE)


def calls(turn: Turn) -> list[tuple[str | None, str, object, str | None]]:
    return [(call.id, call.name, call.arguments, call.raw_arguments) for call in turn.choices[0].tool_calls]


def test_fragments_belong_to_the_call_of_their_index() -> None:
    turn = reduce(
        call_stream(
            [function("a", "", "call_a", index=0)],
            [function("b", "", "call_b", index=1)],
            [function(arguments='{"x":', index=0), function(arguments='{"y":', index=1)],
            [function(arguments="2}", index=1), function(arguments="1}", index=0)],
        )
    )
    assert calls(turn) == [("call_a", "a", {"x": 1}, None), ("call_b", "b", {"y": 2}, None)]
    assert turn.choices[0].result is Result.TOOL_CALL


def test_without_an_index_fragments_belong_to_their_position() -> None:
    turn = reduce(
        call_stream(
            [function("a", '{"x"', "call_a"), function("b", "{}", "call_b")], [function(arguments=":1}")]
        )
    )
    assert calls(turn) == [("call_a", "a", {"x": 1}, None), ("call_b", "b", {}, None)]


def test_gaps_and_negative_indexes_lose_no_call() -> None:
    turn = reduce(
        call_stream(
            [function("late", "{}", "c7", index=7)],
            [function("minus", "{}", "c-1", index=-1)],
            [function("two", "{}", "c2", index=2)],
        )
    )
    assert [call.name for call in turn.choices[0].tool_calls] == ["late", "minus", "two"]


def test_a_repeated_id_or_name_is_not_appended_and_replaces_nothing() -> None:
    turn = reduce(
        call_stream(
            [function("f", "", "call_1", index=0)],
            [function("f", '{"a"', "call_1", index=0)],
            [function("", ":1}", "", index=0)],
        )
    )
    assert calls(turn) == [("call_1", "f", {"a": 1}, None)]


def test_ids_made_up_for_every_fragment_do_not_split_a_call() -> None:
    fragments = [
        [function("f" if at == 0 else None, text, f"random-{at}", index=0)]
        for at, text in enumerate(('{"a":', "{}", "}"))
    ]
    assert calls(reduce(call_stream(*fragments))) == [("random-0", "f", {"a": {}}, None)]


def test_whole_calls_that_share_an_index_are_several_calls() -> None:
    """Gateways before Gemini number every parallel call 0."""
    turn = reduce(
        call_stream([function("f", '{"a":1}', "c1", index=0)], [function("f", '{"a":2}', "c2", index=0)])
    )
    assert calls(turn) == [("c1", "f", {"a": 1}, None), ("c2", "f", {"a": 2}, None)]


def test_whole_calls_without_ids_that_share_a_place_are_several_calls() -> None:
    turn = reduce(call_stream([function("f", '{"a":1}')], [function("g", "{}")], [function("g", '{"b":2}')]))
    assert calls(turn) == [(None, "f", {"a": 1}, None), (None, "g", {}, None), (None, "g", {"b": 2}, None)]


@pytest.mark.parametrize("arguments", [None, ""])
def test_no_arguments_are_an_empty_object(arguments: object) -> None:
    assert calls(reduce(call_stream([function("f", arguments, "c", index=0)]))) == [("c", "f", {}, None)]


@pytest.mark.parametrize("arguments", ['{"a":', "[1]", "word"])
def test_arguments_that_are_no_object_are_kept_as_text(arguments: str) -> None:
    turn = reduce(call_stream([function("f", arguments, "c", index=0)]))
    assert calls(turn) == [("c", "f", None, arguments)]
    assert damages(turn) == {Damage.UNPARSEABLE_TOOL_INPUT: 1}
    item = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    block = {"type": "tool_use", "tool_use_id": "c", "tool_name": "f", "content": item}
    assert wire(turn)["message"]["content"] == [block]


def test_arguments_sent_as_an_object_are_taken_as_they_are() -> None:
    turn = reduce(completion(message(tool_calls=[function("f", {"a": 1}, "null")])), "application/json")
    assert calls(turn) == [(None, "f", {"a": 1}, None)]


def test_a_custom_tools_input_is_text() -> None:
    call = {"id": "c", "type": "custom", "custom": {"name": "exec", "input": "ls"}}
    turn = reduce(completion(message(tool_calls=[call])), "application/json")
    assert calls(turn) == [("c", "exec", None, "ls")]
    assert not turn.diagnostics
    assert turn.choices[0].result is Result.TOOL_CALL


def test_a_legacy_function_call_is_a_call_without_an_id() -> None:
    turn = reduce(
        sse(
            chunk(delta(function_call={"name": "f", "arguments": ""})),
            chunk(delta(function_call={"arguments": '{"a":1}'})),
            chunk(delta(finish_reason="function_call")),
        )
    )
    assert calls(turn) == [(None, "f", {"a": 1}, None)]
    assert turn.choices[0].result is Result.TOOL_CALL


# -- choices, ends, usage -------------------------------------------------------


def test_choices_are_told_by_index() -> None:
    turn = reduce(
        sse(
            chunk(delta(1, content="b")),
            chunk(delta(0, content="a"), delta(1, content="B")),
            chunk(delta(1, finish_reason="length"), delta(0, finish_reason="stop")),
        )
    )
    told = [(choice.index, choice.text, choice.result) for choice in turn.choices]
    assert told == [(0, "a", Result.STOP), (1, "bB", Result.MAX_TOKENS)]
    (other,) = wire(turn)["extra"]["choices"]
    assert other["message"] == {"role": "assistant", "content": [{"type": "text", "text": "bB"}]}
    assert not turn.partial


def test_without_an_end_the_turn_is_partial() -> None:
    turn = reduce(sse(chunk(delta(content="a"))), ending=Ending.CUT)
    assert (turn.partial, turn.choices[0].result) == (True, Result.INCOMPLETE)
    assert wire(turn)["done"] is False
    assert wire(turn)["extra"]["partial"] is True


def test_one_finished_choice_of_two_is_no_end() -> None:
    turn = reduce(sse(chunk(delta(0, "stop", content="a"), delta(1, content="b"))))
    assert turn.partial


def test_done_alone_is_an_end() -> None:
    turn = reduce(sse(chunk(delta(content="a")), DONE))
    assert (turn.partial, turn.choices[0].result) == (False, Result.OTHER)


def test_nothing_is_read_after_done() -> None:
    turn = reduce(sse(chunk(delta(content="a")), DONE, chunk(delta(content="b"))))
    assert turn.choices[0].text == "a"
    assert damages(turn) == {Damage.UNKNOWN_EVENT: 1}


def test_the_last_usage_that_says_anything_counts() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    turn = reduce(
        sse(
            chunk(delta(content="a"), usage={"prompt_tokens": 1, "completion_tokens": None}),
            chunk(usage=usage),
            chunk(delta(finish_reason="stop"), usage=None),
            chunk(usage={}),
            DONE,
        )
    )
    assert turn.usage.raw == usage
    assert wire(turn)["usage"] == usage


def test_groqs_own_usage_is_taken_where_there_is_no_other() -> None:
    body = sse(chunk(delta(finish_reason="stop"), x_groq={"id": "r", "usage": {"prompt_tokens": 1}}))
    assert reduce(body).usage.input_tokens == 1
    both = sse(chunk(delta(), usage={"prompt_tokens": 2}, x_groq={"usage": {"prompt_tokens": 1}}))
    assert reduce(both).usage.input_tokens == 2


# -- errors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "kind", "text"),
    [
        ({"error": {"type": "server_error", "message": "gone", "code": "x"}}, "server_error", "gone"),
        ({"error": {"message": "gone", "code": 502}}, None, "gone"),
        ({"error": {"message": "gone", "code": "401"}}, None, "gone"),
        ({"error": "gone", "error_type": "overloaded"}, "overloaded", "gone"),
        ({"object": "error", "message": "gone", "type": "BadRequestError"}, "BadRequestError", "gone"),
        ({"detail": "gone"}, None, "gone"),
        ({"error_code": "TEMPORARILY_UNAVAILABLE", "message": "gone"}, "TEMPORARILY_UNAVAILABLE", "gone"),
        ({"error": [{"code": 2001, "message": "gone"}]}, None, "gone"),
        (
            chunk(delta(finish_reason="error"), error={"code": "server_error", "message": "gone"}),
            "server_error",
            "gone",
        ),
        (chunk({**delta(finish_reason="error"), "error": {"code": 502, "message": "gone"}}), None, "gone"),
        (chunk(x_groq={"id": "r", "error": "gone"}), None, "gone"),
    ],
)
def test_an_error_in_the_stream_is_told_in_whatever_shape(event: Any, kind: str | None, text: str) -> None:
    turn = reduce(sse(chunk(delta(content="so far")), event))
    error = turn.provider_error
    assert error is not None
    assert (error.status, error.type, error.message, error.where) == (200, kind, text, "stream")
    answer = turn.choices[0]
    assert (answer.text, answer.result, turn.partial) == ("so far", Result.ERROR, True)
    assert wire(turn)["extra"]["error"]["message"] == text


def test_an_event_named_error_is_an_error_whatever_it_holds() -> None:
    body = sse(chunk(delta(content="a"))) + b'event: error\ndata: {"message": "gone", "type": "t"}\n\n'
    error = reduce(body).provider_error
    assert error is not None
    assert (error.type, error.message) == ("t", "gone")


def test_an_error_document_under_a_streams_content_type_is_read() -> None:
    turn = reduce(b'\n{"error": {"message": "no", "type": "t"}}')
    assert turn.provider_error is not None
    assert turn.provider_error.where == "http"
    assert (turn.partial, turn.choices[0].result) == (False, Result.ERROR)


def test_a_one_shot_choice_may_hold_the_error() -> None:
    choice = {**message(content="a", finish_reason="error"), "error": {"code": 502, "message": "gone"}}
    turn = reduce(completion(choice), "application/json")
    assert turn.provider_error is not None
    assert (turn.provider_error.where, turn.partial) == ("http", False)


# -- damage -------------------------------------------------------------------------


def test_an_unreadable_event_costs_itself_alone() -> None:
    turn = reduce(sse(chunk(delta(content="a")), "{nope", chunk(delta(content="b")), DONE))
    assert turn.choices[0].text == "ab"
    assert damages(turn) == {Damage.UNPARSEABLE_EVENT: 1}


ODD_CHUNKS: list[dict[str, Any]] = [
    {"choices": [{"index": 0, "delta": {"content": "b"}}, "odd"]},
    {"choices": [{"index": "0", "delta": {"content": "b", "tool_calls": 5, "refusal": []}}]},
    {"choices": [{"index": 0, "delta": {"content": "b"}, "message": "odd"}]},
    {
        "choices": [{"index": None, "delta": {"content": "b", "role": {}, "function_call": "odd"}}],
        "usage": 1,
    },
    {
        "id": 5,
        "model": [],
        "created": "x",
        "choices": [{"delta": {"content": "b", "tool_calls": [None, 1]}}],
    },
]


@pytest.mark.parametrize("odd", ODD_CHUNKS)
def test_members_of_odd_types_cost_themselves_alone(odd: dict[str, Any]) -> None:
    turn = reduce(sse(odd, chunk(delta(content="c")), DONE))
    assert turn.choices[0].text == "bc"
    assert turn.model == "gpt-x"


def test_an_event_that_nobody_described_is_counted() -> None:
    turn = reduce(sse({"object": "chat.heartbeat"}, chunk(delta(content="c")), DONE))
    assert damages(turn) == {Damage.UNKNOWN_EVENT: 1}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"5", b'{"choices": [{"mess'])
def test_a_one_shot_body_that_is_no_object_is_refused(body: bytes) -> None:
    reducer = ResponseReducer(
        Dialect.OPENAI_CHAT, RequestFacts(), ResponseFacts(content_type="application/json")
    )
    reducer.feed(body)
    assert isinstance(reducer.finish(Ending.COMPLETE), Refused)


def test_no_events_at_all_leave_an_empty_partial_turn() -> None:
    turn = ChatFold(RequestFacts()).turn(Ending.CUT)
    assert isinstance(turn, Turn)
    assert (turn.partial, turn.blocks, len(turn.choices)) == (True, (), 1)


def test_reading_the_turn_off_changes_nothing() -> None:
    reducer = ResponseReducer(
        Dialect.OPENAI_CHAT, RequestFacts(), ResponseFacts(content_type="text/event-stream")
    )
    reducer.feed(sse(chunk(delta(content="a"))))
    assert reducer.snapshot() == reducer.snapshot()
    reducer.feed(sse(chunk(delta(content="b", finish_reason="stop"))))
    turn = reducer.finish(Ending.COMPLETE)
    assert isinstance(turn, Turn)
    assert turn.choices[0].text == "ab"


# -- the contract ---------------------------------------------------------------------


def test_blocks_come_in_the_contracts_order_and_hash_alike_in_both_forms() -> None:
    said: dict[str, Any] = {"content": "t", "reasoning_content": "r", "refusal": "no"}
    call = function("f", '{"a":1}', "c", index=0)
    streamed = reduce(
        sse(
            chunk(delta(role="assistant", tool_calls=[call])),
            *(chunk(delta(**{name: text})) for name, text in said.items()),
            chunk(delta(finish_reason="stop")),
            DONE,
        )
    )
    whole = reduce(completion(message(**said, tool_calls=[call])), "application/json")
    content = [
        {"type": "thinking", "thinking": "r"},
        {"type": "text", "text": "t"},
        {"type": "refusal", "text": "no"},
        {"type": "tool_use", "tool_use_id": "c", "tool_name": "f", "tool_input": {"a": 1}},
    ]
    for turn in (streamed, whole):
        assert wire(turn)["message"] == {"role": "assistant", "content": content}
    assert root_hash(streamed) == root_hash(whole)


def test_the_reduced_response_names_and_dates_the_answer() -> None:
    reduced = wire(reduce(completion(message(content="x")), "application/json"))
    assert reduced == {
        "model": "gpt-x",
        "created_at": "2025-06-15T15:06:40Z",
        "message": {"role": "assistant", "content": [{"type": "text", "text": "x"}]},
        "done": True,
        "stop_reason": "stop",
        "extra": {"id": "chatcmpl-1", "object": "chat.completion"},
    }


@pytest.mark.parametrize("created", [0, -1, 10**12, 1e300, "soon", None])
def test_a_date_that_is_none_is_left_out(created: object) -> None:
    body = json.loads(completion(message(content="x")))
    turn = reduce(json.dumps({**body, "created": created}).encode(), "application/json")
    assert "created_at" not in wire(turn)
