"""Disks that fail on request: one that refuses, tears and fills, one that forgets what was not synced.

Both are SQLite VFSs written in Python, so the faults come from below SQLite, where real ones do. Methods
have SQLite's names.
"""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import apsw

from ingest_client.spool.reserve import Reserve

_NAMES = itertools.count(1)
SECTOR = 512


class PowerCut(apsw.IOError):
    """The machine is off: nothing more reaches the disk."""


# A disk that refuses


@dataclass
class Faults:
    """What is to fail: ``kind`` (enospc, eio, short, readonly), from the ``nth`` operation of a sort on.

    ``sort`` is like ``wal write`` or ``db sync``; ``any write`` counts both files. Fails until :meth:`clear`.
    """

    kind: str = ""
    sort: str = ""
    nth: int = 1
    active: bool = False
    hits: int = 0
    seen: int = 0

    def plan(self, kind: str, sort: str, nth: int) -> None:
        self.kind, self.sort, self.nth = kind, sort, nth
        self.seen = 0

    def clear(self) -> None:
        self.kind, self.active = "", False

    def meet(self, file: str, operation: str) -> bool:
        """Whether this operation must fail."""
        if not self.kind:
            return False
        if not self.active and self.sort in (f"{file} {operation}", f"any {operation}"):
            self.seen += 1
            self.active = self.seen >= self.nth
        fails = self.active and operation in ("write", "sync", "truncate")
        self.hits += fails
        return fails

    def error(self) -> Exception:
        match self.kind:
            case "enospc":
                return apsw.FullError("no space left (injected)")
            case "readonly":
                return apsw.ReadOnlyError("read-only (injected)")
            case _:
                return apsw.IOError("input/output error (injected)")


class _FaultyFile(apsw.VFSFile):
    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int], faults: Faults) -> None:
        super().__init__("", name, flags)
        self._faults = faults
        self._kind = "wal" if flags[0] & apsw.SQLITE_OPEN_WAL else "db"

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        if self._faults.meet(self._kind, "write"):
            if self._faults.kind == "short":
                self._really_write(bytes(data[: len(data) // 2]), offset)
            raise self._faults.error()
        self._really_write(data, offset)

    def _really_write(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)  # pyright: ignore[reportUnknownMemberType] - its Buffer is of Python 3.12

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self._faults.meet(self._kind, "sync"):
            raise self._faults.error()
        super().xSync(flags)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        if self._faults.meet(self._kind, "truncate"):
            raise self._faults.error()
        super().xTruncate(newsize)


class FaultyVfs(apsw.VFS):
    """The real disk, with :class:`Faults` in front."""

    def __init__(self, faults: Faults) -> None:
        self.name = f"faulty-{next(_NAMES)}"
        self._faults = faults
        super().__init__(self.name, base="")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return _FaultyFile(name, flags, self._faults)


class ReserveOn(Reserve):
    """A reserve that cannot be held while the disk is full, and whose space is what deletions may use."""

    def __init__(self, path: Path, faults: Faults) -> None:
        super().__init__(path, 1 << 16)
        self._faults = faults

    def hold(self) -> bool:
        return self._faults.kind != "enospc" and super().hold()


# A disk that forgets


@dataclass
class _Stored:
    """A file: what is safe, what is there now, and the writes between the two."""

    safe: bytearray = field(default_factory=bytearray)
    live: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes] | int] = field(default_factory=list[tuple[int, bytes] | int])

    def write(self, offset: int, data: bytes) -> None:
        _put(self.live, offset, data)
        self.pending.append((offset, data))

    def truncate(self, size: int) -> None:
        del self.live[size:]
        self.pending.append(size)

    def sync(self) -> None:
        for change in self.pending:
            _change(self.safe, change)
        self.pending.clear()

    def after_power_cut(self, chooser: random.Random) -> "_Stored":
        """What is safe, and of the rest whichever sectors happened to be written."""
        content = bytearray(self.safe)
        keep = chooser.choice([0.0, 0.5, 0.9, 1.0])
        for change in self.pending:
            if isinstance(change, int):
                if chooser.random() < keep:
                    del content[change:]
                continue
            offset, data = change
            for at in range(0, len(data), SECTOR):
                if chooser.random() < keep:
                    _put(content, offset + at, data[at : at + SECTOR])
        return _Stored(bytearray(content), content)


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _change(content: bytearray, change: tuple[int, bytes] | int) -> None:
    if isinstance(change, int):
        del content[change:]
    else:
        _put(content, *change)


class _MemoryFile:
    """An open file of a :class:`ForgetfulDisk`; apsw calls these by SQLite's names."""

    def __init__(self, disk: "ForgetfulDisk", stored: _Stored) -> None:
        self._disk = disk
        self._stored = stored

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        return bytes(self._stored.live[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._disk.spend(lambda: self._stored.write(offset, bytes(data[: len(data) // 2])))
        self._stored.write(offset, bytes(data))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._disk.spend()
        self._stored.truncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.spend()
        self._stored.sync()

    def xFileSize(self) -> int:  # noqa: N802
        return len(self._stored.live)

    def xLock(self, level: int) -> None:  # noqa: N802
        pass

    def xUnlock(self, level: int) -> None:  # noqa: N802
        pass

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False

    def xFileControl(self, op: int, pointer: int) -> bool:  # noqa: N802
        return False

    def xSectorSize(self) -> int:  # noqa: N802
        return SECTOR

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return 0

    def xClose(self) -> None:  # noqa: N802
        pass


class ForgetfulDisk(apsw.VFS):
    """Files in memory. :meth:`power_cut` gives the disk as the next boot finds it, :meth:`crash` as the next
    process does. ``cut_after``: so many more changes are made, then the power goes in the midst of one.
    """

    def __init__(self, files: dict[str, _Stored] | None = None) -> None:
        self.name = f"forgetful-{next(_NAMES)}"
        self.files = files if files is not None else {}
        self.cut_after: int | None = None
        self.dead = False
        super().__init__(self.name, base="")

    def spend(self, torn: Callable[[], None] | None = None) -> None:
        """Count a change; raise when the power is gone (``torn`` then does half of it)."""
        if self.dead:
            raise PowerCut("the power is off")
        if self.cut_after is not None:
            self.cut_after -= 1
            if self.cut_after < 0:
                self.dead = True
                if torn is not None:
                    torn()
                raise PowerCut("the power went")

    def power_cut(self, chooser: random.Random) -> "ForgetfulDisk":
        self.unregister()
        return ForgetfulDisk({name: stored.after_power_cut(chooser) for name, stored in self.files.items()})

    def crash(self) -> "ForgetfulDisk":
        self.unregister()
        return ForgetfulDisk(self.files)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        flags[1] = flags[0]
        return cast("apsw.VFSFile", _MemoryFile(self, self.files.setdefault(path, _Stored())))

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        self.spend()
        self.files.pop(filename, None)

    def xAccess(self, pathname: str, flags: int) -> bool:  # noqa: N802
        return pathname in self.files
