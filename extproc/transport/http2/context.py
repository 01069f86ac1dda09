"""What all connections of one server share: methods, budgets, and the count of those that were ended."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from extproc.logs import Seldom
from extproc.transport.base import TransportCounters
from extproc.transport.http2.calls import MakeCall
from extproc.transport.http2.limits import Limits
from extproc.transport.http2.memory import Memory
from extproc.transport.reasons import Reason

if TYPE_CHECKING:
    from extproc.transport.http2.protocol import ServerProtocol

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Context:
    """Belongs to one server. ``rest_s``: how long reading rests; 0 never. ``clock``: monotonic seconds."""

    methods: Mapping[str, MakeCall]
    limits: Limits
    memory: Memory
    counters: TransportCounters
    rest_s: float
    clock: Callable[[], float] = time.monotonic
    connections: "set[ServerProtocol]" = field(default_factory=set)
    _seldom: Seldom = field(init=False)

    def __post_init__(self) -> None:
        """Log by the same clock."""
        self._seldom = Seldom(self.clock)

    def broken(self, reason: Reason) -> None:
        """Count a connection that we ended; log it, unless the same was logged a moment ago."""
        self.counters.broken_connections[reason] += 1
        if self._seldom.due(reason):
            _log.warning(
                "a connection was ended",
                extra={"reason": reason.value, "so_far": self.counters.broken_connections[reason]},
            )
