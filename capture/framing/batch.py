"""What every framing hands to a dialect: the events of one batch, as parallel lists.

Two plain lists instead of a list of event objects: at a few hundred nanoseconds
an event, constructing one object each is a third of the cost of reduction.
"""

from typing import NamedTuple, Protocol

from capture.turn import Damage


class Batch(NamedTuple):
    """Events in order: ``names[i]`` (empty when the framing gave none) and ``datas[i]``."""

    names: list[bytes]
    datas: list[bytes]


class Framer(Protocol):
    """Cuts a byte stream into events. Any chunking gives the same events."""

    def feed(self, data: bytes) -> Batch:
        """Take the next bytes; return the events they completed."""
        ...

    def finish(self) -> Batch:
        """The body has ended: return what a missing terminator was still holding."""
        ...

    @property
    def damage(self) -> dict[Damage, int]:
        """What went wrong so far, with how often."""
        ...

    @property
    def stopped(self) -> bool:
        """True once damage made the rest unreadable: later bytes give no events."""
        ...
