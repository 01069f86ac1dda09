"""How long to wait: exponential backoff with full jitter, and ``Retry-After``.

Full jitter (a uniform draw between zero and the exponential bound) spreads the clients
of a recovering service widest. Randomness and time arrive as arguments.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

_SECONDS: Final = re.compile(r"[0-9]+")
_MAX_DOUBLINGS: Final = 62  # beyond this every bound exceeds any sensible cap


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays that double from ``base_s`` to at most ``cap_s``, drawn with full jitter."""

    base_s: float
    cap_s: float

    def bound_s(self, failures: int) -> float:
        """The longest wait after this many failures in a row (at least one)."""
        return min(self.cap_s, self.base_s * 2.0 ** min(max(failures, 1) - 1, _MAX_DOUBLINGS))

    def delay_s(self, failures: int, random: Callable[[], float]) -> float:
        """A wait between zero and the bound; ``random`` draws from [0, 1)."""
        return self.bound_s(failures) * random()


def retry_after_s(value: str | None, now_ns: int, cap_s: float) -> float | None:
    """The wait that a ``Retry-After`` field asks for (RFC 9110 §10.2.3), in [0, ``cap_s``].

    Seconds or an HTTP date, compared with the wall clock ``now_ns``. None where the
    field is absent or unreadable: a field that nobody can read asks for nothing.
    """
    text = (value or "").strip()
    if _SECONDS.fullmatch(text):
        # A number of any length must not cost time: more than ten digits is beyond any cap.
        return cap_s if len(text) > 10 else min(float(text), cap_s)  # noqa: PLR2004
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    try:
        wait_s = date.timestamp() - now_ns / 1e9
    except (OverflowError, ValueError):
        return None
    return min(max(wait_s, 0.0), cap_s)
