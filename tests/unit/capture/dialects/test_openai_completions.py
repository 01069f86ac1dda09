"""Legacy completions: text where chat has messages."""

import json
from typing import Any

from capture.turn import Dialect, Result, Turn
from tests.unit.capture.dialects.openai_streams import reduce, root_hash, sse, wire


def completion(*choices: dict[str, Any], **members: Any) -> dict[str, Any]:
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1750000000, "model": "m"}
    return {**head, "choices": list(choices), **members}


def choice(text: str, index: int = 0, finish_reason: str | None = None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish_reason}


def reduced(body: bytes, content_type: str = "text/event-stream") -> Turn:
    return reduce(body, content_type, Dialect.OPENAI_COMPLETIONS)


def test_streamed_and_one_shot_texts_are_one_turn() -> None:
    streamed = reduced(
        sse(
            completion(choice("Hel")), completion(choice("lo")), completion(choice("", 0, "length")), "[DONE]"
        )
    )
    whole = reduced(json.dumps(completion(choice("Hello", 0, "length"))).encode(), "application/json")
    for turn in (streamed, whole):
        answer = turn.choices[0]
        assert (answer.text, answer.result, turn.partial) == ("Hello", Result.MAX_TOKENS, False)
        assert turn.dialect is Dialect.OPENAI_COMPLETIONS
        assert wire(turn)["stop_reason"] == "length"
    assert root_hash(streamed) == root_hash(whole)


def test_choices_interleave_by_index() -> None:
    turn = reduced(
        sse(completion(choice("b", 1)), completion(choice("a", 0)), completion(choice("B", 1)), "[DONE]")
    )
    assert [(told.index, told.text) for told in turn.choices] == [(0, "a"), (1, "bB")]


def test_a_finish_reason_without_done_is_an_end() -> None:
    assert not reduced(sse(completion(choice("a", 0, "stop")))).partial
    assert reduced(sse(completion(choice("a")))).partial


def test_usage_comes_in_a_chunk_of_its_own() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    turn = reduced(sse(completion(choice("a", 0, "stop"), usage=None), completion(usage=usage), "[DONE]"))
    assert wire(turn)["usage"] == usage
