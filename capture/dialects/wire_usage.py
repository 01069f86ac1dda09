"""The contract's usage object, for dialects whose numbers the contract does not name."""

from capture.turn import Usage, WireUsage


def wire_usage(usage: Usage) -> WireUsage | None:
    """The normalised counts in the contract's members; None when the provider sent none."""
    if usage.raw is None:
        return None
    return WireUsage(
        prompt_tokens=usage.input_tokens or 0,
        completion_tokens=usage.output_tokens or 0,
        total_tokens=usage.total_tokens or 0,
        cache_creation_input_tokens=usage.cache_write_tokens or 0,
        cache_read_input_tokens=usage.cache_read_tokens or 0,
    )


def total_of(sent: int | None, usage_input: int | None, usage_output: int | None) -> int | None:
    """The provider's own total, else input + output when both are known."""
    if sent is not None:
        return sent
    if usage_input is None or usage_output is None:
        return None
    return usage_input + usage_output
