"""Times as RFC 3339 writes them, read strictly and written in UTC. Pure."""

import re
from datetime import UTC, datetime
from typing import Final

_DATE: Final = r"\d{4}-\d\d-\d\d"
_MOMENT: Final = re.compile(_DATE + r"T\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)
_DAY: Final = re.compile(_DATE, re.ASCII)


class TimeError(ValueError):
    """That is no time, or none that can be said in UTC (its year is beyond 1 to 9999)."""


def moment_of(text: str) -> datetime:
    """A time with its zone, in UTC, to the microsecond. Raises :class:`TimeError`.

    Python's own reader takes all that ISO 8601 has: weeks, bare hours, times of no zone.
    """
    if not _MOMENT.fullmatch(text):
        raise TimeError("it is not written as RFC 3339 has it")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise TimeError(str(error)) from error


def day_of(text: str) -> datetime:
    """The first moment of a day. Raises :class:`TimeError`."""
    if not _DAY.fullmatch(text):
        raise TimeError("it is no date")
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError as error:
        raise TimeError(str(error)) from error


def rfc3339(moment: datetime) -> str:
    """The time in UTC, without trailing zeros, its year in four digits, unlike ``strftime`` has it."""
    text = moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return text.rstrip("0").rstrip(".") + "Z"
