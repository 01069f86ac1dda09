"""Where delivery takes its turns from, and to whom it says what became of them.

The spool satisfies :class:`Source`. A turn is *claimed* (nobody else gets it), then
settled exactly once: acknowledged, put off, dead-lettered or released. What a dead
process had claimed is claimable again when its spool is opened: delivery is at least once.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from capture.outcomes import Outcome
from ingest_client.delivery.attempt import Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A turn that is ours to deliver.

    ``seq`` names it towards its source. ``turn_id`` is the idempotency key and equals
    ``meta.request_id`` inside ``body``, the marshalled JSON payload (never empty).
    ``attempts`` is how many attempts were recorded before now. Wall-clock nanoseconds.
    """

    seq: int
    turn_id: str
    tenant: str
    body: bytes
    attempts: int
    created_at_ns: int


class Source(Protocol):
    """A store of turns to deliver. Raises OSError (or a subclass) when it cannot be read or written;
    delivery waits and asks again.
    """

    async def claim(
        self,
        limit: int,
        max_bytes: int,
        now_ns: int,
        *,
        per_tenant: int,
        except_tenants: Collection[str],
    ) -> Sequence[Claimed]:
        """Take up to ``limit`` turns that are due at ``now_ns``, oldest first within a tenant.

        At most ``per_tenant`` turns of any one tenant and none of ``except_tenants``, so
        that no tenant's backlog stands before another's. Bodies sum to at most
        ``max_bytes``, except that the first turn is given whatever its size.
        """
        ...

    async def acknowledge(self, seqs: Sequence[int]) -> None:
        """Ingest has accepted these turns: they need not be kept."""
        ...

    async def retry(self, seq: int, at_ns: int, attempt: Attempt) -> None:
        """Keep the turn, record the attempt, let nobody claim it before ``at_ns``."""
        ...

    async def dead_letter(self, seq: int, outcome: Outcome, reason: str, attempt: Attempt) -> None:
        """Ingest refused the turn for good: keep it for a person, with the reason, record the attempt."""
        ...

    async def release(self, seqs: Sequence[int]) -> None:
        """Nothing was tried with these turns: they are claimable again at once, no attempt recorded."""
        ...

    async def wait_for_work(self) -> None:
        """Return when a turn may have become claimable (kept, requeued or due) since the last claim."""
        ...
