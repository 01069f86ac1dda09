"""How one payload lies on disk: a frame that can tell whether it is still what was written.

    magic "STB1" | codec u8 | 3 zero bytes | raw length u64 | crc32 u32 | stored bytes

The CRC covers the header before it, the identity of the record (turn id, tenant, creation time)
and the stored bytes, so a payload that lies under another record's row is damage too.
Pure: bytes in, bytes out.
"""

import struct
import zlib
from enum import IntEnum, unique
from typing import Final

import zstandard

MAGIC: Final = b"STB1"
_HEAD: Final = struct.Struct(">4sB3xQ")
_CRC: Final = struct.Struct(">I")
HEADER_BYTES: Final = _HEAD.size + _CRC.size

_WORTH_COMPRESSING: Final = 512
"""Below this many bytes a frame saves no page."""

MAX_RAW_BYTES: Final = 1 << 30
"""No payload is larger (ingest takes 47 MiB): a length beyond it is damage, not an allocation."""


@unique
class Codec(IntEnum):
    """How the stored bytes are coded."""

    PLAIN = 0
    ZSTD = 1


class Damaged(Exception):  # noqa: N818 - a state of the record, named as in the documents
    """The frame is not what was written; the message says how."""


class Packer:
    """Makes and opens frames. Not thread-safe: the compressor's buffers are reused."""

    def __init__(self, level: int = 1) -> None:
        """``level`` is zstd's; 0 stores plain."""
        self._level = level
        self.rushed = False
        """Store plain for now: time is scarcer than space."""
        self._compressor = zstandard.ZstdCompressor(level=level or 1)
        self._decompressor = zstandard.ZstdDecompressor()

    def pack(self, turn_id: str, tenant: str, created_at_ns: int, body: bytes) -> bytes:
        """Return the frame; zstd only where it saves at least an eighth."""
        codec, stored = Codec.PLAIN, body
        if self._level and not self.rushed and len(body) >= _WORTH_COMPRESSING:
            smaller = self._compressor.compress(body)
            if len(smaller) <= len(body) - len(body) // 8:
                codec, stored = Codec.ZSTD, smaller
        head = _HEAD.pack(MAGIC, codec, len(body))
        crc = _crc(head, turn_id, tenant, created_at_ns, stored)
        return b"".join((head, _CRC.pack(crc), stored))

    def unpack(self, frame: bytes, turn_id: str, tenant: str, created_at_ns: int) -> bytes:
        """Return the body, or raise :class:`Damaged`."""
        if len(frame) < HEADER_BYTES:
            raise Damaged(f"the frame is cut: {len(frame)} bytes")
        head, stored = frame[: _HEAD.size], frame[HEADER_BYTES:]
        magic, codec, raw_bytes = _HEAD.unpack(head)
        if magic != MAGIC:
            raise Damaged("the frame does not begin as one")
        if _crc(head, turn_id, tenant, created_at_ns, stored) != _CRC.unpack_from(frame, _HEAD.size)[0]:
            raise Damaged("the CRC differs")
        return self._decode(codec, raw_bytes, stored)

    def _decode(self, codec: int, raw_bytes: int, stored: bytes) -> bytes:
        if codec == Codec.PLAIN:
            body = stored
        elif codec == Codec.ZSTD and raw_bytes <= MAX_RAW_BYTES:
            try:
                body = self._decompressor.decompress(stored, max_output_size=raw_bytes)
            except zstandard.ZstdError as error:
                raise Damaged(f"zstd: {error}") from error
        else:
            raise Damaged(f"codec {codec} of {raw_bytes} bytes is none of ours")
        if len(body) != raw_bytes:
            raise Damaged(f"{len(body)} bytes instead of {raw_bytes}")
        return body


def _crc(head: bytes, turn_id: str, tenant: str, created_at_ns: int, stored: bytes) -> int:
    identity = f"{turn_id}\0{tenant}\0{created_at_ns}\0".encode("utf-8", "surrogatepass")
    return zlib.crc32(stored, zlib.crc32(identity, zlib.crc32(head)))


def row_crc(*columns: object) -> int:
    """CRC-32 over a row's columns, in the order of the schema (strings, integers)."""
    return zlib.crc32("\0".join(map(str, columns)).encode("utf-8", "surrogatepass"))
