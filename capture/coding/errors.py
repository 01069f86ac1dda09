"""Why a content coding could not be undone."""

from enum import StrEnum, unique


@unique
class CodingFailure(StrEnum):
    """The classes of ``behaviour.md`` §3."""

    UNSUPPORTED = "unsupported"
    """The header names a coding we cannot undo, or stacks too many."""
    OVERSIZE = "oversize"
    """A layer gives more than the limit, or is cut into absurdly many members."""
    UNDECODABLE = "undecodable"
    """Corrupt, empty, cut before its first byte of output, or with too large a window."""


class CodingError(Exception):
    """The body cannot be read. ``reason`` is the closed class, the text says more."""

    def __init__(self, reason: CodingFailure, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
