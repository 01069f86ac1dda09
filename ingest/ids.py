"""Our own identifiers: UUIDv7, so that turns sort by the time they arrived."""

from typing import Final

RANDOM_BYTES: Final = 10


def uuid7(now_ms: int, random: bytes) -> str:
    """The UUIDv7 (RFC 9562 §5.7) of a time and :data:`RANDOM_BYTES` random bytes, lower case with dashes."""
    bits = (now_ms & 0xFFFF_FFFF_FFFF) << 80 | int.from_bytes(random[:RANDOM_BYTES], "big")
    bits = bits & ~(0xF << 76) | 0x7 << 76
    bits = bits & ~(0x3 << 62) | 0x2 << 62
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
