"""What a command may fail with."""

import errno
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final


class CommandError(Exception):
    """A command cannot do what it was asked; ``exit_code`` says of which kind that is."""

    exit_code = 1


_NEXT: Final = {
    errno.EACCES: "run the command as the user that the sidecar runs as",
    errno.EPERM: "run the command as the user that the sidecar runs as",
    errno.ENOENT: "look at how it is written, or make it",
    errno.ENOTDIR: "look at how it is written: something on the way is no folder",
    errno.EISDIR: "it is a folder: name a file",
    errno.EROFS: "mount it writable",
    errno.ENOSPC: "make room there, and run the command again",
    errno.EDQUOT: "make room there, and run the command again",
    errno.EIO: "the disk fails: see the kernel's log",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
}
"""What to do about an error of the system."""

_ELSE: Final = "see to that, and run the command again"


def explained(error: OSError) -> str:
    """An error of the system in one line: what it met, what is wrong, and what to do next."""
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    why = (error.strerror or str(error) or type(error).__name__).splitlines()[0]
    return f"{where}{why}: {_NEXT.get(error.errno or 0, _ELSE)}"


@contextmanager
def system_errors_explained() -> Generator[None]:
    """Make a :class:`CommandError` of what the system refuses inside, standard output included."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError as error:  # the reader, as `head`, has seen enough
        _give_output_up()
        raise CommandError("nobody reads the output any more: not all of it was written") from error
    except OSError as error:
        _give_output_up()
        raise CommandError(explained(error)) from error


def _give_output_up() -> None:
    """What standard output does not take would be tried again, and complained of, when the program ends."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def not_installed(command: str, error: ModuleNotFoundError) -> CommandError:
    """What to say where a command cannot import what it needs: the extra that brings it."""
    return CommandError(
        f"`steno {command}` needs {error.name}, which is not installed: pip install 'steno[demo]' brings all"
        " that any command needs, 'steno[ingest]' what the ingest service needs"
    )
