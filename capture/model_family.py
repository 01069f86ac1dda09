"""Metric-sized names for models: the contract's closed set (``behaviour.md`` §2)."""

from typing import Final

_FAMILIES: Final = (
    "claude-fable-5",
    "claude-opus-4",
    "claude-sonnet-5",
    "claude-sonnet-4",
    "claude-haiku-4-5",
    "claude-3-7-sonnet",
    "claude-3-5-sonnet",
    "gpt-5",
)


def model_family(model: str) -> str:
    """The family of a model name: by prefix, ``unknown`` when empty, else ``other``."""
    name = model.strip().lower()
    if not name:
        return "unknown"
    return next((family for family in _FAMILIES if name.startswith(family)), "other")
