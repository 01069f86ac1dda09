"""Fuzz targets of the framings: nothing raises, and any chunking gives the same events."""

from capture.framing.batch import Framer
from capture.framing.eventstream import EventStreamFramer
from capture.framing.json_array import JsonArrayFramer
from capture.framing.ndjson import NdjsonFramer
from capture.framing.sse import SseFramer
from tests.fuzz.target import Target, in_chunks
from tests.unit.capture.framing.chunking import MakeFramer, read
from tests.unit.capture.framing.eventstream_encoder import event, frame

SMALL = 64
"""Half of the inputs are read under this bound, so that it is met often."""


def _check(small: MakeFramer, usual: MakeFramer, choice: int, body: bytes) -> None:
    make = small if choice & 1 else usual
    assert read(make(), [body]) == read(make(), in_chunks(body, 1 + (choice >> 1)))


def sse(choice: int, body: bytes) -> None:
    """Server-sent events."""
    _check(lambda: SseFramer(max_line_bytes=SMALL), SseFramer, choice, body)


def ndjson(choice: int, body: bytes) -> None:
    """One value a line."""
    _check(lambda: NdjsonFramer(max_line_bytes=SMALL), NdjsonFramer, choice, body)


def json_array(choice: int, body: bytes) -> None:
    """A JSON array over time."""
    _check(lambda: JsonArrayFramer(max_element_bytes=SMALL), JsonArrayFramer, choice, body)


def _small_eventstream() -> Framer:
    return EventStreamFramer(max_message_bytes=SMALL)


def eventstream(choice: int, body: bytes) -> None:
    """AWS messages, byte by byte as they come."""
    _check(_small_eventstream, EventStreamFramer, choice, body)


def eventstream_headers(choice: int, body: bytes) -> None:
    """AWS messages whose checksums hold around any headers: a checksum is not guessed by chance."""
    headers, payload = body[: choice * 2], body[choice * 2 :]
    _check(_small_eventstream, EventStreamFramer, choice, frame(headers, payload) + event("next", b"{}"))


TARGETS = {
    "sse": Target(sse, (b"event: a\ndata: {}\n\ndata: 1\r\n\r\n", b"\xef\xbb\xbf: c\rid: 1\rdata\r\r")),
    "ndjson": Target(ndjson, (b'{"a":1}\r\n\n{"a":2}',)),
    "json_array": Target(json_array, (b'[{"a":"]\\""},[1,2],null]', b'{"error":{}}')),
    "eventstream": Target(eventstream, (event("chunk", b"{}") + event("stop", b"{}"),)),
    "eventstream_headers": Target(eventstream_headers, (event("chunk", b"{}")[12:-6],)),
}
