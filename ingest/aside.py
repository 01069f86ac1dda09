"""Work on large bodies beside the event loop: inline it would hold up every other request.

A hand-over to a thread costs some 0.1 ms and a body some 20 ns a byte, so small bodies stay.
"""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

INLINE_BYTES: Final = 64 * 1024
"""Decoded bytes that are worth about a millisecond."""
T = TypeVar("T")


async def beside(work: Callable[[], T], size: int) -> T:
    """The result of ``work`` on ``size`` bytes, done in a thread where they are many."""
    return await asyncio.to_thread(work) if size > INLINE_BYTES else work()
