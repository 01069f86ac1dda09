"""The grid of timers that may wait."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_client.beat import until_next


class Loop:
    """An event loop's clock."""

    def __init__(self, now_s: float) -> None:
        self._now_s = now_s

    def time(self) -> float:
        return self._now_s


@given(st.integers(0, 10**10), st.integers(1, 3600_000))
def test_the_next_tick_is_a_multiple_of_the_period_and_never_now(now_ms: int, period_ms: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(asyncio, "get_running_loop", lambda: Loop(now_ms / 1000))
        wait_ms = until_next(period_ms / 1000) * 1000
    assert round(wait_ms) == pytest.approx(wait_ms)
    assert 1 <= round(wait_ms) <= period_ms
    assert (now_ms + round(wait_ms)) % period_ms == 0
