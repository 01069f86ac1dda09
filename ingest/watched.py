"""Files that may change while the service runs: whether they did, since somebody last asked."""

from pathlib import Path
from typing import TypeAlias

_Version: TypeAlias = tuple[int, int, int] | None


class Watched:
    """Knows some files as they were. One that goes away has changed, and so has one that is back."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._seen = [_version(path) for path in paths]

    def changed(self) -> bool:
        """Whether any file is another one than at the last call (or at the start)."""
        now = [_version(path) for path in self._paths]
        before, self._seen = self._seen, now
        return now != before


def _version(path: Path) -> _Version:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
