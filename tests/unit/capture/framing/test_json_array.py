"""A JSON array over time: elements as they complete, whatever is inside them."""

import json

import pytest

from capture.framing.json_array import JsonArrayFramer
from capture.turn import Damage
from tests.unit.capture.framing.chunking import assert_same_for_all_cuts, bytewise, datas, read


def test_elements_are_events_without_a_name() -> None:
    events, _ = assert_same_for_all_cuts(JsonArrayFramer, b'[{"a":1},{"a":2}]')
    assert events == [(b"", b'{"a":1}'), (b"", b'{"a":2}')]


def test_white_space_between_elements_is_dropped() -> None:
    assert datas(JsonArrayFramer, b' [\n {"a": 1}\r\n,\n\t{"a": 2} \n]\n') == [b'{"a": 1}', b'{"a": 2}']


def test_an_element_is_given_at_its_last_bracket() -> None:
    framer = JsonArrayFramer()
    assert framer.feed(b'[{"a":[1,2').datas == []
    assert framer.feed(b"]}").datas == [b'{"a":[1,2]}']


@pytest.mark.parametrize(
    "text",
    ["]", "}", "[{", '"', '\\"', "\\", '\\\\"', ",", "a,]}", 'x"]},{"y":"', "é\n\t", "\\u005d"],
)
def test_brackets_quotes_and_escapes_inside_strings_mean_nothing(text: str) -> None:
    elements = [{"k" + text: text}, {"next": [text, {"deep": text}]}]
    body = json.dumps(elements).encode()
    assert [json.loads(data) for data in datas(JsonArrayFramer, body)] == elements


def test_nested_arrays_stay_inside_their_element() -> None:
    assert datas(JsonArrayFramer, b'[[1,[2]],{"a":[[],{}]},[]]') == [b"[1,[2]]", b'{"a":[[],{}]}', b"[]"]


def test_elements_that_are_no_objects_are_events_too() -> None:
    assert datas(JsonArrayFramer, b'[1, "a,]" ,null,{}, true]') == [b"1", b'"a,]"', b"null", b"{}", b"true"]


def test_one_top_level_object_is_one_event() -> None:
    assert datas(JsonArrayFramer, b' {"error": {"code": 400}}\n') == [b'{"error": {"code": 400}}']


def test_several_values_in_a_row_are_events() -> None:
    assert datas(JsonArrayFramer, b'{"a":1}{"a":2}\n[{"a":3}]\n[4]') == [
        b'{"a":1}',
        b'{"a":2}',
        b'{"a":3}',
        b"4",
    ]


def test_a_bare_value_ends_with_the_body() -> None:
    assert datas(JsonArrayFramer, b"null") == [b"null"]


@pytest.mark.parametrize("body", [b"", b" \n", b"[]", b"[ ]", b"[,]", b"\xef\xbb\xbf[]"])
def test_a_body_without_elements_has_no_events(body: bytes) -> None:
    assert datas(JsonArrayFramer, body) == []


def test_a_byte_order_mark_is_dropped() -> None:
    assert datas(JsonArrayFramer, b'\xef\xbb\xbf[{"a":1}]') == [b'{"a":1}']


@pytest.mark.parametrize("tail", [b'{"a":', b'{"a":"x', b'{"a":"x\\', b"[1", b"12", b"", b", ", b'"a'])
def test_a_cut_array_gives_its_whole_elements_and_counts_the_cut(tail: bytes) -> None:
    events, damage = assert_same_for_all_cuts(JsonArrayFramer, b'[{"n":1},{"n":2},' + tail)
    assert events == [(b"", b'{"n":1}'), (b"", b'{"n":2}')]
    assert damage == {Damage.TRUNCATED_FRAME: 1}


def test_a_cut_object_is_not_given() -> None:
    assert assert_same_for_all_cuts(JsonArrayFramer, b'{"a":{"b":1}') == ([], {Damage.TRUNCATED_FRAME: 1})


def test_what_is_not_json_reaches_the_dialect_as_an_event() -> None:
    assert datas(JsonArrayFramer, b"<html>oops</html>") == [b"<html>oops</html>"]
    assert datas(JsonArrayFramer, b'[1]]{"a":{"b":2}}[3]') == [b"1", b"]", b'{"a":{"b":2}}', b"3"]
    assert datas(JsonArrayFramer, b'}{"a":1}') == [b"}", b'{"a":1}']


def test_an_element_at_the_bound_is_read() -> None:
    events, damage = assert_same_for_all_cuts(
        lambda: JsonArrayFramer(max_element_bytes=7), b'[ {"a":1} , {"a":2}]'
    )
    assert [data for _, data in events] == [b'{"a":1}', b'{"a":2}']
    assert damage == {}


@pytest.mark.parametrize("element", [b'{"a":12}', b"12345678", b'"123456"', b'{"a":1234567890'])
def test_an_element_over_the_bound_stops_the_reading(element: bytes) -> None:
    body = b"[1," + element + b",2]"
    events, damage = assert_same_for_all_cuts(lambda: JsonArrayFramer(max_element_bytes=7), body)
    assert events == [(b"", b"1")]
    assert damage == {Damage.OVERSIZE_FRAME: 1}


def test_endless_white_space_between_elements_is_not_kept() -> None:
    framer = JsonArrayFramer(max_element_bytes=10)
    events, damage = read(framer, [b"[1,", *[b" \n"] * 100, b"2]"])
    assert [data for _, data in events] == [b"1", b"2"]
    assert damage == {}


def test_a_long_string_in_tiny_chunks_is_scanned_and_joined_once() -> None:
    framer = JsonArrayFramer()
    framer.feed(b'[{"a":"')
    for _ in range(50_000):
        framer.feed(b"\\n")
    assert len(framer._held) == 50_001
    assert framer.feed(b'"}]').datas == [b'{"a":"' + b"\\n" * 50_000 + b'"}']


def test_megabytes_of_escapes_and_quotes_are_one_pass() -> None:
    element = b'{"a":"' + b'\\"\\\\' * 500_000 + b'"}'
    assert read(JsonArrayFramer(), [b"[" + element + b"]"])[0] == [(b"", element)]
    assert read(JsonArrayFramer(), bytewise(b"[" + element[:2000]))[0] == []


def test_great_depth_is_only_counted() -> None:
    element = b"[" * 100_000 + b"]" * 100_000
    assert read(JsonArrayFramer(), [b"[" + element + b"]"])[0] == [(b"", element)]
