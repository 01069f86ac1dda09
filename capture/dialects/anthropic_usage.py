"""What an Anthropic message cost: the contract's arithmetic, and the neutral meaning."""

from collections.abc import Mapping

from capture.dialects.members import as_int, as_mapping
from capture.turn import JsonObject, Usage, WireUsage


def prompt_usage(usage: Mapping[str, object]) -> WireUsage:
    """The prompt's side of the contract's usage (``wire.md`` §3)."""
    created = as_int(usage.get("cache_creation_input_tokens")) or 0
    read = as_int(usage.get("cache_read_input_tokens")) or 0
    prompt = (as_int(usage.get("input_tokens")) or 0) + created + read
    return WireUsage(
        prompt_tokens=prompt,
        total_tokens=prompt,
        cache_creation_input_tokens=created,
        cache_read_input_tokens=read,
    )


def with_completion(usage: WireUsage, completion: int) -> WireUsage:
    """The same with the completion's tokens."""
    return WireUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=completion,
        total_tokens=usage.prompt_tokens + completion,
        cache_creation_input_tokens=usage.cache_creation_input_tokens,
        cache_read_input_tokens=usage.cache_read_input_tokens,
    )


def normalised(usage: JsonObject) -> Usage:
    """The cached parts of an Anthropic prompt lie outside ``input_tokens``."""
    if not usage:
        return Usage()
    uncached = as_int(usage.get("input_tokens"))
    read = as_int(usage.get("cache_read_input_tokens"))
    written = as_int(usage.get("cache_creation_input_tokens"))
    whole = None if uncached is None else uncached + (read or 0) + (written or 0)
    output = as_int(usage.get("output_tokens"))
    details = as_mapping(usage.get("output_tokens_details")) or {}
    return Usage(
        input_tokens=whole,
        output_tokens=output,
        total_tokens=None if whole is None or output is None else whole + output,
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=as_int(details.get("thinking_tokens")),
        raw=dict(usage),
    )
