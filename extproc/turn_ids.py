"""Our own names for turns: UUID version 7 (RFC 9562 §5.7), so that they sort by time."""

import secrets
import uuid
from typing import Final

_VERSION: Final = 0x7 << 76
_VARIANT: Final = 0b10 << 62
_COUNTER_BITS: Final = 12


class TurnIds:
    """Makes identifiers that never repeat and never sort backwards within a process.

    The 12 bits after the milliseconds count up within one millisecond (method 1 of
    §6.2); when they run out, the time field runs ahead of the clock.
    """

    def __init__(self) -> None:
        self._last = 0

    def next(self, wall_ns: int) -> str:
        """The next identifier, in the usual lower-case text form."""
        stamp = max((wall_ns // 1_000_000) << _COUNTER_BITS, self._last + 1)
        self._last = stamp
        millis, counter = stamp >> _COUNTER_BITS, stamp & 0xFFF
        value = millis << 80 | _VERSION | counter << 64 | _VARIANT | secrets.randbits(62)
        return str(uuid.UUID(int=value))
