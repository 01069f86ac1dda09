"""A circuit breaker: stop asking a service that fails, look again one request at a time.

    closed ──failures in a row reach the threshold, or a trip──► open(until)
    open(until) ──the time has come, one request is begun──► half_open
    half_open ──the request succeeds──► closed
    half_open ──it fails──► open(until), for longer

Results of requests that were begun before it opened are still evidence: a success
closes it, a failure while open changes nothing. The same turn failing again and again
counts once: one turn that breaks ingest must not close the road to the others.

One breaker guards an endpoint and one each tenant at an endpoint. Pure: time is
monotonic seconds and arrives as an argument, as does randomness.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum, unique

from ingest_client.delivery.backoff import Backoff


@unique
class BreakerState(StrEnum):
    """Whether requests may pass."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(slots=True)
class Breaker:
    """Counts failures in a row and closes the road when there are too many."""

    threshold: int
    backoff: Backoff
    state: BreakerState = BreakerState.CLOSED
    blamed: set[int] = field(default_factory=set[int])
    """What failed in a row, while closed: one number for each turn that did."""
    trips: int = field(default=0)
    """In a row, without a success between them: the exponent of the backoff."""
    until_s: float = field(default=0.0)
    not_before_s: float = field(default=0.0)
    """What was asked for (``Retry-After``, a hold): no sign of life shortens it."""

    def allows(self, now_s: float) -> bool:
        """Whether a request may begin now."""
        match self.state:
            case BreakerState.CLOSED:
                return True
            case BreakerState.OPEN:
                return now_s >= self.until_s
            case BreakerState.HALF_OPEN:
                return False

    @property
    def probing(self) -> bool:
        """Whether the next request, or the one under way, is the one that decides."""
        return self.state is not BreakerState.CLOSED

    def begin(self, now_s: float) -> None:
        """A request begins (only when :meth:`allows` said so)."""
        if self.state is BreakerState.OPEN and now_s >= self.until_s:
            self.state = BreakerState.HALF_OPEN

    def succeed(self) -> None:
        """A request got an answer that proves the road."""
        self.state = BreakerState.CLOSED
        self.blamed.clear()
        self.trips = 0

    def fail(self, now_s: float, random: Callable[[], float], turn: int | None) -> bool:
        """A request failed; ``turn`` (not negative) may be why, None when no turn can be.

        Says whether this opened the breaker.
        """
        if self.state is BreakerState.CLOSED:
            self.blamed.add(-1 - len(self.blamed) if turn is None else turn)
        if self.state is BreakerState.HALF_OPEN or len(self.blamed) >= self.threshold:
            return self.trip(now_s, random)
        return False

    def trip(self, now_s: float, random: Callable[[], float], at_least_s: float = 0.0) -> bool:
        """Open now, for a drawn delay or ``at_least_s``, whichever is longer. Says whether it was not open.

        The draw is from the upper half of the backoff's range: a breaker that draws zero
        would not have opened.
        """
        self.not_before_s = max(self.not_before_s, now_s + at_least_s)
        if self.state is BreakerState.OPEN:
            self.until_s = max(self.until_s, self.not_before_s)
            return False
        self.trips += 1
        drawn_s = self.backoff.bound_s(self.trips) * (0.5 + random() / 2)
        self.state = BreakerState.OPEN
        self.until_s = max(now_s + drawn_s, self.not_before_s)
        return True

    def abandon(self, now_s: float) -> None:
        """The request that was to decide ended without a result: the next one decides."""
        if self.state is BreakerState.HALF_OPEN:
            self.state = BreakerState.OPEN
            self.until_s = now_s

    def hasten(self, now_s: float) -> None:
        """There is a sign of life: the deciding request may begin now."""
        self.until_s = min(self.until_s, max(now_s, self.not_before_s))
