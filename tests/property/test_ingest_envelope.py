"""Whatever bytes arrive, an envelope is read or refused, and its parts stay as they were sent."""

import contextlib
import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from ingest import members
from ingest.access import OPEN
from ingest.envelope import EnvelopeError, decode
from ingest.intake import Answer, Posted, Prepared, Stamp, prepare
from ingest.members import MembersError
from ingest.store.packing import pack, unpack

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
NAMES = ("provider", "agent_name", "request", "response", "raw_response", "meta", "session")
ENVELOPES = st.dictionaries(st.sampled_from(NAMES), JSON)


def slowly(text: bytes) -> dict[str, bytes]:
    """The tolerant way, which well-formed text never takes."""
    return dict(members._slowly(text, members._members))


@given(st.binary(max_size=200))
@example(b"")
@example(b"{")
@example(b'{"a":1,}')
@example(b"\xef\xbb\xbf{}")
@example(b'{"a":\xff}')
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(EnvelopeError):
        decode(data)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=5), st.sampled_from([None, 1]))
def test_both_ways_to_take_an_object_apart_agree(value: dict[str, Any], indent: int | None) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False).encode("utf-8", "replace")
    assert {name: json.loads(part) for name, part in slowly(text).items()} == {
        name: json.loads(part) for name, part in members.split(text).items()
    }


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=4), st.binary(min_size=1, max_size=3))
def test_what_follows_an_object_is_refused_both_ways(value: dict[str, Any], rest: bytes) -> None:
    text = json.dumps(value).encode() + rest
    outcomes: list[bool] = []
    for way in (members.split, slowly):
        try:
            way(text)
            outcomes.append(True)
        except MembersError:
            outcomes.append(False)
    assert outcomes[0] == outcomes[1] == (not rest.strip(b" \t\r\n"))


@given(ENVELOPES)
def test_every_envelope_is_prepared_or_answered(value: dict[str, Any]) -> None:
    prepared = prepare(Posted(body=json.dumps(value).encode()), OPEN, "", Stamp(1, bytes(10)))
    if isinstance(prepared, Answer):
        assert prepared.status == 400
        assert prepared.error.startswith("invalid envelope: ")
        return
    assert isinstance(prepared, Prepared)
    if "request" in value:
        assert json.loads(unpack(prepared.turn.body.request)) == value["request"]
    assert prepared.turn.provider == (value.get("provider") or "")


@given(st.text(max_size=3000))
def test_a_packed_text_is_unpacked_the_same(text: str) -> None:
    encoded = json.dumps(text).encode()
    assert unpack(pack(encoded)) == encoded
