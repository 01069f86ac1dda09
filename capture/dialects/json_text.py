"""JSON values written as text, where a member holds what a provider sent as a value."""

import json


def compact(value: object) -> str:
    """The value as JSON text without white space; empty when it is nested too deeply to write."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return ""
