"""Waiting for something that only time and other tasks bring about."""

import asyncio
from collections.abc import Callable


async def eventually(holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Return once ``holds()`` is true; TimeoutError when it is not in time."""
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.01)
