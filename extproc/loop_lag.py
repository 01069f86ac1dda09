"""How late the event loop runs: whatever holds it delays every stream, and Envoy's keepalive.

The loop is asked to come back after a short while, again and again; what it comes back too late is
its lag. What holds the loop for less than a tick may go unseen, what holds it for longer
is seen less the part of a tick at most.
"""

import asyncio
import time
from collections import deque
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, Histogram

from ingest_client.beat import BEAT_S, until_next

TICK_S: Final = BEAT_S
"""Half of what nothing may hold the loop for."""

WINDOW_S: Final = 60.0
"""The worst of a whole minute is shown: no scrape is so rare that it would be missed."""

_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class LoopLag:
    """Measures while :meth:`run` runs."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._late: deque[tuple[float, float]] = deque()
        self._seen = Histogram(
            "steno_loop_lag_seconds",
            "How late the event loop was, looked at twenty times a second.",
            buckets=_BUCKETS,
            registry=registry,
        )
        worst = Gauge(
            "steno_loop_lag_worst_seconds",
            "How late the event loop was, at worst in the last minute.",
            registry=registry,
        )
        worst.set_function(self.worst_s)

    def worst_s(self) -> float:
        """Seconds, of the last minute."""
        self._forget(time.monotonic())
        return self._late[0][1] if self._late else 0.0

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            before_s, wait_s = time.monotonic(), until_next(TICK_S)
            await asyncio.sleep(wait_s)
            now_s = time.monotonic()
            self.note(now_s, max(0.0, now_s - before_s - wait_s))

    def note(self, now_s: float, lag_s: float) -> None:
        """The loop came so late. Kept are only lags that no later one has exceeded."""
        self._seen.observe(lag_s)
        self._forget(now_s)
        while self._late and self._late[-1][1] <= lag_s:
            self._late.pop()
        self._late.append((now_s, lag_s))

    def _forget(self, now_s: float) -> None:
        while self._late and self._late[0][0] < now_s - WINDOW_S:
            self._late.popleft()
