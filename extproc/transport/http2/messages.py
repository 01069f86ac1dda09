"""gRPC's message framing: one flag, four bytes of length, the message."""

from enum import IntEnum, unique

from extproc.transport.base import MAX_MESSAGE_BYTES
from extproc.transport.http2.frames import u32

PREFIX_BYTES = 5


@unique
class Status(IntEnum):
    """The gRPC statuses that are answered here."""

    OK = 0
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


def frame_message(message: bytes) -> bytes:
    """A message as it goes into DATA frames, uncompressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def refusal(flag: int, size: int) -> Status | None:
    """Why a message of that prefix is not taken; None when it is."""
    if flag == 1:
        return Status.UNIMPLEMENTED  # compression was never offered
    if flag:
        return Status.INTERNAL
    return Status.RESOURCE_EXHAUSTED if size > MAX_MESSAGE_BYTES else None


class MessageReader:
    """Puts messages together that come in parts, or several at a time."""

    __slots__ = ("_held", "_need", "refused")

    def __init__(self) -> None:
        self._held = bytearray()
        self._need = PREFIX_BYTES
        self.refused: Status | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes of a message that is not whole yet."""
        return len(self._held)

    def feed(self, part: bytes) -> list[bytes]:
        """Take bytes; return the messages that are whole now. ``refused`` ends it all."""
        held = self._held
        held += part
        whole: list[bytes] = []
        start = 0
        while self.refused is None and len(held) - start >= self._need:
            size = u32(held, start + 1)
            self.refused = refusal(held[start], size)
            self._need = PREFIX_BYTES + size
            if self.refused is None and len(held) - start >= self._need:
                whole.append(bytes(memoryview(held)[start + PREFIX_BYTES : start + self._need]))
                start += self._need
                self._need = PREFIX_BYTES
        del held[:start]
        return whole
