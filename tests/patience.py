"""Waiting for what only time and others bring about, on a machine that may stand still for seconds.

``eventually`` and ``becomes`` wait; ``GrantedTime`` measures what must be prompt; ``kept_port`` is where nobody
listens yet.
"""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


async def eventually(holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Return once ``holds()`` is true; TimeoutError when it is not in time."""
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.01)


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


@contextmanager
def kept_port() -> Generator[int]:
    """A port of loopback where nobody listens until a server of ours does, again and again.

    It stays bound, so no other process gets it meanwhile, nor does a connection as its own end; a server
    that sets SO_REUSEADDR, as asyncio's do, may still listen there.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


class GrantedTime:
    """Seconds from now on, without those in which this process was ready to run and the machine ran others.

    Linux says of each thread how long it waited for a processor (``/proc/self/task/*/schedstat``); taken off
    is the wait of the thread that waited longest. Where the kernel does not say, nothing is taken off.
    """

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._waited_s = _waited_s()

    def passed_s(self) -> float:
        """The seconds so far."""
        passed_s = time.monotonic() - self._began_s
        waited_s = (total_s - self._waited_s.get(thread, 0.0) for thread, total_s in _waited_s().items())
        return passed_s - max(waited_s, default=0.0)


def _waited_s() -> Mapping[str, float]:
    """How long each thread was ready and did not run, since it began."""
    found: dict[str, float] = {}
    for thread in Path("/proc/self/task").glob("*"):
        with suppress(OSError, ValueError, IndexError):  # it has just ended, or its kernel does not count
            found[thread.name] = int((thread / "schedstat").read_text().split()[1]) / 1e9
    return found
