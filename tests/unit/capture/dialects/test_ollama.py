"""Ollama's chat and generate: lines, documents, and lines that nobody labelled."""

import json

import pytest

from capture.merkle import build_chain
from capture.turn import Block, Damage, Dialect, ProviderError, Refused, Result, ToolCall, Turn, WireUsage
from capture.wire_response import reduced_response
from tests.unit.capture.dialects.cohere_ollama import LAST, NDJSON, SSE, chat, chat_line, chat_whole, lines
from tests.unit.capture.dialects.google_aws import as_json, hash_of, reduce, reduce_chunks

CALL = {"function": {"name": "add", "arguments": {"a": 1}}}


def last(said: str = "", **members: object) -> dict[str, object]:
    """The last line of a chat."""
    return {**chat_line(said, done=True, **members), **LAST}


def generate_line(said: str, done: bool = False, **members: object) -> dict[str, object]:
    """A line of generate."""
    return {"model": "m", "created_at": "t", "response": said, "done": done, **members}


def generate(*events: object) -> Turn:
    """The turn of a generate stream."""
    return reduce(Dialect.OLLAMA_GENERATE, lines(*events), NDJSON)


def test_a_chat_stream_is_joined() -> None:
    turn = chat(chat_line(thinking="h"), chat_line(thinking="m"), chat_line("He"), chat_line("llo"), last())
    answer = turn.choices[0]
    assert (answer.thinking, answer.text) == ("hm", "Hello")
    assert (answer.stop_reason, answer.result, turn.partial) == ("stop", Result.STOP, False)
    assert (turn.model, turn.response_id, turn.role) == ("m", None, "assistant")
    usage = turn.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (3, 4, 7)
    assert usage.raw == {"prompt_eval_count": 3, "eval_count": 4, "eval_duration": 9}
    assert turn.wire.usage == WireUsage(prompt_tokens=3, completion_tokens=4, total_tokens=7)
    assert (turn.wire.created_at, turn.wire.done, turn.wire.extra) == ("2026-01-02T03:04:05Z", True, {})
    assert turn.diagnostics == ()


def test_a_streamed_and_a_whole_chat_turn_have_one_hash() -> None:
    stream = chat(
        chat_line(thinking="hm"), chat_line("a"), chat_line("b"), chat_line(tool_calls=[CALL]), last()
    )
    whole = chat_whole(last("ab", thinking="hm", tool_calls=[CALL]))
    assert hash_of(stream) == hash_of(whole)
    assert stream == whole


def test_a_streamed_and_a_whole_generate_turn_have_one_hash() -> None:
    stream = generate(
        generate_line("a", thinking="t"), generate_line("b"), generate_line("", done=True, **LAST)
    )
    whole = reduce(Dialect.OLLAMA_GENERATE, as_json(generate_line("ab", done=True, thinking="t", **LAST)))
    assert hash_of(stream) == hash_of(whole)
    assert stream == whole
    assert (whole.choices[0].text, whole.choices[0].thinking) == ("ab", "t")


def test_an_answer_is_the_beginning_of_the_request_that_echoes_it() -> None:
    asked = {"role": "user", "content": "add"}
    turn = chat(chat_line("ok"), chat_line(tool_calls=[CALL]), last())
    echo = {"role": "assistant", "content": "ok", "tool_calls": [CALL]}
    first = build_chain("ollama", Dialect.OLLAMA_CHAT, {"messages": [asked]}, reduced_response(turn))
    later = build_chain("ollama", Dialect.OLLAMA_CHAT, {"messages": [asked, echo]}, {})
    assert [node.hash for node in first] == [node.hash for node in later]


def test_calls_come_whole_in_any_line_and_need_no_id() -> None:
    """An ordinary stop with calls is a tool call."""
    named = {"id": "call_1", "function": {"index": 0, "name": "sub", "arguments": None}}
    turn = chat(chat_line(tool_calls=[CALL]), chat_line(tool_calls=[named]), last())
    assert turn.choices[0].tool_calls == (
        ToolCall(id=None, name="add", arguments={"a": 1}),
        ToolCall(id="call_1", name="sub", arguments={}),
    )
    assert (turn.choices[0].stop_reason, turn.choices[0].result) == ("stop", Result.TOOL_CALL)


@pytest.mark.parametrize(
    ("arguments", "parsed", "raw"),
    [(None, {}, None), ('{"a": 1}', {"a": 1}, None), ("", {}, None), ([1], None, "[1]"), ("no", None, "no")],
)
def test_arguments_of_any_shape_are_read(arguments: object, parsed: object, raw: object) -> None:
    call = {"function": {"name": "f", "arguments": arguments}}
    turn = chat_whole(last(tool_calls=[call]))
    (made,) = turn.choices[0].tool_calls
    assert (made.arguments, made.raw_arguments) == (parsed, raw)
    damage = [item.damage for item in turn.diagnostics]
    assert damage == ([] if raw is None else [Damage.UNPARSEABLE_TOOL_INPUT])


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "application/json; charset=utf-8", NDJSON, SSE]
)
def test_lines_are_read_under_any_content_type(content_type: str) -> None:
    """Servers and gateways label them as they like."""
    body = lines(chat_line("a"), chat_line("b"), last())
    assert reduce(Dialect.OLLAMA_CHAT, body, content_type) == chat(chat_line("a"), chat_line("b"), last())


@pytest.mark.parametrize("content_type", ["", "application/json"])
def test_unlabelled_lines_that_break_off_are_partial(content_type: str) -> None:
    """Even where only one line came: it says itself that it is not the last."""
    body = lines(chat_line("a"), chat_line("b"))
    for end, said in ((len(body), "ab"), (len(body) // 2, "a"), (len(body) - 9, "a")):
        turn = reduce(Dialect.OLLAMA_CHAT, body[:end], content_type)
        assert (turn.choices[0].text, turn.partial, turn.choices[0].result) == (said, True, Result.INCOMPLETE)


@pytest.mark.parametrize("content_type", ["", "application/json"])
def test_a_pretty_printed_answer_is_one_document(content_type: str) -> None:
    body = json.dumps(last("hi"), indent=2).encode()
    turn = reduce(Dialect.OLLAMA_CHAT, body, content_type)
    assert turn == chat_whole(last("hi"))
    assert not turn.partial


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b"1\n2", b'{\n  "model": "m', b"<a>\n<b>\n"])
def test_what_is_no_answer_at_all_is_refused(body: bytes) -> None:
    assert isinstance(reduce_chunks(Dialect.OLLAMA_CHAT, [body], "application/json"), Refused)


def test_an_error_line_breaks_the_stream_off() -> None:
    turn = chat(chat_line("a"), {"error": "an error was encountered while running the model"})
    told = "an error was encountered while running the model"
    assert turn.provider_error == ProviderError(status=200, type=None, message=told, where="stream")
    assert (turn.partial, turn.choices[0].result, turn.choices[0].text) == (True, Result.ERROR, "a")
    assert turn.wire.extra == {"error": {"type": "", "message": told}, "partial": True}
    assert turn.wire.stop_reason == "error"


def test_an_error_document_of_status_200_is_whole() -> None:
    turn = chat_whole({"error": "no such model"})
    assert turn.provider_error == ProviderError(status=200, type=None, message="no such model", where="http")
    assert not turn.partial


@pytest.mark.parametrize(
    ("word", "result"),
    [("stop", Result.STOP), ("length", Result.MAX_TOKENS), ("load", Result.OTHER), (None, Result.OTHER)],
)
def test_every_done_reason_has_its_result(word: str | None, result: Result) -> None:
    """Old servers name none; loading a model names what no other provider does."""
    turn = chat(chat_line("a"), {**chat_line(done=True), "done_reason": word})
    assert (turn.choices[0].stop_reason, turn.choices[0].result) == (word, result)
    assert not turn.partial


def test_a_number_that_was_not_sent_is_not_known() -> None:
    """A prompt that was cached is not counted again."""
    turn = chat(chat_line("a"), {**chat_line(done=True), "eval_count": 0})
    usage = turn.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (None, 0, None)
    assert chat(chat_line("a", done=True)).usage.raw is None


def test_images_are_blocks() -> None:
    """Those of a message, and the one that an image model ends with."""
    turn = chat(chat_line("a", images=["aW1n"]), last())
    assert turn.blocks == (Block(type="text", text="a"), Block(type="image", image_base64="aW1n"))
    made = generate(
        {"model": "m", "completed": 1, "total": 2, "done": False}, {"done": True, "image": "aW1n"}
    )
    assert made.blocks == (Block(type="image", image_base64="aW1n"),)
    assert made.diagnostics == ()


def test_calls_of_generate_are_read() -> None:
    turn = generate(generate_line("", tool_calls=[CALL]), generate_line("", done=True))
    assert [call.name for call in turn.choices[0].tool_calls] == ["add"]


def test_a_line_of_another_kind_is_counted() -> None:
    turn = chat({"status": "pulling manifest"}, chat_line("a"), last())
    assert [item.damage for item in turn.diagnostics] == [Damage.UNKNOWN_EVENT]
    assert turn.choices[0].text == "a"


def test_a_line_with_an_odd_member_loses_only_that() -> None:
    odd = {"model": 7, "message": {"content": "a", "role": 1, "thinking": ["x"]}, "done": False}
    turn = chat(odd, last("b"))
    assert (turn.choices[0].text, turn.choices[0].thinking, turn.model) == ("ab", "", "m")
    assert [item.damage for item in turn.diagnostics] == [Damage.UNKNOWN_CONTENT]


def test_a_last_line_with_an_odd_member_still_ends_the_answer() -> None:
    turn = chat(chat_line("a"), {**last(), "model": 7})
    assert (turn.partial, turn.choices[0].stop_reason, turn.usage.output_tokens) == (False, "stop", 4)


def test_a_broken_line_costs_nothing_but_itself() -> None:
    body = lines(chat_line("a")) + b'{"message": {"content": "x\n' + lines(chat_line("b"), last())
    turn = reduce(Dialect.OLLAMA_CHAT, body, NDJSON)
    assert turn.choices[0].text == "ab"
    assert [item.damage for item in turn.diagnostics] == [Damage.UNPARSEABLE_EVENT]
