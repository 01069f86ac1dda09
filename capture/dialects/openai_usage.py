"""Token counts of the OpenAI family, under the names that its vendors give them.

Cached and reasoning tokens are parts of the prompt and of the completion. Some vendors
leave a part outside; their own totals give them away (CANONICAL.md, "where the numbers
tell"), so the arithmetic below believes the totals, not the vendor's name.
"""

from typing import Final

from capture.dialects.members import as_int, as_mapping
from capture.turn import JsonObject, Usage, WireUsage

_NOTHING: Final[JsonObject] = {}


def usage_of(usage: JsonObject | None) -> Usage:
    """The neutral counts of a ``usage`` object (None: the provider sent none)."""
    if usage is None:
        return Usage()
    prompt, completion = _prompt(usage), _completion(usage)
    total = as_int(usage.get("total_tokens"))
    reasoning = _first(_details(usage, "completion", "output"), "reasoning_tokens")
    if reasoning is None:
        reasoning = as_int(usage.get("reasoning_tokens"))
    whole_prompt = _with_audio(usage, prompt, completion, total)
    output = _with_reasoning(prompt, completion, reasoning, total)
    if total is None and whole_prompt is not None and output is not None:
        total = whole_prompt + output
    return Usage(
        input_tokens=whole_prompt,
        output_tokens=output,
        total_tokens=total,
        cache_read_tokens=_cache_read(usage),
        cache_write_tokens=_cache_write(usage),
        reasoning_tokens=reasoning,
        raw=dict(usage),
    )


def wire_usage_of(usage: JsonObject | None) -> WireUsage | None:
    """The contract's counts: as named by the provider, 0 where absent (``wire.md`` §3)."""
    if usage is None:
        return None
    return WireUsage(
        prompt_tokens=_prompt(usage) or 0,
        completion_tokens=_completion(usage) or 0,
        total_tokens=as_int(usage.get("total_tokens")) or 0,
        cache_read_input_tokens=_first(_details(usage, "prompt", "input"), "cached_tokens") or 0,
    )


def _prompt(usage: JsonObject) -> int | None:
    return _first(usage, "prompt_tokens", "input_tokens")


def _completion(usage: JsonObject) -> int | None:
    return _first(usage, "completion_tokens", "output_tokens")


def _with_audio(
    usage: JsonObject, prompt: int | None, completion: int | None, total: int | None
) -> int | None:
    """Mistral counts the audio of a prompt beside its tokens: exactly the gap to the total."""
    audio = _first(_details(usage, "prompt", "input"), "audio_tokens")
    if not audio or prompt is None or completion is None or total is None:
        return prompt
    return prompt + audio if total - completion - prompt == audio else prompt


def _with_reasoning(
    prompt: int | None, completion: int | None, reasoning: int | None, total: int | None
) -> int | None:
    """Some (xAI, the Vercel gateway) count reasoning beside the completion: the total, or a
    reasoning larger than its whole, gives it away.
    """
    if not reasoning or completion is None:
        return completion
    beside = prompt is not None and total == prompt + completion + reasoning
    return completion + reasoning if beside or reasoning > completion else completion


def _cache_read(usage: JsonObject) -> int | None:
    read = _first(_details(usage, "prompt", "input"), "cached_tokens")
    if read is None:
        read = _first(usage, "prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens")
    return read


def _cache_write(usage: JsonObject) -> int | None:
    written = _first(_details(usage, "prompt", "input"), "cache_write_tokens")
    return _first(usage, "cache_creation_input_tokens") if written is None else written


def _details(usage: JsonObject, *sides: str) -> JsonObject:
    """``prompt_tokens_details`` or ``input_tokens_details``, whichever came."""
    for side in sides:
        details = as_mapping(usage.get(f"{side}_tokens_details"))
        if details is not None:
            return details
    return _NOTHING


def _first(counts: JsonObject, *names: str) -> int | None:
    for name in names:
        count = as_int(counts.get(name))
        if count is not None:
            return count
    return None
