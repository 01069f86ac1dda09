"""What the spool's thread works with: one open store and the chooser of claims over it."""

import json
from collections.abc import Collection, Sequence

from capture.outcomes import Outcome
from ingest_client.spool.api import AttemptRecord, Checkpoint, Claimed
from ingest_client.spool.checkpoints import ERROR
from ingest_client.spool.claims import Claimer
from ingest_client.spool.mending import mend
from ingest_client.spool.store import Store


class Desk:
    """The operations that jobs are made of; each runs on the spool's thread, writes inside a transaction."""

    def __init__(self, store: Store) -> None:
        """Sit down at a store."""
        self.store = store
        self.claimer = Claimer(store)

    def claim(
        self, limit: int, max_bytes: int, now_ns: int, per_tenant: int, except_tenants: Collection[str]
    ) -> tuple[list[Claimed], int]:
        """Claim turns; mend or set aside what is damaged, in a transaction of its own.

        Returns the turns, and how many records were damaged.
        """
        claimed, damaged = self.claimer.claim(
            limit, max_bytes, now_ns, per_tenant=per_tenant, except_tenants=except_tenants
        )
        if not claimed and not damaged:
            self.claimer.check_index()
        if not damaged:
            return claimed, 0
        try:
            with self.store.transaction():
                mended = [mend(self.store, row, reason) for row, reason in damaged]
        except BaseException:  # the disk failed: nobody gets these turns now
            claimed_rows = [self.store.claimed[each.seq] for each in claimed]
            self.store.unclaim([*claimed_rows, *(row for row, _ in damaged)])
            raise
        return claimed, mended.count(False)

    def retry(self, seq: int, at_ns: int, attempt: AttemptRecord) -> None:
        """Put a claimed turn off."""
        self.store.retry(seq, at_ns, attempt.number, as_text(attempt))

    def dead_letter(self, seq: int, outcome: Outcome, reason: str, attempt: AttemptRecord) -> None:
        """Keep a refused turn."""
        self.store.dead_letter(seq, outcome, reason, attempt.number, as_text(attempt))

    def release(self, seqs: Sequence[int]) -> None:
        """Give claimed turns back."""
        self.store.release(seqs)

    def checkpoint(self, snapshot: Checkpoint) -> bool:
        """Keep a snapshot, unless the quota is spent."""
        if self.store.usage.over_quota(self.store.settings, snapshot.tenant, len(snapshot.body)):
            return False
        self.store.checkpoints.save(snapshot, self.store.books.generation)
        return True

    def forget(self, turn_id: str) -> None:
        """End an exchange without a turn. One of a dead generation is lost: nobody else counts it."""
        store = self.store
        generation = store.checkpoints.generation_of(turn_id)
        if generation is None or store.checkpoints.finished_before(turn_id):
            return
        if generation != store.books.generation:
            store.books.count(generation, Outcome.CRASH.value)
        store.checkpoints.finish(turn_id, store.books.generation, ERROR)

    def interrupted(self, now_ns: int, max_bytes: int) -> list[Checkpoint]:
        """Snapshots to finalise, some bytes of them; those too damaged to read are forgotten."""
        found, damaged = self.store.checkpoints.interrupted(now_ns, self.store.books.generation, max_bytes)
        for turn_id in damaged:
            self.forget(turn_id)
        return found

    def sweep_needed(self, now_ns: int) -> bool:
        """Whether :meth:`sweep` would find anything. Cheap: no I/O."""
        settings = self.store.settings
        own = dict(settings.tenant_quota_age_s)
        return self.store.checkpoints.has_tombstones or any(
            part.pending
            and (age_s := own.get(tenant, settings.quota_age_s))
            and part.oldest_at_ns < now_ns - int(age_s * 1e9)
            for tenant, part in self.store.usage.tenants.items()
        )

    def sweep(self, now_ns: int, limit: int = 500) -> bool:
        """Apply the age quotas and bury old tombstones. True: there is more to do."""
        settings = self.store.settings
        own = dict(settings.tenant_quota_age_s)
        more = False
        for tenant in list(self.store.usage.tenants):
            age_s = own.get(tenant, settings.quota_age_s)
            if age_s:
                more |= self.store.expire(tenant, now_ns - int(age_s * 1e9), limit) >= limit
            if self.store.usage.of(tenant).empty:
                del self.store.usage.tenants[tenant]
                self.store.fresh_after.pop(tenant, None)
        self.store.checkpoints.bury(now_ns)
        return more


def as_text(attempt: AttemptRecord) -> str:
    """An attempt as the JSON text that is stored."""
    return json.dumps(attempt.as_json(), ensure_ascii=True, default=str)
