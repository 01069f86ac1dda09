"""Where large requests lie while their answers come: compressed, in one file that has no name.

    put(request)  →  (thread)  →  request.shelved(place)
    fetch(request)  →  (thread)  →  request.fetched(bytes)

Theory of operation. A request is needed again only for a checkpoint and at its end; an agent's
request has hundreds of kilobytes and its answer takes a minute. So a request that is whole goes
to disk: one zstd frame in a temporary file of the data directory, which is unlinked while it is
open (``O_TMPFILE``, mode 0600). Nobody can open it, and it ends with its process: this is
memory elsewhere, no record, and nothing reads it after a crash (checkpoints are for that; they
are redacted). Without a data directory, on a full shelf or a failing disk the request stays in
memory, compressed, on the account of its exchange. The disk is the spool's first: nothing is put
there while that is in trouble, or has little room left, and what is free at the end of the file goes back.

All disk work and all bookkeeping of the file happen in one thread; the loop hands over and is
told. A disk that hangs costs the requests that lie on it, never the reader: what is on its way to it
is bounded, and more stays in memory as it came.
"""

import asyncio
import logging
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import zstandard

from extproc.disk_thread import DiskThread
from extproc.extents import Extents
from extproc.request_body import RequestBody

_log = logging.getLogger(__name__)

MAX_BYTES: Final = 1 << 30
"""Of disk. Beyond it requests stay in memory."""

FLOOR_BYTES: Final = 256 << 20
"""Of the disk stay free, for the spool."""

ON_THEIR_WAY_BYTES: Final = 32 << 20
"""Handed to the thread and not answered yet: an exchange that ends meanwhile gives its budget back, and the
bytes are there all the same. A larger request goes when it goes alone.
"""

FETCH_S: Final = 10.0
"""A disk that takes longer has lost the request."""

_COMPRESSOR: Final = zstandard.ZstdCompressor(level=1, write_checksum=True)


@dataclass(slots=True)
class ShelfCounters:
    """What became of large requests. ``packed``: kept in memory, compressed; ``failed``: the disk did not
    take them; ``lost``: it did not give them back.
    """

    shelved: int = 0
    packed: int = 0
    fetched: int = 0
    failed: int = 0
    lost: int = 0
    waited: int = 0


class _Kept:
    """One extent of the file."""

    __slots__ = ("_free", "_shelf", "offset", "size")

    def __init__(self, shelf: "Shelf", offset: int, size: int) -> None:
        self._shelf = shelf
        self._free = False
        self.offset = offset
        self.size = size

    async def read(self) -> bytes | None:
        return await self._shelf.read(self)

    def free(self) -> None:
        if not self._free:
            self._free = True
            self._shelf.forget(self)


class Shelf:
    """See the module. One a worker; ``folder`` None: nothing goes to disk. ``trouble`` says what is wrong
    with the disk, as far as others know; empty: nothing.
    """

    def __init__(
        self,
        folder: Path | None,
        max_bytes: int = MAX_BYTES,
        *,
        floor_bytes: int = FLOOR_BYTES,
        trouble: Callable[[], str] = str,
    ) -> None:
        self._folder = folder
        self._floor_bytes = floor_bytes
        self._trouble = trouble
        self._file_bytes = 0
        self._extents = Extents(max_bytes)
        self._file = -1
        self._thread = DiskThread("shelf")
        self._on_their_way_bytes = 0
        self.counters = ShelfCounters()

    @property
    def used_bytes(self) -> int:
        """Of the file."""
        return self._extents.used_bytes

    def put(self, request: RequestBody) -> None:
        """Move a request that is whole out of the way. Returns at once."""
        size = request.kept_bytes
        if self._on_their_way_bytes and self._on_their_way_bytes + size > ON_THEIR_WAY_BYTES:
            self.counters.waited += 1
            return
        self._on_their_way_bytes += size
        store = partial(self._store, request.joined(), None if self._trouble() else self._folder)
        moving = asyncio.wrap_future(self._thread.submit(store))
        moving.add_done_callback(partial(self._moved, request, size))

    async def read(self, place: _Kept) -> bytes | None:
        """The request that lies there; None, counted and logged, when it cannot be had."""
        try:
            async with asyncio.timeout(FETCH_S):
                data = await asyncio.wrap_future(self._thread.submit(partial(self._load, place)))
        except (OSError, zstandard.ZstdError) as error:  # a timeout is an OSError too
            self.counters.lost += 1
            _log.error("a request could not be read back: %s: %s", type(error).__name__, error)
            return None
        self.counters.fetched += 1
        return data

    def forget(self, place: _Kept) -> None:
        """Nobody reads it any more."""
        self._thread.submit(partial(self._give, place.offset, place.size))

    def close(self) -> None:
        """Let go of the file; what lies there is gone."""
        self._thread.submit(self._close)
        self._thread.close()

    def _moved(self, request: RequestBody, size: int, moving: "asyncio.Future[_Kept | bytes]") -> None:
        self._on_their_way_bytes -= size
        if moving.cancelled():
            return
        error = moving.exception()
        if error is not None:
            _log.error("a request could not be moved: %s", error, exc_info=error)
            return
        moved = moving.result()
        if isinstance(moved, bytes):
            self.counters.packed += request.packed(moved)
        elif request.shelved(moved):
            self.counters.shelved += 1
        else:
            moved.free()

    # In the thread

    def _store(self, data: bytes, folder: Path | None) -> _Kept | bytes:
        compressed = _COMPRESSOR.compress(data)
        if folder is None:
            return compressed
        offset = self._extents.take(len(compressed))
        if offset is None:
            return compressed
        try:
            if not _has_room(folder, self._floor_bytes + len(compressed)):
                self._give(offset, len(compressed))
                return compressed
            if self._file < 0:
                self._file = _nameless(folder)
            self._file_bytes = max(self._file_bytes, offset + len(compressed))
            _write(self._file, compressed, offset)
        except OSError as error:
            self._give(offset, len(compressed))
            self.counters.failed += 1
            _log.error("a request could not be put on disk: %s", error)
            return compressed
        return _Kept(self, offset, len(compressed))

    def _give(self, offset: int, size: int) -> None:
        """Give back room in the file, and to the disk what is behind all that is in use."""
        self._extents.give(offset, size)
        if self._file >= 0 and self._extents.end < self._file_bytes:
            self._file_bytes = self._extents.end
            with suppress(OSError):  # it is tried again with the next
                os.ftruncate(self._file, self._file_bytes)

    def _load(self, place: _Kept) -> bytes:
        return zstandard.decompress(os.pread(self._file, place.size, place.offset))

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


async def fetch(request: RequestBody) -> bool:
    """Have the request in memory. False: it cannot be had."""
    place = request.place
    if place is None or request.in_memory:
        return True
    data = await place.read()
    if data is None:
        return False
    if request.place is place:  # nobody dropped it meanwhile
        request.fetched(data)
    return True


def _nameless(folder: Path) -> int:
    """A file that nobody else can open. Raises OSError."""
    try:
        # O_EXCL: nobody, we neither, can give it a name later (open(2)).
        return os.open(folder, os.O_TMPFILE | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:  # a file system that has no such files
        file, name = tempfile.mkstemp(dir=folder)
        Path(name).unlink()
        return file


def _has_room(folder: Path, size: int) -> bool:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize >= size


def _write(file: int, data: bytes, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, offset)
        rest, offset = rest[written:], offset + written
