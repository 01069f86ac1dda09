"""What others see of the spool: capture a :class:`~ingest_client.sink.Sink`, delivery a :class:`Queue`.

Every call is safe on the event loop: it hands its work to the spool's own thread and
awaits the answer. Writes of one moment share one transaction, committed at most five
milliseconds after its first member. No call raises because a disk is full or broken:
what could not be written is remembered and written when the disk allows.

The spool counts in the ledger what passes through it (kept, shed, delivered, given up), in the
same transactions that move the records. Whoever holds the exchange counts only
``observe()`` and ``end(outcome)`` for exchanges that never reach the sink.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from capture.outcomes import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A turn on its way to ingest. ``body`` is the marshalled payload, checked and decompressed.

    ``attempts`` counts those that failed before. ``seq`` names the turn in the other calls;
    ``turn_id`` is the idempotency key.
    """

    seq: int
    turn_id: str
    tenant: str
    body: bytes
    attempts: int
    created_at_ns: int


class AttemptRecord(Protocol):
    """What the spool needs of an attempt: its number, and its JSON members (cut and redacted)."""

    @property
    def number(self) -> int:
        """Counts from 1 over the turn's whole life, restarts included."""
        ...

    def as_json(self) -> Mapping[str, object]:
        """The record as JSON members: kept, and shown by ``steno spool show``, as they are."""
        ...


@dataclass(frozen=True, slots=True)
class Backlog:
    """A tenant's pending turns that nobody has claimed: number and bytes of their bodies."""

    turns: int
    body_bytes: int


class Queue(Protocol):
    """The spool as delivery sees it. A crash makes every claimed turn pending again: at least once."""

    @property
    def backlog(self) -> Mapping[str, Backlog]:
        """Every tenant with unclaimed pending turns, as of the last commit. Cheap: no I/O."""
        ...

    async def wait_for_work(self) -> None:
        """Return when some unclaimed pending turn is due (by the spool's clock). May wake early."""
        ...

    async def claim(
        self,
        limit: int,
        max_bytes: int,
        now_ns: int,
        *,
        per_tenant: int,
        except_tenants: Collection[str] = (),
    ) -> list[Claimed]:
        """Take up to ``limit`` turns that are due at ``now_ns``, oldest first within a tenant.

        At most ``per_tenant`` turns of any one tenant and none of ``except_tenants``; tenants take turns,
        so no tenant's backlog stands before another's. Bodies sum to at most ``max_bytes``,
        except that the first turn is given whatever its size. A record found damaged is
        quarantined instead (and counted), so fewer than asked may come, also none.
        """
        ...

    async def acknowledge(self, seqs: Sequence[int]) -> None:
        """Ingest has these turns: forget them. Returns once durable, or noted for a disk that recovers."""
        ...

    async def release(self, seqs: Sequence[int]) -> None:
        """Give claimed turns back untried: no attempt is counted."""
        ...

    async def retry(self, seq: int, at_ns: int, attempt: AttemptRecord) -> None:
        """Record a failed attempt; the turn is pending again, not before ``at_ns``."""
        ...

    async def dead_letter(self, seq: int, outcome: Outcome, reason: str, attempt: AttemptRecord) -> None:
        """Ingest refused the turn for good: keep it for a person. ``outcome``'s state is dead_lettered."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A redacted snapshot of an exchange that is still open. ``body`` is the caller's own format."""

    turn_id: str
    tenant: str
    started_at_ns: int
    heartbeat_at_ns: int
    body: bytes


class Checkpoints(Protocol):
    """Snapshots of long exchanges, so that a crash yields an interrupted turn and not silence.

    ``keep`` of a record with the same turn id clears its checkpoint in the same transaction.
    """

    async def checkpoint(self, snapshot: Checkpoint) -> bool:
        """Keep the newest snapshot of an exchange (also its heartbeat). False: shed, for lack of room."""
        ...

    async def forget(self, turn_id: str) -> None:
        """The exchange ended without a turn: its checkpoint goes."""
        ...

    async def take_interrupted(self, now_ns: int) -> list[Checkpoint]:
        """Hand over what no living exchange will finish, each once per process; a few MiB of it at a time.

        Ask again until nothing comes: a crash may have left more than the memory holds.
        That is every checkpoint of a dead generation, and those of this one without a heartbeat for the
        configured time. The caller finalises each as an interrupted turn under the same turn id
        with ``keep`` of a record marked so; whichever ``keep`` comes first for a taken id stands, later
        ones change nothing. If it is shed, the snapshot stays, the exchange is still open in the ledger, and
        the next call hands it out again.
        """
        ...
