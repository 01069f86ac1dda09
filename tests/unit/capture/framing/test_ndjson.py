"""NDJSON: one value a line."""

from capture.framing.ndjson import NdjsonFramer
from capture.turn import Damage
from tests.unit.capture.framing.chunking import assert_same_for_all_cuts, bytewise, datas, read


def test_each_line_is_an_event_without_a_name() -> None:
    events, _ = assert_same_for_all_cuts(NdjsonFramer, b'{"a":1}\n{"a":2}\n')
    assert events == [(b"", b'{"a":1}'), (b"", b'{"a":2}')]


def test_crlf_ends_a_line_too() -> None:
    assert datas(NdjsonFramer, b'{"a":1}\r\n{"a":2}\n{"a":3}\r\n') == [b'{"a":1}', b'{"a":2}', b'{"a":3}']


def test_blank_lines_are_nothing() -> None:
    assert datas(NdjsonFramer, b"\n\r\n  \n1\n\n \t \n2\n\n") == [b"1", b"2"]


def test_the_last_line_counts_without_its_end() -> None:
    assert datas(NdjsonFramer, b'{"a":1}\n{"a":2}') == [b'{"a":1}', b'{"a":2}']


def test_a_cut_last_line_is_left_to_the_decoder() -> None:
    assert datas(NdjsonFramer, b'{"a":1}\n{"a":') == [b'{"a":1}', b'{"a":']


def test_a_leading_byte_order_mark_is_dropped() -> None:
    assert datas(NdjsonFramer, b"\xef\xbb\xbf1\n2\n") == [b"1", b"2"]


def test_an_empty_body_has_no_events() -> None:
    assert datas(NdjsonFramer, b"") == []


def test_a_line_at_the_bound_is_read() -> None:
    body = b"\xef\xbb\xbf12345\r\n12345\r\n12345"
    events, damage = assert_same_for_all_cuts(lambda: NdjsonFramer(max_line_bytes=5), body)
    assert [data for _, data in events] == [b"12345"] * 3
    assert damage == {}


def test_a_line_over_the_bound_stops_the_reading() -> None:
    events, damage = assert_same_for_all_cuts(lambda: NdjsonFramer(max_line_bytes=5), b"1\n123456\n2\n")
    assert events == [(b"", b"1")]
    assert damage == {Damage.OVERSIZE_FRAME: 1}


def test_an_oversize_last_line_is_counted() -> None:
    events, damage = assert_same_for_all_cuts(lambda: NdjsonFramer(max_line_bytes=5), b"1\n123456")
    assert events == [(b"", b"1")]
    assert damage == {Damage.OVERSIZE_FRAME: 1}


def test_a_long_line_in_tiny_chunks_is_joined_once() -> None:
    framer = NdjsonFramer()
    events, _ = read(framer, [])
    for _ in range(100_000):
        framer.feed(b"x")
    assert len(framer._rest) == 100_000
    assert framer.feed(b"\n").datas == [b"x" * 100_000]
    assert events == []


def test_lines_in_tiny_chunks_leave_nothing_behind() -> None:
    framer = NdjsonFramer()
    events, _ = read(framer, bytewise(b"{}\n" * 1000))
    assert len(events) == 1000
    assert framer._rest == []
