"""Which parts of a file are in use: room is taken at the first place where it fits, and given back."""

from bisect import bisect_left
from typing import Final

BLOCK_BYTES: Final = 4096
"""Room is taken in blocks, so that what is given back fits again."""


class Extents:
    """The free parts of ``max_bytes``, in order and never side by side. Pure."""

    __slots__ = ("_free", "_max_bytes", "used_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes // BLOCK_BYTES * BLOCK_BYTES
        self._free: list[tuple[int, int]] = [(0, self._max_bytes)]
        self.used_bytes = 0

    @property
    def free(self) -> list[tuple[int, int]]:
        """``(offset, size)`` of every free part."""
        return list(self._free)

    @property
    def end(self) -> int:
        """Where the last part in use ends: nothing behind it is."""
        offset, size = self._free[-1] if self._free else (self._max_bytes, 0)
        return offset if offset + size == self._max_bytes else self._max_bytes

    def take(self, size: int) -> int | None:
        """The offset of room for ``size`` bytes; None: there is none."""
        whole = _blocks(size)
        for at, (offset, room) in enumerate(self._free):
            if room >= whole:
                self._free[at : at + 1] = [(offset + whole, room - whole)] if room > whole else []
                self.used_bytes += whole
                return offset
        return None

    def give(self, offset: int, size: int) -> None:
        """Give back what was taken, with the same size."""
        whole = _blocks(size)
        self.used_bytes -= whole
        at = bisect_left(self._free, (offset, 0))
        if at < len(self._free) and offset + whole == self._free[at][0]:
            whole += self._free.pop(at)[1]
        if at and sum(self._free[at - 1]) == offset:
            offset, before = self._free.pop(at - 1)
            whole, at = whole + before, at - 1
        self._free.insert(at, (offset, whole))


def _blocks(size: int) -> int:
    return max(1, -(-size // BLOCK_BYTES)) * BLOCK_BYTES
