"""The write-ahead log before and after SQLite reads it.

SQLite stops at the first frame whose checksum fails and forgets what follows. After a
power cut that is right: the tail was never promised. But when whole transactions lie
behind the bad frame, they had been promised, and damage ate them. So the frames are
counted here before SQLite forgets them.

Format: sqlite.org/fileformat2.html §4: a header of 32 bytes (magic, version, page size, sequence,
two salts, two checksums), then frames of 24 bytes and a page (page number, size of
the database after a commit or 0, the salts, two checksums).
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from ingest_client.spool.schema import StructureDamaged
from ingest_client.spool.sql import Connection, whole

_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")
_MAGIC: Final = (0x377F0682, 0x377F0683)
_PAGE_SIZES: Final = frozenset(1 << n for n in range(9, 17))


class Frame(NamedTuple):
    """One frame's header, and where its page begins in the file."""

    number: int
    page_number: int
    commit_size: int
    salts: tuple[int, int]
    offset: int


def frames(file: BinaryIO, page_size: int) -> Iterator[Frame]:
    """Every whole frame of the file, also stale ones of an earlier round."""
    number, offset = 0, _HEADER.size
    while True:
        file.seek(offset)
        head = file.read(_FRAME.size)
        if len(head) < _FRAME.size:
            return
        page_number, commit_size, salt1, salt2, _, _ = _FRAME.unpack(head)
        number += 1
        yield Frame(number, page_number, commit_size, (salt1, salt2), offset + _FRAME.size)
        offset += _FRAME.size + page_size


def header(file: BinaryIO) -> tuple[int, tuple[int, int]] | None:
    """The page size and the salts, or None when the header is not whole."""
    file.seek(0)
    data = file.read(_HEADER.size)
    if len(data) < _HEADER.size:
        return None
    magic, _, page_size, _, salt1, salt2, sum1, sum2 = _HEADER.unpack(data)
    if magic not in _MAGIC or page_size not in _PAGE_SIZES:
        return None
    if _checksum(data[:24], big_endian=bool(magic & 1)) != (sum1, sum2):
        return None
    return page_size, (salt1, salt2)


def _checksum(data: bytes, *, big_endian: bool) -> tuple[int, int]:
    words = struct.unpack(f"{'>' if big_endian else '<'}{len(data) // 4}I", data)
    s0 = s1 = 0
    for i in range(0, len(words), 2):
        s0 = (s0 + words[i] + s1) & 0xFFFFFFFF
        s1 = (s1 + words[i + 1] + s0) & 0xFFFFFFFF
    return s0, s1


def commits_behind(path: Path, read_frames: int) -> int:
    """How many transactions of the current round lie behind the ``read_frames`` that SQLite accepts."""
    with path.open("rb") as file:
        known = header(file)
        if known is None:
            return 0
        page_size, salts = known
        return sum(
            frame.salts == salts and frame.commit_size > 0
            for frame in frames(file, page_size)
            if frame.number > read_frames
        )


def check(connection: Connection, path: Path, vfs: str | None) -> None:
    """Raise :class:`StructureDamaged` when SQLite passes over transactions that are in the log.

    One transaction behind a bad frame is what a power cut may leave of a write that was never
    acknowledged; two are damage, for the second began only after the first was on disk.
    A header that is no header in front of frames is damage as well.
    """
    log = path.with_name(path.name + "-wal")
    if vfs is not None or not log.exists() or log.stat().st_size <= _HEADER.size:
        return
    with log.open("rb") as file:
        readable = header(file) is not None
    if not readable:
        raise StructureDamaged("the header of the write-ahead log is damaged")
    accepted = connection.execute("PRAGMA wal_checkpoint(NOOP)").fetchall()[0][1]
    behind = commits_behind(log, whole(accepted))
    if behind > 1:
        raise StructureDamaged(f"{behind} transactions lie behind a damaged frame of the write-ahead log")
