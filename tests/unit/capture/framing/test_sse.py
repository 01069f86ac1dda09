"""Server-sent events: the WHATWG rules, the deliberate exception, and every split."""

import pytest

from capture.framing.sse import SseFramer
from capture.turn import Damage
from tests.unit.capture.framing.chunking import assert_same_for_all_cuts, bytewise, datas, read


def events(body: bytes) -> list[tuple[bytes, bytes]]:
    found, damage = assert_same_for_all_cuts(SseFramer, body)
    assert damage == {}
    return found


def test_usual_events_have_their_names_and_data() -> None:
    body = b'event: message_start\ndata: {"a":1}\n\nevent: ping\ndata: {}\n\n'
    assert events(body) == [(b"message_start", b'{"a":1}'), (b"ping", b"{}")]


def test_events_without_a_name_have_an_empty_one() -> None:
    assert events(b'data: {"a":1}\n\ndata: [DONE]\n\n') == [(b"", b'{"a":1}'), (b"", b"[DONE]")]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_lines_end_at_lf_cr_and_crlf(end: bytes) -> None:
    body = end.join([b"event: a", b"data: 1", b"", b"data: 2", b"data: 3", b"", b""])
    assert events(body) == [(b"a", b"1"), (b"", b"2\n3")]


def test_line_ends_may_be_mixed_in_one_body() -> None:
    assert datas(SseFramer, b"data: 1\r\n\ndata: 2\n\r\ndata: 3\r\rdata: 4\r\n\r") == [b"1", b"2", b"3", b"4"]


def test_data_lines_join_by_lf() -> None:
    assert datas(SseFramer, b'data: {\ndata:  "a": 1\ndata: }\n\n') == [b'{\n "a": 1\n}']


def test_data_may_lack_the_space_after_its_colon() -> None:
    assert datas(SseFramer, b'data:{"a":1}\n\ndata: {"a":2}\n\n') == [b'{"a":1}', b'{"a":2}']


def test_only_one_space_after_the_colon_is_dropped() -> None:
    assert events(b"event:  a\ndata:  b\n\n") == [(b" a", b" b")]


def test_a_name_may_lack_the_space_after_its_colon() -> None:
    assert events(b"event:a\ndata:b\n\n") == [(b"a", b"b")]


def test_the_last_name_wins_wherever_it_stands() -> None:
    assert events(b"event: a\nevent: b\ndata: 1\n\ndata: 2\nevent: c\n\n") == [(b"b", b"1"), (b"c", b"2")]


def test_a_name_does_not_outlive_its_event() -> None:
    assert events(b"event: a\n\ndata: 1\n\n") == [(b"", b"1")]


def test_comments_ids_retries_and_unknown_fields_are_nothing() -> None:
    body = b": hello\n\nid: 7\nretry: 100\ndata: 1\nnonsense\nfoo: bar\n\n: bye\n\n"
    assert datas(SseFramer, body) == [b"1"]


def test_usual_events_after_an_unusual_one_are_still_read() -> None:
    body = b": wait\n\n" + b"event: a\ndata: 1\n\n" * 3 + b"data: 2\n\n"
    assert events(body) == [(b"a", b"1")] * 3 + [(b"", b"2")]


def test_a_field_without_colon_is_an_empty_field() -> None:
    assert events(b"event: a\nevent\ndata\n\n") == [(b"", b"")]


def test_empty_data_is_an_event_but_no_data_is_none() -> None:
    assert events(b"event: a\ndata: \n\nevent: b\n\ndata:\n\n") == [(b"a", b""), (b"", b"")]


def test_a_leading_byte_order_mark_is_dropped_but_no_second_one() -> None:
    assert datas(SseFramer, b"\xef\xbb\xbfdata: 1\n\n\xef\xbb\xbfdata: 2\n\ndata: 3\n\n") == [b"1", b"3"]


def test_field_names_are_exact() -> None:
    assert datas(SseFramer, b"Data: 1\n\n data: 2\n\ndatax: 3\n\ndata : 4\n\ndata: 5\n\n") == [b"5"]


@pytest.mark.parametrize("tail", [b"", b"\n", b"\r", b"\r\n", b"\n\n"])
def test_the_last_event_counts_without_its_blank_line(tail: bytes) -> None:
    assert events(b"data: 1\n\nevent: a\ndata: 2" + tail) == [(b"", b"1"), (b"a", b"2")]


def test_bytes_that_are_no_utf8_pass_through() -> None:
    assert datas(SseFramer, b"data: \xff\xfe\x00\n\n") == [b"\xff\xfe\x00"]


def test_a_line_that_just_fits_with_its_end_is_read() -> None:
    body = b"\xef\xbb\xbfdata: 123\r\n\r\ndata: 456\r\n\r\n"
    events_found, damage = assert_same_for_all_cuts(lambda: SseFramer(max_line_bytes=10), body)
    assert events_found == [(b"", b"123"), (b"", b"456")]
    assert damage == {}


def test_a_line_that_does_not_fit_with_its_end_stops_the_reading() -> None:
    body = b"data: 1\n\ndata: 234\n\ndata: 5\n\n"
    events_found, damage = assert_same_for_all_cuts(lambda: SseFramer(max_line_bytes=9), body)
    assert events_found == [(b"", b"1")]
    assert damage == {Damage.OVERSIZE_FRAME: 1}


def test_an_event_at_its_bound_is_read_and_a_larger_one_stops_the_reading() -> None:
    body = b"data: 1234\ndata: 67\n\ndata: 1234\ndata: 678\n\ndata: 1\n\n"
    found, damage = assert_same_for_all_cuts(lambda: SseFramer(max_event_bytes=7), body)
    assert found == [(b"", b"1234\n67")]
    assert damage == {Damage.OVERSIZE_FRAME: 1}


def test_a_bare_json_value_is_an_event_only_where_asked_for() -> None:
    body = b'data: 1\n\n{\n  "error": {"code": 503}\n}\n\ndata: 2\n\n[3]'
    found, damage = assert_same_for_all_cuts(lambda: SseFramer(bare_json=True), body)
    assert [data for _, data in found] == [b"1", b'{\n  "error": {"code": 503}\n}', b"2", b"[3]"]
    assert damage == {}
    assert datas(SseFramer, body) == [b"1", b"2"]


def test_a_bare_json_value_over_the_bound_stops_the_reading() -> None:
    body = b"data: 1\n\n{\n12345\n{\n}\n\ndata: 2\n\n"
    found, damage = assert_same_for_all_cuts(lambda: SseFramer(max_event_bytes=6, bare_json=True), body)
    assert [data for _, data in found] == [b"1"]
    assert damage == {Damage.OVERSIZE_FRAME: 1}


def test_the_bound_holds_for_an_event_of_one_line_and_for_each_event_alone() -> None:
    fits = b"data: 1234\ndata: 67\n\n" * 3 + b"data: 1234567\n\n"
    found, damage = assert_same_for_all_cuts(lambda: SseFramer(max_event_bytes=7), fits)
    assert [data for _, data in found] == [b"1234\n67"] * 3 + [b"1234567"]
    assert damage == {}
    found, damage = assert_same_for_all_cuts(lambda: SseFramer(max_event_bytes=7), b"data: 12345678\n\n")
    assert found == []
    assert damage == {Damage.OVERSIZE_FRAME: 1}


def test_a_bare_json_value_ends_where_an_event_begins() -> None:
    found, _ = assert_same_for_all_cuts(lambda: SseFramer(bare_json=True), b'{"a":1}\ndata: 2\n\n')
    assert [data for _, data in found] == [b'{"a":1}', b"2"]


def test_an_event_without_end_is_let_go_at_its_bound() -> None:
    framer = SseFramer(max_event_bytes=1000)
    for _ in range(200):
        framer.feed(b"data: 12\ndata: 34\n")
    assert framer.stopped
    assert framer._data == []


def test_the_lines_of_an_unfinished_event_are_joined_once_a_batch() -> None:
    framer = SseFramer()
    for _ in range(10):
        framer.feed(b"data: 12\n" * 1000)
    assert [len(part) for part in framer._data] == [2999] * 10
    assert framer.feed(b"\n").datas == [b"\n".join([b"12"] * 10_000)]


def test_an_oversize_line_is_let_go_before_it_ends() -> None:
    framer = SseFramer(max_line_bytes=100)
    framer.feed(b"data: ")
    for _ in range(100):
        framer.feed(b"x")
    assert framer.stopped
    assert framer._rest == []


def test_a_long_line_in_tiny_chunks_is_joined_once() -> None:
    framer = SseFramer()
    chunks = [b"data: ", *[b"x"] * 100_000]
    assert all(framer.feed(chunk).datas == [] for chunk in chunks)
    assert len(framer._rest) == len(chunks)  # nothing was joined on the way
    assert framer.feed(b"\n\n").datas == [b"x" * 100_000]


def test_a_thousand_events_in_tiny_chunks_leave_nothing_behind() -> None:
    framer = SseFramer()
    found, _ = read(framer, bytewise(b"event: a\ndata: 1\n\n" * 1000))
    assert found == [(b"a", b"1")] * 1000
    assert framer._rest == framer._data == []
