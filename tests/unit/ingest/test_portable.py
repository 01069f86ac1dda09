"""The line of an exported turn: whatever is in a turn comes out of its line as it went in."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from ingest.portable import LineError, decode, encode
from ingest.store.portable import Carried
from ingest.store.rows import Body, TurnRow

ROW = TurnRow(
    seq=7, id="01890000-0000-7000-8000-000000000000", tenant="default", project="p", source="wire",
    state="accepted", reason="", request_id="r", reused=1, provider="anthropic", agent_name="a", model="m",
    harness_id="", harness_session_id="", thread_id="", received_at_us=1, body_bytes=2, raw_dropped=1,
)  # fmt: skip
HOSTILE = {
    "nothing": b"",
    "null": b"null",
    "repeated members": b'{"a":1,"a":2}',
    "an unpaired surrogate": b'"\\ud800"',
    "invalid UTF-8": b'"\xff"',
    "NUL": b'"\\u0000 \x00"',
    "line ends": b'{\r\n  "a": 1\n}',
    "space around": b" 1 ",
    "a number of 6,000 digits": b"1" * 6000,
    "an exponent": b"1e999999",
    "depth at the limit": b"[" * 950 + b"]" * 950,
    "depth beyond it": b"[" * 9000 + b"]" * 9000,
    "no JSON": b'1],[1 {"\n',
    "a byte-order mark": b"\xef\xbb\xbf{}",
}


def carried(**parts: bytes) -> Carried:
    body = structs.replace(Body(request=b"{}"), **parts)
    return Carried(turn=ROW, digest=b"d" * 16, key_hash=b"k" * 16, strict=False, body=body)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_survives_its_line(name: str) -> None:
    one = carried(request=HOSTILE[name], response=HOSTILE[name], raw_response=HOSTILE[name])
    line = encode(one)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode(line) == one
    json.loads(line.decode())  # strict UTF-8, and no JSON reader chokes


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_bytes_survive_their_line(request: bytes, raw: bytes) -> None:
    one = carried(request=request, raw_response=raw)
    assert decode(encode(one)) == one


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON, st.sampled_from((None, 1)))
def test_any_json_survives_and_is_readable_on_the_line(value: object, indent: int | None) -> None:
    text = json.dumps(value, indent=indent).encode("utf-8", "replace")
    line = encode(carried(request=text))
    assert decode(line).body.request == text
    if "\\ud" not in text.decode():
        assert json.loads(line)["request"] == value


@given(st.binary(max_size=200))
def test_no_line_raises_anything_else(line: bytes) -> None:
    with pytest.raises(LineError):
        decode(line)


def broken(**members: Any) -> bytes:
    """A good line with other members; ``turn`` is merged."""
    line = json.loads(encode(carried()))
    line["turn"] |= members.pop("turn", {})
    return json.dumps(line | members).encode()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (encode(carried())[:-20], "no exported turn"),
        (b"[]", "no exported turn"),
        (broken(version=2), "version 2"),
        (broken(turn={"id": "x' OR 1"}), "no id"),
        (broken(turn={"tenant": "../x"}), "no tenant"),
        (broken(turn={"tenant": ""}), "no tenant"),
        (broken(turn={"source": "elsewhere"}), "source"),
        (broken(turn={"state": "pending"}), "state"),
        (broken(turn={"received_at_us": 1 << 63}), "range"),
        (broken(turn={"received_at_us": 253_402_300_800_000_000}), "9999"),
        (broken(turn={"body_bytes": -1}), "range"),
        (broken(turn={"reused": 2}), "flag"),
        (broken(digest=""), "digest"),
        (broken(key_hash=base64.b64encode(b"short").decode()), "key_hash"),
        (broken(exact={"else": ""}), "exact"),
    ],
)  # fmt: skip
def test_a_line_that_no_store_can_take_is_refused_with_its_reason(line: bytes, reason: str) -> None:
    with pytest.raises(LineError, match=reason):
        decode(line)
