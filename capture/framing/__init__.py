"""How a response body is cut into events, whatever dialect the events speak."""

from enum import StrEnum, unique


@unique
class Framing(StrEnum):
    """The shapes in which providers send an answer."""

    SSE = "sse"
    NDJSON = "ndjson"
    JSON_ARRAY = "json_array"
    EVENTSTREAM = "eventstream"
    DOCUMENT = "document"
    """One JSON value: a one-shot answer."""
