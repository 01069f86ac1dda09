"""Requests on the shelf: out of memory and back, whatever the disk does and whoever comes in between."""

import asyncio
import os
import stat
import subprocess
import sys
import threading
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.budget import BASE_BYTES, Account, Budget
from extproc.extents import BLOCK_BYTES, Extents
from extproc.request_body import RequestBody
from extproc.shelf import ON_THEIR_WAY_BYTES, Shelf, fetch
from tests.patience import eventually

TEXT = b'{"messages": ["' + os.urandom(100_000).hex().encode() + b'"]}'


def body(account: Account | None = None, data: bytes = TEXT) -> RequestBody:
    """A request that is whole."""
    made = RequestBody(1 << 30, account)
    for start in range(0, len(data), 16_384):
        made.append(data[start : start + 16_384])
    made.ended()
    return made


async def put(shelf: Shelf, request: RequestBody) -> None:
    """Move it, and wait until that is done."""
    before = shelf.counters.shelved + shelf.counters.packed
    shelf.put(request)
    await eventually(lambda: shelf.counters.shelved + shelf.counters.packed > before)


async def nothing_lies_there(shelf: Shelf) -> None:
    """Wait until the thread has done what it was given, and all room was given back."""
    last = body()
    await put(shelf, last)
    last.drop()
    await eventually(lambda: shelf.used_bytes == 0)


def _open_files(folder: Path) -> list[os.stat_result]:
    """What this process has open there."""
    held = [each for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    return [each.stat() for each in held if str(folder) in str(each.readlink())]


def _named_files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_a_request_leaves_memory_and_comes_back_as_it_was(tmp_path: Path) -> None:
    shelf, budget = Shelf(tmp_path), Budget()
    account = budget.open("a")
    request = body(account)
    assert account.held_bytes == BASE_BYTES + len(TEXT)
    await put(shelf, request)
    assert not request.in_memory
    assert account.held_bytes == BASE_BYTES
    assert 0 < shelf.used_bytes < len(TEXT)
    assert await fetch(request)
    assert request.joined() == TEXT
    request.put_back()
    assert not request.in_memory
    shelf.close()


async def test_the_file_has_no_name_and_is_private(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    await put(shelf, body())
    (held,) = _open_files(tmp_path)
    assert not _named_files(tmp_path)
    assert stat.S_IMODE(held.st_mode) == 0o600
    assert held.st_nlink == 0
    shelf.close()


async def test_without_such_files_one_is_made_and_unlinked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY, raising=False)  # as an old file system refuses it
    shelf = Shelf(tmp_path)
    request = body()
    await put(shelf, request)
    assert not _named_files(tmp_path)
    assert await fetch(request)
    assert request.joined() == TEXT
    shelf.close()


async def test_what_is_dropped_makes_room(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, max_bytes=160_000)
    first, second = body(), body()
    await put(shelf, first)
    await put(shelf, second)
    assert second.in_memory, "the shelf is full: it stays, compressed"
    assert second.joined() == TEXT
    first.drop()
    third = body()
    await put(shelf, third)
    assert not third.in_memory
    assert shelf.counters.shelved == 2
    shelf.close()


@pytest.mark.parametrize("folder", [None, Path("/proc/no-such-folder")])
async def test_without_a_disk_it_stays_in_memory_compressed(folder: Path | None) -> None:
    shelf, budget = Shelf(folder), Budget()
    account = budget.open("a")
    request = body(account)
    await put(shelf, request)
    assert request.joined() == TEXT
    assert account.held_bytes < BASE_BYTES + len(TEXT) * 3 // 4
    assert shelf.counters.failed == (folder is not None)
    shelf.close()


async def test_a_request_that_is_read_for_the_last_time_does_not_move_away(tmp_path: Path) -> None:
    """The end of the exchange overtakes the move: the place is given back, the bytes stay."""
    shelf = Shelf(tmp_path)
    request = body()
    shelf.put(request)
    request.pin()
    assert await fetch(request)
    await nothing_lies_there(shelf)
    assert request.joined() == TEXT
    assert request.place is None
    assert shelf.used_bytes == 0
    shelf.close()


async def test_a_request_that_is_dropped_meanwhile_stays_dropped(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    request = body()
    shelf.put(request)
    request.drop()
    await nothing_lies_there(shelf)
    assert (request.place, request.joined(), shelf.used_bytes) == (None, b"", 0)
    shelf.close()


async def test_what_the_disk_spoiled_is_not_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf(tmp_path)
    request = body()
    await put(shelf, request)
    real = os.pread

    def spoiled(file: int, size: int, offset: int) -> bytes:
        return real(file, size, offset)[:-1000] + bytes(1000)

    monkeypatch.setattr(os, "pread", spoiled)
    assert not await fetch(request)
    assert shelf.counters.lost == 1
    shelf.close()


async def test_a_request_that_still_arrives_does_not_move(tmp_path: Path) -> None:
    """What came before a checkpoint and what comes after it are one body."""
    shelf = Shelf(tmp_path)
    request = RequestBody(1 << 30)
    request.append(TEXT)
    request.pack()
    shelf.put(request)
    await put(shelf, body())  # the thread has come so far, and the loop
    request.append(b"and more")
    request.ended()
    assert request.joined() == TEXT + b"and more"
    shelf.close()


async def test_small_requests_are_packed_in_place() -> None:
    budget = Budget()
    account = budget.open("a")
    request = body(account, b'{"messages": ["' + b"again and " * 500 + b'"]}')
    whole = request.joined()
    request.pack()
    assert request.joined() == whole
    assert account.held_bytes < BASE_BYTES + 500


async def test_a_large_request_is_not_packed_where_that_would_hold_the_loop() -> None:
    """It waits for the shelf, or stays as it came."""
    request = body(None, b"again and " * 30_000)
    request.pack()
    assert request.joined() is request.joined(), "no copy is made: it is not compressed"


def _open_file(folder: Path) -> Path:
    """What stands for the open file of this process there."""
    held = [each for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    return next(each for each in held if str(folder) in str(each.readlink()))


def _disk_bytes(folder: Path) -> int:
    (held,) = _open_files(folder)
    return held.st_blocks * 512


async def test_what_is_free_at_the_end_of_the_file_goes_back_to_the_disk(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    requests = [body() for _ in range(4)]
    for request in requests:
        await put(shelf, request)
    assert _disk_bytes(tmp_path) > 400_000
    for request in requests[1:]:
        request.drop()
    requests.append(body())
    await put(shelf, requests[-1])  # the thread has come so far
    assert _disk_bytes(tmp_path) < 250_000
    assert await fetch(requests[0])
    assert requests[0].joined() == TEXT
    for request in requests:
        request.drop()
    async with asyncio.timeout(60):
        while _disk_bytes(tmp_path):
            await asyncio.sleep(0.005)
    shelf.close()


async def test_the_spool_has_the_disk_first(tmp_path: Path) -> None:
    """Too little room, or trouble: what would go there stays in memory, compressed."""
    for shelf in (Shelf(tmp_path, floor_bytes=1 << 60), Shelf(tmp_path, trouble=lambda: "No space left")):
        request = body()
        await put(shelf, request)
        assert request.joined() == TEXT
        assert (shelf.counters.packed, shelf.counters.shelved, shelf.used_bytes) == (1, 0, 0)
        assert not _open_files(tmp_path)
        shelf.close()


async def test_nobody_can_give_the_file_a_name(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    await put(shelf, body())
    file = _open_file(tmp_path)
    folder = os.open(tmp_path, os.O_PATH)
    with pytest.raises(FileNotFoundError):  # a directory's number makes it linkat(2), which follows
        os.link(file, "named", src_dir_fd=folder, dst_dir_fd=folder)
    os.close(folder)
    shelf.close()


async def test_a_disk_that_hangs_holds_a_bounded_part_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exchanges that end give their budget back, and the bytes on their way are bounded all the same."""
    hangs = threading.Event()
    real = os.pwrite

    def hanging(file: int, data: bytes, offset: int) -> int:
        hangs.wait(100)
        return real(file, data, offset)

    monkeypatch.setattr(os, "pwrite", hanging)
    shelf = Shelf(tmp_path)
    tracemalloc.start()
    kept: list[RequestBody] = []
    for number in range(100):
        request = body(None, os.urandom(1 << 20))
        shelf.put(request)
        if number % 50:
            request.drop()
        else:
            kept.append(request)
    held_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held_bytes < ON_THEIR_WAY_BYTES + (8 << 20)
    assert shelf.counters.waited == 100 - ON_THEIR_WAY_BYTES // (1 << 20)
    assert kept[1].in_memory
    hangs.set()
    async with asyncio.timeout(60):
        while not shelf.counters.shelved:
            await asyncio.sleep(0.005)
    assert await fetch(kept[0])
    await put(shelf, kept[1])
    assert not kept[1].in_memory, "the disk is back"
    shelf.close()


async def test_a_shelf_that_is_closed_loses_what_lies_on_it(tmp_path: Path) -> None:
    """By name: nobody who waits is cancelled."""
    shelf = Shelf(tmp_path)
    request = body()
    await put(shelf, request)
    shelf.close()
    assert not await fetch(request)
    assert shelf.counters.lost == 1


def test_a_disk_that_hangs_does_not_hold_the_exit() -> None:
    """The process ends though its thread never comes back."""
    program = (
        "import time; from extproc.disk_thread import DiskThread; "
        "t = DiskThread('x'); t.submit(lambda: time.sleep(3600)); t.close()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40_000)), max_size=60))
def test_extents_never_overlap_and_all_come_back(steps: list[tuple[bool, int]]) -> None:
    """Any order of taking and giving: taken parts are apart, free ones are merged."""
    extents = Extents(50 * BLOCK_BYTES)
    taken: list[tuple[int, int]] = []
    for give, number in steps:
        if give and taken:
            extents.give(*taken.pop(number % len(taken)))
        else:
            offset = extents.take(number)
            if offset is not None:
                taken.append((offset, number))
        ends = sorted((offset, offset + -(-size // BLOCK_BYTES) * BLOCK_BYTES) for offset, size in taken)
        assert all(end <= start for (_, end), (start, _) in pairwise(ends))
        assert extents.used_bytes == sum(end - start for start, end in ends)
        free = extents.free
        assert all(start + size < after for (start, size), (after, _) in pairwise(free))
        assert extents.end == max((end for _, end in ends), default=0)
    for part in taken:
        extents.give(*part)
    assert extents.free == [(0, 50 * BLOCK_BYTES)]
