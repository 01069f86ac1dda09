"""Responses: items of all kinds, ends of all kinds, and streams that break off.

What the contract says of a whole response is held by its vectors
(``tests/contract/test_reductions.py``); here is what they leave open.
"""

import json
from typing import Any

import pytest

from capture.dialects.fold import RequestFacts
from capture.dialects.openai_responses import ResponsesFold
from capture.reduce import ResponseFacts, ResponseReducer
from capture.turn import Choice, Damage, Dialect, Ending, Result, ToolCall, Turn
from tests.unit.capture.dialects.openai_streams import reduce, root_hash, sse, wire

Json = dict[str, Any]


def response(status: str = "completed", output: list[Any] | None = None, **members: Any) -> Json:
    head = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1750000000,
        "model": "gpt-x",
        "status": status,
    }
    return {**head, "output": output or [], "usage": None, **members}


CREATED: Json = {"type": "response.created", "response": response("in_progress")}


def ended(kind: str = "completed", **members: Any) -> Json:
    return {"type": f"response.{kind}", "response": response(kind, **members)}


def text_item(text: str, item_id: str = "msg_1") -> Json:
    part: Json = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": item_id, "role": "assistant", "content": [part]}


def text_delta(text: str, at: int | None = 0, part: int = 0, **members: Any) -> Json:
    return {
        "type": "response.output_text.delta", "output_index": at, "content_index": part, "delta": text, **members
    }  # fmt: skip


def added(at: int, item: Json) -> Json:
    return {"type": "response.output_item.added", "output_index": at, "item": item}


def done(at: int, item: Any) -> Json:
    return {"type": "response.output_item.done", "output_index": at, "item": item}


def streamed(*events: Json | str) -> Turn:
    return reduce(sse(*events), dialect=Dialect.OPENAI_RESPONSES)


def whole(body: Json) -> Turn:
    return reduce(json.dumps(body).encode(), "application/json", Dialect.OPENAI_RESPONSES)


def answer(turn: Turn) -> Choice:
    return turn.choices[0]


def damages(turn: Turn) -> dict[Damage, int]:
    return {found.damage: found.count for found in turn.diagnostics}


# -- items ----------------------------------------------------------------------


def test_reasoning_content_is_believed_before_its_summary_and_ciphers_say_nothing() -> None:
    summary = [{"type": "summary_text", "text": "s1"}, {"type": "summary_text", "text": "s2"}]
    items: list[Any] = [
        {"type": "reasoning", "summary": summary, "content": [{"type": "reasoning_text", "text": "c"}]},
        {"type": "reasoning", "summary": summary},
        {"type": "reasoning", "summary": [], "encrypted_content": "x"},
    ]
    turn = whole(response(output=items))
    assert answer(turn).thinking == "cs1s2"
    assert [block.thinking for block in turn.blocks] == ["s1\ns2", "s1\ns2", ""]


def test_calls_are_those_that_the_client_must_run() -> None:
    items: list[Any] = [
        {"type": "mcp_call", "id": "mcp_1", "name": "x", "arguments": "{}", "output": "y"},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": '{"a":1}'},
        {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_2", "name": "exec", "input": '{"a":1}'},
        {"type": "web_search_call", "id": "ws_1"},
        {"type": "function_call", "call_id": "", "name": "cut", "arguments": '{"a'},
    ]
    turn = whole(response(output=items))
    assert answer(turn).tool_calls == (
        ToolCall(id="call_1", name="f", arguments={"a": 1}),
        ToolCall(id="call_2", name="exec", arguments=None, raw_arguments='{"a":1}'),
        ToolCall(id=None, name="cut", arguments=None, raw_arguments='{"a'),
    )
    assert answer(turn).result is Result.TOOL_CALL
    assert damages(turn) == {Damage.UNPARSEABLE_TOOL_INPUT: 1}
    assert not turn.unparsed


def test_an_item_of_an_unknown_kind_is_kept_whole() -> None:
    item = {"type": "telepathy_call", "thought": [1]}
    turn = whole(response(output=[item, text_item("a")]))
    assert turn.unparsed == (item,)
    assert wire(turn)["message"]["content"][0] == {"type": "telepathy_call", "content": item}
    assert damages(turn) == {Damage.UNKNOWN_CONTENT: 1}
    assert answer(turn).text == "a"


@pytest.mark.parametrize(
    "item",
    [
        5,
        None,
        [],
        {"type": 5},
        {"type": "message", "content": {"a": 1}},
        {"type": "message", "content": [{"type": ["output_text"], "text": "x"}]},
        {"type": "message", "content": [{"type": "output_text", "text": 5}]},
        {"type": "reasoning", "summary": "x", "encrypted_content": None},
        {"type": "reasoning", "summary": [], "encrypted_content": {}},
        {"type": "function_call", "call_id": 5, "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": {"a": 1}},
    ],
)
def test_an_item_of_another_shape_is_unparsed_and_harms_no_other(item: object) -> None:
    turn = whole(response(output=[item, text_item("a")]))
    first, second = wire(turn)["message"]["content"]
    assert first["type"] == "unparsed"
    assert first.get("content") == item
    assert second == {"type": "text", "text": "a"}
    assert answer(turn).text == "a"


def test_a_refusal_part_is_the_refusal() -> None:
    item = {"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}
    turn = whole(response(output=[item]))
    assert (answer(turn).refusal, answer(turn).text, answer(turn).result) == ("no", "", Result.REFUSAL)


# -- ends -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "members", "word", "result"),
    [
        ("completed", {}, "completed", Result.STOP),
        (
            "incomplete",
            {"incomplete_details": {"reason": "max_output_tokens"}},
            "max_output_tokens",
            Result.MAX_TOKENS,
        ),
        (
            "incomplete",
            {"incomplete_details": {"reason": "content_filter"}},
            "content_filter",
            Result.BLOCKED,
        ),
        ("incomplete", {"incomplete_details": None}, "incomplete", Result.INCOMPLETE),
        ("cancelled", {}, "cancelled", Result.INCOMPLETE),
        ("failed", {}, "failed", Result.ERROR),
    ],
)
def test_ends_are_told_alike_in_both_forms(status: str, members: Json, word: str, result: Result) -> None:
    item = text_item("a")
    forms = (
        streamed(CREATED, done(0, item), ended(status, output=[item], **members)),
        whole(response(status, [item], **members)),
    )
    for turn in forms:
        assert (answer(turn).stop_reason, answer(turn).result, turn.partial) == (word, result, False)
    assert root_hash(forms[0]) == root_hash(forms[1])


def test_a_response_that_still_runs_is_whole_but_incomplete() -> None:
    """A background response is polled."""
    turn = whole(response("queued"))
    assert (answer(turn).stop_reason, answer(turn).result, turn.partial) == (
        "queued",
        Result.INCOMPLETE,
        False,
    )


def test_a_failed_response_names_its_error() -> None:
    error = {"code": "server_error", "message": "gone"}
    turn = streamed(CREATED, ended("failed", error=error))
    assert turn.provider_error is not None
    assert (turn.provider_error.type, turn.provider_error.message) == ("server_error", "gone")
    assert (turn.provider_error.where, turn.partial) == ("stream", False)


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (
            {"type": "error", "code": "rate_limit_exceeded", "message": "gone", "param": None},
            "rate_limit_exceeded",
        ),
        (
            {"type": "error", "error": {"type": "server_error", "code": "x", "message": "gone"}},
            "server_error",
        ),
        ({"error": {"message": "gone", "code": 502}}, None),
    ],
)
def test_an_error_event_ends_the_turn_with_what_came(event: Json, kind: str | None) -> None:
    turn = streamed(CREATED, text_delta("so far"), event)
    assert turn.provider_error is not None
    assert (turn.provider_error.type, turn.provider_error.message) == (kind, "gone")
    assert (answer(turn).text, answer(turn).result, turn.partial) == ("so far", Result.ERROR, True)


def test_a_terminal_event_without_a_response_still_ends_the_stream() -> None:
    turn = streamed(CREATED, text_delta("a"), {"type": "response.completed"})
    assert (answer(turn).text, answer(turn).result, turn.partial) == ("a", Result.STOP, False)
    assert wire(turn)["done"] is False


def test_what_follows_the_end_is_counted_and_not_read() -> None:
    turn = streamed(CREATED, ended(output=[text_item("a")]), text_delta("b"), "[DONE]")
    assert answer(turn).text == "a"
    assert damages(turn) == {Damage.UNKNOWN_EVENT: 1}


# -- streams that break off ---------------------------------------------------------


def test_deltas_of_all_kinds_show_in_a_stream_that_breaks_off() -> None:
    turn = streamed(
        CREATED,
        added(0, {"type": "reasoning", "id": "rs_1", "summary": []}),
        {
            "type": "response.reasoning_summary_text.delta",
            "output_index": 0,
            "summary_index": 0,
            "delta": "su",
        },
        {
            "type": "response.reasoning_summary_text.delta",
            "output_index": 0,
            "summary_index": 1,
            "delta": "mm",
        },
        added(1, {"type": "message", "id": "msg_1", "content": []}),
        text_delta("Hel", 1),
        text_delta("lo", 1),
        {"type": "response.refusal.delta", "output_index": 1, "content_index": 1, "delta": "no"},
        added(2, {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": ""}),
        {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": '{"a"'},
        added(3, {"type": "custom_tool_call", "call_id": "call_2", "name": "exec", "input": ""}),
        {"type": "response.custom_tool_call_input.delta", "output_index": 3, "delta": "ls"},
    )
    told = answer(turn)
    assert (told.thinking, told.text, told.refusal) == ("summ", "Hello", "no")
    assert [(call.name, call.raw_arguments) for call in told.tool_calls] == [("f", '{"a"'), ("exec", "ls")]
    assert (told.stop_reason, told.result, turn.partial) == ("in_progress", Result.INCOMPLETE, True)
    assert wire(turn)["message"]["content"] == [{"type": "text", "text": "Hello"}]


def test_items_are_told_by_output_index_and_sent_in_order_of_arrival() -> None:
    """The contract does not read ``output_index`` (``behaviour.md`` §10)."""
    turn = streamed(CREATED, text_delta("c", 2), done(1, text_item("b")), done(0, text_item("a")))
    assert answer(turn).text == "abc"
    assert [block["text"] for block in wire(turn)["message"]["content"]] == ["b", "a"]


def test_deltas_are_assembled_by_item_and_part() -> None:
    turn = streamed(text_delta("1", 0), text_delta("3", 1), text_delta("2", 0, 1), text_delta("4", 1))
    assert answer(turn).text == "1234"


def test_without_an_output_index_the_item_id_tells() -> None:
    turn = streamed(
        text_delta("1", None, item_id="a"),
        text_delta("3", None, item_id="b"),
        text_delta("2", None, item_id="a"),
    )
    assert answer(turn).text == "123"


def test_a_finished_item_replaces_its_deltas() -> None:
    turn = streamed(CREATED, text_delta("Hel"), done(0, text_item("Hello")), text_delta("x", 1))
    assert answer(turn).text == "Hellox"


def test_a_finished_text_replaces_its_deltas() -> None:
    finished = {"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "Hello"}
    assert answer(streamed(CREATED, text_delta("Hel"), finished)).text == "Hello"


def test_items_that_all_claim_one_place_are_still_several() -> None:
    turn = streamed(
        CREATED,
        added(0, {"type": "message", "id": "a"}),
        done(0, text_item("1", "a")),
        added(0, {"type": "message", "id": "b"}),
        text_delta("2", 0),
    )
    assert answer(turn).text == "12"


def test_an_empty_terminal_output_leaves_what_was_collected() -> None:
    turn = streamed(CREATED, text_delta("Hel"), ended(output=[]))
    assert (answer(turn).text, turn.partial) == ("Hel", False)


# -- events -------------------------------------------------------------------------


def test_the_event_line_speaks_where_the_data_has_no_type() -> None:
    body = b'event: response.output_text.delta\ndata: {"output_index": 0, "delta": "a"}\n\n'
    assert answer(reduce(body, dialect=Dialect.OPENAI_RESPONSES)).text == "a"


def test_known_news_is_passed_over_and_unknown_news_counted() -> None:
    turn = streamed(
        CREATED,
        {"type": "response.in_progress", "response": response("in_progress")},
        {"type": "response.content_part.added", "output_index": 0, "part": {}},
        {"type": "response.mcp_call.in_progress"},
        {"type": "response.image_generation_call.partial_image", "partial_image_b64": "x"},
        {"type": "keepalive"},
        {"type": "response.telepathy.delta", "delta": "x"},
        "{nope",
        ended(),
    )
    assert damages(turn) == {Damage.UNKNOWN_EVENT: 1, Damage.UNPARSEABLE_EVENT: 1}


@pytest.mark.parametrize(
    "event",
    [
        {"type": ["response.created"]},
        {"type": "response.created", "response": 5},
        {"type": "response.output_item.added", "item": 5},
        {"type": "response.output_item.done", "item": 5},
        {"type": "response.output_item.done"},
        {"type": "response.output_text.delta", "output_index": "x", "item_id": 5, "delta": 5},
        {"type": "response.output_text.done", "text": None},
        {"type": "response.completed", "response": "x"},
        {"type": "error", "error": 5},
    ],
)
def test_members_of_odd_types_never_raise(event: Json) -> None:
    turn = streamed(text_delta("a"), event)
    assert answer(turn).text == "a"


def test_what_a_response_echoes_of_its_request_is_not_kept() -> None:
    """Instructions and tools can be as long as the request."""
    fold = ResponsesFold(RequestFacts())
    created = {"type": "response.created", "response": response(tools=["x"] * 10, instructions="long")}
    fold.events([b""], [json.dumps(created).encode()])
    kept = fold._response
    assert not {"tools", "instructions", "output"} & set(kept)


def test_reading_the_turn_off_changes_nothing() -> None:
    reducer = ResponseReducer(
        Dialect.OPENAI_RESPONSES, RequestFacts(), ResponseFacts(content_type="text/event-stream")
    )
    reducer.feed(sse(CREATED, text_delta("a")))
    assert reducer.snapshot() == reducer.snapshot()
    reducer.feed(sse(text_delta("b")))
    turn = reducer.finish(Ending.CUT)
    assert isinstance(turn, Turn)
    assert answer(turn).text == "ab"
