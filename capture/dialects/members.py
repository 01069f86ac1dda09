"""Reading members of provider JSON whose types nobody guarantees."""

from typing import cast

from capture.turn import JsonObject


def as_text(value: object) -> str:
    """The string, or empty when it is anything else."""
    return value if isinstance(value, str) else ""


def as_int(value: object) -> int | None:
    """The whole number (a float without a fraction counts), or None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return None


def as_mapping(value: object) -> JsonObject | None:
    """The object, or None when it is anything else."""
    return cast("JsonObject", value) if isinstance(value, dict) else None


def as_list(value: object) -> list[object]:
    """The list, or an empty one when it is anything else."""
    return cast("list[object]", value) if isinstance(value, list) else []
