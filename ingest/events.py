"""Events: what happened, without bodies, to whoever listens.

The hub is the seam behind every commit of derived turns and every deletion: the event
stream reads it, and so may search, publishing and pages. A listener has a bounded queue;
one that does not keep up is told that it missed something (``gap``), never waited for. So is
everybody when the channel between instances was away.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from ingest.store.rows import Event

QUEUE: Final = 1000
"""Events that wait for one listener."""
GAP: Final = "gap"


class Listener:
    """One listener's queue, for one tenant."""

    def __init__(self, tenant: str) -> None:
        self._tenant = tenant
        self._queue: asyncio.Queue[Event] = asyncio.Queue(QUEUE)
        self._missed = 0

    def offer(self, events: Iterable[Event]) -> None:
        """Queue the events of the listener's tenant, or count them as missed."""
        for event in events:
            if event.tenant != self._tenant:
                continue
            if self._queue.full():
                self._missed += 1
            else:
                self._queue.put_nowait(event)

    def interrupted(self) -> None:
        """Queue a ``gap``: nobody knows how many events came and went unheard."""
        self.offer((Event(kind=GAP, tenant=self._tenant),))

    async def next(self) -> Event:
        """The next event; after missed ones a ``gap`` whose ``turns`` is how many."""
        if self._missed and self._queue.empty():
            missed, self._missed = self._missed, 0
            return Event(kind=GAP, tenant=self._tenant, turns=missed)
        return await self._queue.get()


class Hub:
    """Everybody who listens. Used from the event loop only."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self.closed = asyncio.Event()

    def publish(self, events: Sequence[Event]) -> None:
        """Tell everybody; never waits."""
        for listener in self._listeners:
            listener.offer(events)

    def interrupted(self) -> None:
        """Tell everybody that events may have come which nobody here heard of."""
        for listener in self._listeners:
            listener.interrupted()

    @asynccontextmanager
    async def listen(self, tenant: str) -> AsyncGenerator[Listener]:
        """Listen to the events of one tenant from now on."""
        listener = Listener(tenant)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    @property
    def listening(self) -> int:
        """How many listen."""
        return len(self._listeners)
