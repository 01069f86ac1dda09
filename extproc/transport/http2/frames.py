"""HTTP/2 frames as bytes: numbers of RFC 9113 §6, §7 and §11, and what we send."""

from enum import IntEnum, unique
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER_BYTES: Final = 9
MAX_FRAME_BYTES: Final = 16384
LARGEST_FRAME_BYTES: Final = 2**24 - 1
DEFAULT_WINDOW: Final = 65535
MAX_WINDOW: Final = 2**31 - 1
MAX_STREAM_ID: Final = 2**31 - 1
DEFAULT_HEADER_TABLE_BYTES: Final = 4096

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
WITH_PRIORITY: Final = 0x20

HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6


@unique
class ErrorCode(IntEnum):
    """RFC 9113 §7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


# Length in two parts (24 bits), kind, flags, stream.
HEADER: Final = Struct(">HBBBI")
# Length and kind as one number, flags, stream; and the prefix of a message: compressed, length.
MESSAGE_HEADER: Final = Struct(">IBIBI")
_U32: Final = Struct(">I")
_SETTING: Final = Struct(">HI")
_GOAWAY: Final = Struct(">II")


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """One frame; its payload must fit the peer's frame size."""
    length = len(payload)
    return HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream_id) + payload


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*each) for each in values.items()))


def parse_settings(payload: bytes) -> list[tuple[int, int]]:
    """The settings of a frame, in order. The length must be a multiple of six."""
    return [(identifier, value) for identifier, value in _SETTING.iter_unpack(payload)]


def window_update(stream_id: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream_id, _U32.pack(increment))


def reset(stream_id: int, code: ErrorCode) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream_id, _U32.pack(code))


def goaway(last_stream_id: int, code: ErrorCode, why: str = "") -> bytes:
    """A GOAWAY frame that says why."""
    return frame(GOAWAY, 0, 0, _GOAWAY.pack(last_stream_id, code) + why.encode())


def u32(payload: bytes | bytearray, offset: int = 0) -> int:
    """Four bytes, big-endian."""
    number: int = _U32.unpack_from(payload, offset)[0]
    return number
