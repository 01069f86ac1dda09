"""Writes AWS event stream messages, so that tests can break them in every place."""

import struct
import zlib
from collections.abc import Sequence

STRING = 7
Header = tuple[str, int, bytes]
"""Name, type, and the value as on the wire (without its length)."""


def header(name: str, value: str) -> Header:
    """A string header."""
    return name, STRING, value.encode()


def encode_headers(headers: Sequence[Header]) -> bytes:
    """The header block. Types 6 and 7 get their length in front."""
    parts: list[bytes] = []
    for name, kind, value in headers:
        encoded = name.encode()
        parts += [bytes((len(encoded),)), encoded, bytes((kind,))]
        if kind in {6, STRING}:
            parts.append(struct.pack(">H", len(value)))
        parts.append(value)
    return b"".join(parts)


def frame(header_block: bytes, payload: bytes) -> bytes:
    """A message with right lengths and right checksums around any header block."""
    prelude = struct.pack(">II", 16 + len(header_block) + len(payload), len(header_block))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + header_block + payload
    return message + struct.pack(">I", zlib.crc32(message))


def message(payload: bytes, *headers: Header) -> bytes:
    """A message of these headers."""
    return frame(encode_headers(headers), payload)


def event(name: str, payload: bytes) -> bytes:
    """An ordinary event, with the headers that AWS sends."""
    return message(
        payload,
        header(":event-type", name),
        header(":content-type", "application/json"),
        header(":message-type", "event"),
    )
