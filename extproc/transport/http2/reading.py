"""When a connection is read: at once, after a rest, or in turns with the others.

**Rest.** After a small read, on a connection where nobody has waited for an answer, the next
read waits a little, so that one read takes in the messages of many streams. A PING waits
no longer than that; Envoy allows it a second. A large read is followed by the next at
once: reading must keep up with what comes.

**Turns.** A read is worked on in slices. One that takes longer than a turn (a flood of
frames that each cost much does) lets the other connections go in between, and its next
slices are smaller, until they are quick again. Nothing is read meanwhile.
"""

import asyncio
from collections.abc import Callable

from ingest_client.beat import until_next

_SMALL_READ_BYTES = 64 * 1024
_SLICE_BYTES = 64 * 1024
_SMALLEST_SLICE_BYTES = 2 * 1024
_TURN_S = 0.005


class Reading:
    """Feeds ``take`` with what was read from ``transport``.

    ``window``: what the peer may send before it hears from us; a read near that is a large one.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        take: Callable[[bytes], None],
        *,
        window: int,
        rest_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._transport = transport
        self._take = take
        self._small_bytes = min(_SMALL_READ_BYTES, window // 4)
        self._rest_s = rest_s
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._slice_bytes = _SLICE_BYTES
        self._left = b""
        self._at = 0
        self._waiting: asyncio.Handle | None = None

    def arrived(self, data: bytes) -> bool:
        """Work on what was read; True when it was little, and all is done."""
        if len(data) <= self._slice_bytes and not self._left:
            self._take(data)
            return len(data) < self._small_bytes
        self._left = self._left[self._at :] + data if self._left else data
        self._at = 0
        if self._waiting is None:
            self._turn()
        return not self._left and len(data) < self._small_bytes

    def rest(self) -> None:
        """Read again in a while."""
        if self._waiting is None and self._rest_s > 0 and not self._transport.is_closing():
            self._transport.pause_reading()
            self._waiting = self._loop.call_later(until_next(self._rest_s), self._resume)

    def finish(self) -> None:
        """Nothing more will come: work on what has."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        left, self._left = self._left[self._at :], b""
        if left:
            self._take(left)

    def _turn(self) -> None:
        """Work until all is done or the turn is over; then go on after the others."""
        began = before = self._clock()
        while self._at < len(self._left):
            if before - began > _TURN_S:
                self._wait()
                return
            end = self._at + self._slice_bytes
            self._take(self._left[self._at : end])
            self._at = end
            now = self._clock()
            slow = now - before > _TURN_S
            self._slice_bytes = (
                max(_SMALLEST_SLICE_BYTES, self._slice_bytes // 2)
                if slow
                else min(_SLICE_BYTES, self._slice_bytes * 2)
            )
            before = now
        self._left = b""
        self._at = 0
        if self._waiting is not None:
            self._resume()

    def _wait(self) -> None:
        """Let the other connections go first."""
        if self._waiting is None and not self._transport.is_closing():
            self._transport.pause_reading()
        self._waiting = self._loop.call_soon(self._turn)

    def _resume(self) -> None:
        """Read again; first what came in spite of all."""
        self._waiting = None
        if not self._transport.is_closing():
            self._transport.resume_reading()
        if self._left:
            self._turn()
