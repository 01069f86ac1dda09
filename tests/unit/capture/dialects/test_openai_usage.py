"""Token counts under the names and habits of the OpenAI family's vendors."""

from typing import Any

import pytest

from capture.dialects.openai_usage import usage_of, wire_usage_of
from capture.turn import Usage, WireUsage

Counts = dict[str, int | None]


def told(usage: Usage) -> Counts:
    return {
        "in": usage.input_tokens,
        "out": usage.output_tokens,
        "all": usage.total_tokens,
        "read": usage.cache_read_tokens,
        "write": usage.cache_write_tokens,
        "think": usage.reasoning_tokens,
    }


NOTHING: Counts = {"in": None, "out": None, "all": None, "read": None, "write": None, "think": None}

CASES: list[tuple[str, dict[str, Any], Counts]] = [
    ("chat", {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}, {"in": 5, "out": 2, "all": 7}),
    ("responses", {"input_tokens": 5, "output_tokens": 2}, {"in": 5, "out": 2, "all": 7}),
    ("a zero is a zero", {"prompt_tokens": 0, "total_tokens": 0}, {"in": 0, "all": 0}),
    ("nulls", {"prompt_tokens": 5, "completion_tokens": None, "total_tokens": None}, {"in": 5}),
    ("not numbers", {"prompt_tokens": "5", "completion_tokens": True, "total_tokens": 7.0}, {"all": 7}),
    ("cached", {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 0}}, {"in": 5, "read": 0}),
    ("cached input", {"input_tokens_details": {"cached_tokens": 3}}, {"read": 3}),
    ("DeepSeek", {"prompt_cache_hit_tokens": 3, "prompt_cache_miss_tokens": 2}, {"read": 3}),
    ("details before others", {"prompt_tokens_details": {"cached_tokens": 1}, "cached_tokens": 2}, {"read": 1}),
    ("a null detail", {"prompt_tokens_details": {"cached_tokens": None}, "cached_tokens": 2}, {"read": 2}),
    ("Databricks", {"cache_read_input_tokens": 1, "cache_creation_input_tokens": 2}, {"read": 1, "write": 2}),
    ("OpenRouter", {"prompt_tokens_details": {"cache_write_tokens": 4}}, {"write": 4}),
    ("reasoning inside", {"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 8}},
     {"out": 9, "think": 8}),
    ("Perplexity", {"completion_tokens": 9, "reasoning_tokens": 8}, {"out": 9, "think": 8}),
    ("xAI: the total says beside",
     {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 10,
      "completion_tokens_details": {"reasoning_tokens": 3}}, {"in": 5, "out": 5, "all": 10, "think": 3}),
    ("more reasoning than completion",
     {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7,
      "completion_tokens_details": {"reasoning_tokens": 3}}, {"in": 5, "out": 5, "all": 7, "think": 3}),
    ("Mistral: the audio is the gap",
     {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 107,
      "prompt_tokens_details": {"audio_tokens": 100}}, {"in": 105, "out": 2, "all": 107}),
    ("OpenAI: the audio lies inside",
     {"prompt_tokens": 105, "completion_tokens": 2, "total_tokens": 107,
      "prompt_tokens_details": {"audio_tokens": 100}}, {"in": 105, "out": 2, "all": 107}),
    ("details of an odd type", {"prompt_tokens": 5, "prompt_tokens_details": []}, {"in": 5}),
]  # fmt: skip


@pytest.mark.parametrize(("usage", "counts"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_usage_is_normalised(usage: dict[str, Any], counts: Counts) -> None:
    """Totals are believed, parts stay parts, what was not sent stays unknown."""
    assert told(usage_of(usage)) == {**NOTHING, **counts}
    assert usage_of(usage).raw == usage


def test_no_usage_is_unknown_everywhere() -> None:
    """And the contract leaves the object out."""
    assert told(usage_of(None)) == NOTHING
    assert usage_of(None).raw is None
    assert wire_usage_of(None) is None


def test_the_contract_counts_as_the_provider_named_them() -> None:
    """No arithmetic there: completion_tokens stays without the reasoning beside it."""
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    assert wire_usage_of(usage) == WireUsage(
        prompt_tokens=5, completion_tokens=2, total_tokens=10, cache_read_input_tokens=4
    )
