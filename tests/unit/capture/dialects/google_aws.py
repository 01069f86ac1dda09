"""Answers of Google and AWS as bytes, and what they reduce to."""

import base64
import json
import struct
import zlib
from collections.abc import Iterable, Sequence

from capture.dialects.fold import RequestFacts
from capture.merkle import node_hash
from capture.reduce import Reduced, ResponseFacts, ResponseReducer
from capture.turn import Dialect, Ending, Turn
from capture.wire_response import wire_block

EVENTSTREAM = "application/vnd.amazon.eventstream"


def reduce_chunks(
    dialect: Dialect, chunks: Iterable[bytes], content_type: str = "", path: str = "", model: str = ""
) -> Reduced:
    """Reduce a body that arrives in these chunks and ends well."""
    reducer = ResponseReducer(
        dialect, RequestFacts(path=path, model=model), ResponseFacts(content_type=content_type)
    )
    for chunk in chunks:
        reducer.feed(chunk)
    return reducer.finish(Ending.COMPLETE)


def reduce(
    dialect: Dialect, body: bytes, content_type: str = "application/json", path: str = "", model: str = ""
) -> Turn:
    """The turn of a body that must be reducible."""
    turn = reduce_chunks(dialect, [body], content_type, path, model)
    assert isinstance(turn, Turn)
    return turn


def as_json(value: object) -> bytes:
    """A value as a JSON document."""
    return json.dumps(value).encode()


def as_sse(events: Iterable[object], newline: str = "\r\n") -> bytes:
    """Objects as Google streams them: one ``data:`` line each, CRLF."""
    return b"".join(f"data: {json.dumps(event)}{newline}{newline}".encode() for event in events)


def message(headers: dict[str, str], payload: bytes) -> bytes:
    """One eventstream message with string headers and right checksums."""
    packed = b"".join(
        struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", 7, len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(packed) + len(payload), len(packed))
    head = prelude + struct.pack(">I", zlib.crc32(prelude)) + packed + payload
    return head + struct.pack(">I", zlib.crc32(head))


def event(name: str, payload: object) -> bytes:
    """One event message."""
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return message(headers, as_json(payload))


def exception(name: str, text: str) -> bytes:
    """One exception message."""
    headers = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return message(headers, as_json({"message": text}))


def converse_stream(*events: tuple[str, object]) -> bytes:
    """A ConverseStream body."""
    return b"".join(event(name, payload) for name, payload in events)


def invoke_stream(objects: Sequence[object]) -> bytes:
    """An InvokeModelWithResponseStream body: each object base64 in a ``chunk``."""
    return b"".join(
        event("chunk", {"bytes": base64.b64encode(as_json(item)).decode(), "p": "abc"}) for item in objects
    )


def hash_of(turn: Turn) -> str:
    """The Merkle hash of the answer as a first node."""
    return node_hash("", turn.role, [wire_block(block) for block in turn.blocks])
