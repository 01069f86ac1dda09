"""Framing under any bytes and any cuts: one answer, no exceptions, and the obvious model's answer."""

import itertools
import json
import re
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from capture.framing.batch import Framer
from capture.framing.eventstream import EventStreamFramer
from capture.framing.json_array import JsonArrayFramer
from capture.framing.ndjson import NdjsonFramer
from capture.framing.sse import SseFramer
from tests.unit.capture.framing.chunking import Events, bytewise, read
from tests.unit.capture.framing.eventstream_encoder import event, header, message

SMALL = 40
"""A bound that generated bodies cross often."""

FRAMERS: dict[str, Callable[[], Framer]] = {
    "sse": SseFramer,
    "sse, small": lambda: SseFramer(max_line_bytes=SMALL),
    "sse, small events": lambda: SseFramer(max_event_bytes=SMALL // 4),
    "sse, bare": lambda: SseFramer(bare_json=True),
    "sse, bare, small": lambda: SseFramer(max_event_bytes=SMALL // 2, bare_json=True),
    "ndjson": NdjsonFramer,
    "ndjson, small": lambda: NdjsonFramer(max_line_bytes=SMALL),
    "json_array": JsonArrayFramer,
    "json_array, small": lambda: JsonArrayFramer(max_element_bytes=SMALL),
    "eventstream": EventStreamFramer,
    "eventstream, small": lambda: EventStreamFramer(max_message_bytes=SMALL + 100),
}


def exception(payload: bytes) -> bytes:
    return message(payload, header(":message-type", "exception"))


_SSE_PARTS = st.sampled_from(
    [
        b"data: ",
        b"data:",
        b"data",
        b"event: ",
        b"event:",
        b"event",
        b"id: 1",
        b": comment",
        b"\xef\xbb\xbf",
        b" ",
        b"x",
        b'{"a":1}',
        b"long line " * 5,
        b"\n",
        b"\n\n",
        b"\r",
        b"\r\n",
        b"event: a\ndata: 1\n\n",
        b"data: 2\n\n",
        b'{\n "error": 1}\n',
    ]
)
_JSON_PARTS = st.sampled_from(
    [
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b'"',
        b"\\",
        b'\\"',
        b" ",
        b"\n",
        b"\r\n",
        b"1",
        b'"a":',
        b'{"a":"]"}',
        b"null,",
    ]
)
_MESSAGES = st.one_of(
    st.builds(event, st.sampled_from(["chunk", "é", ""]), st.binary(max_size=60)),
    st.builds(exception, st.binary(max_size=9)),
)


@st.composite
def _damaged(draw: st.DrawFn, bodies: st.SearchStrategy[bytes]) -> bytes:
    """A body with up to two bytes flipped, and perhaps cut."""
    body = bytearray(draw(bodies))
    for _ in range(draw(st.integers(0, 2)) if body else 0):
        body[draw(st.integers(0, len(body) - 1))] ^= draw(st.integers(1, 255))
    return bytes(body[: draw(st.integers(0, len(body)))]) if draw(st.booleans()) else bytes(body)


BODIES = st.one_of(
    st.binary(max_size=300),
    st.lists(_SSE_PARTS, max_size=40).map(b"".join),
    st.lists(_JSON_PARTS, max_size=60).map(b"".join),
    _damaged(st.lists(_MESSAGES, max_size=5).map(b"".join)),
)


@st.composite
def cut_bodies(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """A body, and the same body in chunks (empty ones too)."""
    body = draw(BODIES)
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=8)))
    edges = [0, *cuts, len(body)]
    return body, [body[start:end] for start, end in itertools.pairwise(edges)]


@pytest.mark.parametrize("name", FRAMERS)
@given(cut_bodies())
def test_any_chunking_gives_the_same_events_and_the_same_damage(
    name: str, cut_body: tuple[bytes, list[bytes]]
) -> None:
    body, chunks = cut_body
    whole = read(FRAMERS[name](), [body])
    assert read(FRAMERS[name](), chunks) == whole
    assert read(FRAMERS[name](), bytewise(body)) == whole


def sse_model(body: bytes) -> Events:
    """The WHATWG algorithm as it reads, for a body that is all there."""
    events: Events = []
    name, data = b"", list[bytes]()
    for line in [*re.split(rb"\r\n|\r|\n", body.removeprefix(b"\xef\xbb\xbf")), b""]:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            events += [(name, b"\n".join(data))] if data else []
            name, data = b"", []
        elif field == b"event":
            name = value
        elif field == b"data":
            data.append(value)
    return events


@given(st.lists(_SSE_PARTS, max_size=60).map(b"".join))
@example(b"event: a\nevent: b\ndata: 1\n\n")
@example(b"event: a\ndata: 1\ndata: 2\n\nevent: b\n\ndata: 3")
def test_sse_reads_what_the_standard_says(body: bytes) -> None:
    events, damage = read(SseFramer(), [body])
    assert events == sse_model(body)
    assert damage == {}


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(JSON_VALUES, max_size=6), st.sampled_from([None, 1]), st.booleans())
def test_json_arrays_give_their_elements(values: list[object], indent: int | None, ascii_only: bool) -> None:
    body = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode()
    events, damage = read(JsonArrayFramer(), [body])
    assert [json.loads(data) for _, data in events] == values
    assert damage == {}


@given(st.lists(JSON_VALUES, max_size=4), st.data())
def test_a_cut_json_array_gives_a_prefix_of_its_elements(values: list[object], data: st.DataObject) -> None:
    body = json.dumps(values).encode()
    part = body[: data.draw(st.integers(1, len(body) - 1))]
    events, damage = read(JsonArrayFramer(), [part])
    assert [json.loads(element) for _, element in events] == values[: len(events)]
    assert damage


@given(st.lists(JSON_VALUES, max_size=6), st.sampled_from([b"\n", b"\r\n", b"\n\n", b" \n"]))
def test_lines_give_their_values(values: list[object], end: bytes) -> None:
    body = end.join(json.dumps(value).encode() for value in values)
    events, damage = read(NdjsonFramer(), [body])
    assert [json.loads(data) for _, data in events] == values
    assert damage == {}


@given(st.lists(st.tuples(st.text(max_size=30), st.binary(max_size=200)), max_size=6))
def test_eventstream_messages_give_their_names_and_payloads(sent: list[tuple[str, bytes]]) -> None:
    body = b"".join(event(name, payload) for name, payload in sent)
    events, damage = read(EventStreamFramer(), [body])
    assert events == [(name.encode(), payload) for name, payload in sent]
    assert damage == {}
