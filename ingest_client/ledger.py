"""The balance: every exchange observed has exactly one place at any time.

    observed = open + spooled + delivered + dead_lettered + quarantined + lost + excluded

``Ledger`` is plain counting; ``ingest_client.spool`` makes its numbers durable.
"""

from collections import Counter
from dataclasses import dataclass, field

from capture.outcomes import Outcome, State


@dataclass(slots=True)
class Ledger:
    """Counts of one process generation. Not thread-safe: one owner counts."""

    observed: int = 0
    open: int = 0
    spooled: int = 0
    delivered: int = 0
    ended: Counter[Outcome] = field(default_factory=Counter[Outcome])

    def observe(self) -> None:
        """An exchange began."""
        self.observed += 1
        self.open += 1

    def end(self, outcome: Outcome) -> None:
        """An open exchange ended without a turn to deliver (excluded, lost or quarantined)."""
        self.open -= 1
        self.ended[outcome] += 1

    def spool(self) -> None:
        """An open exchange became a turn that is kept."""
        self.open -= 1
        self.spooled += 1

    def deliver(self) -> None:
        """A kept turn was accepted by ingest."""
        self.spooled -= 1
        self.delivered += 1

    def give_up(self, outcome: Outcome) -> None:
        """A kept turn ended otherwise (dead letter, age quota, discarded volume)."""
        self.spooled -= 1
        self.ended[outcome] += 1

    def total(self, state: State) -> int:
        """How many exchanges are in ``state`` now."""
        match state:
            case State.OPEN:
                return self.open
            case State.SPOOLED:
                return self.spooled
            case State.DELIVERED:
                return self.delivered
            case _:
                return sum(n for outcome, n in self.ended.items() if outcome.state is state)

    @property
    def imbalance(self) -> int:
        """Zero, or a bug: observed minus everything that is accounted for."""
        return self.observed - sum(self.total(state) for state in State)
