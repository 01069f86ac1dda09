"""When a connection is read: rests and turns, with a socket that only remembers."""

import asyncio

import pytest

from extproc.transport.http2.reading import Reading


class Socket(asyncio.Transport):
    """Remembers whether it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.paused = False
        self.pauses = 0

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True
        self.pauses += 1

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False

    def is_closing(self) -> bool:
        return False


class Clock:
    """Seconds that pass when work is done: each byte costs some."""

    def __init__(self, per_byte_s: float) -> None:
        self.now_s = 0.0
        self.taken: list[bytes] = []
        self._per_byte_s = per_byte_s

    def __call__(self) -> float:
        return self.now_s

    def take(self, data: bytes) -> None:
        self.taken.append(data)
        self.now_s += len(data) * self._per_byte_s


def reading(socket: Socket, clock: Clock, *, window: int = 1 << 20, rest_s: float = 0.01) -> Reading:
    return Reading(socket, clock.take, window=window, rest_s=rest_s, clock=clock)


async def test_a_rest_ends_by_itself() -> None:
    socket, clock = Socket(), Clock(0.0)
    read = reading(socket, clock)
    assert read.arrived(b"x" * 100)
    read.rest()
    assert socket.paused
    await asyncio.sleep(0.05)
    assert not socket.paused


@pytest.mark.parametrize(("size", "window"), [(64 * 1024, 1 << 20), (16_384, 65_535)])
async def test_a_read_that_is_large_for_its_window_is_no_time_to_rest(size: int, window: int) -> None:
    read = reading(Socket(), Clock(0.0), window=window)
    assert not read.arrived(b"x" * size)
    assert read.arrived(b"x" * (size // 2))


async def test_quick_work_is_done_at_once_however_much_it_is() -> None:
    socket, clock = Socket(), Clock(1e-9)
    reading(socket, clock).arrived(b"ab" * 500_000)
    assert b"".join(clock.taken) == b"ab" * 500_000
    assert socket.pauses == 0


async def test_slow_work_lets_others_go_in_between_and_loses_nothing() -> None:
    """A microsecond a byte: 200 KB are 0.2 s, in turns of at most a slice over 5 ms."""
    socket, clock = Socket(), Clock(1e-6)
    whole = bytes(range(250)) * 800
    read = reading(socket, clock)
    read.arrived(whole)
    turns = 0
    while socket.paused:
        before_s = clock.now_s
        await asyncio.sleep(0)
        turns += 1
        if turns > 2:
            assert clock.now_s - before_s < 0.04
    assert turns > 6
    assert b"".join(clock.taken) == whole


async def test_what_was_read_is_worked_on_before_the_connection_is_forgotten() -> None:
    socket, clock = Socket(), Clock(1e-6)
    read = reading(socket, clock)
    read.arrived(b"x" * 200_000)
    read.arrived(b"y" * 10)
    read.finish()
    assert b"".join(clock.taken) == b"x" * 200_000 + b"y" * 10
    await asyncio.sleep(0)
    assert socket.paused  # nobody reads a lost connection again
