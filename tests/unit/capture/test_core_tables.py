"""Outcomes, stop words, tolerant JSON, pieces: the core's tables and its smallest parts."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture import jsontext
from capture.dialects.catalog import CATALOG
from capture.dialects.pieces import Pieces, parse_arguments
from capture.framing import Framing
from capture.framing.choice import declared, sniffed
from capture.outcomes import Outcome, State
from capture.stop_words import result_of
from capture.turn import Dialect, Result


def test_every_outcome_has_a_term_of_the_balance() -> None:
    terms = {State.EXCLUDED, State.QUARANTINED, State.DEAD_LETTERED, State.LOST}
    assert {outcome.state for outcome in Outcome} == terms
    assert all(outcome.owner for outcome in Outcome)


def test_the_catalog_is_total() -> None:
    assert set(CATALOG) == set(Dialect)


@pytest.mark.parametrize(
    ("word", "more", "result"),
    [
        ("END_TURN", {}, Result.STOP),
        ("stop", {"has_tool_calls": True}, Result.TOOL_CALL),
        (None, {"has_tool_calls": True}, Result.TOOL_CALL),
        ("stop", {"refused": True}, Result.REFUSAL),
        ("length", {"has_tool_calls": True}, Result.MAX_TOKENS),
        ("SAFETY", {}, Result.BLOCKED),
        ("pause_turn", {}, Result.MAX_ITERATIONS),
        ("stop", {"failed": True}, Result.ERROR),
        (None, {"partial": True}, Result.INCOMPLETE),
        (None, {}, Result.OTHER),
        ("brand_new_word", {}, Result.OTHER),
    ],
)
def test_stop_words_have_one_meaning(word: str | None, more: dict[str, bool], result: Result) -> None:
    assert result_of(word, **({"partial": False, "has_tool_calls": False} | more)) is result


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(_json)
def test_decoding_reads_what_the_standard_library_writes(value: object) -> None:
    assert jsontext.decode(json.dumps(value)) == value


@given(st.binary(max_size=200))
def test_decoding_raises_one_exception_only(data: bytes) -> None:
    with contextlib.suppress(jsontext.JsonError):
        jsontext.decode(data)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'"\\ud800"', "\ufffd"),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'["\xff"]', ["\ufffd"]),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b"\xef\xbb\xbf1", 1),
        (b'{"\\udc00": "\\ud800"}', {"\ufffd": "\ufffd"}),
    ],
)
def test_damaged_text_is_repaired_as_the_contract_repairs_it(text: bytes, value: object) -> None:
    assert jsontext.decode(text) == value


@pytest.mark.parametrize("text", [b"", b"NaN", b"[Infinity]", b"1 2", b"[" * 100_000, b'{"a":'])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(jsontext.JsonError):
        jsontext.decode(text)


@given(st.lists(st.text(max_size=3), max_size=2000))
def test_pieces_join_to_what_was_appended(pieces: list[str]) -> None:
    text = Pieces("first")
    for position, piece in enumerate(pieces):
        text.append(piece)
        if position % 600 == 0:
            text.settle()
    assert text.text() == "first" + "".join(pieces)


ARGUMENTS: dict[str, tuple[dict[str, object] | None, str | None]] = {
    "": ({}, None),
    '{"a": 1}': ({"a": 1}, None),
    '{"a": 1': (None, '{"a": 1'),
    "[1]": (None, "[1]"),
    "plain words": (None, "plain words"),
}


@pytest.mark.parametrize("text", ARGUMENTS)
def test_arguments_are_an_object_or_their_text(text: str) -> None:
    assert parse_arguments(text) == ARGUMENTS[text]


@pytest.mark.parametrize(
    ("content_type", "stream", "framing"),
    [
        ("text/event-stream; charset=utf-8", Framing.SSE, Framing.SSE),
        ("application/vnd.amazon.eventstream", Framing.EVENTSTREAM, Framing.EVENTSTREAM),
        ("application/x-ndjson", Framing.SSE, Framing.SSE),
        ("application/x-ndjson", Framing.NDJSON, Framing.NDJSON),
        ("application/stream+json", Framing.NDJSON, Framing.NDJSON),
        ("application/json", Framing.SSE, None),
        ("", Framing.SSE, None),
    ],
)
def test_a_content_type_promises_its_framing(
    content_type: str, stream: Framing, framing: Framing | None
) -> None:
    assert declared(content_type, stream) is framing


@pytest.mark.parametrize(
    ("head", "stream", "framing"),
    [
        (b"data: {}", Framing.SSE, Framing.SSE),
        (b"\n\nevent: x", Framing.SSE, Framing.SSE),
        (b": comment", Framing.SSE, Framing.SSE),
        (b"da", Framing.SSE, None),
        (b"", Framing.SSE, None),
        (b"{", Framing.SSE, Framing.DOCUMENT),
        (b" [{", Framing.JSON_ARRAY, Framing.JSON_ARRAY),
        (b"[{", Framing.SSE, Framing.DOCUMENT),
    ],
)
def test_the_first_bytes_tell_where_the_type_does_not(
    head: bytes, stream: Framing, framing: Framing | None
) -> None:
    assert sniffed(head, stream, whole=False) is framing


def test_a_body_that_ends_before_it_tells_is_a_document() -> None:
    assert sniffed(b"da", Framing.SSE, whole=True) is Framing.DOCUMENT
