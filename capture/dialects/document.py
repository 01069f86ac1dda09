"""JSON objects of providers: a whole answer or why it is none, an event's, lines that nobody labelled."""

from capture import jsontext
from capture.dialects.fold import EventReader, EventT
from capture.dialects.members import as_mapping
from capture.turn import JsonObject, Refused


def object_in(data: bytes) -> JsonObject | None:
    """The JSON object, or None when it is anything else."""
    try:
        return as_mapping(jsontext.decode(data))
    except jsontext.JsonError:
        return None


def answer_object(body: bytes) -> JsonObject | Refused:
    """The one-shot answer's JSON object, or why it is none."""
    try:
        answer = as_mapping(jsontext.decode(body))
    except jsontext.JsonError as damage:
        return Refused(f"the answer is not JSON: {damage}")
    return Refused("the answer is not a JSON object") if answer is None else answer


def unlabelled_lines(body: bytes, reader: EventReader[EventT]) -> list[bytes]:
    """The lines of a body that was not announced as such; none where the first two are no events either."""
    lines = [line for line in body.splitlines() if line.strip()]
    return lines if any(reader.read_one(line) for line in lines[:2]) else []
