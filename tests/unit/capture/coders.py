"""Compressors, by content coding, as servers use them."""

import gzip
import zlib
from collections.abc import Callable
from typing import Final, Protocol, cast

import brotli  # type: ignore[import-untyped]  # it has no types
import zstandard

Encode = Callable[[bytes], bytes]


class _Brotli(Protocol):
    def compress(self, data: bytes, *, quality: int) -> bytes: ...


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def _brotli(data: bytes) -> bytes:
    return cast("_Brotli", brotli).compress(data, quality=5)


def raw_deflate(data: bytes) -> bytes:
    """A deflate stream without the zlib header, as some servers send it."""
    return zlib.compress(data, wbits=-zlib.MAX_WBITS)


ENCODERS: Final[dict[str, Encode]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": zlib.compress,
    "br": _brotli,
    "zstd": _zstd,
}


def encode(encoding: str, data: bytes) -> bytes:
    """Apply the codings of a ``content-encoding`` value, left to right."""
    for name in encoding.split(", "):
        data = ENCODERS[name](data)
    return data
