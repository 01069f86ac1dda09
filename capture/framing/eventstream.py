"""AWS event streams, ``application/vnd.amazon.eventstream``, for any split of the bytes.

    total length u32 | headers length u32 | CRC-32 of these 8 bytes
    headers | payload | CRC-32 of all that came before

Big-endian. A header is: name length u8, name, type u8, value; the types and their
lengths are in ``_FIXED`` and ``_SIZED`` (Smithy "Amazon Event Stream" specification).

What becomes of a message, by its ``:message-type``:

    event        name ``:event-type``                    data: the payload
    exception    name ``exception:`` + ``:exception-type``   data: the payload
    error        name ``error:`` + ``:error-code``           data: {"message": ``:error-message``}
    other        name ``:message-type`` + ``:`` + ``:event-type``

A message whose own CRC is wrong costs that message: the lengths are known to be
right. A wrong prelude leaves no way to find the next message and stops the reading.
"""

import zlib
from struct import Struct
from typing import Final

import msgspec

from capture.framing.batch import Batch
from capture.turn import Damage

MAX_MESSAGE_BYTES: Final = 24 * 1024 * 1024
"""Longest message kept: the bound of the AWS SDKs."""

_PRELUDE: Final = Struct(">III")
_CRC: Final = Struct(">I")
_OVERHEAD: Final = _PRELUDE.size + _CRC.size

_FIXED: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Value lengths: true, false, byte, short, integer, long, timestamp, uuid."""
_BYTES: Final = 6
_STRING: Final = 7
_SIZED: Final = frozenset({_BYTES, _STRING})

_KNOWN_HEADERS: Final = 64
_KNOWN_HEADER_BYTES: Final = 512
"""Header blocks remembered, each of at most so many bytes: a stream has few different ones."""


class EventStreamFramer:
    """Cuts a body into event stream messages."""

    __slots__ = ("_held", "_held_bytes", "_known", "_max_message_bytes", "_wanted_bytes", "damage", "stopped")

    def __init__(self, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._max_message_bytes = max_message_bytes
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._wanted_bytes = _PRELUDE.size
        self._known: dict[bytes, dict[bytes, bytes] | None] = {}
        self.damage: dict[Damage, int] = {}
        self.stopped = False

    def feed(self, data: bytes) -> Batch:
        """Take the next bytes; return the events they completed."""
        batch = Batch([], [])
        if self.stopped:
            return batch
        self._held.append(data)
        self._held_bytes += len(data)
        # A long message arrives in many chunks: they are kept apart and joined once.
        if self._held_bytes >= self._wanted_bytes:
            text = b"".join(self._held)
            rest = text[self._messages(text, batch) :]
            self._held = [rest]
            self._held_bytes = len(rest)
        return batch

    def finish(self) -> Batch:
        """The body has ended: an unfinished message is lost, and counted."""
        if self._held_bytes and not self.stopped:
            self._count(Damage.TRUNCATED_FRAME)
        self._held = []
        self._held_bytes = 0
        return Batch([], [])

    def _messages(self, text: bytes, batch: Batch) -> int:
        """Read the whole messages of ``text``; return where the first unfinished one begins."""
        position = 0
        while len(text) - position >= _PRELUDE.size:
            total, headers, crc = _PRELUDE.unpack_from(text, position)
            if zlib.crc32(text[position : position + 8]) != crc:
                return self._stop(Damage.BAD_CRC, text)
            if total < headers + _OVERHEAD:
                return self._stop(Damage.UNPARSEABLE_EVENT, text)
            if total > self._max_message_bytes:
                return self._stop(Damage.OVERSIZE_FRAME, text)
            if len(text) - position < total:
                self._wanted_bytes = total
                return position
            self._message(text[position : position + total], headers, batch)
            position += total
        self._wanted_bytes = _PRELUDE.size
        return position

    def _message(self, message: bytes, headers_bytes: int, batch: Batch) -> None:
        body = message[: -_CRC.size]
        if zlib.crc32(body) != _CRC.unpack_from(message, len(body))[0]:
            return self._count(Damage.BAD_CRC)
        payload_at = _PRELUDE.size + headers_bytes
        headers = self._headers(body[_PRELUDE.size : payload_at])
        if headers is None:
            return self._count(Damage.UNPARSEABLE_EVENT)
        name, data = _event(headers, body[payload_at:])
        batch.names.append(name)
        batch.datas.append(data)
        return None

    def _headers(self, block: bytes) -> dict[bytes, bytes] | None:
        if len(block) > _KNOWN_HEADER_BYTES:
            return _strings(block)
        if block not in self._known:
            if len(self._known) >= _KNOWN_HEADERS:
                self._known.clear()
            self._known[block] = _strings(block)
        return self._known[block]

    def _count(self, damage: Damage) -> None:
        self.damage[damage] = self.damage.get(damage, 0) + 1

    def _stop(self, damage: Damage, text: bytes) -> int:
        self._count(damage)
        self.stopped = True
        return len(text)


def _event(headers: dict[bytes, bytes], payload: bytes) -> tuple[bytes, bytes]:
    """The name and data of one message (the table above)."""
    kind = headers.get(b":message-type", b"event")
    if kind == b"event":
        return headers.get(b":event-type", b""), payload
    if kind == b"exception":
        return b"exception:" + headers.get(b":exception-type", b""), payload
    if kind == b"error":
        message = headers.get(b":error-message", b"").decode("utf-8", "replace")
        return b"error:" + headers.get(b":error-code", b""), msgspec.json.encode({"message": message})
    return kind + b":" + headers.get(b":event-type", b""), payload


def _strings(headers: bytes) -> dict[bytes, bytes] | None:
    """The string headers by name, or None when the headers do not fill their space exactly."""
    found: dict[bytes, bytes] = {}
    position = 0
    try:
        while position < len(headers):
            name_end = position + 1 + headers[position]
            kind = headers[name_end]
            value_at = name_end + 1
            if kind in _SIZED:
                length = headers[value_at] << 8 | headers[value_at + 1]
                value_at += 2
            else:
                length = _FIXED[kind]
            if kind == _STRING:
                found[headers[position + 1 : name_end]] = headers[value_at : value_at + length]
            position = value_at + length
    except (IndexError, KeyError):
        return None
    return found if position == len(headers) else None
