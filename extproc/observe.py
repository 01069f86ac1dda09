"""What the metrics are told: one call for each ending, with what was captured."""

from typing import Protocol

from capture.outcomes import Outcome
from extproc.captured import Captured
from ingest_client.sink import Record


class Observer(Protocol):
    """Hears of every exchange's ending."""

    def kept(self, captured: Captured, record: Record) -> None:
        """A turn (or a quarantined one) is durable."""
        ...

    def ended(self, captured: Captured, outcome: Outcome) -> None:
        """An exchange ended without one."""
        ...
