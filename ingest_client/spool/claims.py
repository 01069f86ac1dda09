"""Which turns go next: due retries first, then those never tried, tenants taking turns."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from ingest_client.spool.api import Claimed
from ingest_client.spool.record import Damaged
from ingest_client.spool.rows import SELECT, Row, as_row
from ingest_client.spool.schema import StructureDamaged
from ingest_client.spool.sql import integer
from ingest_client.spool.store import Store

_WAITING: Final = SELECT + " WHERE state = 'pending' AND tenant = ? AND "
_DUE: Final = (
    _WAITING + "due_at_ns > 0 AND due_at_ns <= ? ORDER BY due_at_ns, created_at_ns",
    _WAITING + "due_at_ns > ? ORDER BY due_at_ns DESC",
)
_FRESH: Final = _WAITING + "due_at_ns = 0 AND (created_at_ns, seq) > (?, ?) ORDER BY created_at_ns, seq"


@dataclass(slots=True)
class Claimer:
    """Chooses and claims. Remembers who was served last."""

    store: Store
    _last_served: str = ""

    def claim(
        self, limit: int, max_bytes: int, now_ns: int, *, per_tenant: int, except_tenants: Collection[str]
    ) -> tuple[list[Claimed], list[tuple[Row, str]]]:
        """Return the claimed turns, and the damaged rows met on the way (claimed too, to be set aside)."""
        claimed: list[Claimed] = []
        damaged: list[tuple[Row, str]] = []
        taken: list[Row] = []
        room = max_bytes
        try:
            for row in self._in_turn(limit, per_tenant, now_ns, except_tenants):
                if claimed and row.body_bytes > room:
                    break
                self.store.claim(row)
                taken.append(row)
                self._last_served = row.tenant
                try:
                    claimed.append(self._ready(row))
                except Damaged as damage:
                    damaged.append((row, str(damage)))
                    continue
                room -= len(claimed[-1].body)
                if len(claimed) == limit:
                    break
        except BaseException:  # the disk failed: nobody got these turns
            self.store.unclaim(taken)
            raise
        return claimed, damaged

    def _ready(self, row: Row) -> Claimed:
        return Claimed(
            seq=row.seq,
            turn_id=row.turn_id,
            tenant=row.tenant,
            body=self._read(row),
            attempts=row.attempts,
            created_at_ns=row.created_at_ns,
        )

    def _read(self, row: Row) -> bytes:
        if not row.intact:
            raise Damaged("the row's CRC differs")
        return self.store.claimed_body(row)

    def _in_turn(
        self, limit: int, per_tenant: int, now_ns: int, except_tenants: Collection[str]
    ) -> Iterator[Row]:
        """One row of each tenant at a time, beginning after the one served last."""
        names = sorted(
            tenant
            for tenant, part in self.store.usage.tenants.items()
            if part.waiting and tenant not in except_tenants
        )
        first = next((i for i, name in enumerate(names) if name > self._last_served), 0)
        queues = [
            iter(self._of_tenant(name, min(limit, per_tenant), now_ns))
            for name in names[first:] + names[:first]
        ]
        while queues:
            remaining: list[Iterator[Row]] = []
            for queue in queues:
                row = next(queue, None)
                if row is not None:
                    yield row
                    remaining.append(queue)
            queues = remaining

    def _of_tenant(self, tenant: str, limit: int, now_ns: int) -> Iterator[Row]:
        """The tenant's claimable rows, at most ``limit``, fetched when the first is asked for."""
        horizon_ns = now_ns + int(self.store.settings.longest_delay_s * 1e9)
        found = self._scan(_DUE[0], (tenant, now_ns), limit)
        if len(found) < limit:
            found += self._scan(_DUE[1], (tenant, horizon_ns), limit - len(found))
        if len(found) < limit:
            after = self.store.fresh_after.get(tenant, (-1, -1))
            found += self._scan(_FRESH, (tenant, *after), limit - len(found))
        for row in found:
            yield row
            if row.due_at_ns == 0:
                self.store.fresh_after[tenant] = (row.created_at_ns, row.seq)

    def _scan(self, sql: str, bindings: tuple[str | int, ...], limit: int) -> list[Row]:
        found: list[Row] = []
        cursor = self.store.connection.execute(sql, bindings)
        for values in cursor:
            row = as_row(values)
            if row.seq not in self.store.claimed:
                found.append(row)
                if len(found) == limit:
                    break
        cursor.close(force=True)
        return found

    def next_due_ns(self, after_ns: int) -> int | None:
        """When the first unclaimed retry becomes due after a time; None when there is none."""
        sql = _WAITING + "due_at_ns > ? ORDER BY due_at_ns"
        dues = [
            rows[0].due_at_ns
            for tenant, part in self.store.usage.tenants.items()
            if part.waiting and (rows := self._scan(sql, (tenant, after_ns), 1))
        ]
        return min(dues, default=None)

    def check_index(self) -> None:
        """Compare what should be pending with what the index lists.

        Raises :class:`StructureDamaged`: a turn that the index has lost would never be delivered.
        """
        for tenant, part in self.store.usage.tenants.items():
            listed = integer(
                self.store.connection,
                "SELECT count(*) FROM turns WHERE state = 'pending' AND tenant = ?",
                (tenant,),
            )
            if listed != part.pending:
                raise StructureDamaged(f"the index lists {listed} pending turns of {part.pending}")
