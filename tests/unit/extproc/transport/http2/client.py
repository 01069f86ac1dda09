"""A peer made of bytes: frames as a client sends them, and as it reads ours."""

from collections.abc import Iterable
from typing import NamedTuple

from hpack import Decoder, Encoder

from extproc.transport.http2 import frames
from extproc.transport.http2.connection import Connection
from extproc.transport.http2.happenings import Arrived, Happening
from extproc.transport.http2.limits import Limits
from extproc.wire import PROCESS_METHOD, PROCESS_SERVICE

PATH = f"/{PROCESS_SERVICE}/{PROCESS_METHOD}"
REQUEST = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", PATH),
    (":authority", "test"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]
GREETING = frames.PREFACE + frames.settings({})


class Frame(NamedTuple):
    """One frame that was sent to the peer."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes


def block(fields: list[tuple[str, str]]) -> bytes:
    """A header block that no earlier one is needed for."""
    encoder = Encoder()
    encoder.header_table_size = 0
    return encoder.encode(fields)


def head(stream_id: int, *more: tuple[str, str], flags: int = frames.END_HEADERS) -> bytes:
    """A request's HEADERS frame."""
    return frames.frame(frames.HEADERS, flags, stream_id, block([*REQUEST, *more]))


def grpc(message: bytes, flag: int = 0) -> bytes:
    """A message with its prefix."""
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


def data(stream_id: int, payload: bytes, flags: int = 0) -> bytes:
    """A DATA frame."""
    return frames.frame(frames.DATA, flags, stream_id, payload)


def apart(heard: Iterable[Happening]) -> list[Happening]:
    """What was heard, stream by stream, one message at a time: reads decide how messages come together, and
    streams know no order among each other.
    """
    told: list[Happening] = []
    for event in heard:
        if isinstance(event, Arrived):
            told += [Arrived(event.stream_id, [message]) for message in event.messages]
        else:
            told.append(event)
    return sorted(told, key=lambda event: event.stream_id)


def parse(output: bytes) -> list[Frame]:
    """The frames in what we sent; there must be no rest."""
    found: list[Frame] = []
    start = 0
    while start < len(output):
        high, low, kind, flags, stream_id = frames.HEADER.unpack_from(output, start)
        start += frames.FRAME_HEADER_BYTES
        end = start + (high << 8 | low)
        assert end <= len(output)
        found.append(Frame(kind, flags, stream_id, output[start:end]))
        start = end
    return found


def greeted(limits: Limits | None = None) -> Connection:
    """A connection after the greetings, its first output taken."""
    connection = Connection(limits)
    assert connection.receive_data(GREETING, 0.0) == []
    connection.take_output()
    return connection


def kinds(output: bytes) -> list[int]:
    """Only the kinds of the frames."""
    return [each.kind for each in parse(output)]


def fields_of(payload: bytes) -> list[tuple[str, str]]:
    """The fields of a header block that stands alone."""
    return [
        (bytes(name).decode(), bytes(value).decode()) for name, value in Decoder().decode(payload, raw=True)
    ]
