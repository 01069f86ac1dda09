"""The loop's lag: what holds it is seen, for a minute, and counted for good."""

import asyncio
import time

from prometheus_client import CollectorRegistry

from extproc.loop_lag import WINDOW_S, LoopLag
from tests.patience import eventually


async def test_what_holds_the_loop_is_seen() -> None:
    registry = CollectorRegistry()
    lag = LoopLag(registry)
    measuring = asyncio.ensure_future(lag.run())
    await asyncio.sleep(0.05)
    began_s = time.monotonic()
    time.sleep(0.3)  # noqa: ASYNC251 - this is what it is to see
    await eventually(lambda: lag.worst_s() > 0.2)
    measuring.cancel()
    assert lag.worst_s() < 0.1 + time.monotonic() - began_s
    assert (registry.get_sample_value("steno_loop_lag_worst_seconds") or 0) > 0.2
    seen = registry.get_sample_value("steno_loop_lag_seconds_count") or 0
    fast = registry.get_sample_value("steno_loop_lag_seconds_bucket", {"le": "0.1"}) or 0
    assert seen - fast >= 1


def test_the_worst_is_forgotten_after_a_minute_and_no_sooner() -> None:
    lag = LoopLag(CollectorRegistry())
    now_s = time.monotonic()
    lag.note(now_s - WINDOW_S - 1, 9.0)
    lag.note(now_s - WINDOW_S + 10, 3.0)
    lag.note(now_s - 1, 1.0)
    lag.note(now_s, 2.0)
    assert lag.worst_s() == 3.0
    lag.note(now_s + 11, 0.5)
    assert lag.worst_s() == 2.0
