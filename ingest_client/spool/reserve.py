"""A file that holds space back, so that a full disk can still take acknowledgements."""

import contextlib
import os
from pathlib import Path


class Reserve:
    """Space set aside on the spool's disk. ``held`` tells whether it is."""

    def __init__(self, path: Path, size: int) -> None:
        """Name the file; nothing is written yet."""
        self._path = path
        self._size = size
        self.held = False

    def hold(self) -> bool:
        """Occupy the space, if there is twice as much free. False: not now."""
        if self.held or not self._size:
            return True
        try:
            free = os.statvfs(self._path.parent)
            if free.f_bavail * free.f_frsize < 2 * self._size:
                return False
            descriptor = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._size)
            finally:
                os.close(descriptor)
        except OSError:
            self.release()
            return False
        self.held = True
        return True

    def release(self) -> None:
        """Give the space back to the disk."""
        self.held = False
        with contextlib.suppress(OSError):
            self._path.unlink()
