"""Token counts as Bedrock itself writes them: Converse, Nova, and the invocation metrics."""

from capture.dialects.members import as_int
from capture.dialects.wire_usage import total_of
from capture.turn import JsonObject, Usage


def bedrock_usage(usage: JsonObject | None) -> Usage:
    """The counts of a ``TokenUsage`` object, or of ``amazon-bedrock-invocationMetrics``.

    The cached parts of the prompt lie outside ``inputTokens``; ``totalTokens`` has them.
    """
    if usage is None:
        return Usage()
    read = _count(usage, "cacheReadInputTokens", "cacheReadInputTokenCount")
    written = _count(usage, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    uncached = _count(usage, "inputTokens", "inputTokenCount")
    output = _count(usage, "outputTokens", "outputTokenCount")
    prompt = None if uncached is None else uncached + (read or 0) + (written or 0)
    return Usage(
        input_tokens=prompt,
        output_tokens=output,
        total_tokens=total_of(_count(usage, "totalTokens", "totalTokenCount"), prompt, output),
        cache_read_tokens=read,
        cache_write_tokens=written,
        raw=usage,
    )


def _count(usage: JsonObject, name: str, other: str) -> int | None:
    count = as_int(usage.get(name))
    return as_int(usage.get(other)) if count is None else count
