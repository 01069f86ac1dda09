"""Reading a damaged database without changing it.

SQLite gets a file that never was: page 1 (header and schema) of a fresh spool, which is
the same in every spool of one version; then for every page its newest image in the
write-ahead log, also behind a bad frame, else that of the database file. Nothing is verified here: what
is read is checked record by record.
"""

import itertools
import os
import struct
from pathlib import Path
from typing import BinaryIO, Final, cast

import apsw

from ingest_client.spool import sql, wal
from ingest_client.spool.schema import PAGE_SIZE, create, shape

PAGE: Final = PAGE_SIZE
_NAMES: Final = itertools.count(1)


def template_page() -> bytes:
    """Page 1 of a fresh spool, as a file without a log, its list of free pages empty."""
    connection = sql.connect(":memory:")
    shape(connection)
    create(connection)
    page = bytearray(connection.serialize("main")[:PAGE])
    connection.close()
    page[18:20] = b"\x01\x01"
    struct.pack_into(">II", page, 32, 0, 0)
    return bytes(page)


class _File:
    """The file that never was; apsw calls these methods by SQLite's names."""

    def __init__(self, database: BinaryIO, log: BinaryIO | None) -> None:
        self._database = database
        self._log = log
        self._pages = -(-os.fstat(database.fileno()).st_size // PAGE)
        self._newest: dict[int, int] = {}
        if log is not None:
            self._lay_over(log)
        first = bytearray(template_page())
        struct.pack_into(">I", first, 28, self._pages)
        first[92:96] = first[24:28]
        self._first = bytes(first)

    def _lay_over(self, log: BinaryIO) -> None:
        """Find the newest image of each page among the frames of the log's current round."""
        found = list(wal.frames(log, PAGE))
        known = wal.header(log)
        salts = known[1] if known else _commonest([frame.salts for frame in found])
        current = [frame for frame in found if frame.salts == salts]
        while current and not current[-1].commit_size:
            current.pop()
        for frame in current:
            self._newest[frame.page_number] = frame.offset
        if current:
            self._pages = max(self._pages, min(current[-1].commit_size, self._pages + len(current)))

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802 - apsw's name
        number, start = divmod(offset, PAGE)
        return self._page(number + 1)[start : start + amount]

    def _page(self, number: int) -> bytes:
        if number == 1:
            return self._first
        at = self._newest.get(number)
        if at is not None and self._log is not None:
            self._log.seek(at)
            page = self._log.read(PAGE)
        else:
            self._database.seek((number - 1) * PAGE)
            page = self._database.read(PAGE)
        return page.ljust(PAGE, b"\0")

    def xFileSize(self) -> int:  # noqa: N802
        return self._pages * PAGE

    def xLock(self, _level: int) -> None:  # noqa: N802
        pass

    def xUnlock(self, _level: int) -> None:  # noqa: N802
        pass

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False

    def xFileControl(self, _op: int, _pointer: int) -> bool:  # noqa: N802
        return False

    def xSectorSize(self) -> int:  # noqa: N802
        return PAGE

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return 0

    def xWrite(self, _data: bytes, _offset: int) -> None:  # noqa: N802
        raise apsw.ReadOnlyError("salvage only reads")

    def xTruncate(self, _size: int) -> None:  # noqa: N802
        raise apsw.ReadOnlyError("salvage only reads")

    def xSync(self, _flags: int) -> None:  # noqa: N802
        pass

    def xClose(self) -> None:  # noqa: N802
        self._database.close()
        if self._log is not None:
            self._log.close()


class _Vfs(apsw.VFS):
    """Knows one file."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name, base="")
        self._folder = folder

    def xOpen(self, name: object, flags: list[int]) -> apsw.VFSFile:  # noqa: ARG002, N802
        database = (self._folder / "spool.db").open("rb")
        log = self._folder / "spool.db-wal"
        flags[1] = flags[0]
        return cast("apsw.VFSFile", _File(database, log.open("rb") if log.exists() else None))

    def xAccess(self, pathname: str, flags: int) -> bool:  # noqa: ARG002, N802
        return False


class Overlay:
    """A read-only connection to damaged files, and the VFS that it needs."""

    def __init__(self, folder: Path) -> None:
        """Open ``spool.db`` (and its log) in ``folder``. Raises OSError."""
        name = f"steno-overlay-{next(_NAMES)}"
        self._vfs = _Vfs(name, folder)
        self.connection = sql.connect(str(folder / "spool.db"), vfs=name, flags=apsw.SQLITE_OPEN_READONLY)
        self.connection.pragma("cell_size_check", 1)

    def close(self) -> None:
        """Close the files."""
        self.connection.close(force=True)
        self._vfs.unregister()


def _commonest(salts: list[tuple[int, int]]) -> tuple[int, int]:
    return max(set(salts), key=salts.count) if salts else (0, 0)
