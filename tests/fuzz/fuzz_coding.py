"""Fuzz targets of the content codings: a text or a ``CodingError``, the same for any chunking."""

from capture.coding import CodingError, CodingFailure, decoder
from tests.fuzz.target import Target, in_chunks
from tests.unit.capture.coders import ENCODERS, encode

MAX_BYTES = 4 * 1024 * 1024
TEXT = b'data: {"type": "ping"}\n\n' * 20


def _result(encoding: str, chunks: list[bytes]) -> tuple[bytes, bool] | CodingFailure:
    content = decoder(encoding, MAX_BYTES)
    try:
        text = b"".join(map(content.feed, chunks)) + content.finish()
    except CodingError as error:
        return error.reason
    return text, content.truncated


def _check(encoding: str, choice: int, body: bytes) -> None:
    whole = _result(encoding, [body])
    split = _result(encoding, in_chunks(body, 1 + choice))
    # A body both corrupt and over the limit may be refused for either reason.
    assert whole == split or {type(whole), type(split)} == {CodingFailure}


def _target(encoding: str) -> Target:
    def check(choice: int, body: bytes) -> None:
        _check(encoding, choice, body)

    body = encode(encoding, TEXT)
    return Target(check, (body, body[:-9], body + body, encode(encoding, b"")))


TARGETS = {
    **{f"coding_{encoding}": _target(encoding) for encoding in sorted(ENCODERS)},
    "coding_stacked": _target("gzip, zstd"),
}
