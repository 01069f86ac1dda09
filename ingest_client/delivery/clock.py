"""Time as delivery sees it: the wall clock for what is kept and shown, the monotonic one for waiting."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks, injected so that tests decide what time it is."""

    def now_ns(self) -> int:
        """Wall-clock nanoseconds since 1970."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ns(self) -> int:
        """Wall-clock nanoseconds since 1970."""
        return time.time_ns()

    def monotonic_s(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()
