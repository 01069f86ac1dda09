"""What one connection may cost."""

from dataclasses import dataclass, field

from extproc.transport.reasons import Reason

MIB = 1024 * 1024
# Windows, and in fact twice the largest message: no budget may be so small that traffic suffers.
LEAST_PROCESS_BYTES = 160 * MIB


@dataclass(frozen=True, slots=True)
class Bucket:
    """So many at once, and so many more each second."""

    burst: int
    per_s: int


# Envoy pings once a second and sets its settings once. Many users may leave at once, so
# resets of streams that had messages are cheap, but not free; streams that were opened
# only to be reset (rapid reset) are counted against a smaller bucket of their own. A peer
# that reads small answers updates windows often.
_BUCKETS: dict[Reason, Bucket] = {
    Reason.SETTINGS_FLOOD: Bucket(100, 10),
    Reason.PING_FLOOD: Bucket(500, 100),
    Reason.RESET_FLOOD: Bucket(1_000, 50),
    Reason.USED_RESET_FLOOD: Bucket(10_000, 1_000),
    Reason.EMPTY_FRAME_FLOOD: Bucket(1_000, 100),
    Reason.WINDOW_UPDATE_FLOOD: Bucket(20_000, 5_000),
    Reason.IDLE_FRAME_FLOOD: Bucket(1_000, 100),
    Reason.STREAM_ERROR_FLOOD: Bucket(1_000, 100),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Budgets of one connection. Windows must not be under HTTP/2's first 65,535 bytes.

    ``connection_window``: at most; ``memory`` says how much a connection really is promised.

    ``held_bytes``: parts of messages that are not whole yet; above the largest message.
    ``unread_bytes``: answers that the peer does not let us send. ``process_bytes``: what all
    connections of a server may hold together (``extproc.transport.http2.memory``).
    """

    stream_window: int = MIB
    connection_window: int = 8 * MIB
    held_bytes: int = 96 * MIB
    unread_bytes: int = 96 * MIB
    header_bytes: int = 64 * 1024
    header_frames: int = 32
    process_bytes: int = 192 * MIB
    streams: int = 50_000
    preface_s: float = 10.0
    buckets: dict[Reason, Bucket] = field(default_factory=lambda: _BUCKETS)


class Floods:
    """The buckets of one connection."""

    def __init__(self, buckets: dict[Reason, Bucket]) -> None:
        self._buckets = buckets
        self._left: dict[Reason, tuple[float, float]] = {}

    def spend(self, reason: Reason, now_s: float) -> bool:
        """Pay for one frame; False when the bucket is empty."""
        bucket = self._buckets[reason]
        left, since = self._left.get(reason, (float(bucket.burst), now_s))
        left = min(float(bucket.burst), left + (now_s - since) * bucket.per_s) - 1
        self._left[reason] = (left, now_s)
        return left >= 0
