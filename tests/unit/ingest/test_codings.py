"""Content codings of a body: all of it is read, or it is refused."""

import gzip
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ingest import bodies
from ingest.bodies import CodingError
from tests.unit.ingest.running import service, turn

CODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.compress,
}
SEVERAL = ["gzip", "zstd"]
FAR = 1 << 30
parts = st.lists(st.binary(max_size=300).map(lambda some: some * 300), min_size=1, max_size=4)


@given(data=parts, coding=st.sampled_from(SEVERAL))
def test_several_members_are_one_body(data: list[bytes], coding: str) -> None:
    coded = b"".join(CODERS[coding](part) for part in data)
    assert bodies._uncoded(coded, coding, FAR) == b"".join(data)


@given(data=parts, coding=st.sampled_from(SEVERAL), most=st.integers(1, 100_000))
def test_no_more_is_decoded_than_may_be(data: list[bytes], coding: str, most: int) -> None:
    coded = b"".join(CODERS[coding](part) for part in data)
    assert bodies._uncoded(coded, coding, most) == b"".join(data)[:most]


@pytest.mark.parametrize("coding", CODERS)
@pytest.mark.parametrize("size", [0, 20, 70_000])
def test_a_cut_body_is_refused_wherever_it_is_cut(coding: str, size: int) -> None:
    """A part may be JSON: nobody would notice."""
    coded = CODERS[coding](os.urandom(size))
    for cut in {0, 1, 5, len(coded) // 2, len(coded) - 9, len(coded) - 4, len(coded) - 1}:
        if 0 <= cut < len(coded):
            with pytest.raises(CodingError):
                bodies._uncoded(coded[:cut], coding, FAR)


@pytest.mark.parametrize("coding", CODERS)
@pytest.mark.parametrize(
    "garbage", [b"\0", b"garbage", b'{"provider":"x"}', b"\x1f\x8b", b"\x28\xb5\x2f\xfd"]
)
def test_what_follows_the_last_member_is_refused(coding: str, garbage: bytes) -> None:
    with pytest.raises(CodingError):
        bodies._uncoded(CODERS[coding](b'{"provider":"x"}') + garbage, coding, FAR)


def test_a_second_deflate_stream_is_refused() -> None:
    """RFC 9110 §8.4.1.2 knows one."""
    with pytest.raises(CodingError):
        bodies._uncoded(zlib.compress(b"{}") * 2, "deflate", FAR)


@pytest.mark.parametrize("coding", SEVERAL)
def test_members_without_end_are_refused(coding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_MEMBERS", 10)
    assert bodies._uncoded(CODERS[coding](b"x") * 10, coding, FAR) == b"x" * 10
    with pytest.raises(CodingError, match="too many parts"):
        bodies._uncoded(CODERS[coding](b"x") * 11, coding, FAR)


@pytest.mark.parametrize("coding", SEVERAL)
async def test_a_turn_in_several_members_is_stored_and_a_cut_one_is_400(tmp_path: Path, coding: str) -> None:
    body = json.dumps(turn("x" * 100_000)).encode()
    coded = CODERS[coding](body[:50_000]) + CODERS[coding](body[50_000:])
    async with service(tmp_path, max_body_bytes=len(body)) as client:
        heads = {"content-type": "application/json", "content-encoding": coding}
        for data, status in ((coded, 202), (coded[:-1], 400), (coded + b"x", 400), (coded * 2, 413)):
            answer = await client.post("/v1/ingest", content=data, headers=heads)
            assert answer.status_code == status, answer.text
        assert await client.rows("SELECT count(*) FROM turns") == [(1,)]
