"""Gemini and Vertex answers, streamed in both ways and whole."""

import json

import pytest

from capture.dialects.gemini_arguments import StreamedArguments
from capture.stop_words import result_of
from capture.turn import Damage, Dialect, ProviderError, Refused, Result, Turn, WireUsage
from tests.unit.capture.dialects.google_aws import as_json, as_sse, hash_of, reduce, reduce_chunks

SSE = "text/event-stream"
VERTEX_PATH = "/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-pro:generateContent"
GEMINI_PATH = "/v1beta/models/gemini-2.5-pro:generateContent"


def response(
    *parts: object, finish: object = None, index: int | None = None, **members: object
) -> dict[str, object]:
    """A response object with one candidate."""
    candidate: dict[str, object] = {"content": {"role": "model", "parts": list(parts)}}
    if finish is not None:
        candidate["finishReason"] = finish
    if index is not None:
        candidate["index"] = index
    return {"candidates": [candidate], **members}


def streamed(*events: object) -> Turn:
    """The turn of these events over SSE."""
    return reduce(Dialect.GEMINI, as_sse(events), SSE)


def whole(document: object, path: str = GEMINI_PATH) -> Turn:
    """The turn of a one-shot document."""
    return reduce(Dialect.GEMINI, as_json(document), path=path)


def test_thoughts_and_text_are_told_apart_and_joined() -> None:
    """``thought`` marks a part as thinking; neighbours of one kind are one block."""
    turn = streamed(
        response({"text": "Let me ", "thought": True}),
        response({"text": "see.", "thought": True}, {"text": "It "}),
        response({"text": "is 2."}, finish="STOP", modelVersion="gemini-x", responseId="r1"),
    )
    answer = turn.choices[0]
    assert (answer.thinking, answer.text, answer.result) == ("Let me see.", "It is 2.", Result.STOP)
    assert [block.type for block in turn.blocks] == ["thinking", "text"]
    assert (turn.model, turn.response_id, turn.partial, turn.wire.extra) == (
        "gemini-x",
        "r1",
        False,
        {"id": "r1"},
    )


def test_an_array_body_and_an_sse_body_give_the_same_turn() -> None:
    """``streamGenerateContent`` without ``alt=sse`` answers one JSON array."""
    events = [response({"text": "a"}), response({"text": "b"}, finish="STOP")]
    assert reduce(Dialect.GEMINI, as_json(events)) == streamed(*events)


def test_a_streamed_and_a_whole_turn_have_one_hash() -> None:
    """How the text was cut, and where the signature came, is not in the hash."""
    call = {"functionCall": {"name": "f", "args": {"x": 1}}, "thoughtSignature": "c2ln"}
    stream = streamed(
        response({"text": "Think", "thought": True}),
        response({"text": "ing", "thought": True}),
        response(call),
        response({"text": "Hel"}),
        response({"text": "lo"}),
        response({"text": "", "thoughtSignature": "ZW5k"}, finish="STOP"),
    )
    signed = {"text": "Hello", "thoughtSignature": "ZW5k"}
    one_shot = whole(response({"text": "Thinking", "thought": True}, call, signed, finish="STOP"))
    assert stream.blocks == one_shot.blocks
    assert hash_of(stream) == hash_of(one_shot)


def test_function_calls_have_no_id_unless_one_was_sent() -> None:
    """The Gemini API sends none; absent arguments are an empty object."""
    turn = whole(
        response(
            {"functionCall": {"name": "a", "args": {"x": 1}}},
            {"functionCall": {"name": "b"}},
            {"functionCall": {"name": "c", "id": "call_1", "args": {}}},
            finish="STOP",
        )
    )
    calls = turn.choices[0].tool_calls
    assert [(call.id, call.name, call.arguments) for call in calls] == [
        (None, "a", {"x": 1}),
        (None, "b", {}),
        ("call_1", "c", {}),
    ]
    assert turn.choices[0].result is Result.TOOL_CALL


@pytest.mark.parametrize("arguments", [[1, 2], "not json", 5])
def test_arguments_that_are_no_object_are_kept_as_text(arguments: object) -> None:
    """CANONICAL.md: null, and ``raw_arguments`` has the text."""
    turn = whole(response({"functionCall": {"name": "a", "args": arguments}}, finish="STOP"))
    call = turn.choices[0].tool_calls[0]
    assert call.arguments is None
    assert [item.damage for item in turn.diagnostics] == [Damage.UNPARSEABLE_TOOL_INPUT]
    assert call.raw_arguments == (
        arguments if isinstance(arguments, str) else str(arguments).replace(" ", "")
    )


def test_vertex_streams_arguments_value_by_value() -> None:
    """``partialArgs`` names places by JSON path; the call stays open while ``willContinue``."""
    turn = streamed(
        response({"functionCall": {"name": "light", "willContinue": True}, "thoughtSignature": "c2ln"}),
        response(
            {
                "functionCall": {
                    "partialArgs": [
                        {"jsonPath": "$.rooms[0].name", "stringValue": "kit", "willContinue": True},
                        {"jsonPath": "$.level", "numberValue": 50},
                        {"jsonPath": "$['on off']", "boolValue": False},
                        {"jsonPath": "$.scene", "nullValue": "NULL_VALUE"},
                    ],
                    "willContinue": True,
                }
            }
        ),
        response(
            {
                "functionCall": {
                    "partialArgs": [{"jsonPath": "$.rooms[0].name", "stringValue": "chen"}],
                    "willContinue": True,
                }
            }
        ),
        response({"functionCall": {}}),
        response({"functionCall": {"name": "next", "args": {}}}, finish="STOP"),
    )
    calls = turn.choices[0].tool_calls
    assert [call.name for call in calls] == ["light", "next"]
    assert calls[0].arguments == {
        "rooms": [{"name": "kitchen"}],
        "level": 50,
        "on off": False,
        "scene": None,
    }


def test_streamed_arguments_that_were_cut_short_are_not_shown_as_whole() -> None:
    """A call still open where the stream broke off has only its text."""
    turn = streamed(
        response(
            {
                "functionCall": {
                    "name": "f",
                    "partialArgs": [{"jsonPath": "$.a", "stringValue": "x"}],
                    "willContinue": True,
                }
            }
        )
    )
    call = turn.choices[0].tool_calls[0]
    assert (turn.partial, call.arguments, call.raw_arguments) == (True, None, '{"a":"x"}')


@pytest.mark.parametrize("path", ["", "a", "$", "$[0]", "$..a", "$.a[*]", "$.a[9]", "$" + ".a" * 65])
def test_a_path_that_leads_nowhere_gives_the_values_as_text(path: str) -> None:
    """Paths are the provider's; any of them is survived."""
    streamed_arguments = StreamedArguments()
    streamed_arguments.add_all([{"jsonPath": path, "stringValue": "v"}, "no object"])
    arguments, raw = streamed_arguments.value()
    assert arguments is None
    assert raw is not None
    assert '"v"' in raw


def test_two_values_that_contradict_each_other_give_text() -> None:
    """A name cannot be entered below a string."""
    streamed_arguments = StreamedArguments()
    streamed_arguments.add_all(
        [{"jsonPath": "$.a", "stringValue": "v"}, {"jsonPath": "$.a.b", "numberValue": 1}]
    )
    assert streamed_arguments.value() == (None, '{"$.a":"v","$.a.b":1}')


def test_several_candidates_are_choices_by_index() -> None:
    """Proto JSON leaves index 0 out."""
    turn = streamed(
        {"candidates": [{"content": {"parts": [{"text": "b"}]}, "index": 1}]},
        {
            "candidates": [
                {"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"},
                {"content": {"parts": [{"text": "B"}]}, "finishReason": "MAX_TOKENS", "index": 1},
            ]
        },
    )
    assert [(choice.index, choice.text, choice.result) for choice in turn.choices] == [
        (0, "a", Result.STOP),
        (1, "bB", Result.MAX_TOKENS),
    ]
    assert [block.text for block in turn.blocks] == ["a"]
    assert turn.wire.extra["choices"] == [
        {
            "index": 1,
            "message": {"role": "assistant", "content": [{"type": "text", "text": "bB"}]},
            "stop_reason": "MAX_TOKENS",
        }
    ]


def test_candidates_that_nobody_numbered_are_told_apart_by_order() -> None:
    """Two candidates in one list are two, index or not."""
    turn = whole({"candidates": [{"content": {"parts": [{"text": text}]}} for text in "ab"]})
    assert [choice.text for choice in turn.choices] == ["a", "b"]


def test_a_turn_is_partial_until_every_candidate_has_its_reason() -> None:
    """One finished candidate does not finish the other."""
    turn = streamed(
        {
            "candidates": [
                {"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"},
                {"content": {"parts": [{"text": "b"}]}, "index": 1},
            ]
        }
    )
    assert turn.partial
    assert turn.choices[1].result is Result.INCOMPLETE


@pytest.mark.parametrize(
    ("number", "path", "word"),
    [
        (1, GEMINI_PATH, "STOP"),
        (1, VERTEX_PATH, "STOP"),
        (6, GEMINI_PATH, "LANGUAGE"),
        (6, VERTEX_PATH, "BLOCKLIST"),
        (10, GEMINI_PATH, "MALFORMED_FUNCTION_CALL"),
        (10, VERTEX_PATH, "MODEL_ARMOR"),
        (13, GEMINI_PATH, "TOO_MANY_TOOL_CALLS"),
        (15, VERTEX_PATH, "UNEXPECTED_TOOL_CALL"),
        (99, GEMINI_PATH, "99"),
    ],
)
def test_a_numeric_finish_reason_is_written_as_its_name(number: int, path: str, word: str) -> None:
    """``enum-encoding=int``: each service has its own numbers."""
    answer = whole(response({"text": "a"}, finish=number), path).choices[0]
    assert answer.stop_reason == word
    assert answer.result is result_of(word, partial=False, has_tool_calls=False)


@pytest.mark.parametrize("reason", ["SAFETY", "OTHER", "PROHIBITED_CONTENT", 4])
def test_a_blocked_prompt_is_a_whole_blocked_turn(reason: object) -> None:
    """``promptFeedback.blockReason`` ends the answer; any reason is a block."""
    turn = streamed({"promptFeedback": {"blockReason": reason}, "usageMetadata": {"promptTokenCount": 3}})
    answer = turn.choices[0]
    assert answer.stop_reason == ("PROHIBITED_CONTENT" if reason == 4 else reason)
    assert (answer.result, turn.partial, turn.usage.input_tokens, turn.usage.output_tokens) == (
        Result.BLOCKED,
        False,
        3,
        None,
    )


def test_usage_counts_tool_prompts_in_and_thoughts_out() -> None:
    """CANONICAL.md: the last usage object counts; what was not sent is null."""
    turn = streamed(
        response({"text": "a"}, usageMetadata={"trafficType": "ON_DEMAND"}),
        response(
            {"text": "b"},
            finish="STOP",
            usageMetadata={
                "promptTokenCount": 10,
                "toolUsePromptTokenCount": 5,
                "candidatesTokenCount": 2,
                "thoughtsTokenCount": 7,
                "cachedContentTokenCount": 4,
                "totalTokenCount": 24,
            },
        ),
    )
    usage = turn.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (15, 9, 24)
    assert (usage.cache_read_tokens, usage.cache_write_tokens, usage.reasoning_tokens) == (4, None, 7)
    assert turn.wire.usage == WireUsage(
        prompt_tokens=15, completion_tokens=9, total_tokens=24, cache_read_input_tokens=4
    )


def test_a_number_that_was_not_sent_is_null() -> None:
    """Thoughts alone are output; nothing at all is nothing."""
    turn = whole(response(finish="STOP", usageMetadata={"promptTokenCount": 0, "thoughtsTokenCount": 3}))
    assert (turn.usage.input_tokens, turn.usage.output_tokens, turn.usage.total_tokens) == (0, 3, 3)
    assert whole(response(finish="STOP")).usage.input_tokens is None
    assert whole(response(finish="STOP")).wire.usage is None


def test_names_of_the_proto_file_are_read_too() -> None:
    """Servers that keep proto field names send snake case."""
    turn = whole(
        {
            "candidates": [
                {
                    "content": {
                        "parts": [
                            {"text": "a", "thought_signature": "c2ln"},
                            {"function_call": {"name": "f"}},
                        ]
                    },
                    "finish_reason": "STOP",
                }
            ],
            "usage_metadata": {"prompt_token_count": 1, "candidates_token_count": 2},
            "model_version": "m",
            "response_id": "r",
        }
    )
    assert (turn.model, turn.response_id, turn.usage.total_tokens) == ("m", "r", 3)
    assert turn.choices[0].tool_calls[0].name == "f"
    assert turn.blocks[0].thinking_signature == "c2ln"


def test_the_code_assist_envelope_is_opened() -> None:
    """Code Assist wraps each response object."""
    turn = streamed({"response": response({"text": "a"}, finish="STOP", responseId="r"), "traceId": "t"})
    assert (turn.choices[0].text, turn.response_id) == ("a", "r")


def test_parts_without_a_place_are_kept_whole() -> None:
    """Code, its result, media and unknown parts lie under ``unparsed`` and in the blocks."""
    parts: list[dict[str, object]] = [
        {"executableCode": {"language": "PYTHON", "code": "1+1"}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "2"}},
        {"inlineData": {"mimeType": "image/png", "data": "aW1n"}},
        {"fileData": {"mimeType": "image/png", "fileUri": "gs://b/i.png"}},
        {"inlineData": {"mimeType": "audio/wav", "data": "d2F2"}},
        {"hologram": {"x": 1}},
    ]
    turn = whole(response(*parts, finish="STOP"))
    assert list(turn.unparsed) == parts
    assert [block.type for block in turn.blocks] == [
        "server_tool_use",
        "unparsed",
        "image",
        "image",
        "unparsed",
        "unparsed",
    ]
    assert (turn.blocks[2].image_base64, turn.blocks[3].image_url) == ("aW1n", "gs://b/i.png")
    assert [(item.damage, item.count) for item in turn.diagnostics] == [(Damage.UNKNOWN_CONTENT, 1)]


def test_empty_parts_make_no_block_and_every_signature_is_kept() -> None:
    """An empty text only carries a signature; a second one starts a block of its own."""
    turn = whole(
        response(
            {"text": ""},
            {},
            {"text": "a", "thoughtSignature": "s1"},
            {"text": "b", "thoughtSignature": "s2"},
            {"text": "", "thoughtSignature": "s3"},
            {"thoughtSignature": "s4"},
            None,
            finish="STOP",
        )
    )
    assert [(block.text, block.thinking_signature) for block in turn.blocks] == [
        ("a", "s1"),
        ("b", "s2"),
        ("", "s4"),
    ]


@pytest.mark.parametrize("shape", ["sse", "array"])
def test_an_error_in_a_stream_keeps_what_came_before(shape: str) -> None:
    """Google's error object may come as an event or as an element of the array."""
    events = [
        response({"text": "so far"}),
        {"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}},
    ]
    turn = streamed(*events) if shape == "sse" else reduce(Dialect.GEMINI, as_json(events))
    assert turn.provider_error == ProviderError(
        status=200, type="UNAVAILABLE", message="busy", where="stream"
    )
    assert (turn.partial, turn.choices[0].text, turn.choices[0].result) == (True, "so far", Result.ERROR)
    assert turn.wire.extra["error"] == {"type": "UNAVAILABLE", "message": "busy"}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_an_error_without_data_before_it_breaks_the_stream_off(newline: str) -> None:
    """Google writes the error of a broken stream bare, over several lines."""
    error = json.dumps({"error": {"code": 429, "message": "Quota", "status": "RESOURCE_EXHAUSTED"}}, indent=2)
    body = as_sse([response({"text": "so far"})], newline) + error.replace("\n", newline).encode()
    turn = reduce(Dialect.GEMINI, body, SSE)
    assert turn.provider_error == ProviderError(
        status=200, type="RESOURCE_EXHAUSTED", message="Quota", where="stream"
    )
    assert (turn.partial, turn.choices[0].text) == (True, "so far")


def test_events_after_a_bare_value_are_read_on() -> None:
    """The next ``data:`` line ends it, with or without a blank line before."""
    body = (
        as_sse([response({"text": "a"})])
        + b'[{"novel": 1}]\n'
        + as_sse([response({"text": "b"}, finish="STOP")])
    )
    turn = reduce(Dialect.GEMINI, body, SSE)
    assert (turn.choices[0].text, turn.partial) == ("ab", False)
    assert [item.damage for item in turn.diagnostics] == [Damage.UNKNOWN_EVENT]


def test_an_error_document_under_a_stream_type_is_read() -> None:
    """The content type promises a stream; the body is one object."""
    body = as_json({"error": {"code": 500, "message": "oops", "status": "INTERNAL"}})
    assert reduce(Dialect.GEMINI, body, SSE).provider_error == ProviderError(
        status=200, type="INTERNAL", message="oops", where="http"
    )


def test_an_error_document_is_an_empty_whole_turn() -> None:
    """A 200 with an error object is still an error."""
    turn = whole({"error": {"code": 500, "message": "oops", "status": "INTERNAL"}})
    assert turn.provider_error == ProviderError(status=200, type="INTERNAL", message="oops", where="http")
    assert not turn.partial


def test_a_whole_document_without_a_reason_is_whole() -> None:
    """A one-shot body that parses is whole, whatever it says."""
    turn = whole(response({"text": "a"}))
    assert (turn.partial, turn.choices[0].result) == (False, Result.OTHER)


def test_damaged_and_unknown_events_are_counted_and_passed_over() -> None:
    """Neither costs the turn."""
    body = as_sse([response({"text": "a"}), "no object", {"novel": 1}]) + b"data: {bad\r\n\r\n"
    turn = reduce(Dialect.GEMINI, body + as_sse([response({"text": "b"}, finish="STOP")]), SSE)
    assert turn.choices[0].text == "ab"
    assert {item.damage: item.count for item in turn.diagnostics} == {
        Damage.UNPARSEABLE_EVENT: 2,
        Damage.UNKNOWN_EVENT: 1,
    }


@pytest.mark.parametrize("body", [b"", b"{", b"3", b'"text"'])
def test_a_body_that_is_no_answer_is_refused(body: bytes) -> None:
    """There is no turn in it, and the reason says why."""
    assert isinstance(reduce_chunks(Dialect.GEMINI, [body], "application/json"), Refused)


def test_a_created_time_is_carried_as_sent() -> None:
    """Vertex dates its answers."""
    assert (
        whole(response(finish="STOP", createTime="2025-01-01T00:00:00Z")).wire.created_at
        == "2025-01-01T00:00:00Z"
    )
