"""Content coding: what is undone, what is salvaged, what is refused, and within which bounds."""

import gzip
import itertools
import random
import zlib
from collections.abc import Iterable

import pytest
import zstandard

from capture.coding import MAX_LAYERS, CodingError, CodingFailure, decode, decoder
from capture.coding.layer import CODINGS, MAX_MEMBERS
from tests.unit.capture.coders import ENCODERS, encode, raw_deflate

TEXT = b'event: ping\ndata: {"type": "ping"}\n\n' * 50
MULTI_MEMBER = ["gzip", "x-gzip", "zstd"]
LARGEST_BODY = 2_000_000


def run(encoding: str, chunks: Iterable[bytes], max_bytes: int = LARGEST_BODY) -> tuple[bytes, bool]:
    content = decoder(encoding, max_bytes)
    text = b"".join(map(content.feed, chunks)) + content.finish()
    return text, content.truncated


def bytewise(body: bytes) -> list[bytes]:
    return [body[i : i + 1] for i in range(len(body))]


def failure(encoding: str, body: bytes, max_bytes: int = LARGEST_BODY) -> CodingError:
    """The error for this body, the same whole and byte by byte."""
    with pytest.raises(CodingError) as whole:
        run(encoding, [body], max_bytes)
    with pytest.raises(CodingError) as split:
        run(encoding, bytewise(body), max_bytes)
    assert whole.value.reason == split.value.reason
    return whole.value


def zstd_raw_blocks(*blocks: bytes, window_descriptor: int = 0x50) -> bytes:
    """A zstd frame of uncompressed blocks, for layouts that no compressor writes."""
    frame = b"\x28\xb5\x2f\xfd\x00" + bytes((window_descriptor,))
    for position, block in enumerate(blocks):
        last = position == len(blocks) - 1
        frame += (len(block) << 3 | last).to_bytes(3, "little") + block
    return frame


def test_every_coding_has_an_encoder_here() -> None:
    assert ENCODERS.keys() == CODINGS.keys()


@pytest.mark.parametrize("encoding", sorted(ENCODERS))
@pytest.mark.parametrize(
    "text",
    [b"x", TEXT, bytes(range(256)) * 4000, bytes(7_000_001), random.Random(1).randbytes(3_000_000)],
    ids=["one byte", "text", "1 MB", "7 MB of zeros", "3 MB of noise"],
)
def test_a_whole_body_is_its_text(encoding: str, text: bytes) -> None:
    body = encode(encoding, text)
    assert run(encoding, [body], max_bytes=len(text)) == (text, False)
    chunks = [body[i : i + 1000] for i in range(0, len(body), 1000)]
    assert run(encoding, chunks, max_bytes=len(text)) == (text, False)


@pytest.mark.parametrize("encoding", sorted(ENCODERS))
def test_an_empty_text_is_a_whole_body(encoding: str) -> None:
    assert run(encoding, bytewise(encode(encoding, b""))) == (b"", False)


@pytest.mark.parametrize(
    "encoding", [", ".join(pair) for pair in itertools.product(sorted(ENCODERS), repeat=2)]
)
def test_codings_stack_in_any_order(encoding: str) -> None:
    body = encode(encoding, TEXT)
    assert run(encoding, [body]) == run(encoding, bytewise(body)) == (TEXT, False)


def test_as_many_layers_as_allowed_are_undone_and_no_more() -> None:
    encoding = "gzip, br, zstd, deflate, zstd"
    assert run(encoding, [encode(encoding, TEXT)]) == (TEXT, False)
    error = failure(", ".join(["gzip"] * (MAX_LAYERS + 1)), b"x")
    assert error.reason == CodingFailure.UNSUPPORTED


@pytest.mark.parametrize("encoding", ["", "  ", "identity", " Identity ", "identity, identity", ","])
def test_no_coding_gives_the_very_bytes_without_limit(encoding: str) -> None:
    content = decoder(encoding, max_bytes=3)
    assert content.feed(TEXT) is TEXT
    assert content.finish() == b""
    assert decode(encoding, b"") == (b"", False)


def test_names_are_trimmed_lowered_and_may_have_gaps() -> None:
    assert run("  GZip ,, IDENTITY,\tBr ", [encode("gzip, br", TEXT)]) == (TEXT, False)


@pytest.mark.parametrize("encoding", ["compress", "gzip, foo", "foo, gzip", "gzip;q=1", "dcz"])
def test_an_unknown_coding_is_unsupported_and_named(encoding: str) -> None:
    error = failure(encoding, encode("gzip", TEXT))
    assert error.reason == CodingFailure.UNSUPPORTED
    assert encoding in str(error)


def test_an_unknown_coding_is_reported_for_an_empty_body_too() -> None:
    assert failure("foo", b"").reason == CodingFailure.UNSUPPORTED


def test_a_hostile_name_does_not_forge_log_lines() -> None:
    assert "\n" not in str(failure("foo\nbar" + "x" * 10_000, b""))
    assert len(str(failure("foo" + "x" * 10_000, b""))) < 500


@pytest.mark.parametrize("encoding", [*sorted(ENCODERS), "gzip, zstd", "zstd, br"])
def test_no_bytes_at_all_are_an_error(encoding: str) -> None:
    assert failure(encoding, b"").reason == CodingFailure.UNDECODABLE


@pytest.mark.parametrize("outer", sorted(ENCODERS))
def test_no_bytes_inside_an_outer_layer_are_an_error_too(outer: str) -> None:
    assert failure(f"gzip, {outer}", encode(outer, b"")).reason == CodingFailure.UNDECODABLE


@pytest.mark.parametrize("encoding", sorted(ENCODERS))
def test_bytes_of_no_coding_are_undecodable(encoding: str) -> None:
    for junk in (b"\xff" * 20, b'{"model": "m"}' * 10, b"\x00\x01\x02\xff" * 9):
        assert failure(encoding, junk).reason == CodingFailure.UNDECODABLE


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "deflate"])
def test_a_wrong_checksum_is_undecodable(encoding: str) -> None:
    body = bytearray(encode(encoding, TEXT))
    body[-5 if encoding == "gzip" else -1] ^= 1
    assert failure(encoding, bytes(body)).reason == CodingFailure.UNDECODABLE


def test_deflate_without_the_zlib_header_is_read_as_browsers_do() -> None:
    body = raw_deflate(TEXT)
    assert run("deflate", [body]) == run("deflate", bytewise(body)) == (TEXT, False)
    stored = zlib.compressobj(0, wbits=-zlib.MAX_WBITS)
    body = stored.compress(TEXT) + stored.flush()
    assert run("deflate", bytewise(body)) == (TEXT, False)


# What a cut body gives.


@pytest.mark.parametrize("encoding", [*sorted(ENCODERS), "gzip, zstd", "br, gzip"])
def test_a_body_cut_anywhere_gives_a_prefix_and_says_so_or_is_refused(encoding: str) -> None:
    body = encode(encoding, b"".join(b'data: {"n": %d}\n\n' % n for n in range(60)))
    text, _ = run(encoding, [body])
    for cut in range(len(body)):
        try:
            part, truncated = run(encoding, [body[:cut]])
        except CodingError:
            assert failure(encoding, body[:cut]).reason == CodingFailure.UNDECODABLE
        else:
            assert truncated
            assert part
            assert text.startswith(part)
            assert run(encoding, bytewise(body[:cut])) == (part, True)


def test_a_gzip_body_without_its_trailer_is_all_there() -> None:
    assert run("gzip", [encode("gzip", TEXT)[:-8]]) == (TEXT, True)


@pytest.mark.parametrize("more", [-1, 0, 1, 100, 257, 258, 259, 1024 * 1024])
def test_nothing_stays_behind_in_a_library_at_the_edge_of_a_piece(more: int) -> None:
    """The last symbols of a raw stream fit into zlib's own buffer: no input is left, but output is."""
    text = bytes(1024 * 1024 + more)
    body = raw_deflate(text)
    assert run("deflate", [body], max_bytes=len(text)) == (text, False)
    assert run("deflate", bytewise(body), max_bytes=len(text)) == (text, False)
    for encoding in ENCODERS:
        body = encode(encoding, text)
        assert run(encoding, [body], max_bytes=len(text)) == (text, False)
        assert run(encoding, [body[:-1], body[-1:]], max_bytes=len(text)) == (text, False)


def test_a_stream_flushed_by_the_server_is_read_up_to_the_last_flush() -> None:
    stream = zlib.compressobj(wbits=31)
    flushed = stream.compress(b"data: 1\n\n") + stream.flush(zlib.Z_SYNC_FLUSH)
    content = decoder("gzip")
    assert content.feed(flushed) == b"data: 1\n\n"
    content.finish()
    assert content.truncated


def test_zstd_gives_each_flushed_block_at_once() -> None:
    stream = zstandard.ZstdCompressor().compressobj()
    content = decoder("zstd")
    for n in range(100):
        line = b"data: %d\n\n" % n
        flushed = stream.compress(line) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        assert content.feed(flushed) == line


def test_a_cut_in_the_outer_layer_is_salvaged_through_the_inner_one() -> None:
    inner = encode("gzip", TEXT)
    body = zstd_raw_blocks(inner[:-20], inner[-20:])[:-20]
    text, truncated = run("gzip, zstd", [body])
    assert truncated
    assert text
    assert TEXT.startswith(text)
    assert run("gzip, zstd", bytewise(body)) == (text, True)


def test_a_zstd_frame_that_lies_about_its_size_reads_alike_for_any_chunking() -> None:
    """It declares 253 bytes and ends with an empty block: libzstd minds only within one call."""
    body = bytes.fromhex("28b52ffd24fd01000099e9d851")
    assert run("zstd", [body]) == run("zstd", bytewise(body)) == (b"", False)


# Members in a row, and what may follow them.


@pytest.mark.parametrize("encoding", MULTI_MEMBER)
def test_members_in_a_row_are_one_body(encoding: str) -> None:
    body = b"".join(encode(encoding, part) for part in (b"one ", b"", b"two ", TEXT))
    expected = (b"one two " + TEXT, False)
    assert run(encoding, [body]) == run(encoding, bytewise(body)) == expected


def test_a_skippable_zstd_frame_gives_nothing_wherever_it_stands() -> None:
    skippable = b"\x5a\x2a\x4d\x18\x03\x00\x00\x00abc"
    body = skippable + encode("zstd", b"one ") + skippable + encode("zstd", b"two") + skippable
    assert run("zstd", [body]) == run("zstd", bytewise(body)) == (b"one two", False)


@pytest.mark.parametrize("encoding", MULTI_MEMBER)
def test_a_later_member_cut_before_its_output_is_salvaged(encoding: str) -> None:
    body = encode(encoding, b"one") + encode(encoding, b"two")[:5]
    assert run(encoding, [body]) == run(encoding, bytewise(body)) == (b"one", True)


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "deflate"])
@pytest.mark.parametrize("junk", [b"\0" * 100, b"junk", b"\x1f", b"\x28\xb5", b"\n"])
def test_foreign_bytes_after_the_last_member_are_left_out_and_reported(encoding: str, junk: bytes) -> None:
    body = encode(encoding, TEXT) + junk
    assert run(encoding, [body]) == run(encoding, bytewise(body)) == (TEXT, True)


def test_no_member_after_foreign_bytes_is_read() -> None:
    member = encode("gzip", b"one")
    assert run("gzip", [member + b"\0" + member]) == (b"one", True)


def test_a_later_member_that_is_corrupt_is_an_error() -> None:
    corrupt = b"\x1f\x8b\xff" + b"\0" * 20
    assert failure("gzip", encode("gzip", b"one") + corrupt).reason == CodingFailure.UNDECODABLE


def test_bytes_after_a_brotli_stream_are_an_error() -> None:
    assert failure("br", encode("br", TEXT) + b"x").reason == CodingFailure.UNDECODABLE


def test_absurdly_many_empty_members_are_refused() -> None:
    body = gzip.compress(b"") * (MAX_MEMBERS + 1)
    with pytest.raises(CodingError) as caught:
        run("gzip", [body])
    assert caught.value.reason == CodingFailure.OVERSIZE


# Limits.


@pytest.mark.parametrize("encoding", sorted(ENCODERS))
def test_a_text_at_the_limit_is_read_and_one_byte_more_is_refused(encoding: str) -> None:
    text = TEXT[:1000]
    assert run(encoding, [encode(encoding, text)], max_bytes=1000) == (text, False)
    assert failure(encoding, encode(encoding, text + b"x"), max_bytes=1000).reason == CodingFailure.OVERSIZE


@pytest.mark.parametrize("encoding", MULTI_MEMBER)
def test_the_limit_is_for_all_members_together(encoding: str) -> None:
    body = encode(encoding, b"x" * 600) + encode(encoding, b"x" * 401)
    assert failure(encoding, body, max_bytes=1000).reason == CodingFailure.OVERSIZE


def test_the_limit_is_for_each_layer() -> None:
    inner = gzip.compress(bytes(range(256)) * 2, compresslevel=0)
    assert len(inner) > 520
    assert failure("gzip, br", encode("br", inner), max_bytes=520).reason == CodingFailure.OVERSIZE
    assert run("gzip, br", [encode("br", inner)], max_bytes=len(inner)) == (bytes(range(256)) * 2, False)


@pytest.mark.parametrize("encoding", sorted(ENCODERS))
def test_over_the_limit_is_said_before_cut_short(encoding: str) -> None:
    body = encode(encoding, random.Random(1).randbytes(300_000))[:-1]
    assert failure(encoding, body, max_bytes=1000).reason == CodingFailure.OVERSIZE


def test_a_zstd_window_at_the_limit_is_read_and_a_larger_one_is_refused() -> None:
    """32 MiB * (1 + 4/8) is the limit itself; 5/8 is one step over it."""
    at_limit = zstd_raw_blocks(b"hello", window_descriptor=15 << 3 | 4)
    assert run("zstd", bytewise(at_limit)) == (b"hello", False)
    over = zstd_raw_blocks(b"hello", window_descriptor=15 << 3 | 5)
    assert failure("zstd", over).reason == CodingFailure.UNDECODABLE


def test_stacked_zstd_layers_share_the_window_limit() -> None:
    inner = zstd_raw_blocks(b"hello", window_descriptor=15 << 3)
    assert run("zstd", [inner]) == (b"hello", False)
    assert failure("zstd, zstd", encode("zstd", inner)).reason == CodingFailure.UNDECODABLE
    assert run("zstd, gzip", [encode("gzip", inner)]) == (b"hello", False)


def test_after_an_error_every_call_repeats_it() -> None:
    content = decoder("gzip", max_bytes=10)
    for _ in range(2):
        with pytest.raises(CodingError) as caught:
            content.feed(encode("gzip", TEXT))
        assert caught.value.reason == CodingFailure.OVERSIZE
    with pytest.raises(CodingError):
        content.finish()


def test_the_librarys_own_error_is_chained() -> None:
    error = failure("gzip", b"not gzip at all")
    assert isinstance(error.__cause__, zlib.error)
