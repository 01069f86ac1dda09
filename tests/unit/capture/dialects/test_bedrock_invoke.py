"""InvokeModel answers of every family, whole and streamed."""

import base64

import pytest

from capture.turn import Damage, Dialect, ProviderError, Refused, Result, Turn
from tests.unit.capture.dialects.google_aws import (
    EVENTSTREAM,
    as_json,
    as_sse,
    event,
    exception,
    hash_of,
    invoke_stream,
    reduce,
    reduce_chunks,
)

METRICS = {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 7, "outputTokenCount": 3}}


def streamed(*objects: object) -> Turn:
    """The turn of these objects, each in a chunk."""
    return reduce(Dialect.BEDROCK_INVOKE, invoke_stream(objects), EVENTSTREAM)


def whole(document: object) -> Turn:
    """The turn of a one-shot body."""
    return reduce(Dialect.BEDROCK_INVOKE, as_json(document))


PAIRS: dict[str, tuple[list[object], object]] = {
    "titan": (
        [
            {"outputText": "Hel", "index": 0, "completionReason": None, "inputTextTokenCount": 7},
            {"outputText": "lo", "completionReason": "FINISH", "totalOutputTextTokenCount": 3, **METRICS},
        ],
        {
            "inputTextTokenCount": 7,
            "results": [{"tokenCount": 3, "outputText": "Hello", "completionReason": "FINISH"}],
        },
    ),
    "llama": (
        [
            {"generation": "Hel", "prompt_token_count": 7, "generation_token_count": 1, "stop_reason": None},
            {
                "generation": "lo",
                "prompt_token_count": None,
                "generation_token_count": 3,
                "stop_reason": None,
            },
            {
                "generation": "",
                "prompt_token_count": None,
                "generation_token_count": 3,
                "stop_reason": "stop",
            },
        ],
        {"generation": "Hello", "prompt_token_count": 7, "generation_token_count": 3, "stop_reason": "stop"},
    ),
    "mistral prompt": (
        [
            {"outputs": [{"text": "Hel", "stop_reason": None}]},
            {"outputs": [{"text": "lo", "stop_reason": "stop"}], **METRICS},
        ],
        {"outputs": [{"text": "Hello", "stop_reason": "stop"}]},
    ),
    "mistral chat": (
        [
            {
                "choices": [
                    {"index": 0, "message": {"role": "assistant", "content": "Hel"}, "stop_reason": None}
                ]
            },
            {"choices": [{"index": 0, "message": {"content": "lo"}, "stop_reason": "stop"}], **METRICS},
        ],
        {
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "stop_reason": "stop"}
            ]
        },
    ),
    "deepseek": (
        [
            {"choices": [{"index": 0, "text": "Hel", "stop_reason": None}]},
            {"choices": [{"index": 0, "text": "lo", "stop_reason": "stop"}], **METRICS},
        ],
        {"choices": [{"text": "Hello", "stop_reason": "stop"}]},
    ),
    "openai chat": (
        [
            {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hel"}}]},
            {"choices": [{"index": 0, "delta": {"content": "lo"}, "finish_reason": "stop"}], **METRICS},
        ],
        {
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
            ]
        },
    ),
    "cohere command": (
        [
            {"text": "Hel", "is_finished": False},
            {"text": "lo", "is_finished": False},
            {"is_finished": True, "finish_reason": "COMPLETE", **METRICS},
        ],
        {"generations": [{"text": "Hello", "finish_reason": "COMPLETE", "id": "g"}], "prompt": "p"},
    ),
    "claude text": (
        [
            {"type": "completion", "completion": "Hel", "stop_reason": None, "stop": None},
            {"type": "completion", "completion": "lo", "stop_reason": "stop_sequence", **METRICS},
        ],
        {"type": "completion", "completion": "Hello", "stop_reason": "stop_sequence", "stop": "\n\nHuman:"},
    ),
    "claude messages": (
        [
            {
                "type": "message_start",
                "message": {"id": "m", "model": "c", "role": "assistant", "content": []},
            },
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
            {"type": "message_stop", **METRICS},
        ],
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": "Hello"}],
            "stop_reason": "end_turn",
        },
    ),
    "nova": (
        [
            {"messageStart": {"role": "assistant"}},
            {"contentBlockDelta": {"delta": {"text": "Hel"}, "contentBlockIndex": 0}},
            {"contentBlockDelta": {"delta": {"text": "lo"}, "contentBlockIndex": 0}},
            {"contentBlockStop": {"contentBlockIndex": 0}},
            {"messageStop": {"stopReason": "end_turn"}},
            {"metadata": {"usage": {"inputTokens": 7, "outputTokens": 3}}, **METRICS},
        ],
        {
            "output": {"message": {"role": "assistant", "content": [{"text": "Hello"}]}},
            "stopReason": "end_turn",
            "usage": {"inputTokens": 7, "outputTokens": 3, "cacheReadInputTokenCount": 0},
        },
    ),
}


@pytest.mark.parametrize("family", PAIRS)
def test_a_streamed_and_a_whole_answer_have_one_hash(family: str) -> None:
    """Every family that has both forms: the same blocks, text and result."""
    objects, document = PAIRS[family]
    stream, one_shot = streamed(*objects), whole(document)
    assert stream.choices[0].text == "Hello"
    assert stream.blocks == one_shot.blocks
    assert hash_of(stream) == hash_of(one_shot)
    assert stream.choices == one_shot.choices
    assert (stream.choices[0].result, stream.partial) == (Result.STOP, False)
    assert (stream.dialect, one_shot.dialect) == (Dialect.BEDROCK_INVOKE, Dialect.BEDROCK_INVOKE)
    assert stream.diagnostics == one_shot.diagnostics == ()


@pytest.mark.parametrize("family", PAIRS)
def test_the_family_counts_or_else_the_metrics_do(family: str) -> None:
    """Every stream above has seven tokens in and three out."""
    usage = streamed(*PAIRS[family][0]).usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (7, 3, 10)


@pytest.mark.parametrize("family", PAIRS)
def test_a_stream_cut_before_its_end_is_partial(family: str) -> None:
    """Neither reason nor metrics came."""
    objects = PAIRS[family][0]
    cut = next(at for at, item in enumerate(objects) if "Hel" in str(item)) + 1
    turn = streamed(*objects[:cut])
    assert turn.partial
    assert not turn.wire.done
    assert "Hello".startswith(turn.choices[0].text)
    assert turn.choices[0].result is Result.INCOMPLETE


def test_metrics_alone_end_an_answer_without_a_word() -> None:
    """CANONICAL.md: no word though the end came is ``other``."""
    turn = streamed({"outputs": [{"text": "a"}]}, METRICS)
    assert (turn.partial, turn.choices[0].stop_reason, turn.choices[0].result) == (False, None, Result.OTHER)
    assert (turn.wire.done, turn.wire.extra) == (True, {})


def test_a_stop_reason_ends_a_claude_answer_whose_last_event_is_missing() -> None:
    """Under InvokeModel a reason is an end marker too."""
    turn = streamed(*PAIRS["claude messages"][0][:-1])
    assert (turn.partial, turn.wire.done, turn.wire.stop_reason) == (False, True, "end_turn")
    assert "incomplete" not in turn.wire.extra


def test_jurassic_nests_its_text_and_reason() -> None:
    """``completions[].data.text``, ``finishReason.reason``; its numeric id is no response id."""
    turn = whole(
        {
            "id": 1234,
            "prompt": {"text": "p"},
            "completions": [{"data": {"text": "Hello"}, "finishReason": {"reason": "endoftext"}}],
        }
    )
    assert (turn.choices[0].text, turn.choices[0].result, turn.response_id) == ("Hello", Result.STOP, None)


def test_command_r_names_its_generation_and_loses_no_call() -> None:
    """Its text, reason and id are read; its calls are kept whole."""
    calls = [{"name": "f", "parameters": {"x": 1}}]
    turn = whole(
        {
            "text": "Hello",
            "generation_id": "g1",
            "finish_reason": "COMPLETE",
            "tool_calls": calls,
            "chat_history": [],
        }
    )
    assert (turn.choices[0].text, turn.choices[0].result, turn.response_id) == ("Hello", Result.STOP, "g1")
    assert turn.unparsed == ({"tool_calls": calls},)


def test_several_generations_are_choices() -> None:
    """Cohere numbers the pieces of its generations."""
    turn = streamed(
        {"text": "a", "index": 0, "is_finished": False},
        {"text": "b", "index": 1, "is_finished": False},
        {"index": 0, "is_finished": True, "finish_reason": "COMPLETE"},
        {"index": 1, "is_finished": True, "finish_reason": "MAX_TOKENS"},
        {
            "generations": [
                {"index": 0, "text": "a", "finish_reason": "COMPLETE"},
                {"index": 1, "text": "b", "finish_reason": "MAX_TOKENS"},
            ],
            **METRICS,
        },
    )
    assert [(choice.index, choice.text, choice.result) for choice in turn.choices] == [
        (0, "a", Result.STOP),
        (1, "b", Result.MAX_TOKENS),
    ]
    assert turn.wire.extra["choices"] == [
        {
            "index": 1,
            "message": {"role": "assistant", "content": [{"type": "text", "text": "b"}]},
            "stop_reason": "MAX_TOKENS",
        }
    ]


def test_cached_parts_in_the_metrics_are_counted_in() -> None:
    """As Converse: outside the input count."""
    metrics = {
        "inputTokenCount": 7,
        "outputTokenCount": 3,
        "cacheReadInputTokenCount": 90,
        "cacheWriteInputTokenCount": 1,
    }
    usage = streamed({"outputs": [{"text": "a"}], "amazon-bedrock-invocationMetrics": metrics}).usage
    assert (usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens) == (98, 90, 1)


def test_a_guardrail_blocks_an_answer_without_a_word() -> None:
    """``amazon-bedrock-guardrailAction`` stands in for the reason."""
    turn = whole({"outputs": [{"text": "Sorry."}], "amazon-bedrock-guardrailAction": "INTERVENED"})
    assert turn.choices[0].result is Result.BLOCKED
    turn = whole({"outputs": [{"text": "Fine."}], "amazon-bedrock-guardrailAction": "NONE"})
    assert turn.choices[0].result is Result.OTHER


def test_an_exception_in_the_stream_keeps_what_came_before() -> None:
    """The family never sees it."""
    body = invoke_stream(PAIRS["llama"][0][:1]) + exception("modelStreamErrorException", "Broke")
    turn = reduce(Dialect.BEDROCK_INVOKE, body, EVENTSTREAM)
    assert turn.provider_error == ProviderError(
        status=200, type="modelStreamErrorException", message="Broke", where="stream"
    )
    assert (turn.partial, turn.choices[0].text, turn.choices[0].result) == (True, "Hel", Result.ERROR)
    assert turn.wire.extra["error"] == {"type": "modelStreamErrorException", "message": "Broke"}


def test_an_exception_outranks_an_end_that_was_seen() -> None:
    """A stream error makes the turn partial, whatever came before it."""
    body = invoke_stream(PAIRS["llama"][0]) + exception("throttlingException", "Late")
    turn = reduce(Dialect.BEDROCK_INVOKE, body, EVENTSTREAM)
    assert (turn.partial, turn.wire.done) == (True, False)


def test_a_claude_error_event_is_its_own() -> None:
    """Anthropic's stream errors come inside a chunk."""
    turn = streamed(
        PAIRS["claude messages"][0][0],
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
    )
    assert turn.provider_error == ProviderError(
        status=200, type="overloaded_error", message="Overloaded", where="stream"
    )
    assert turn.partial


def test_tool_calls_of_chat_families_are_read() -> None:
    """Mistral's calls, with its own name for the reason."""
    call = {"id": "c1", "function": {"name": "f", "arguments": '{"x": 1}'}}
    turn = whole(
        {
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "", "tool_calls": [call]},
                    "stop_reason": "tool_calls",
                }
            ]
        }
    )
    answer = turn.choices[0]
    assert [(item.id, item.name, item.arguments) for item in answer.tool_calls] == [("c1", "f", {"x": 1})]
    assert (answer.stop_reason, answer.result) == ("tool_calls", Result.TOOL_CALL)


def test_an_unknown_family_is_kept_whole() -> None:
    """Nothing is lost that nobody knows."""
    turn = streamed({"artifact": "x"}, {"artifact": "y"}, METRICS)
    assert turn.unparsed == ({"artifact": "x"}, {"artifact": "y"})
    assert turn.usage.output_tokens == 3
    assert turn.diagnostics[0].damage is Damage.UNKNOWN_CONTENT
    assert whole({"images": ["aW1n"], "seed": 1}).unparsed == ({"images": ["aW1n"], "seed": 1},)


def test_damaged_chunks_are_counted_and_passed_over() -> None:
    """No base64, no JSON in it, an empty one, and a payload that is no JSON."""
    body = b"".join(
        (
            event("chunk", {"bytes": "%%%"}),
            event("chunk", {"bytes": "e2JhZA=="}),
            event("chunk", {"bytes": ""}),
            invoke_stream(PAIRS["llama"][0]),
            event("chunk", {"bytes": "e2JhZA=="}),
        )
    )
    turn = reduce(Dialect.BEDROCK_INVOKE, body, EVENTSTREAM)
    assert turn.choices[0].text == "Hello"
    assert sum(item.count for item in turn.diagnostics if item.damage is Damage.UNPARSEABLE_EVENT) == 3


def test_damage_and_bare_usage_among_chat_chunks_are_survived() -> None:
    """What needs no renaming, or cannot be renamed, goes on as it came."""
    chunks = invoke_stream(PAIRS["mistral chat"][0][:1])
    usage: dict[str, object] = {
        "choices": [],
        "usage": {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6},
    }
    damaged = b"".join(
        event("chunk", {"bytes": base64.b64encode(text).decode()}) for text in (b'{"message"', b'["message"]')
    )
    body = chunks + damaged + invoke_stream([usage, *PAIRS["mistral chat"][0][1:]])
    turn = reduce(Dialect.BEDROCK_INVOKE, body, EVENTSTREAM)
    assert (turn.choices[0].text, turn.usage.total_tokens) == ("Hello", 6)
    assert [(item.damage, item.count) for item in turn.diagnostics] == [(Damage.UNPARSEABLE_EVENT, 2)]


def test_objects_without_the_envelope_are_read_as_they_are() -> None:
    """A gateway that unpacks the stream into SSE sends the family's JSON bare."""
    turn = reduce(Dialect.BEDROCK_INVOKE, as_sse(PAIRS["claude messages"][0]), "text/event-stream")
    assert (turn.choices[0].text, turn.partial) == ("Hello", False)


def test_a_stream_of_nothing_is_an_empty_partial_turn() -> None:
    """No object came at all: no family, no end."""
    turn = reduce(Dialect.BEDROCK_INVOKE, event("chunk", {"bytes": ""}), EVENTSTREAM)
    assert (turn.partial, turn.blocks, turn.choices[0].result) == (True, (), Result.INCOMPLETE)


def test_an_error_document_is_an_error() -> None:
    """A body with a message where the answer should be."""
    turn = whole({"message": "The model is overloaded"})
    assert turn.provider_error == ProviderError(
        status=200, type=None, message="The model is overloaded", where="http"
    )
    assert (turn.partial, turn.choices[0].result) == (False, Result.ERROR)


@pytest.mark.parametrize("body", [b"", b"{", b"[]"])
def test_a_body_that_is_no_answer_is_refused(body: bytes) -> None:
    """There is no turn in it."""
    assert isinstance(reduce_chunks(Dialect.BEDROCK_INVOKE, [body], "application/json"), Refused)
