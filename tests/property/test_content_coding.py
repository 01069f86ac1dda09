"""Content coding under any cuts and any damage: one answer, and never another exception."""

import itertools
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from capture.coding import CodingError, CodingFailure, decoder
from tests.unit.capture.coders import ENCODERS, encode

Result = tuple[bytes, bool] | CodingFailure


def repeated(piece: bytes, times: int) -> bytes:
    return piece * times


ENCODINGS = st.lists(st.sampled_from(sorted(ENCODERS)), min_size=1, max_size=3).map(", ".join)
TEXTS = st.one_of(
    st.binary(max_size=300),
    st.builds(repeated, st.binary(min_size=1, max_size=40), st.integers(0, 500)),
)


def result(encoding: str, chunks: Iterable[bytes], max_bytes: int) -> Result:
    content = decoder(encoding, max_bytes)
    try:
        text = b"".join(map(content.feed, chunks)) + content.finish()
    except CodingError as error:
        return error.reason
    return text, content.truncated


def chunked(body: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(edges)]


CUTS = st.lists(st.integers(0, 1000), max_size=6)


@given(ENCODINGS, TEXTS, CUTS, st.integers(1, 3000))
def test_any_chunking_gives_the_same_text_or_the_same_refusal(
    encoding: str, text: bytes, cuts: list[int], max_bytes: int
) -> None:
    body = encode(encoding, text)
    whole = result(encoding, [body], max_bytes)
    assert whole in ((text, False), CodingFailure.OVERSIZE)
    assert result(encoding, chunked(body, cuts), max_bytes) == whole


@given(ENCODINGS, TEXTS, CUTS, st.integers(0, 10_000))
def test_a_cut_body_gives_the_same_prefix_for_any_chunking(
    encoding: str, text: bytes, cuts: list[int], keep: int
) -> None:
    body = encode(encoding, text)
    part = body[: keep % len(body)]
    whole = result(encoding, [part], 1_000_000)
    if isinstance(whole, CodingFailure):
        assert whole == CodingFailure.UNDECODABLE
    else:
        assert text.startswith(whole[0])
        assert whole[1]
    assert result(encoding, chunked(part, cuts), 1_000_000) == whole


@given(ENCODINGS, TEXTS, CUTS, st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), max_size=3))
def test_damage_gives_the_same_for_any_chunking(
    encoding: str, text: bytes, cuts: list[int], flips: list[tuple[int, int]]
) -> None:
    body = bytearray(encode(encoding, text))
    for position, mask in flips:
        body[position % len(body)] ^= mask
    whole = result(encoding, [bytes(body)], 50_000_000)
    assert result(encoding, chunked(bytes(body), cuts), 50_000_000) == whole


@given(ENCODINGS, st.binary(max_size=200), CUTS)
def test_any_bytes_give_a_text_or_a_refusal_the_same_for_any_chunking(
    encoding: str, body: bytes, cuts: list[int]
) -> None:
    assert result(encoding, chunked(body, cuts), 50_000_000) == result(encoding, [body], 50_000_000)
