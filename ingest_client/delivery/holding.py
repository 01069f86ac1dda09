"""What delivery holds: turns that are claimed and not yet settled, and their bounds.

A held turn is *ready* (waits in its tenant's queue), in flight, or waits to be written
down as settled; it counts until then. The bounds keep one tenant, or one endpoint that
hangs, from filling the memory that the others need. Pure.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from ingest_client.delivery.classify import SUSPICIOUS, Fate, Reason, Verdict
from ingest_client.delivery.fairness import FairQueues
from ingest_client.delivery.settings import DeliverySettings
from ingest_client.spool.api import Claimed

_TENANT_SHARE: Final = 8
"""A tenant that holds this part of all held bytes claims no more."""

_MAX_SUSPECTS: Final = 65_536
"""Beyond so many the list is forgotten, and begun anew."""


class Holding:
    """The turns in our hands."""

    def __init__(self, settings: DeliverySettings) -> None:
        """Nothing is held yet."""
        self.ready: FairQueues[Claimed] = FairQueues(settings.quantum_bytes)
        self.turns = 0
        self.bytes = 0
        self._settings = settings
        self._by_tenant: Counter[str] = Counter()
        self._suspects: Counter[int] = Counter()

    @property
    def room_turns(self) -> int:
        """How many more turns may be claimed."""
        return self._settings.in_flight_turns - self.turns

    @property
    def room_bytes(self) -> int:
        """How many more bytes may be claimed at once."""
        return min(
            self._settings.in_flight_bytes - self.bytes, self._settings.in_flight_bytes // _TENANT_SHARE
        )

    @property
    def per_tenant(self) -> int:
        """How many turns of one tenant are claimed at once: half of what may wait for it."""
        return max(1, self._settings.ready_turns_per_tenant // 2)

    def full(self) -> set[str]:
        """Tenants of whom enough is here."""
        share = self._settings.in_flight_bytes // _TENANT_SHARE
        waiting = {tenant for tenant in self.ready.tenants() if self.ready.length(tenant) >= self.per_tenant}
        return waiting | {tenant for tenant, size in self._by_tenant.items() if size >= share}

    def take_in(self, turns: Iterable[Claimed]) -> None:
        """Turns were claimed: they are ready."""
        for turn in turns:
            size = len(turn.body)
            self.turns += 1
            self.bytes += size
            self._by_tenant[turn.tenant] += size
            self.ready.push(turn.tenant, turn, size)

    def parcel(self, tenant: str, max_turns: int, max_bytes: int) -> list[Claimed]:
        """The tenant's next turns that travel together, at least one."""
        limit = max_turns if self._may_join(self.ready.peek(tenant)) else 1
        return [turn for _, turn in self.ready.take(tenant, limit, max_bytes, self._may_join)]

    def give_back(self, tenant: str) -> list[Claimed]:
        """The tenant's ready turns, which are ready no longer."""
        return [turn for _, turn in self.ready.take_all(tenant)]

    def decided(self, turn: Claimed, verdict: Verdict, *, batched: bool) -> None:
        """An attempt ended. The turn no longer weighs on its tenant; its company is remembered.

        A turn whose batches fail travels alone sooner or later, so that one turn that
        breaks ingest is found and the others arrive.
        """
        self._lighten(turn)
        if verdict.fate in (Fate.ACCEPTED, Fate.REFUSED):
            self._suspects.pop(turn.seq, None)
        elif verdict.reason is Reason.BATCH_UNDECIDED:
            self._suspects[turn.seq] = self._settings.alone_after_failures
        elif batched and verdict.reason in SUSPICIOUS:
            self._suspects[turn.seq] += 1
        if len(self._suspects) > _MAX_SUSPECTS:
            self._suspects.clear()

    def released(self, turns: Iterable[Claimed]) -> None:
        """Turns went back to the spool untried."""
        for turn in turns:
            self._lighten(turn)
            self.let_go(1, len(turn.body))

    def let_go(self, turns: int, size: int) -> None:
        """The spool knows what became of them: they are held no longer."""
        self.turns -= turns
        self.bytes -= size

    def _may_join(self, turn: Claimed) -> bool:
        return self._suspects[turn.seq] < self._settings.alone_after_failures

    def _lighten(self, turn: Claimed) -> None:
        left = self._by_tenant[turn.tenant] - len(turn.body)
        if left:
            self._by_tenant[turn.tenant] = left
        else:
            del self._by_tenant[turn.tenant]
