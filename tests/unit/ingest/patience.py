"""Waiting for what a running service only comes to: after a file has changed, a signal, a lost connection."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def becomes(ask: Callable[[], Awaitable[T]], expected: T, timeout_s: float = 30.0) -> None:
    """Ask again and again until the answer is ``expected``; AssertionError with the last one when it is late."""
    deadline_s = time.monotonic() + timeout_s
    while (answer := await ask()) != expected:
        assert time.monotonic() < deadline_s, f"still {answer!r}, not {expected!r}"
        await asyncio.sleep(0.02)


async def listens(host: str, port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True
