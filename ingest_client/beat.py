"""When to wake for what may wait: on a grid that all such timers share.

A waking of a process that sleeps costs some tenths of a millisecond of CPU before any work is done (its
memory has to come back into the processor's caches): timers that fall together share one. The grid is that
of the event loop's clock, whose milliseconds all timers of uvloop are counted in.
"""

import asyncio

BEAT_S = 0.05
"""Periods are multiples of it, so that the rarer timers fall on the ticks of the more frequent."""


def until_next(period_s: float) -> float:
    """Seconds until the running loop's clock is a multiple of the period: from a millisecond to the period.

    Whole milliseconds: a fraction of one would be a timer that fires at once, and again.
    """
    period = max(1, round(period_s * 1000))
    return (period - round(asyncio.get_running_loop().time() * 1000) % period) / 1000
