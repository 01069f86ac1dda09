"""One compressed stream from its first byte to its last: a gzip member, a zstd frame.

Each class wraps one library behind :class:`Member`. None of them ever holds more than
a few MiB of fresh output: a bomb must be noticed while it is small. Where the library
can stop at an output size it is told to; zstandard cannot, so it gets its input in
slices that are too short to hurt (:mod:`capture.coding.layer` cuts them).

Output is given as soon as the input for it is there; nothing waits for the end.
"""

import zlib
from collections.abc import Iterator
from typing import Final, Protocol, cast

import brotli  # type: ignore[import-untyped]  # it has no types
import zstandard

FOREIGN_ERRORS: Final = (zlib.error, zstandard.ZstdError, cast("type[Exception]", brotli.error))
"""What the libraries raise on bytes that are not what they should be."""

_PIECE_BYTES: Final = 1024 * 1024


class Member(Protocol):
    """Undoes one compressed stream."""

    @property
    def complete(self) -> bool:
        """True when the stream has ended as its format says, checksum included."""
        ...

    def undo(self, data: bytes) -> Iterator[bytes]:
        """Give the output of the next bytes, in pieces. Raises :data:`FOREIGN_ERRORS`."""
        ...

    @property
    def unused(self) -> bytes:
        """Bytes of the last ``undo`` that come after the end of the stream."""
        ...


class Inflate:
    """RFC 1950 to 1952, told apart by ``wbits`` as in :func:`zlib.decompressobj`."""

    __slots__ = ("_stream",)

    def __init__(self, wbits: int) -> None:
        self._stream = zlib.decompressobj(wbits)

    @property
    def complete(self) -> bool:
        """See :class:`Member`."""
        return self._stream.eof

    @property
    def unused(self) -> bytes:
        """See :class:`Member`."""
        return self._stream.unused_data

    def undo(self, data: bytes) -> Iterator[bytes]:
        """See :class:`Member`."""
        piece = self._stream.decompress(data, _PIECE_BYTES)
        yield piece
        # A full piece may have left output behind, even when it left no input.
        while len(piece) == _PIECE_BYTES and not self._stream.eof:
            piece = self._stream.decompress(self._stream.unconsumed_tail, _PIECE_BYTES)
            yield piece


class SniffedDeflate:
    """``deflate``: zlib as RFC 9110 says, or the raw stream that some servers send instead.

    Decided as browsers do, by whether the first two bytes are a zlib header. A raw
    stream that looks like one would have to start with a stored block whose padding
    bits are set, which no compressor writes.
    """

    __slots__ = ("_head", "_inflate")

    def __init__(self) -> None:
        self._head = b""
        self._inflate: Inflate | None = None

    @property
    def complete(self) -> bool:
        """See :class:`Member`."""
        return self._inflate is not None and self._inflate.complete

    @property
    def unused(self) -> bytes:
        """See :class:`Member`."""
        return self._inflate.unused if self._inflate is not None else b""

    def undo(self, data: bytes) -> Iterator[bytes]:
        """See :class:`Member`."""
        if self._inflate is None:
            data = self._head = self._head + data
            if len(data) < _ZLIB_HEADER_BYTES:
                return
            self._inflate = Inflate(zlib.MAX_WBITS if _is_zlib_header(data) else -zlib.MAX_WBITS)
        yield from self._inflate.undo(data)


_ZLIB_HEADER_BYTES: Final = 2
# RFC 1950 §2.2: method 8 in the low nibble, a window of at most 32 KiB (7) in the high one.
_METHOD_MASK: Final = 0x8F
_METHOD: Final = 0x08


def _is_zlib_header(data: bytes) -> bool:
    return data[0] & _METHOD_MASK == _METHOD and (data[0] << 8 | data[1]) % 31 == 0


class Zstd:
    """RFC 8878, one frame.

    A frame that lies within one call would be decoded by a stricter routine of the library
    than one that is spread over several (it checks the declared size in more places). So
    that a body reads alike for any chunking, the first byte always goes in alone.
    """

    __slots__ = ("_begun", "_stream")

    def __init__(self, context: zstandard.ZstdDecompressor) -> None:
        self._stream = context.decompressobj()
        self._begun = False

    @property
    def complete(self) -> bool:
        """See :class:`Member`."""
        return self._stream.eof

    @property
    def unused(self) -> bytes:
        """See :class:`Member`."""
        return self._stream.unused_data

    def undo(self, data: bytes) -> Iterator[bytes]:
        """See :class:`Member`. The caller keeps ``data`` short: nothing else bounds the piece."""
        if not self._begun:
            self._begun = True
            self._stream.decompress(data[:1])
            data = data[1:]
        yield self._stream.decompress(data)


class _BrotliStream(Protocol):
    """What we use of ``brotli.Decompressor``, which has no types of its own."""

    def process(self, data: bytes, output_buffer_limit: int) -> bytes: ...
    def is_finished(self) -> bool: ...
    def can_accept_more_data(self) -> bool: ...


class Brotli:
    """RFC 7932. The library refuses bytes after the end, and does not say where that was."""

    __slots__ = ("_stream",)

    unused = b""

    def __init__(self) -> None:
        self._stream = cast("_BrotliStream", brotli.Decompressor())  # pyright: ignore[reportUnknownMemberType]  # no types

    @property
    def complete(self) -> bool:
        """See :class:`Member`."""
        return self._stream.is_finished()

    def undo(self, data: bytes) -> Iterator[bytes]:
        """See :class:`Member`."""
        piece = self._stream.process(data, output_buffer_limit=_PIECE_BYTES)
        # More may be waiting even when all input was taken: only an empty piece says that nothing is.
        while piece or not self._stream.can_accept_more_data():
            yield piece
            piece = self._stream.process(b"", output_buffer_limit=_PIECE_BYTES)
