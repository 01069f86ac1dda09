"""JSON values written as text, where a member holds what a provider sent as a value."""

import json


def text_of(value: object) -> str:
    """A string as it is, any other value as its compact text."""
    return value if isinstance(value, str) else compact(value)


def compact(value: object) -> str:
    """The value as JSON text without white space; empty when it is nested too deeply to write."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return ""
