"""What an error of SQLite or the file system means for the spool."""

import errno
from enum import Enum, unique

import apsw

from ingest_client.spool.schema import StructureDamaged


@unique
class Fault(Enum):
    """The four families of trouble, each with its own answer in the writer."""

    FULL = "disk full"
    DISK = "disk fault"
    DAMAGE = "structure damaged"
    BUG = "internal error"


_FULL = (apsw.FullError,)
_DAMAGE = (
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.ConstraintError,
    apsw.MismatchError,
    UnicodeDecodeError,  # every text we wrote was UTF-8
    StructureDamaged,
)
_DISK = (
    apsw.IOError,
    apsw.ReadOnlyError,
    apsw.CantOpenError,
    apsw.BusyError,
    apsw.LockedError,
    apsw.PermissionsError,
    apsw.AuthError,
    apsw.NoLFSError,
    apsw.NoMemError,
    apsw.ProtocolError,
    apsw.AbortError,
    apsw.InterruptError,
    OSError,
)


def fault_of(error: BaseException) -> Fault:
    """Sort an error. A constraint that fails is damage: our statements cannot violate a sound one."""
    if isinstance(error, _FULL):
        return Fault.FULL
    if isinstance(error, _DAMAGE):
        return Fault.DAMAGE
    if getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHORT_READ:
        return Fault.DAMAGE  # the file ends before a page that it should have
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Fault.FULL
    if isinstance(error, _DISK):
        return Fault.DISK
    return Fault.BUG


def describe(error: BaseException) -> str:
    """One line for a person."""
    return f"{fault_of(error).value}: {type(error).__name__}: {error}"
