"""Converse and ConverseStream answers."""

import pytest

from capture.turn import Damage, Dialect, ProviderError, Refused, Result, Turn, WireUsage
from tests.unit.capture.dialects.google_aws import (
    EVENTSTREAM,
    as_json,
    converse_stream,
    event,
    exception,
    hash_of,
    message,
    reduce,
    reduce_chunks,
)

USAGE = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15}


def streamed(*events: tuple[str, object]) -> Turn:
    """The turn of these ConverseStream events."""
    return reduce(Dialect.BEDROCK_CONVERSE, converse_stream(*events), EVENTSTREAM)


def whole(*blocks: object, stop: str = "end_turn", usage: object = None) -> Turn:
    """The turn of a Converse answer with these content blocks."""
    message = {"role": "assistant", "content": list(blocks)}
    answer = {"output": {"message": message}, "stopReason": stop, "usage": usage or USAGE}
    return reduce(Dialect.BEDROCK_CONVERSE, as_json(answer))


def start(index: int, **block: object) -> tuple[str, object]:
    """A contentBlockStart."""
    return "contentBlockStart", {"contentBlockIndex": index, "start": block}


def delta(index: int, **change: object) -> tuple[str, object]:
    """A contentBlockDelta."""
    return "contentBlockDelta", {"contentBlockIndex": index, "delta": change, "p": "abc"}


def stop_block(index: int) -> tuple[str, object]:
    """A contentBlockStop."""
    return "contentBlockStop", {"contentBlockIndex": index}


def end(reason: str = "end_turn") -> tuple[str, object]:
    """A messageStop."""
    return "messageStop", {"stopReason": reason}


BEGIN: tuple[str, object] = ("messageStart", {"role": "assistant"})


def test_reasoning_text_and_a_call_are_read_in_the_order_they_were_opened() -> None:
    """Text deltas open their own block; a call's input comes in fragments."""
    turn = streamed(
        BEGIN,
        delta(0, reasoningContent={"text": "Let me "}),
        delta(0, reasoningContent={"text": "see"}),
        delta(0, reasoningContent={"signature": "c2ln"}),
        stop_block(0),
        delta(1, text="Look"),
        delta(1, text="ing."),
        stop_block(1),
        start(2, toolUse={"toolUseId": "t1", "name": "search"}),
        delta(2, toolUse={"input": '{"q": '}),
        delta(2, toolUse={"input": '"x"}'}),
        stop_block(2),
        end("tool_use"),
        ("metadata", {"usage": USAGE, "metrics": {"latencyMs": 1}}),
    )
    answer = turn.choices[0]
    assert (answer.thinking, answer.text, answer.stop_reason) == ("Let me see", "Looking.", "tool_use")
    assert answer.result is Result.TOOL_CALL
    assert [(call.id, call.name, call.arguments) for call in answer.tool_calls] == [
        ("t1", "search", {"q": "x"})
    ]
    assert [block.type for block in turn.blocks] == ["thinking", "text", "tool_use"]
    assert turn.blocks[0].thinking_signature == "c2ln"
    assert (turn.partial, turn.wire.done, turn.wire.extra) == (False, True, {})
    assert (turn.model, turn.response_id) == ("", None)


def test_a_streamed_and_a_whole_turn_have_one_hash() -> None:
    """Every block kind that has both forms gives the same blocks."""
    stream = streamed(
        BEGIN,
        delta(0, reasoningContent={"text": "Hm"}),
        delta(0, reasoningContent={"text": "m", "signature": "c2ln"}),
        delta(1, reasoningContent={"redactedContent": "QUI="}),
        delta(1, reasoningContent={"redactedContent": "Q0Q="}),
        delta(2, text=""),
        delta(2, citation={"title": "t", "source": "s"}),
        delta(2, text="cited"),
        start(3, toolUse={"toolUseId": "s1", "name": "nova_code_interpreter", "type": "server_tool_use"}),
        delta(3, toolUse={"input": "{}"}),
        stop_block(3),
        start(4, toolResult={"toolUseId": "s1", "status": "success", "type": "code_result"}),
        delta(4, toolResult=[{"text": "o"}]),
        delta(4, toolResult=[{"text": "k"}, {"json": {"exitCode": 0}}]),
        start(5, image={"format": "png"}),
        delta(5, image={"source": {"bytes": "aW1n"}}),
        end(),
    )
    one_shot = whole(
        {"reasoningContent": {"reasoningText": {"text": "Hmm", "signature": "c2ln"}}},
        {"reasoningContent": {"redactedContent": "QUJDRA=="}},
        {"citationsContent": {"content": [{"text": "ci"}, {"text": "ted"}], "citations": [{"title": "t"}]}},
        {
            "toolUse": {
                "toolUseId": "s1",
                "name": "nova_code_interpreter",
                "type": "server_tool_use",
                "input": {},
            }
        },
        {
            "toolResult": {
                "toolUseId": "s1",
                "status": "success",
                "type": "code_result",
                "content": [{"text": "ok"}, {"json": {"exitCode": 0}}],
            }
        },
        {"image": {"format": "png", "source": {"bytes": "aW1n"}}},
    )
    assert stream.blocks == one_shot.blocks
    assert stream.unparsed == one_shot.unparsed
    assert hash_of(stream) == hash_of(one_shot)
    assert stream.choices == one_shot.choices
    assert stream.choices[0].text == "cited"


def test_the_cached_parts_of_a_prompt_are_counted_in() -> None:
    """CANONICAL.md: they lie outside ``inputTokens``; the total already has them."""
    usage = {
        "inputTokens": 10,
        "outputTokens": 5,
        "totalTokens": 118,
        "cacheReadInputTokens": 100,
        "cacheWriteInputTokens": 3,
    }
    turn = whole({"text": "a"}, usage=usage)
    assert (turn.usage.input_tokens, turn.usage.output_tokens, turn.usage.total_tokens) == (113, 5, 118)
    assert (turn.usage.cache_read_tokens, turn.usage.cache_write_tokens) == (100, 3)
    assert turn.usage.reasoning_tokens is None
    assert turn.wire.usage == WireUsage(
        prompt_tokens=113,
        completion_tokens=5,
        total_tokens=118,
        cache_creation_input_tokens=3,
        cache_read_input_tokens=100,
    )


def test_no_metadata_is_no_usage() -> None:
    """A stream cut before its metadata has no numbers, not zeros."""
    turn = streamed(BEGIN, delta(0, text="a"), end())
    assert (turn.usage.input_tokens, turn.wire.usage, turn.partial) == (None, None, False)


@pytest.mark.parametrize("word", ["guardrail_intervened", "content_filtered"])
def test_a_guardrail_blocks(word: str) -> None:
    """The provider's word decides."""
    assert whole({"text": "Sorry."}, stop=word).choices[0].result is Result.BLOCKED


def test_a_stream_without_message_stop_is_partial() -> None:
    """``messageStop`` alone is the end marker."""
    turn = streamed(BEGIN, delta(0, text="so far"))
    assert (turn.partial, turn.choices[0].text, turn.choices[0].result) == (True, "so far", Result.INCOMPLETE)
    assert turn.wire.extra == {"partial": True}


def test_an_exception_in_the_stream_keeps_what_came_before() -> None:
    """Its type is the event's name."""
    body = converse_stream(BEGIN, delta(0, text="so far")) + exception(
        "throttlingException", "Too many tokens"
    )
    turn = reduce(Dialect.BEDROCK_CONVERSE, body, EVENTSTREAM)
    assert turn.provider_error == ProviderError(
        status=200, type="throttlingException", message="Too many tokens", where="stream"
    )
    assert (turn.partial, turn.choices[0].text, turn.choices[0].result) == (True, "so far", Result.ERROR)
    assert turn.wire.stop_reason == "error"


def test_an_error_message_of_the_framing_is_a_provider_error_too() -> None:
    """``:message-type: error`` has a code and a message, no payload."""
    headers = {":message-type": "error", ":error-code": "InternalError", ":error-message": "oops"}
    body = converse_stream(BEGIN, end()) + message(headers, b"")
    turn = reduce(Dialect.BEDROCK_CONVERSE, body, EVENTSTREAM)
    assert turn.provider_error == ProviderError(
        status=200, type="InternalError", message="oops", where="stream"
    )
    assert turn.partial


def test_reasoning_and_text_under_one_index_are_two_blocks() -> None:
    """Some models do not count a new index for the text after the reasoning."""
    turn = streamed(BEGIN, delta(0, reasoningContent={"text": "r"}), delta(0, text="t"), end())
    assert [(block.thinking, block.text) for block in turn.blocks] == [("r", ""), ("", "t")]


def test_a_text_numbered_piece_by_piece_is_one_block() -> None:
    """Nova opens a block for every piece; whole, it is one text."""
    pieces = [change for at, text in enumerate("Hello") for change in (delta(at, text=text), stop_block(at))]
    stream, one_shot = streamed(BEGIN, *pieces, end()), whole({"text": "Hello"})
    assert [block.text for block in stream.blocks] == ["Hello"]
    assert hash_of(stream) == hash_of(one_shot)


def test_cited_texts_keep_apart() -> None:
    """Citations belong to their own text, streamed or whole."""
    stream = streamed(
        BEGIN,
        delta(0, text="A"),
        delta(1, citation={"title": "t"}),
        delta(1, text="B"),
        delta(2, text="C"),
        end(),
    )
    one_shot = whole(
        {"text": "A"}, {"citationsContent": {"content": [{"text": "B"}], "citations": []}}, {"text": "C"}
    )
    assert [block.text for block in stream.blocks] == ["A", "B", "C"]
    assert stream.blocks == one_shot.blocks


def test_an_index_used_again_after_its_stop_opens_another_call() -> None:
    """Fragments never run into the call before; gaps and negative numbers mean nothing."""
    turn = streamed(
        BEGIN,
        start(7, toolUse={"toolUseId": "a", "name": "f"}),
        delta(7, toolUse={"input": '{"x":1}'}),
        stop_block(7),
        start(7, toolUse={"toolUseId": "b", "name": "g"}),
        delta(7, toolUse={"input": '{"y":2}'}),
        stop_block(7),
        start(-1, toolUse={"toolUseId": "null", "name": "h"}),
        end("tool_use"),
    )
    assert [(call.id, call.name, call.arguments) for call in turn.choices[0].tool_calls] == [
        ("a", "f", {"x": 1}),
        ("b", "g", {"y": 2}),
        (None, "h", {}),
    ]


def test_a_repeated_start_replaces_no_name() -> None:
    """CANONICAL.md: a repeated id or name replaces nothing; an empty one changes nothing."""
    turn = streamed(
        BEGIN,
        start(0, toolUse={"toolUseId": "a", "name": "f"}),
        start(0, toolUse={"toolUseId": "", "name": "other"}),
        delta(0, toolUse={"input": "{}"}),
        end("tool_use"),
    )
    assert [(call.id, call.name) for call in turn.choices[0].tool_calls] == [("a", "f")]


@pytest.mark.parametrize(
    ("fragments", "arguments", "raw"),
    [([""], {}, None), (['{"a":'], None, '{"a":'), (["[1]"], None, "[1]")],
)
def test_input_that_is_no_object_is_kept_as_text(
    fragments: list[str], arguments: object, raw: object
) -> None:
    """No input is an empty object; damage is counted."""
    turn = streamed(
        BEGIN,
        start(0, toolUse={"toolUseId": "a", "name": "f"}),
        *(delta(0, toolUse={"input": fragment}) for fragment in fragments),
        stop_block(0),
        end("tool_use"),
    )
    call = turn.choices[0].tool_calls[0]
    assert (call.arguments, call.raw_arguments) == (arguments, raw)
    damaged = [item.damage for item in turn.diagnostics]
    assert damaged == ([Damage.UNPARSEABLE_TOOL_INPUT] if raw else [])


def test_whole_input_that_is_no_object_is_kept_as_text() -> None:
    """Converse types the input as any document."""
    call = whole({"toolUse": {"toolUseId": "a", "name": "f", "input": [1, 2]}}).choices[0].tool_calls[0]
    assert (call.arguments, call.raw_arguments) == (None, "[1,2]")


def test_unknown_events_blocks_and_payloads_are_counted_and_kept() -> None:
    """Tomorrow's block lies under ``unparsed``; nothing costs the turn."""
    body = converse_stream(BEGIN, ("novelty", {}), start(0, hologram={"x": 1}), delta(1, text="a"), end())
    headers = {":message-type": "event", ":event-type": "contentBlockDelta"}
    turn = reduce(Dialect.BEDROCK_CONVERSE, message(headers, b"{bad") + body, EVENTSTREAM)
    assert turn.unparsed == ({"hologram": {"x": 1}},)
    assert turn.choices[0].text == "a"
    assert {item.damage for item in turn.diagnostics} == {
        Damage.UNPARSEABLE_EVENT,
        Damage.UNKNOWN_EVENT,
        Damage.UNKNOWN_CONTENT,
    }


def test_a_block_that_is_no_object_is_counted() -> None:
    """A list of strings is no content."""
    turn = whole("text", {"text": "a"})
    assert turn.choices[0].text == "a"
    assert [item.damage for item in turn.diagnostics] == [Damage.UNKNOWN_CONTENT]


def test_image_bytes_in_pieces_are_joined() -> None:
    """As bytes; pieces that are no base64 are joined as they are."""
    for pieces, joined in ((("QUI=", "Q0Q="), "QUJDRA=="), (("A", "%"), "A%")):
        turn = streamed(
            BEGIN,
            start(0, image={"format": "png"}),
            *(delta(0, image={"source": {"bytes": piece}}) for piece in pieces),
            end(),
        )
        assert turn.blocks[0].image_base64 == joined


def test_an_image_in_a_bucket_is_known_by_its_address() -> None:
    """``s3Location`` instead of bytes."""
    turn = whole({"image": {"format": "webp", "source": {"s3Location": {"uri": "s3://b/k"}}}})
    assert (turn.blocks[0].image_url, turn.blocks[0].media_type) == ("s3://b/k", "image/webp")


def test_an_error_document_is_an_error() -> None:
    """A body with a message and no output."""
    turn = reduce(Dialect.BEDROCK_CONVERSE, as_json({"__type": "x#ValidationException", "message": "bad"}))
    assert turn.provider_error == ProviderError(
        status=200, type="ValidationException", message="bad", where="http"
    )


@pytest.mark.parametrize("body", [b"", b"{", b"[]"])
def test_a_body_that_is_no_answer_is_refused(body: bytes) -> None:
    """There is no turn in it."""
    assert isinstance(reduce_chunks(Dialect.BEDROCK_CONVERSE, [body], "application/json"), Refused)


@pytest.mark.parametrize("content_type", ["", "application/json", "application/octet-stream"])
def test_a_stream_is_known_by_its_first_bytes(content_type: str) -> None:
    """A recorder or proxy may have lost the content type."""
    body = converse_stream(BEGIN, delta(0, text="a"), end())
    assert reduce(Dialect.BEDROCK_CONVERSE, body, content_type).choices[0].text == "a"


def test_a_message_with_a_wrong_checksum_costs_only_itself() -> None:
    """The framing counts it; the deltas around it stay."""
    broken = bytearray(event(*delta(0, text="lost")))
    broken[-1] ^= 1
    body = (
        converse_stream(BEGIN, delta(0, text="a"))
        + bytes(broken)
        + converse_stream(delta(0, text="b"), end())
    )
    turn = reduce(Dialect.BEDROCK_CONVERSE, body, EVENTSTREAM)
    assert (turn.choices[0].text, turn.partial) == ("ab", False)
    assert [item.damage for item in turn.diagnostics] == [Damage.BAD_CRC]
