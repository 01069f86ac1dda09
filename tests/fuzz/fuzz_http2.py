"""Fuzz targets of the HTTP/2 connection: nothing raises, reads are no boundaries, what is said is whole frames.

``http2_bytes`` takes the bytes as they come, after a greeting or without. ``http2_frames``
reads them as a list of frames, because a fuzzer seldom guesses a length.
"""

from collections.abc import Iterator, Sequence

from extproc.events import StreamEnd
from extproc.transport.http2 import frames
from extproc.transport.http2.connection import Connection
from extproc.transport.http2.happenings import Arrived, Gone, Happening, Opened, PeerEnded
from extproc.transport.http2.limits import Limits
from extproc.transport.http2.memory import Memory
from tests.fuzz.target import Target, in_chunks
from tests.unit.extproc.transport.http2.client import (
    GREETING,
    REQUEST,
    apart,
    block,
    data,
    grpc,
    head,
    parse,
)

LIMITS = Limits(held_bytes=2000, unread_bytes=5000, header_bytes=4096, streams=8)
_PAYLOADS = (
    block(REQUEST),
    grpc(b"abc"),
    grpc(b"abc")[:6],
    b"\0\0\0\1",
    b"\0\0\0\0",
    b"12345678",
    b"\0\4\0\0\0\0",
)


def _fed(chunks: Sequence[bytes], *, answering: bool) -> tuple[list[Happening], bytes, Connection]:
    """What is heard and said. ``answering``: every message is answered, and every end."""
    memory = Memory(1 << 20)
    share = memory.share(LIMITS.connection_window)
    connection = Connection(LIMITS, share)
    heard: list[Happening] = []
    for chunk in chunks:
        for event in connection.receive_data(chunk, 0.0):
            heard.append(event)
            if not answering:
                continue
            if isinstance(event, Arrived):
                for message in event.messages:
                    connection.send_message(event.stream_id, message)
            elif isinstance(event, PeerEnded):
                connection.finish(event.stream_id)
        assert share.parts <= LIMITS.held_bytes + frames.MAX_FRAME_BYTES
        assert share.answers <= LIMITS.unread_bytes + frames.MAX_FRAME_BYTES
    said = connection.take_output()
    share.give_back()
    assert memory.promised_bytes == memory.held_bytes == 0
    return heard, said, connection


def _check_order(heard: Sequence[Happening]) -> None:
    """A stream opens once, hears nothing after its end, and is gone once at most."""
    opened: set[int] = set()
    ended: set[int] = set()
    gone: set[int] = set()
    for event in heard:
        stream_id = event.stream_id
        assert stream_id not in gone
        if isinstance(event, Opened):
            assert stream_id not in opened
            opened.add(stream_id)
        assert stream_id in opened
        if isinstance(event, Arrived | PeerEnded):
            assert stream_id not in ended
        if isinstance(event, PeerEnded):
            ended.add(stream_id)
        if isinstance(event, Gone):
            assert event.end is not StreamEnd.EOF
            gone.add(stream_id)


def _check(stream: bytes, size: int) -> None:
    """Alike in any reads; and sound when answers fall between other frames, where reads do matter."""
    chunks = in_chunks(stream, size)
    whole, cut = _fed([stream], answering=False), _fed(chunks, answering=False)
    assert apart(whole[0]) == apart(cut[0])
    assert (whole[1], whole[2].broken) == (cut[1], cut[2].broken)
    for heard, said, connection in (whole, _fed([stream], answering=True), _fed(chunks, answering=True)):
        _check_order(heard)
        farewells = [each for each in parse(said) if each.kind == frames.GOAWAY]
        assert len(farewells) == (connection.broken is not None)


def raw(choice: int, body: bytes) -> None:
    """Bytes of any kind."""
    _check((GREETING if choice & 1 else b"") + body, 1 + (choice >> 1))


def framed(choice: int, body: bytes) -> None:
    """Frames of any kind: four bytes each say which, and the payload follows or is a usual one."""
    _check(GREETING + head(1) + b"".join(_frames(body)), 1 + choice)


def _frames(body: bytes) -> Iterator[bytes]:
    """The frames that a body stands for."""
    at = 0
    while at + 4 <= len(body):
        kind, flags, stream_id, size = body[at : at + 4]
        at += 4
        usual = size - 128
        if 0 <= usual < len(_PAYLOADS):
            payload = _PAYLOADS[usual]
        else:
            payload = body[at : at + size]
            at += size
        yield frames.frame(kind % 12, flags, stream_id % 12, payload)


TARGETS = {
    "http2_bytes": Target(
        raw,
        (
            head(1) + data(1, grpc(b"a")) + data(1, grpc(b"b"), frames.END_STREAM),
            frames.frame(frames.PING, 0, 0, b"12345678") + frames.reset(1, frames.ErrorCode.CANCEL),
            frames.settings({frames.INITIAL_WINDOW_SIZE: 0}) + frames.window_update(0, 1),
        ),
    ),
    "http2_frames": Target(
        framed,
        (
            bytes((0, 0, 1, 129, 0, 1, 1, 129)),
            bytes((1, 4, 3, 128, 0, 0, 3, 130, 3, 0, 3, 131, 4, 0, 0, 134)),
            bytes((8, 0, 0, 131, 6, 0, 0, 133, 9, 4, 1, 0, 5, 0, 1, 0)),
        ),
    ),
}
