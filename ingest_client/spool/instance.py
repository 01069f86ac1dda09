"""The folders of a spool: which one is ours, whose processes have died, and where files are set aside.

    <root>/<instance>/{lock, spool.db, reserve, control.sock, adopted/, damaged/}

A lock (flock) lives as long as its process. Who holds an instance's lock owns everything
below its folder, so adoption is one rename into ours.
"""

import contextlib
import errno
import fcntl
import os
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ingest_client.spool.schema import SpoolRefused

NETWORK_FILE_SYSTEMS: Final = frozenset(
    (
        *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs2", "glusterfs", "gpfs", "lustre"),
        *("ncpfs", "nfs", "nfs3", "nfs4", "ocfs2", "orangefs", "pvfs2", "smb2", "smb3", "smbfs"),
        *("fuse.ceph", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"),
    )
)
"""Where locks and fsync mean less than the spool needs."""

_MOUNT_POINT: Final = 4
"""Of a line of mountinfo (proc(5)); the type is the first field after `` - ``."""


@dataclass(slots=True)
class Lock:
    """A held flock on an instance's folder."""

    folder: Path
    _descriptor: int = field(repr=False)

    def release(self) -> None:
        """Let others have it."""
        os.close(self._descriptor)


def try_lock(folder: Path) -> Lock | None:
    """Take the lock of an instance, or None while a process lives that holds it.

    Raises OSError when the folder cannot be used at all.
    """
    path = folder / "lock"
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None  # the folder has just been adopted
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(path.stat(), os.fstat(descriptor)):
            return Lock(folder, descriptor)
    except FileNotFoundError:
        pass  # removed or renamed between open and lock: it is somebody else's now
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            os.close(descriptor)
            raise
    os.close(descriptor)
    return None


def instances(root: Path) -> list[Path]:
    """The instance folders under a root, largest database first."""
    if not root.is_dir():
        return []
    folders = [path for path in root.iterdir() if _named_as_one(path.name) and (path / "lock").exists()]
    return sorted(folders, key=lambda path: (-_size(path / "spool.db"), path.name))


def take(root: Path, new_name: str) -> Lock:
    """Take over the largest orphan as our own, or make a new instance.

    Raises :class:`SpoolRefused` for a network file system, OSError for a disk that cannot.
    """
    make_private(root)
    refuse_network(root)
    for folder in instances(root):
        lock = try_lock(folder)
        if lock is not None:
            return lock
    return _made(root, new_name)


def _made(root: Path, name: str) -> Lock:
    """A new instance. It gets its name once it is locked: before, whoever looks for orphans would take it."""
    nameless = root / f"new-{name}"
    make_private(nameless)
    lock = try_lock(nameless)
    if lock is None:
        raise SpoolRefused(f"{nameless} is in use, and the name should be new: start again")
    lock.folder = nameless.rename(root / name)
    sync_folder(root)
    return lock


def adopt(ours: Path, orphan: Lock) -> Path:
    """Move an orphan whose lock we hold below our own folder; returns its new place."""
    shelf = ours / "adopted"
    make_private(shelf)
    place = shelf / orphan.folder.name
    orphan.folder.rename(place)
    sync_folder(shelf)
    sync_folder(orphan.folder.parent)
    return place


def move_shelves(adopted: Path, ours: Path) -> None:
    """What an adopted instance had itself adopted or set aside becomes ours as well."""
    for shelf in ("adopted", "damaged"):
        if (adopted / shelf).is_dir():
            make_private(ours / shelf)
            for folder in (adopted / shelf).iterdir():
                folder.rename(_free(ours / shelf / folder.name, adopted.name))
            (adopted / shelf).rmdir()


def _free(place: Path, instance: str) -> Path:
    """The place, or, where earlier releases gave it to two instances, one that names the instance too."""
    return place.with_name(f"{place.name}-{instance}") if place.exists() else place


def set_files_aside(folder: Path, why: str) -> Path:
    """Move a damaged database below ``damaged/``; returns its new folder.

    The name has the time, and the instance: the folder moves to whoever adopts it, one power cut
    damages many in the same second, and ``absorbed`` knows them by name.
    """
    shelf = folder / "damaged"
    make_private(shelf)
    name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{why}-{folder.resolve().name}"
    place = shelf / name
    number = 1
    while place.exists():
        number += 1
        place = shelf / f"{name}-{number}"
    make_private(place)
    _move_both(folder, place)
    sync_folder(shelf)
    return place


def _move_both(folder: Path, place: Path) -> None:
    """Move database and log so that a crash on the way leaves them together in one of the two places."""
    names = [name for name in ("spool.db", "spool.db-wal") if (folder / name).exists()]
    for name in names:
        (place / name).hardlink_to(folder / name)
    sync_folder(place)
    for name in names:
        (folder / name).unlink()
    sync_folder(folder)


def make_private(folder: Path) -> None:
    """Create a folder for us alone; one that exists is closed to others."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)


def make_private_file(path: Path) -> None:
    """Create the file for us alone before somebody writes to it: SQLite, for one, then keeps its mode."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def write_private_file(path: Path, content: bytes) -> None:
    """Write a file for us alone: all of it, or nothing, and then what was there stays. Raises OSError."""
    part = path.with_name(f"{path.name}.part")
    try:
        make_private_file(part)
        part.write_bytes(content)
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_network(folder: Path, mountinfo: str | None = None) -> None:
    """Raise :class:`SpoolRefused` where the folder lies on a network file system.

    ``mountinfo`` is the text of /proc/self/mountinfo (read if not given; no check where there is none).
    """
    if mountinfo is None:
        try:
            mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return
    kind = _file_system(str(folder.resolve()), mountinfo)
    if kind in NETWORK_FILE_SYSTEMS:
        raise SpoolRefused(
            f"{folder} is on a network file system ({kind}), where locks and fsync cannot be trusted: "
            "give the data directory a local disk or a block volume"
        )


def _file_system(path: str, mountinfo: str) -> str:
    best, kind = "", ""
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split(" ")
        if not dash or len(fields) <= _MOUNT_POINT:
            continue
        point = fields[_MOUNT_POINT].encode().decode("unicode_escape")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, after.split(" ", 1)[0]
    return kind


def _named_as_one(name: str) -> bool:
    """Other folders in a data directory are not ours to take, whatever lies in them."""
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
