"""AWS event streams: events, exceptions, errors, and what damage costs."""

import json
import struct
import zlib
from pathlib import Path

import pytest

from capture.framing.eventstream import EventStreamFramer
from capture.turn import Damage
from tests.paths import CORPUS, needs_shared
from tests.unit.capture.framing.chunking import assert_same_for_all_cuts, datas, read
from tests.unit.capture.framing.eventstream_encoder import (
    Header,
    encode_headers,
    event,
    frame,
    header,
    message,
)

RECORDED = sorted(CORPUS.glob("*/*/response.eventstream"))


def test_an_event_has_its_type_as_name_and_its_payload_as_data() -> None:
    events, damage = assert_same_for_all_cuts(
        EventStreamFramer, event("messageStart", b'{"role":"assistant"}') + event("messageStop", b"{}")
    )
    assert events == [(b"messageStart", b'{"role":"assistant"}'), (b"messageStop", b"{}")]
    assert damage == {}


def test_an_exception_is_named_by_its_type() -> None:
    body = event("chunk", b"{}") + message(
        b'{"message":"slow down"}',
        header(":exception-type", "throttlingException"),
        header(":message-type", "exception"),
    )
    events, damage = assert_same_for_all_cuts(EventStreamFramer, body)
    assert events[1] == (b"exception:throttlingException", b'{"message":"slow down"}')
    assert damage == {}


def test_an_error_carries_its_message_as_json() -> None:
    body = message(
        b"ignored",
        header(":message-type", "error"),
        header(":error-code", "InternalFailure"),
        header(":error-message", 'it "broke" é'),
    )
    events, _ = assert_same_for_all_cuts(EventStreamFramer, body)
    name, data = events[0]
    assert name == b"error:InternalFailure"
    assert json.loads(data) == {"message": 'it "broke" é'}


def test_an_unknown_message_type_is_part_of_the_name() -> None:
    body = message(b"{}", header(":message-type", "surprise"), header(":event-type", "x"))
    assert read(EventStreamFramer(), [body])[0] == [(b"surprise:x", b"{}")]


def test_a_message_without_type_headers_is_an_event_without_a_name() -> None:
    assert read(EventStreamFramer(), [message(b"{}")])[0] == [(b"", b"{}")]


@pytest.mark.parametrize(
    "odd",
    [
        ("t", 0, b""),
        ("f", 1, b""),
        ("byte", 2, b"\x07"),
        ("short", 3, b"\x07" * 2),
        ("integer", 4, b"\x07" * 4),
        ("long", 5, b"\x07" * 8),
        ("bytes", 6, b"\x07" * 300),
        ("timestamp", 8, b"\x07" * 8),
        ("uuid", 9, b"\x07" * 16),
        ("empty", 7, b""),
    ],
)
def test_headers_of_every_type_are_stepped_over(odd: Header) -> None:
    body = message(b"{}", odd, header(":event-type", "chunk"), odd, header(":message-type", "event"))
    assert read(EventStreamFramer(), [body]) == ([(b"chunk", b"{}")], {})


def test_a_payload_may_be_empty_or_look_like_a_message() -> None:
    inner = event("inner", b"{}")
    assert datas(EventStreamFramer, event("a", b"") + event("b", inner)) == [b"", inner]


@pytest.mark.parametrize("position", [12, 40, 90, -5, -4, -1])
def test_a_bad_message_checksum_costs_that_message_only(position: int) -> None:
    broken = bytearray(event("second", b'{"n":2}'))
    broken[position] ^= 0x40
    body = event("first", b"1") + bytes(broken) + event("third", b"3")
    events, damage = assert_same_for_all_cuts(EventStreamFramer, body)
    assert events == [(b"first", b"1"), (b"third", b"3")]
    assert damage == {Damage.BAD_CRC: 1}


@pytest.mark.parametrize("position", [0, 3, 7, 8, 11])
def test_a_bad_prelude_stops_the_reading(position: int) -> None:
    broken = bytearray(event("second", b'{"n":2}'))
    broken[position] ^= 0x01
    body = event("first", b"1") + bytes(broken) + event("third", b"3")
    events, damage = assert_same_for_all_cuts(EventStreamFramer, body)
    assert events == [(b"first", b"1")]
    assert damage == {Damage.BAD_CRC: 1}


@pytest.mark.parametrize(
    ("total", "headers", "damage"),
    [
        (24 * 1024 * 1024 + 1, 0, Damage.OVERSIZE_FRAME),
        (2**32 - 1, 0, Damage.OVERSIZE_FRAME),
        (15, 0, Damage.UNPARSEABLE_EVENT),
        (0, 0, Damage.UNPARSEABLE_EVENT),
        (100, 85, Damage.UNPARSEABLE_EVENT),
        (100, 2**32 - 1, Damage.UNPARSEABLE_EVENT),
    ],
)
def test_absurd_lengths_stop_the_reading(total: int, headers: int, damage: Damage) -> None:
    prelude = struct.pack(">II", total, headers)
    body = event("first", b"1") + prelude + struct.pack(">I", zlib.crc32(prelude)) + b"\0" * 200
    assert assert_same_for_all_cuts(EventStreamFramer, body) == ([(b"first", b"1")], {damage: 1})


@pytest.mark.parametrize(
    "block",
    [
        b"\x05",
        b"\x01a",
        b"\x01a\x07",
        b"\x01a\x07\x00",
        b"\x01a\x07\x00\x05abc",
        b"\x01a\x0a",
        b"\x01a\xff",
        b"\x01a\x09123",
        b"\x00",
    ],
)
def test_headers_that_do_not_add_up_cost_their_message_only(block: bytes) -> None:
    body = frame(encode_headers([header(":event-type", "x")]) + block, b"{}") + event("next", b"1")
    assert assert_same_for_all_cuts(EventStreamFramer, body) == (
        [(b"next", b"1")],
        {Damage.UNPARSEABLE_EVENT: 1},
    )


def test_a_cut_message_is_counted_and_not_given() -> None:
    body = event("first", b"1") + event("second", b"2")
    for cut in range(len(event("first", b"1")) + 1, len(body)):
        assert read(EventStreamFramer(), [body[:cut]]) == ([(b"first", b"1")], {Damage.TRUNCATED_FRAME: 1})


def test_an_empty_body_is_no_damage() -> None:
    assert read(EventStreamFramer(), [b"", b""]) == ([], {})


def test_a_long_message_in_tiny_chunks_is_joined_once() -> None:
    framer = EventStreamFramer()
    body = event("chunk", b"x" * 100_000)
    for position in range(len(body) - 1):
        framer.feed(body[position : position + 1])
    assert len(framer._held) > 99_000  # nothing was joined after the prelude was known
    assert framer.feed(body[-1:]).datas == [b"x" * 100_000]


@needs_shared
@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.parent.name)
def test_recorded_streams_are_whole(path: Path) -> None:
    """Every recorded Bedrock stream: no damage, JSON in every event, the same for uneven chunks."""
    body = path.read_bytes()
    events, damage = read(EventStreamFramer(), [body])
    assert damage == {}
    assert events
    assert all(name and isinstance(json.loads(data), dict) for name, data in events)
    uneven = [body[start : start + 37] for start in range(0, len(body), 37)]
    assert read(EventStreamFramer(), uneven) == (events, damage)
