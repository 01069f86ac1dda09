"""Files that are whole or not there at all, readable by their owner alone."""

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from hashlib import file_digest
from pathlib import Path
from typing import BinaryIO, Final

_MODE: Final = 0o600
_PARTIAL: Final = ".partial"
_TAKEN: Final = "somebody is writing it, or was killed while writing: remove it if nobody is"
_CHECKSUM: Final = ".sha256"


@contextmanager
def whole(target: Path) -> Generator[Path]:
    """The path to write to; at the end it is flushed to disk and becomes ``target``, or it is removed.

    A link is followed; what is no file (a device, a pipe) is written to as it is, never replaced.
    Raises OSError, of which FileExistsError when somebody else is writing there.
    """
    target = target.resolve()
    if target.exists() and not target.is_file():
        yield target
        return
    partial = target.with_name(target.name + _PARTIAL)
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE))
    except FileExistsError as error:
        raise FileExistsError(error.errno, _TAKEN, str(partial)) from error
    try:
        yield partial
        flush(partial)
        partial.replace(target)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    flush(target.parent)


def flush(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to its disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def create_private(path: Path) -> BinaryIO:
    """A new file to write into. Raises FileExistsError."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE), "wb")


def checksum_path(target: Path) -> Path:
    """Where the checksum of ``target`` is kept."""
    return target.with_name(target.name + _CHECKSUM)


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def write_checksum(target: Path, of: str) -> None:
    """Keep a digest beside its file, as ``sha256sum --check`` reads it."""
    with whole(checksum_path(target)) as partial:
        partial.write_text(f"{of}  {target.name}\n", encoding="utf-8")


def read_checksum(target: Path) -> str | None:
    """The digest kept beside a file; None when there is none. Empty when it cannot be read as one."""
    try:
        text = checksum_path(target).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    word = text.split(maxsplit=1)[0] if text.strip() else ""
    return word if len(word) == 64 and set(word) <= set("0123456789abcdef") else ""  # noqa: PLR2004 -- hex digits
