"""The balance: every exchange observed has exactly one place at any time.

    observed = open + spooled + delivered + dead_lettered + quarantined + lost + excluded

``Ledger`` is the count that metrics and pages read. With a durable spool its numbers
continue over restarts: the spool loads them when it opens, takes over what was counted outside
it (:meth:`Ledger.take_unsaved`), and reports what it moved itself (:meth:`Ledger.settle`).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from capture.outcomes import Outcome, State


@dataclass(slots=True)
class Ledger:
    """Counts of one process, earlier generations included. Not thread-safe: one owner counts.

    What is open is counted by who has it (:meth:`observe`, :meth:`end`, :meth:`miss`, :meth:`restate`), what
    is kept by the sink that keeps it (:meth:`settle`).
    """

    observed: int = 0
    open: int = 0
    spooled: int = 0
    delivered: int = 0
    ended: Counter[Outcome] = field(default_factory=Counter[Outcome])
    _unsaved: Counter[str] = field(default_factory=Counter[str], repr=False, compare=False)

    def observe(self) -> None:
        """An exchange began."""
        self.observed += 1
        self.open += 1
        self._unsaved["observed"] += 1

    def end(self, outcome: Outcome) -> None:
        """An open exchange ended without a turn to deliver (excluded, lost or quarantined)."""
        self.open -= 1
        self.ended[outcome] += 1
        self._unsaved[outcome.value] += 1

    def miss(self, count: int) -> None:
        """So many exchanges were never seen here: Envoy's access log told of them."""
        self.observed += count
        self.ended[Outcome.NOT_SEEN] += count
        self._unsaved["observed"] += count
        self._unsaved[Outcome.NOT_SEEN.value] += count

    def restate(self, was: Outcome, now: Outcome, count: int) -> None:
        """So many exchanges that are counted as ended with ``was`` ended with ``now`` in truth."""
        for outcome, change in ((was, -count), (now, count)):
            self.ended[outcome] += change
            self._unsaved[outcome.value] += change

    def discard(self) -> int:
        """The process stops, and kept in memory alone what it could not deliver: what is open or spooled is
        ``lost(volume_discarded)``. Returns how many.
        """
        lost = self.open + self.spooled
        self.open = self.spooled = 0
        self.ended[Outcome.VOLUME_DISCARDED] += lost
        return lost

    def take_unsaved(self) -> Mapping[str, int]:
        """What was counted by :meth:`observe` and :meth:`end` since the last call: term to number."""
        unsaved, self._unsaved = self._unsaved, Counter()
        return unsaved

    @property
    def unsaved(self) -> bool:
        """Whether :meth:`take_unsaved` would give anything."""
        return bool(self._unsaved)

    def settle(self, moved: Mapping[str, int]) -> None:
        """Take over what a durable sink has committed: term (``observed``, ``spooled``, ``delivered`` or an
        outcome's name) to change. ``open`` changes by what the others leave.
        """
        for term, n in moved.items():
            match term:
                case "observed":
                    self.observed += n
                    self.open += n
                    continue
                case "spooled":
                    self.spooled += n
                case "delivered":
                    self.delivered += n
                case _:
                    self.ended[Outcome(term)] += n
            self.open -= n

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
